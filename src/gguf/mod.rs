//! GGUF files: opened, validated, memory-mapped.
//!
//! [`Gguf::open`] checks every count, length, offset, alignment and shape before it is used or
//! allocated, so that whoever holds a [`Gguf`] can slice its tensors without checking again.
//! [`dequantize`] turns the blocks of any tensor type into f32. What it does not do: interpret the
//! metadata (`model/`, `text/`) or multiply with the weights (`engine/`).
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>

mod audit;
mod blocks;
mod data;
mod digest;
mod file;
mod header;
mod metadata;
mod reader;
mod split;
mod types;

pub use audit::{Audit, Meaning, Neutral};
pub use blocks::{dequantize, f16_to_f32};
pub use data::Data;
pub use file::Gguf;
pub use header::Header;
pub use metadata::{Array, Metadata, Value};
pub use reader::TensorInfo;
pub use split::part_names;
pub use types::GgmlType;
