//! Streams text from quantized Phi models.
pub mod engine;
pub mod error;
pub mod generate;
pub mod gguf;
pub mod hub;
pub mod kernels;
mod memory;
pub mod model;
#[cfg(feature = "python")]
mod py;
pub mod sample;
pub mod text;
