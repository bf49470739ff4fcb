//! Penalties for tokens that were generated before. The prompt is never penalised.

use std::collections::HashMap;

use super::params::SamplingParams;

/// The generated ids so far.
#[derive(Debug, Default)]
pub(super) struct Penalties {
    ids: Vec<u32>,
    counts: HashMap<u32, u32>,
}

impl Penalties {
    pub(super) fn remember(&mut self, id: u32) {
        self.ids.push(id);
        *self.counts.entry(id).or_default() += 1;
    }

    pub(super) fn apply(&self, params: &SamplingParams, logits: &mut [f32]) {
        if params.repetition_penalty != 1.0 {
            let mut recent =
                self.ids[self.ids.len().saturating_sub(params.repeat_last_n)..].to_vec();
            recent.sort_unstable();
            recent.dedup();
            for id in recent {
                let logit = &mut logits[id as usize];
                *logit = if *logit >= 0.0 {
                    *logit / params.repetition_penalty
                } else {
                    *logit * params.repetition_penalty
                };
            }
        }
        if params.frequency_penalty != 0.0 || params.presence_penalty != 0.0 {
            for (&id, &count) in &self.counts {
                logits[id as usize] -=
                    params.frequency_penalty * count as f32 + params.presence_penalty;
            }
        }
    }
}
