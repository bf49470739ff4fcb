//! Logits in, one token id out: penalties, then filters, then a draw.
//!
//! The order is that of `transformers`: bias and penalties on the logits, temperature, top-k, top-p, min-p.

mod filter;
mod grammar;
mod params;
mod penalties;
mod rng;

pub use grammar::{Calls, Constraint, Grammars, Matcher, TokenTable};
pub use params::SamplingParams;

use self::penalties::Penalties;
use self::rng::Rng;
use crate::error::{Error, Result};

/// Chooses the tokens of one stream.
#[derive(Debug)]
pub struct Sampler {
    params: SamplingParams,
    penalties: Penalties,
    rng: Rng,
}

impl Sampler {
    /// A sampler whose choices depend on `params`, `seed` and the logits alone.
    pub fn new(params: SamplingParams, seed: u64) -> Self {
        Self {
            penalties: Penalties::default(),
            rng: Rng::new(seed),
            params,
        }
    }

    /// Chooses from `logits`, (n_vocab) f32, which it changes, and remembers the choice.
    ///
    /// # Errors
    /// `Engine` when no logit is finite.
    pub fn sample(&mut self, logits: &mut [f32]) -> Result<u32> {
        let p = &self.params;
        for &(id, bias) in &p.logit_bias {
            logits[id as usize] += bias;
        }
        self.penalties.apply(p, logits);
        let id = if p.temperature == 0.0 {
            argmax(logits)
        } else {
            filter::candidates(logits, p).map(|candidates| candidates.draw(self.rng.uniform()))
        };
        let id = id.ok_or_else(|| {
            if p.logit_bias.iter().any(|&(_, bias)| bias == f32::NEG_INFINITY) {
                return Error::InvalidRequest("logit_bias forbids every token that the model could choose".into());
            }
            Error::Engine("the model gave no finite logit: the file is damaged, or not made for this architecture".into())
        })?;
        self.penalties.remember(id);
        Ok(id)
    }
}

/// The first of the largest, NaN left out; `None` when nothing is above -inf.
fn argmax(logits: &[f32]) -> Option<u32> {
    let mut best = (None, f32::NEG_INFINITY);
    for (id, &logit) in logits.iter().enumerate() {
        if logit > best.1 {
            best = (Some(id as u32), logit);
        }
    }
    best.0
}

/// `logits[id]` as a natural-log probability under the model: before penalties, temperature and filters.
pub fn logprob(logits: &[f32], id: u32) -> f32 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&l| f64::from(libm::expf(l - max))).sum();
    (f64::from(logits[id as usize] - max) - libm::log(sum)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample_many(params: &SamplingParams, logits: &[f32], n: usize) -> Vec<usize> {
        let mut counts = vec![0; logits.len()];
        for seed in 0..n as u64 {
            let mut sampler = Sampler::new(params.clone(), seed);
            counts[sampler.sample(&mut logits.to_vec()).expect("finite") as usize] += 1;
        }
        counts
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        let mut sampler = Sampler::new(
            SamplingParams {
                temperature: 0.0,
                ..Default::default()
            },
            0,
        );
        assert_eq!(
            sampler
                .sample(&mut [0.0, 3.0, f32::NAN, 3.0])
                .expect("finite"),
            1
        );
        assert!(sampler.sample(&mut [f32::NAN, f32::NEG_INFINITY]).is_err());
    }

    #[test]
    fn frequencies_follow_the_probabilities() {
        // Chi-squared with 3 degrees of freedom: 16.3 is exceeded once in a thousand; the seeds are fixed.
        let probabilities = [0.5, 0.3, 0.15, 0.05];
        let logits: Vec<f32> = probabilities.iter().map(|p: &f32| p.ln() + 7.0).collect();
        let n = 20_000;
        let counts = sample_many(&SamplingParams::default(), &logits, n);
        let chi2: f64 = counts
            .iter()
            .zip(probabilities)
            .map(|(&c, p)| {
                let expected = n as f64 * f64::from(p);
                (c as f64 - expected).powi(2) / expected
            })
            .sum();
        assert!(chi2 < 16.3, "{counts:?} {chi2}");
    }

    #[test]
    fn filters_keep_what_they_say() {
        let logits: Vec<f32> = [0.5f32, 0.3, 0.15, 0.05].iter().map(|p| p.ln()).collect();
        let base = SamplingParams::default();
        for (params, kept) in [
            (
                SamplingParams {
                    top_k: 2,
                    ..base.clone()
                },
                [true, true, false, false],
            ),
            (
                SamplingParams {
                    top_k: 9,
                    ..base.clone()
                },
                [true, true, true, true],
            ),
            // The smallest set whose probability reaches top_p.
            (
                SamplingParams {
                    top_p: 0.79,
                    ..base.clone()
                },
                [true, true, false, false],
            ),
            (
                SamplingParams {
                    top_p: 0.81,
                    ..base.clone()
                },
                [true, true, true, false],
            ),
            (
                SamplingParams {
                    top_p: 1e-6,
                    ..base.clone()
                },
                [true, false, false, false],
            ),
            (
                SamplingParams {
                    min_p: 0.29,
                    ..base.clone()
                },
                [true, true, true, false],
            ),
            (
                SamplingParams {
                    min_p: 1.0,
                    ..base.clone()
                },
                [true, false, false, false],
            ),
            (
                SamplingParams {
                    top_k: 3,
                    top_p: 0.85,
                    ..base.clone()
                },
                [true, true, true, false],
            ),
            // After top_k = 3 the rest is renormalised: 0.526 + 0.316 >= 0.84.
            (
                SamplingParams {
                    top_k: 3,
                    top_p: 0.84,
                    ..base.clone()
                },
                [true, true, false, false],
            ),
        ] {
            let counts = sample_many(&params, &logits, 2000);
            let seen: Vec<bool> = counts.iter().map(|&c| c > 0).collect();
            assert_eq!(seen, kept, "{params:?} {counts:?}");
        }
    }

    #[test]
    fn repetition_penalty_is_the_seeds_program() {
        // Positive logits are divided, negative ones multiplied, each id once, over the last n generated.
        let params = SamplingParams {
            temperature: 0.0,
            repetition_penalty: 2.0,
            repeat_last_n: 2,
            ..Default::default()
        };
        let mut penalties = Penalties::default();
        for id in [3, 1, 1, 0] {
            penalties.remember(id);
        }
        let mut logits = [4.0, -4.0, 4.0, 4.0];
        penalties.apply(&params, &mut logits);
        assert_eq!(logits, [2.0, -8.0, 4.0, 4.0]);
    }

    #[test]
    fn frequency_and_presence_count_all_generated_ids() {
        let params = SamplingParams {
            frequency_penalty: 0.5,
            presence_penalty: 1.0,
            ..Default::default()
        };
        let mut penalties = Penalties::default();
        for id in [1, 1, 2] {
            penalties.remember(id);
        }
        let mut logits = [0.0; 4];
        penalties.apply(&params, &mut logits);
        assert_eq!(logits, [0.0, -2.0, -1.5, 0.0]);
    }

    #[test]
    fn logprobs_are_normalised() {
        let logits = [1.0, 2.0, f32::NEG_INFINITY, -1.0];
        let sum: f32 = (0..4).map(|id| logprob(&logits, id).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
    }
}
