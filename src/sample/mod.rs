//! Logits in, one token id out: penalties, then filters, then a draw.
//!
//! The order: logit bias; repetition, frequency and presence penalty; DRY; what is forbidden (`min_tokens`, `bad_words`,
//! `no_repeat_ngram_size`); temperature; top-k; top-p; min-p; typical-p; XTC; the draw. It is that of `transformers`, so
//! that a filter sees the probabilities that the draw will have; llama.cpp applies the temperature last, when its
//! filters have chosen by the model's own. XTC, which `transformers` lacks, comes after all filters as in llama.cpp: it
//! leaves out choices among what they kept. At temperature 0 the likeliest token is taken and the filters, which never
//! remove it, and XTC play no part.

mod bans;
mod dry;
mod filter;
mod grammar;
mod history;
mod logprobs;
mod params;
mod penalties;
mod rng;

pub use grammar::{Calls, Constraint, Grammars, Matcher, TokenTable};
pub use logprobs::Logprobs;
pub use params::SamplingParams;

use self::dry::Dry;
use self::history::History;
use self::rng::Rng;
use crate::error::{Error, Result};

/// How often a token is drawn again near the end of a budget, before the choice is made by what is left of it.
const REDRAWS: usize = 8;

/// Chooses the tokens of one stream.
#[derive(Debug)]
pub struct Sampler {
    params: SamplingParams,
    history: History,
    // The ids that would end the text
    ends: Vec<u32>,
    dry: Option<Dry>,
    rng: Rng,
}

impl Sampler {
    /// A sampler whose choices after `prompt` depend on `params`, `seed` and the logits alone; `ends` are the ids that
    /// end the text.
    pub fn new(params: SamplingParams, prompt: &[u32], ends: Vec<u32>, seed: u64) -> Self {
        Self {
            history: History::new(prompt),
            ends,
            dry: Dry::new(&params),
            rng: Rng::new(seed),
            params,
        }
    }

    /// The prompt and the chosen tokens.
    pub fn ids(&self) -> &[u32] {
        self.history.ids()
    }

    /// Chooses from `logits`, (n_vocab) f32, which it changes, and remembers the choice.
    ///
    /// # Errors
    /// `Engine` when no logit is finite, `InvalidRequest` when nothing is allowed.
    pub fn sample(&mut self, logits: &mut [f32]) -> Result<u32> {
        self.adjust(logits);
        let id = self.draw(logits).ok_or_else(|| self.nothing_left())?;
        self.history.push(id);
        Ok(id)
    }

    /// As [`Self::sample`], of the tokens that `matcher` allows, so that the text is complete after `left` tokens, this
    /// one included, if it still can: a token after which it could not is drawn again, and after [`REDRAWS`] of them
    /// that is taken which leads to an end. What is forbidden stays forbidden.
    ///
    /// # Errors
    /// As [`Self::sample`].
    pub fn sample_within(
        &mut self,
        logits: &mut [f32],
        matcher: &mut Matcher,
        left: usize,
    ) -> Result<u32> {
        matcher.mask(logits);
        self.adjust(logits);
        let mut id = self.draw(logits).ok_or_else(|| self.nothing_left())?;
        if !matcher.fits(id, left - 1)
            && let Some(end) = matcher.toward_end(left)
            && logits[end as usize] > f32::NEG_INFINITY
        {
            logits[id as usize] = f32::NEG_INFINITY;
            let mut again = || {
                let other = self.draw(logits)?;
                logits[other as usize] = f32::NEG_INFINITY;
                Some(other)
            };
            id = (0..REDRAWS)
                .map_while(|_| again())
                .find(|&other| matcher.fits(other, left - 1))
                .unwrap_or(end);
        }
        self.history.push(id);
        Ok(id)
    }

    /// Everything that comes before temperature and filters.
    fn adjust(&mut self, logits: &mut [f32]) {
        let p = &self.params;
        for &(id, bias) in &p.logit_bias {
            logits[id as usize] += bias;
        }
        penalties::apply(p, &self.history, logits);
        if let Some(dry) = &mut self.dry {
            dry.apply(p, self.history.ids(), logits);
        }
        bans::apply(p, &self.history, &self.ends, logits);
    }

