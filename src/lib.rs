//! Streams text from quantized Phi models.
pub mod engine;
pub mod error;
pub mod gguf;
mod memory;
pub mod model;
pub mod sample;
