//! The tokenizer that the rest of the crate sees, from a GGUF's vocabulary or a `tokenizer.json`.
//!
//! Encoding never adds a BOS (`prompt.rs` does) and always recognises special tokens written in the
//! text. Decoding is the detokenizer's, run to the end.

use std::borrow::Cow;
use std::path::Path;

use super::bpe::Bpe;
use super::detokenizer::{Decoding, first_bytes};
use super::ends::Ends;
use super::json::Json;
use super::merge::Merger;
use super::pieces::{Kind, Pieces};
use super::special::{Part, Specials};
use super::spm::Spm;
use super::vocab::{Model, Vocab};
use crate::error::{Error, Result};
use crate::gguf::Metadata;

/// Text to ids and back. `Send + Sync`; share it in an `Arc`.
pub struct Tokenizer {
    pieces: Pieces,
    encoder: Encoder,
    spacing: Spacing,
    ends: Ends,
}

enum Encoder {
    Spm(Spm, Specials),
    Bpe(Bpe, Specials),
    Json(Json),
}

/// What becomes of the space that a text's first piece begins with, when it is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spacing {
    /// It stays.
    Kept,
    /// The first space of the text goes (SentencePiece; `Strip` of `tokenizers`).
    First,
    /// All ▁ of the first piece go (`Metaspace`).
    FirstPiece,
    /// There is none: pieces are joined with spaces (a `tokenizer.json` without a decoder).
    Joined,
}

impl Tokenizer {
    /// The tokenizer that a GGUF file carries.
    pub fn from_gguf(metadata: &Metadata) -> Result<Self> {
        let vocab = Vocab::from_metadata(metadata)?;
        let specials = Specials::new(vocab.model, &vocab.pieces)?;
        let (encoder, spacing) = match vocab.model {
            Model::Llama => (
                Encoder::Spm(Spm::new(&vocab)?, specials),
                if vocab.add_space_prefix {
                    Spacing::First
                } else {
                    Spacing::Kept
                },
            ),
            Model::Gpt2(split) => (
                Encoder::Bpe(Bpe::new(metadata, &vocab, split)?, specials),
                Spacing::Kept,
            ),
        };
        Ok(Self {
            pieces: vocab.pieces,
            encoder,
            spacing,
            ends: vocab.ends,
        })
    }

    /// The tokenizer of a `tokenizer.json`; `metadata` is that of the model it goes with, and says
    /// how large the vocabulary is and which ids begin and end texts.
    pub fn from_json(path: &Path, metadata: &Metadata) -> Result<Self> {
        let (json, pieces, spacing) = Json::open(path, metadata)?;
        let ends = Ends::from_metadata(metadata, &pieces)?;
        Ok(Self {
            pieces,
            encoder: Encoder::Json(json),
            spacing,
            ends,
        })
    }

