//! Everything about one generation that a user can choose, and its checks.

use super::lookup::{MAX_GUESS, Speculation};
use crate::error::{Error, Result};
use crate::sample::{Constraint, SamplingParams};
use crate::text::Tokenizer;

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
    /// What must not be written, beside the ids of `sampling`.
    pub bad_words: Vec<BadWord>,
    /// Texts that DRY follows no repetition across, beside the ids of `sampling`.
    pub dry_sequence_breakers: Vec<String>,
    /// How many alternatives to tell for each token.
    pub top_logprobs: usize,
}

/// Something that must not be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadWord {
    /// A text, in each way the tokenizer spells it.
    Text(String),
    /// Ids in a row.
    Ids(Vec<u32>),
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
        if let Some(max) = self.max_tokens
            && self.sampling.min_tokens > max
        {
            return Err(Error::InvalidRequest(format!(
                "min_tokens is {} and max_tokens {max}, expected at most as many",
                self.sampling.min_tokens
            )));
        }
        self.sampling.validate(n_vocab)
    }

    /// Spells the texts with the ids of the model's vocabulary.
    pub(super) fn spell(&mut self, tokenizer: &Tokenizer) -> Result<()> {
        for (i, word) in self.bad_words.iter().enumerate() {
            match word {
                BadWord::Text(text) if text.is_empty() => {
                    return Err(empty(&format!("bad_words[{i}]")));
                }
                BadWord::Text(text) => {
                    let spellings = tokenizer.spellings(text)?;
                    self.sampling.bad_words.extend(spellings);
                }
                BadWord::Ids(ids) => self.sampling.bad_words.push(ids.clone()),
            }
        }
        for (i, text) in self.dry_sequence_breakers.iter().enumerate() {
            if text.is_empty() {
                return Err(empty(&format!("dry_sequence_breakers[{i}]")));
            }
            // The whole vocabulary is looked through.
            if self.sampling.dry_multiplier > 0.0 {
                let occurrences = tokenizer.occurrences(text)?;
                self.sampling.dry_breakers.extend(occurrences);
            }
        }
        Ok(())
    }

    /// The ids that end the text.
    pub(super) fn ends(&self, tokenizer: &Tokenizer) -> Vec<u32> {
        let own = if self.ignore_eos {
            &[]
        } else {
            tokenizer.eos_ids()
        };
        [own, &self.stop_token_ids].concat()
    }
}

fn empty(what: &str) -> Error {
    Error::InvalidRequest(format!("{what} is empty, expected at least one character"))
}
