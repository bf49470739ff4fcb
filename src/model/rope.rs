//! Rotary position embedding: cosines and sines of the positions that a step needs.
//!
//! Computed for each step and not kept for the whole context: a chunk's table takes microseconds, and a
//! context of 128k would otherwise cost 50 MB.

use super::config::RopeConfig;

/// The frequencies of one model.
#[derive(Debug, Clone)]
pub struct Rope {
    // (dim / 2) f32
    inverse_frequencies: Vec<f32>,
}

impl Rope {
    /// `base^(-2i/dim)`, rounded to f32 as `transformers` does: at position 4,000 the rounding shows.
    pub fn new(config: &RopeConfig) -> Self {
        let dim = config.dim as f64;
        let inverse_frequencies = (0..config.dim / 2)
            .map(|i| libm::pow(f64::from(config.base), -2.0 * i as f64 / dim) as f32)
            .collect();
        Self {
            inverse_frequencies,
        }
    }

    /// Cosines and sines of `n` positions from `start`, each (n, dim / 2) f32.
    pub fn tables(&self, start: usize, n: usize) -> (Vec<f32>, Vec<f32>) {
        (start..start + n)
            .flat_map(|position| {
                self.inverse_frequencies.iter().map(move |f| {
                    let angle = f64::from(position as f32 * f);
                    (libm::cos(angle) as f32, libm::sin(angle) as f32)
                })
            })
            .unzip()
    }
}
