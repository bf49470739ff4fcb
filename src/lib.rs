//! Streams text from quantized Phi models.
pub mod error;
pub mod gguf;
mod memory;
