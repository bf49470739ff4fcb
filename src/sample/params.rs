//! What a user can ask of the sampler, and the ranges that make sense.

use crate::error::{Error, Result};

/// Sampling parameters; the defaults turn every filter and penalty off.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits; 0 is greedy.
    pub temperature: f32,
    /// Keeps the smallest set of tokens whose probability reaches this (arXiv:1904.09751); in (0, 1], 1 is off.
    pub top_p: f32,
    /// Keeps this many of the likeliest; 0 is off.
    pub top_k: usize,
    /// Keeps what is at least this share as likely as the likeliest (arXiv:2407.01082); in [0, 1], 0 is off.
    pub min_p: f32,
    /// Keeps tokens about as surprising as is expected, until their probability reaches this (arXiv:2202.00666); in
    /// (0, 1], 1 is off.
    pub typical_p: f32,
    /// How often, of 1, the likeliest of several likely tokens are left out; in [0, 1], 0 is off.
    pub xtc_probability: f32,
    /// What counts as likely there; in [0, 1], above 0.5 nothing is ever left out.
    pub xtc_threshold: f32,
    /// How much a token loses that goes on with a repetition; from 0, which is off.
    pub dry_multiplier: f32,
    /// By how much more for each further token that is repeated; from 1.
    pub dry_base: f32,
    /// How many tokens may be repeated; from 1.
    pub dry_allowed_length: usize,
    /// How many tokens, prompt included, it looks back on; `None` is all.
    pub dry_penalty_last_n: Option<usize>,
    /// Sequences of ids that no repetition goes across.
    pub dry_breakers: Vec<Vec<u32>>,
    /// No n tokens in a row come twice, prompt included; 0 is off.
    pub no_repeat_ngram_size: usize,
    /// The text does not end before so many tokens; 0 is off.
    pub min_tokens: usize,
    /// Sequences of ids that do not come; none is empty.
    pub bad_words: Vec<Vec<u32>>,
    /// Divides positive logits and multiplies negative ones of recent tokens (CTRL, arXiv:1909.05858); 1 is off.
    pub repetition_penalty: f32,
    /// How many generated tokens `repetition_penalty` looks back on.
    pub repeat_last_n: usize,
    /// Subtracted from a logit once for each time its token was generated; in [-2, 2] as in OpenAI's API.
    pub frequency_penalty: f32,
    /// Subtracted from the logit of every token that was generated; in [-2, 2].
    pub presence_penalty: f32,
    /// Added to the logits of these ids.
    pub logit_bias: Vec<(u32, f32)>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            typical_p: 1.0,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            dry_multiplier: 0.0,
            dry_base: 1.75,
            dry_allowed_length: 2,
            dry_penalty_last_n: None,
            dry_breakers: Vec::new(),
            no_repeat_ngram_size: 0,
            min_tokens: 0,
            bad_words: Vec::new(),
            repetition_penalty: 1.0,
            repeat_last_n: 64,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            logit_bias: Vec::new(),
        }
    }
}

impl SamplingParams {
    /// Checks every range; `n_vocab` bounds the ids of `logit_bias`.
    pub fn validate(&self, n_vocab: usize) -> Result<()> {
        let check = |ok: bool, name: &str, found: f32, expected: &str| {
            if ok {
                Ok(())
            } else {
                Err(Error::InvalidRequest(format!(
                    "{name} is {found}, expected {expected}"
                )))
            }
        };
        let t = self.temperature;
        check(
            t.is_finite() && t >= 0.0,
            "temperature",
            t,
            "a finite number from 0 (greedy) upwards",
        )?;
        check(
            self.top_p > 0.0 && self.top_p <= 1.0,
            "top_p",
            self.top_p,
            "a number above 0 and up to 1 (1 is off)",
        )?;
        check(
            (0.0..=1.0).contains(&self.min_p),
            "min_p",
            self.min_p,
            "a number from 0 (off) to 1",
        )?;
        check(
            self.typical_p > 0.0 && self.typical_p <= 1.0,
            "typical_p",
            self.typical_p,
            "a number above 0 and up to 1 (1 is off)",
        )?;
        check(
            (0.0..=1.0).contains(&self.xtc_probability),
            "xtc_probability",
            self.xtc_probability,
            "a number from 0 (off) to 1",
        )?;
        check(
            (0.0..=1.0).contains(&self.xtc_threshold),
            "xtc_threshold",
            self.xtc_threshold,
            "a number from 0 to 1 (above 0.5 is off)",
        )?;
        check(
            self.dry_multiplier.is_finite() && self.dry_multiplier >= 0.0,
            "dry_multiplier",
            self.dry_multiplier,
            "a finite number from 0 (off) upwards",
        )?;
        check(
            self.dry_base.is_finite() && self.dry_base >= 1.0,
            "dry_base",
            self.dry_base,
            "a finite number from 1 upwards",
        )?;
        if self.dry_allowed_length == 0 {
            return Err(Error::InvalidRequest(
                "dry_allowed_length is 0, expected at least 1".into(),
            ));
        }
        for (i, word) in self.bad_words.iter().enumerate() {
            if word.is_empty() {
                return Err(Error::InvalidRequest(format!(
                    "bad_words[{i}] is empty, expected at least one token id"
                )));
            }
            if let Some(id) = word.iter().find(|&&id| id as usize >= n_vocab) {
                return Err(Error::InvalidRequest(format!(
                    "bad_words[{i}] holds {id}, and the vocabulary has {n_vocab} tokens"
                )));
            }
        }
        let r = self.repetition_penalty;
        check(
            r.is_finite() && r > 0.0,
            "repetition_penalty",
            r,
            "a finite number above 0 (1 is off)",
        )?;
        for (name, x) in [
            ("frequency_penalty", self.frequency_penalty),
            ("presence_penalty", self.presence_penalty),
        ] {
            check(
                (-2.0..=2.0).contains(&x),
                name,
                x,
                "a number from -2 to 2 (0 is off)",
            )?;
        }
        for &(id, bias) in &self.logit_bias {
            if id as usize >= n_vocab {
                return Err(Error::InvalidRequest(format!(
                    "logit_bias names the token id {id}, and the vocabulary has {n_vocab} tokens"
                )));
            }
            // -inf forbids a token; +inf and NaN would make every probability NaN.
            check(
                !bias.is_nan() && bias < f32::INFINITY,
                &format!("logit_bias[{id}]"),
                bias,
                "a finite number or -inf",
            )?;
        }
        Ok(())
    }
}