    /// One of those above -inf, if there are any.
    fn draw(&mut self, logits: &[f32]) -> Option<u32> {
        let p = &self.params;
        if p.temperature == 0.0 {
            return argmax(logits);
        }
        filter::candidates(logits, p).map(|mut candidates| {
            if p.xtc_probability > 0.0
                && candidates.len() > 1
                && self.rng.uniform() < f64::from(p.xtc_probability)
            {
                candidates.exclude_top_choices(p.xtc_threshold);
            }
            candidates.draw(self.rng.uniform())
        })
    }

    /// Who is to blame when there is no finite logit.
    fn nothing_left(&self) -> Error {
        let p = &self.params;
        let forbids = [
            (
                "logit_bias",
                p.logit_bias
                    .iter()
                    .any(|&(_, bias)| bias == f32::NEG_INFINITY),
            ),
            ("min_tokens", self.history.generated().len() < p.min_tokens),
            ("bad_words", !p.bad_words.is_empty()),
            ("no_repeat_ngram_size", p.no_repeat_ngram_size > 0),
        ];
        let names: Vec<&str> = forbids
            .iter()
            .filter(|(_, does)| *does)
            .map(|(name, _)| *name)
            .collect();
        match names[..] {
            [] => Error::Engine(
                "the model gave no finite logit: the file is damaged, or not made for this architecture".into(),
            ),
            [name] => Error::InvalidRequest(format!("{name} forbids every token that the model could choose")),
            _ => Error::InvalidRequest(format!(
                "{} together forbid every token that the model could choose",
                names.join(" and ")
            )),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn sample_many(params: &SamplingParams, logits: &[f32], n: usize) -> Vec<usize> {
        let mut counts = vec![0; logits.len()];
        for seed in 0..n as u64 {
            let mut sampler = Sampler::new(params.clone(), &[], vec![], seed);
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
            &[],
            vec![],
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
        let mut history = History::default();
        for id in [3, 1, 1, 0] {
            history.push(id);
        }
        let mut logits = [4.0, -4.0, 4.0, 4.0];
        penalties::apply(&params, &history, &mut logits);
        assert_eq!(logits, [2.0, -8.0, 4.0, 4.0]);
    }

    #[test]
    fn frequency_and_presence_count_all_generated_ids() {
        let params = SamplingParams {
            frequency_penalty: 0.5,
            presence_penalty: 1.0,
            ..Default::default()
        };
        let mut history = History::default();
        for id in [1, 1, 2] {
            history.push(id);
        }
        let mut logits = [0.0; 4];
        penalties::apply(&params, &history, &mut logits);
        assert_eq!(logits, [0.0, -2.0, -1.5, 0.0]);
    }

    /// Frequencies against probabilities that are counted by hand.
    fn assert_drawn(params: &SamplingParams, probabilities: &[f32], expected: &[f64]) {
        let logits: Vec<f32> = probabilities.iter().map(|p| p.ln() - 3.0).collect();
        let n = 20_000;
        let counts = sample_many(params, &logits, n);
        let mut chi2 = 0.0;
        for (&count, p) in counts.iter().zip(expected) {
            let mean = n as f64 * p;
            if mean == 0.0 {
                assert_eq!(count, 0, "{counts:?}");
            } else {
                chi2 += (count as f64 - mean).powi(2) / mean;
            }
        }
        // At most 4 degrees of freedom: 18.5 is exceeded once in a thousand; the seeds are fixed.
        assert!(chi2 < 18.5, "{counts:?} {chi2}");
    }

    #[test]
    fn xtc_leaves_out_all_likely_choices_but_the_last() {
        let params = |xtc_probability, xtc_threshold| SamplingParams {
            xtc_probability,
            xtc_threshold,
            ..Default::default()
        };
        let p = [0.4, 0.3, 0.15, 0.1, 0.05];
        assert_drawn(
            &params(1.0, 0.12),
            &p,
            &[0.0, 0.0, 0.5, 0.1 / 0.3, 0.05 / 0.3],
        );
        // Half of the time; 0.3 are left then.
        let half = |p: f64, kept: f64| 0.5 * p + 0.5 * kept;
        assert_drawn(
            &params(0.5, 0.12),
            &p,
            &[
                half(0.4, 0.0),
                half(0.3, 0.0),
                half(0.15, 0.5),
                half(0.1, 0.1 / 0.3),
                half(0.05, 0.05 / 0.3),
            ],
        );
        // One likely choice is no choice.
        assert_drawn(&params(1.0, 0.35), &p, &[0.4, 0.3, 0.15, 0.1, 0.05]);
        // Of equals one stays.
        assert_drawn(
            &params(1.0, 0.1),
            &[0.3, 0.3, 0.3, 0.05, 0.05],
            &[0.0, 0.0, 0.75, 0.125, 0.125],
        );
    }

    #[test]
    fn typical_p_leaves_out_what_surprises_too_little() {
        // The entropy is 1.4 nats: 0.15 is nearest to e^-1.4 = 0.246 by ratio after 0.3 and before 0.4.
        let params = |typical_p| SamplingParams {
            typical_p,
            ..Default::default()
        };
        let p = [0.4, 0.3, 0.15, 0.1, 0.05];
        assert_drawn(&params(0.2), &p, &[0.0, 1.0, 0.0, 0.0, 0.0]);
        assert_drawn(&params(0.5), &p, &[0.4 / 0.7, 0.3 / 0.7, 0.0, 0.0, 0.0]);
        assert_drawn(
            &params(0.8),
            &p,
            &[0.4 / 0.85, 0.3 / 0.85, 0.15 / 0.85, 0.0, 0.0],
        );
        // Equally far: all stay.
        assert_drawn(&params(0.1), &[0.25, 0.25, 0.25, 0.25], &[0.25; 4]);
    }

    #[test]
    fn many_tokens_are_typical_in_the_same_way() {
        // More than are sorted at once, against a plain sort.
        let logits: Vec<f32> = (0..1000)
            .map(|i| ((i * 7919) % 1000) as f32 * -0.004)
            .collect();
        for typical_p in [0.1f32, 0.5, 0.9, 0.999] {
            let params = SamplingParams {
                typical_p,
                ..Default::default()
            };
            let p: Vec<f64> = {
                let w: Vec<f64> = logits.iter().map(|&l| f64::from(l).exp()).collect();
                let total: f64 = w.iter().sum();
                w.iter().map(|w| w / total).collect()
            };
            let entropy: f64 = -p.iter().map(|p| p * p.ln()).sum::<f64>();
            let mut order: Vec<usize> = (0..p.len()).collect();
            order.sort_by(|&a, &b| {
                (-p[a].ln() - entropy)
                    .abs()
                    .total_cmp(&(-p[b].ln() - entropy).abs())
            });
            let mut reached = 0.0;
            let n = 1 + order
                .iter()
                .take_while(|&&i| {
                    reached += p[i];
                    reached < f64::from(typical_p)
                })
                .count();
            let kept = filter::candidates(&logits, &params).expect("finite").len();
            assert!(kept.abs_diff(n) <= 1, "{typical_p}: {kept} and {n}");
        }
    }

    #[test]
    fn whoever_forbids_everything_is_named() {
        let forbid = |params: SamplingParams| {
            let mut sampler = Sampler::new(params, &[0, 1], vec![0], 1);
            let error = sampler
                .sample(&mut [1.0, f32::NEG_INFINITY])
                .expect_err("nothing left");
            error.to_string()
        };
        let base = SamplingParams::default();
        assert_eq!(
            forbid(SamplingParams {
                min_tokens: 1,
                ..base.clone()
            }),
            "min_tokens forbids every token that the model could choose"
        );
        assert_eq!(
            forbid(SamplingParams {
                no_repeat_ngram_size: 1,
                bad_words: vec![vec![1]],
                ..base
            }),
            "bad_words and no_repeat_ngram_size together forbid every token that the model could choose"
        );
    }
}
