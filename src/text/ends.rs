//! The ids that begin and end texts, as the metadata has them.
//!
//! They come from the GGUF for both sources of a tokenizer, since a `tokenizer.json` does not say.
//! `add_eos_token` is not applied: an end token after a prompt ends the answer before it begins.

use super::pieces::{Kind, Pieces};
use crate::error::{Error, Result};
use crate::gguf::Metadata;

/// Special tokens that end an answer, whichever of them the metadata names.
/// `<|assistant|>` is in Phi-3's own `generation_config.json`.
const END_PIECES: [&str; 4] = ["<|end|>", "<|endoftext|>", "<|assistant|>", "<|im_end|>"];

/// The ids that begin and end texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ends {
    /// Begins a text.
    pub bos: Option<u32>,
    /// Whether a prompt begins with it.
    pub add_bos: bool,
    /// End an answer, in ascending order.
    pub eos: Vec<u32>,
}

impl Ends {
    /// What the metadata says, and the end tokens that the vocabulary is known by.
    pub fn from_metadata(metadata: &Metadata, pieces: &Pieces) -> Result<Self> {
        let n = pieces.len();
        let llama = metadata.str("tokenizer.ggml.model")? == Some("llama");
        let named = |id: u32, piece: &str| (llama && pieces.piece(id) == Some(piece)).then_some(id);
        let bos = id_key(metadata, "tokenizer.ggml.bos_token_id", n)?.or_else(|| named(1, "<s>"));
        let flag = metadata.bool("tokenizer.ggml.add_bos_token")?;
        if flag == Some(true) && bos.is_none() {
            return Err(Error::ModelFormat(
                "`tokenizer.ggml.add_bos_token` is true but there is no `tokenizer.ggml.bos_token_id`"
                    .into(),
            ));
        }
        let llama_bpe = matches!(
            metadata.str("tokenizer.ggml.pre")?,
            Some("llama-bpe" | "llama-v3" | "llama3")
        );
        let mut eos: Vec<u32> = [
            id_key(metadata, "tokenizer.ggml.eos_token_id", n)?.or_else(|| named(2, "</s>")),
            id_key(metadata, "tokenizer.ggml.eot_token_id", n)?,
            id_key(metadata, "tokenizer.ggml.eom_token_id", n)?,
        ]
        .into_iter()
        .flatten()
        .chain(END_PIECES.iter().filter_map(|piece| {
            let id = pieces.id(piece)?;
            (pieces.kind(id) == Some(Kind::Control)).then_some(id)
        }))
        .collect();
        eos.sort_unstable();
        eos.dedup();
        // Read so that a wrong type or an id out of range is an error; nothing here pads.
        id_key(metadata, "tokenizer.ggml.padding_token_id", n)?;
        if metadata.bool("tokenizer.ggml.add_eos_token")? == Some(true) {
            log::warn!("`tokenizer.ggml.add_eos_token` is not applied: it would end every prompt");
        }
        Ok(Self {
            bos,
            add_bos: flag.unwrap_or(llama || llama_bpe) && bos.is_some(),
            eos,
        })
    }
}

/// An id that the metadata names, if it does.
pub fn id_key(metadata: &Metadata, key: &str, n_tokens: usize) -> Result<Option<u32>> {
    match metadata.u32(key)? {
        Some(id) if id as usize >= n_tokens => Err(Error::ModelFormat(format!(
            "`{key}` is {id}, expected less than the {n_tokens} tokens of the vocabulary"
        ))),
        id => Ok(id),
    }
}
