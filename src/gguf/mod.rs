//! GGUF files: opened, validated, memory-mapped.
//!
//! [`Gguf::open`] checks every count, length, offset, alignment and shape before it is used or
//! allocated, so that whoever holds a [`Gguf`] can slice its tensors without checking again. What it
//! does not do: interpret the metadata (`model/config.rs`, `text/`) or the weights (`engine/`).
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>

mod audit;
mod data;
mod file;
mod metadata;
mod reader;
mod split;
mod types;

pub use audit::{Audit, Meaning, Neutral};
pub use data::Data;
pub use file::Gguf;
pub use metadata::{Array, Metadata, Value};
pub use reader::TensorInfo;
pub use split::part_names;
pub use types::GgmlType;
