//! A sequence that no stream is behind, run step by step.

use super::model::Model;
use super::queue::{Id, Job};
use super::scheduler::Ran;
use crate::engine::{Interrupt, Sequence};
use crate::error::{Error, Result};

pub(super) struct Steps<'a> {
    model: &'a Model,
    // All steps have one place among the streams
    id: Id,
    // None after an error
    sequence: Option<Box<dyn Sequence>>,
    /// Of the last step: (n_logits, n_vocab).
    pub logits: Vec<f32>,
}

impl<'a> Steps<'a> {
    pub(super) fn new(model: &'a Model, sequence: Box<dyn Sequence>) -> Self {
        Self {
            model,
            id: model.scheduler.join(),
            sequence: Some(sequence),
            logits: Vec::new(),
        }
    }

    /// Runs `tokens` after those so far, together with what others want.
    pub(super) fn run(
        &mut self,
        tokens: &[u32],
        n_logits: usize,
        interrupt: Interrupt,
    ) -> Result<()> {
        let sequence = self
            .sequence
            .take()
            .ok_or_else(|| Error::Engine("it broke in an earlier step".into()))?;
        let job = Job {
            logits: std::mem::take(&mut self.logits),
            ..Job::new(sequence, tokens.to_vec(), n_logits)
        };
        match self.model.run(self.id, job, interrupt) {
            Ran::Done(job) => {
                (self.sequence, self.logits) = (Some(job.sequence), job.logits);
                Ok(())
            }
            Ran::Failed(_, error) => Err(error),
            Ran::Evicted => unreachable!("its job cannot begin again"),
        }
    }

    /// As [`Sequence::room`].
    pub(super) fn room(&self) -> usize {
        self.sequence.as_ref().map_or(0, |sequence| sequence.room())
    }
}

impl Drop for Steps<'_> {
    fn drop(&mut self) {
        self.model.scheduler.leave(self.id);
    }
}