    /// The ids of a text. Special tokens written in it are recognised; no BOS is added.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        if u32::try_from(text.len()).is_err() {
            return Err(Error::InvalidRequest(format!(
                "the text has {} bytes, expected less than 4 GiB",
                text.len()
            )));
        }
        let mut ids = Vec::with_capacity(text.len() / 3 + 1);
        let mut merger = Merger::default();
        match &self.encoder {
            Encoder::Spm(spm, specials) => specials.partition(text, |part| {
                match part {
                    Part::Special(id) => ids.push(id),
                    Part::Text(text) => spm.encode(&self.pieces, text, &mut merger, &mut ids),
                }
                Ok(())
            })?,
            Encoder::Bpe(bpe, specials) => specials.partition(text, |part| {
                match part {
                    Part::Special(id) => ids.push(id),
                    Part::Text(text) => bpe.encode(&self.pieces, text, &mut merger, &mut ids),
                }
                Ok(())
            })?,
            Encoder::Json(json) => ids = json.encode(text)?,
        }
        Ok(ids)
    }

    /// The text of `ids`, as a [`super::Detokenizer`] gives it. With `skip_special`, special tokens
    /// have no text; either way the text after one begins as a text begins.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        let mut text = String::with_capacity(ids.len() * 4);
        let mut state = Decoding::default();
        for &id in ids {
            if id as usize >= self.vocab_size() {
                return Err(Error::InvalidRequest(format!(
                    "token id {id} is not in the vocabulary, expected less than {}",
                    self.vocab_size()
                )));
            }
            state.push(self, id, skip_special, &mut text);
        }
        state.finish(&mut text);
        Ok(text)
    }

    /// Number of ids, padding included: every id is less.
    pub fn vocab_size(&self) -> usize {
        self.pieces.len()
    }

    /// The id that begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.ends.bos
    }

    /// Whether a prompt begins with [`Self::bos`].
    pub fn add_bos(&self) -> bool {
        self.ends.add_bos
    }

    /// The ids that end an answer, in ascending order.
    pub fn eos_ids(&self) -> &[u32] {
        &self.ends.eos
    }

    /// Whether decoding hides `id` when special tokens are skipped.
    pub fn is_special(&self, id: u32) -> bool {
        self.pieces.kind(id).is_some_and(Kind::is_special)
    }

    /// The piece as the vocabulary spells it, such as `▁the` or `<|end|>`.
    pub fn piece(&self, id: u32) -> Option<&str> {
        self.pieces.piece(id)
    }

    /// The id of a piece as the vocabulary spells it.
    pub fn token_id(&self, piece: &str) -> Option<u32> {
        self.pieces.id(piece)
    }

    /// The bytes that `id` stands for in a text, its leading space included; none for special ids
    /// and for ids that the vocabulary lacks.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.pieces.bytes(id).unwrap_or_default()
    }

    /// The bytes that `id` adds to a text as an author would write it: [`Self::token_bytes`], but none for ids that
    /// decoding hides and for markup that it shows, such as `</s>` where the file calls that user-defined.
    pub fn text_bytes(&self, id: u32) -> &[u8] {
        let bytes = self.token_bytes(id);
        match self.pieces.kind(id) {
            Some(Kind::Normal | Kind::Byte) => bytes,
            Some(Kind::UserDefined) if !(bytes.starts_with(b"<") && bytes.ends_with(b">")) => bytes,
            _ => &[],
        }
    }

    /// What [`Self::text_bytes`] become where a text begins.
    pub fn first_bytes(&self, id: u32) -> Cow<'_, [u8]> {
        first_bytes(self, id, self.text_bytes(id))
    }

    /// Whether decoding puts spaces between tokens, so that a token alone does not say what it adds.
    pub fn joins_with_spaces(&self) -> bool {
        self.spacing == Spacing::Joined
    }

    pub(super) fn pieces(&self) -> &Pieces {
        &self.pieces
    }

    pub(super) fn spacing(&self) -> Spacing {
        self.spacing
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size())
            .field("spacing", &self.spacing)
            .field("ends", &self.ends)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Random, gpt2, phi3};
    use super::*;

    #[test]
    fn a_tokenizer_can_be_shared_between_threads() {
        fn shareable<T: Send + Sync>() {}
        shareable::<Tokenizer>();
    }

    #[test]
    fn ids_and_pieces_find_each_other() {
        let tokenizer = Tokenizer::from_gguf(&phi3(&["▁", "▁the"])).unwrap();
        for (id, piece, bytes, special) in [
            (0, "<unk>", &b""[..], true),
            (1, "<s>", b"", true),
            (2, "</s>", b"</s>", false),
            (13, "<0x0A>", b"\n", false),
            (260, "▁the", b" the", false),
        ] {
            assert_eq!(tokenizer.piece(id), Some(piece));
            assert_eq!(tokenizer.token_id(piece), Some(id));
            assert_eq!(tokenizer.token_bytes(id), bytes, "{piece}");
            assert_eq!(tokenizer.is_special(id), special, "{piece}");
        }
        assert_eq!(tokenizer.piece(9999), None);
        assert_eq!(tokenizer.token_bytes(9999), b"");
        assert_eq!(tokenizer.token_id("[PAD]"), None);
    }

    #[test]
    fn an_id_outside_the_vocabulary_is_named() {
        let tokenizer = Tokenizer::from_gguf(&phi3(&[])).unwrap();
        let error = tokenizer.decode(&[3, 266], true).unwrap_err();
        assert_eq!(
            error.to_string(),
            "token id 266 is not in the vocabulary, expected less than 266"
        );
        assert!(matches!(error, Error::InvalidRequest(_)));
    }

    /// White space after Phi-3's specials aside, what is encoded can be read back.
    #[test]
    fn texts_survive() {
        let merges = [("Ġ", "a"), ("Ã", "©")].map(|(l, r)| (l.into(), r.into()));
        for metadata in [
            phi3(&["▁", "▁▁", "a", "▁a", "\n"]),
            gpt2("gpt-4o", &merges, &["<|end|>", "<|user|>"]),
        ] {
            let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
            let mut random = Random::new(9);
            for _ in 0..5000 {
                let text = random.text(&["a", " ", "é", "\n", "😀", "z", "<|end|>"], 12);
                let ids = tokenizer.encode(&text).unwrap();
                let expected: Vec<&str> = text
                    .split("<|end|>")
                    .enumerate()
                    .map(|(i, part)| if i > 0 { part.trim_start() } else { part })
                    .collect();
                if tokenizer.spacing() == Spacing::First {
                    assert_eq!(
                        tokenizer.decode(&ids, false).unwrap(),
                        expected.join("<|end|>")
                    );
                    assert_eq!(tokenizer.decode(&ids, true).unwrap(), expected.concat());
                } else {
                    assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
                }
            }
        }
    }
}
