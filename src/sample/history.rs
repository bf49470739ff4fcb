//! The tokens so far, as the samplers that look back see them.

use std::collections::HashMap;

/// Prompt and generated ids. Penalties look at what was generated; what forbids or fights repetition looks at all.
#[derive(Debug, Default)]
pub(super) struct History {
    ids: Vec<u32>,
    n_prompt: usize,
    counts: HashMap<u32, u32>,
}

impl History {
    pub(super) fn new(prompt: &[u32]) -> Self {
        Self {
            ids: prompt.to_vec(),
            n_prompt: prompt.len(),
            counts: HashMap::new(),
        }
    }

    pub(super) fn push(&mut self, id: u32) {
        self.ids.push(id);
        *self.counts.entry(id).or_default() += 1;
    }

    /// The prompt and what was generated.
    pub(super) fn ids(&self) -> &[u32] {
        &self.ids
    }

    pub(super) fn generated(&self) -> &[u32] {
        &self.ids[self.n_prompt..]
    }

    /// How often each id was generated.
    pub(super) fn counts(&self) -> &HashMap<u32, u32> {
        &self.counts
    }
}
