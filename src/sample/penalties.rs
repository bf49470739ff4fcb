//! Penalties for tokens that were generated before. The prompt is never penalised.

use super::history::History;
use super::params::SamplingParams;

pub(super) fn apply(params: &SamplingParams, history: &History, logits: &mut [f32]) {
    if params.repetition_penalty != 1.0 {
        let generated = history.generated();
        let mut recent = generated[generated.len().saturating_sub(params.repeat_last_n)..].to_vec();
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
        for (&id, &count) in history.counts() {
            logits[id as usize] -=
                params.frequency_penalty * count as f32 + params.presence_penalty;
        }
    }
}
