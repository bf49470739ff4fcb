//! Natural-log probabilities under the model itself: before penalties, temperature and filters.

/// What turns logits into log-probabilities.
#[derive(Debug, Clone, Copy)]
pub struct Logprobs<'a> {
    logits: &'a [f32],
    max: f32,
    log_sum: f64,
}

impl<'a> Logprobs<'a> {
    /// Of `logits`, (n_vocab).
    pub fn new(logits: &'a [f32]) -> Self {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|&l| f64::from(libm::expf(l - max))).sum();
        Self {
            logits,
            max,
            log_sum: libm::log(sum),
        }
    }

    /// That of `id`.
    pub fn of(&self, id: u32) -> f32 {
        (f64::from(self.logits[id as usize] - self.max) - self.log_sum) as f32
    }

    /// The `n` likeliest ids, likeliest first; of equals the smaller first.
    pub fn top(&self, n: usize) -> Vec<(u32, f32)> {
        let mut best: Vec<u32> = Vec::with_capacity(n + 1);
        let logit = |id: u32| self.logits[id as usize];
        for id in 0..self.logits.len() as u32 {
            let full = best.len() == n;
            if logit(id).is_nan()
                || full && best.last().is_none_or(|&last| logit(id) <= logit(last))
            {
                continue;
            }
            let at = best.partition_point(|&other| logit(other) >= logit(id));
            best.insert(at, id);
            best.truncate(n);
        }
        best.into_iter().map(|id| (id, self.of(id))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logprobs_are_normalised() {
        let logits = [1.0, 2.0, f32::NEG_INFINITY, -1.0];
        let logprobs = Logprobs::new(&logits);
        let sum: f32 = (0..4).map(|id| logprobs.of(id).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
    }

    #[test]
    fn the_likeliest_come_first_and_of_equals_the_smaller_id() {
        let logits = [1.0, 3.0, f32::NAN, 3.0, 0.0, 2.0];
        let logprobs = Logprobs::new(&logits);
        for (n, expected) in [
            (0, &[][..]),
            (1, &[1]),
            (2, &[1, 3]),
            (4, &[1, 3, 5, 0]),
            (9, &[1, 3, 5, 0, 4]),
        ] {
            let found = logprobs.top(n);
            let ids: Vec<u32> = found.iter().map(|&(id, _)| id).collect();
            assert_eq!(ids, expected);
        }
    }
}
