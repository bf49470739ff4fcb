//! Everything about one generation that a user can choose, and its checks.

use super::lookup::{MAX_GUESS, Speculation};
use crate::error::{Error, Result};
use crate::sample::{Constraint, SamplingParams};

/// How to continue a prompt.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Generated tokens at most; `None` goes to the end of the text or of the context.
    pub max_tokens: Option<usize>,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// Texts that end the generation and are not part of it.
    pub stop: Vec<String>,
    /// Token ids that end the generation and are not part of its text.
    pub stop_token_ids: Vec<u32>,
    /// Go on past the model's own end tokens.
    pub ignore_eos: bool,
    /// Seed of the random numbers; `None` draws one.
    pub seed: Option<u64>,
    /// How many tokens to guess from the text so far; the outcome is the same.
    pub speculation: Speculation,
    /// What the text must be.
    pub constraint: Option<Constraint>,
}

impl Request {
    pub(super) fn validate(&self, n_vocab: usize) -> Result<()> {
        if self.max_tokens == Some(0) {
            return Err(Error::InvalidRequest(
                "max_tokens is 0, expected at least 1 (or None: no limit)".into(),
            ));
        }
        if let Speculation::Fixed(n) = self.speculation
            && !(1..=MAX_GUESS).contains(&n)
        {
            return Err(Error::InvalidRequest(format!(
                "speculative is {n}, expected 1 to {MAX_GUESS}, \"auto\" or False"
            )));
        }
        if let Some(id) = self
            .stop_token_ids
            .iter()
            .find(|&&id| id as usize >= n_vocab)
        {
            return Err(Error::InvalidRequest(format!(
                "stop_token_ids holds {id}, and the vocabulary has {n_vocab} tokens"
            )));
        }
        self.sampling.validate(n_vocab)
    }
}
