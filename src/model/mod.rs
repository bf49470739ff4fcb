//! What a Phi-3 file describes, checked once and shared by every engine: the configuration, where the
//! weights lie, and the rotary embedding.

mod config;
mod rope;
mod weights;

pub use config::{Config, RopeConfig};
pub use rope::Rope;
pub use weights::{LayerTensors, ModelTensors};
