//! Temperature, top-k, top-p, min-p, typical-p and XTC: logits -> the tokens that may be drawn, with their weights.
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
    if params.typical_p < 1.0 {
        let log_weight = |id: u32| f64::from((logits[id as usize] - max) / params.temperature);
        keep_typical(&mut weights, params.typical_p, log_weight);
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

/// Keeps the tokens whose surprise is nearest to the expected one, until their share reaches `typical_p`.
///
/// Those that are as near as the last one needed stay too, as in `transformers`.
fn keep_typical(weights: &mut Vec<(u32, f32)>, typical_p: f32, log_weight: impl Fn(u32) -> f64) {
    let total = sum(weights);
    let log_total = libm::log(total);
    let surprise = |id: u32| log_total - log_weight(id);
    let entropy: f64 = weights
        .iter()
        .map(|&(id, w)| f64::from(w) / total * surprise(id))
        .sum();
    // (how far from typical, weight, id)
    let mut shifted: Vec<(f64, f32, u32)> = weights
        .iter()
        .map(|&(id, w)| ((surprise(id) - entropy).abs(), w, id))
        .collect();
    // What is far from typical is never sorted.
    let mut reached = 0.0;
    let (mut sorted, mut step) = (0, 64);
    let mut furthest = f64::INFINITY;
    while sorted < shifted.len() && furthest.is_infinite() {
        let rest = &mut shifted[sorted..];
        let n = step.min(rest.len());
        let nearer =
            |a: &(f64, f32, u32), b: &(f64, f32, u32)| a.0.total_cmp(&b.0).then(a.2.cmp(&b.2));
        rest.select_nth_unstable_by(n - 1, nearer);
        rest[..n].sort_unstable_by(nearer);
        for &(distance, w, _) in &rest[..n] {
            reached += f64::from(w);
            if reached >= f64::from(typical_p) * total {
                furthest = distance;
                break;
            }
        }
        sorted += n;
        step *= 4;
    }
    shifted.retain(|&(distance, _, _)| distance <= furthest);
    *weights = shifted.into_iter().map(|(_, w, id)| (id, w)).collect();
}

fn sum(weights: &[(u32, f32)]) -> f64 {
    weights.iter().map(|&(_, w)| f64::from(w)).sum()
}

impl Candidates {
    /// XTC, "exclude top choices": of the tokens that are at least `threshold` likely, only the least likely stays.
    ///
    /// As in llama.cpp, after <https://github.com/oobabooga/text-generation-webui/pull/6335>.
    pub(super) fn exclude_top_choices(&mut self, threshold: f32) {
        let floor = f64::from(threshold) * sum(&self.weights);
        let likely = |w: f32| f64::from(w) >= floor;
        let choices = self.weights.iter().filter(|&&(_, w)| likely(w));
        // Of equals the larger id counts as the less likely one.
        let Some(&(least, _)) = choices.max_by(|a, b| likelier(a, b)) else {
            return;
        };
        self.weights.retain(|&(id, w)| id == least || !likely(w));
    }

    pub(super) fn len(&self) -> usize {
        self.weights.len()
    }

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
