//! Temperature, top-k, top-p and min-p: logits -> the tokens that may be drawn, with their weights.
//!
//! The vocabulary is never sorted whole: only the tokens that can be in the result are.

use super::params::SamplingParams;

/// Tokens that may be drawn. Weights are proportional to the probabilities.
#[derive(Debug)]
pub(super) struct Candidates {
    weights: Vec<(u32, f32)>,
}

/// `None` when no logit is finite.
pub(super) fn candidates(logits: &[f32], params: &SamplingParams) -> Option<Candidates> {
    let max = logits
        .iter()
        .copied()
        .filter(|l| l.is_finite())
        .fold(f32::NEG_INFINITY, f32::max);
    if max == f32::NEG_INFINITY {
        return None;
    }
    // exp in software, not the system's: the same seed gives the same text on every platform.
    let weight = |logit: f32| libm::expf((logit - max) / params.temperature);
    let mut weights: Vec<(u32, f32)> = logits
        .iter()
        .enumerate()
        .filter(|(_, l)| l.is_finite())
        .map(|(id, &l)| (id as u32, weight(l)))
        .filter(|&(_, w)| w > 0.0)
        .collect();
    if params.top_k > 0 && params.top_k < weights.len() {
        weights.select_nth_unstable_by(params.top_k - 1, likelier);
        weights.truncate(params.top_k);
    }
    if params.top_p < 1.0 {
        keep_nucleus(&mut weights, params.top_p);
    }
    if params.min_p > 0.0 {
        // The likeliest weighs 1, whatever the filters before took away.
        weights.retain(|&(_, w)| w >= params.min_p);
    }
    // Draws depend on the order, which must not depend on which filters ran.
    weights.sort_unstable_by_key(|&(id, _)| id);
    Some(Candidates { weights })
}

/// Larger weights first, then smaller ids: a total order, so that ties are cut the same way everywhere.
fn likelier(a: &(u32, f32), b: &(u32, f32)) -> std::cmp::Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

/// Keeps the smallest set of the likeliest whose share reaches `top_p`.
fn keep_nucleus(weights: &mut Vec<(u32, f32)>, top_p: f32) {
    let total = sum(weights);
    // All tokens lighter than this together are less than 1 - top_p: none of them is in the nucleus.
    let floor = total * (1.0 - f64::from(top_p)) / weights.len() as f64;
    weights.retain(|&(_, w)| f64::from(w) >= floor);
    weights.sort_unstable_by(likelier);
    let mut reached = 0.0;
    let n = weights.iter().position(|&(_, w)| {
        reached += f64::from(w);
        reached >= f64::from(top_p) * total
    });
    weights.truncate(n.map_or(weights.len(), |n| n + 1));
}

fn sum(weights: &[(u32, f32)]) -> f64 {
    weights.iter().map(|&(_, w)| f64::from(w)).sum()
}

impl Candidates {
    /// The token at `u` in [0, 1) of the cumulative weights.
    pub(super) fn draw(&self, u: f64) -> u32 {
        let mut left = u * sum(&self.weights);
        for &(id, w) in &self.weights {
            left -= f64::from(w);
            if left < 0.0 {
                return id;
            }
        }
        // Rounding can leave a hair at the end; the likeliest is never empty, so there is a last one.
        self.weights.last().expect("the likeliest token is kept").0
    }
}
