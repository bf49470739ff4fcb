//! The SHA-256 of a model, which names it: what was saved or recorded with one model is not taken up with another.

use std::sync::OnceLock;

use sha2::{Digest as _, Sha256};

use super::data::Data;
use crate::error::Result;

/// Bytes between two looks at whether to stop.
const STEP: usize = 4 << 20;

/// A hash that is computed when it is first asked for, and kept.
#[derive(Debug, Default)]
pub(super) struct Digest(OnceLock<String>);

impl Digest {
    /// As `cat PARTS | sha256sum` prints it; of two threads that ask at the same time, both compute.
    pub(super) fn of(
        &self,
        parts: &[Data],
        interrupt: &mut dyn FnMut() -> Result<()>,
    ) -> Result<&str> {
        if let Some(known) = self.0.get() {
            return Ok(known);
        }
        let mut hash = Sha256::new();
        for part in parts {
            for start in (0..part.len()).step_by(STEP) {
                interrupt()?;
                let range = start..(start + STEP).min(part.len());
                hash.update(&part[range.clone()]);
                // An engine that keeps the weights in a layout of its own has no use for the file's pages.
                part.release(range);
            }
        }
        let hex = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
        Ok(self.0.get_or_init(|| hex))
    }
}
