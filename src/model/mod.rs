//! What a file of the Phi family describes, checked once and shared by every engine: the configuration, where the
//! weights lie, and the rotary embedding.

mod config;
mod keys;
mod rope;
mod weights;

pub use config::{Architecture, Config, Dimensions, FeedForward, Norm};
pub use rope::{LongRope, Regime, Rope, RopeConfig};
pub use weights::{LayerTensors, LinearTensors, ModelTensors, NormTensors, QkvTensors, audit};
