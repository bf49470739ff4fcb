//! How likely a model finds a text that is there already.

use super::model::Model;
use super::prompt::Prompt;
use super::steps::Steps;
use crate::engine::{CHUNK, Interrupt};
use crate::error::{Error, Result};
use crate::sample::Logprobs;

/// Logits that are held at a time: 16 MiB.
const MAX_LOGITS: usize = 4 << 20;

impl Model {
    /// The ids of `prompt`, and the log-probability of each but the first after those before it.
    ///
    /// # Errors
    /// `InvalidRequest` for a prompt of one token, which nothing is before; what the engine or `interrupt` gives.
    pub fn score(&self, prompt: Prompt, interrupt: Interrupt) -> Result<(Vec<u32>, Vec<f32>)> {
        self.check_process()?;
        let ids = prompt.encode(self)?;
        if ids.len() < 2 {
            return Err(Error::InvalidRequest(
                "there is one token to score, expected at least 2: the first has no probability, because nothing is \
                 before it"
                    .into(),
            ));
        }
        if ids.len() > self.engine.n_ctx() {
            return Err(Error::ContextLength {
                prompt_tokens: ids.len(),
                n_ctx: self.engine.n_ctx(),
                model_ctx: self.config.n_ctx,
            });
        }
        let n_vocab = self.config.n_vocab;
        let most = (MAX_LOGITS / n_vocab).clamp(1, CHUNK);
        let mut sequence = self.engine.sequence()?;
        // With long rope: as one pass over the whole text rotates it.
        sequence.announce(ids.len());
        let mut logprobs = Vec::with_capacity(ids.len() - 1);
        let mut rest = &ids[..ids.len() - 1];
        let mut steps = Steps::new(self, sequence);
        while !rest.is_empty() {
            let n = rest.len().min(most).min(steps.room().max(1));
            let (tokens, after) = rest.split_at(n);
            steps.run(tokens, n, interrupt)?;
            for row in steps.logits.chunks_exact(n_vocab) {
                let next = ids[logprobs.len() + 1];
                logprobs.push(Logprobs::new(row).of(next));
            }
            rest = after;
        }
        Ok((ids, logprobs))
    }
}
