//! The table of a vocabulary: for each id its piece, the bytes it stands for, and what kind it is.
//!
//! Both tokenizer sources fill this one table, so that decoding is the same code for both. It does
//! not say which id a text becomes; that is `spm.rs`, `bpe.rs` or the `tokenizers` crate.

use std::collections::hash_map::Entry;

use ahash::HashMap;

/// What an id is, in the GGUF's terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Ordinary text.
    Normal,
    /// Stands for what cannot be spelled otherwise; has no text of its own.
    Unknown,
    /// A special token such as `<|end|>`: recognised in text, hidden in what is decoded.
    Control,
    /// Added whole to the vocabulary: recognised in text, and shown when decoded.
    UserDefined,
    /// A row of the embedding that no text reaches: padding, or absent from `tokenizer.json`.
    Unused,
    /// One byte, spelled `<0xNN>`.
    Byte,
}

impl Kind {
    /// Whether decoding hides it when special tokens are skipped.
    pub fn is_special(self) -> bool {
        matches!(self, Self::Control | Self::Unknown)
    }
}

/// Pieces, bytes and kinds by id, and ids by piece.
#[derive(Debug, Default)]
pub struct Pieces {
    text: String,
    text_ends: Vec<usize>,
    bytes: Vec<u8>,
    bytes_ends: Vec<usize>,
    kinds: Vec<Kind>,
    ids: HashMap<Box<str>, u32>,
}

impl Pieces {
    /// Appends the next id. `bytes` is what it decodes to when it is shown. Returns the id that has
    /// the same piece already; the caller says whether that is an error.
    pub fn push(&mut self, piece: &str, bytes: &[u8], kind: Kind) -> Option<u32> {
        let id = self.kinds.len() as u32;
        self.text.push_str(piece);
        self.text_ends.push(self.text.len());
        self.bytes.extend_from_slice(bytes);
        self.bytes_ends.push(self.bytes.len());
        self.kinds.push(kind);
        if piece.is_empty() || kind == Kind::Unused {
            return None;
        }
        match self.ids.entry(piece.into()) {
            Entry::Occupied(e) => Some(*e.get()),
            Entry::Vacant(e) => {
                e.insert(id);
                None
            }
        }
    }

    /// Number of ids.
    pub fn len(&self) -> usize {
        self.kinds.len()
    }

    /// The piece as the vocabulary spells it.
    pub fn piece(&self, id: u32) -> Option<&str> {
        range(&self.text_ends, id).map(|r| &self.text[r])
    }

    /// What the id decodes to when it is shown.
    pub fn bytes(&self, id: u32) -> Option<&[u8]> {
        range(&self.bytes_ends, id).map(|r| &self.bytes[r])
    }

    /// What the id is.
    pub fn kind(&self, id: u32) -> Option<Kind> {
        self.kinds.get(id as usize).copied()
    }

    /// The id of a piece; unused rows have none.
    pub fn id(&self, piece: &str) -> Option<u32> {
        self.ids.get(piece).copied()
    }

    /// All ids with their kinds.
    pub fn iter(&self) -> impl Iterator<Item = (u32, Kind)> {
        self.kinds.iter().enumerate().map(|(i, &k)| (i as u32, k))
    }
}

fn range(ends: &[usize], id: u32) -> Option<std::ops::Range<usize>> {
    let id = id as usize;
    let end = *ends.get(id)?;
    Some(if id == 0 { 0 } else { ends[id - 1] }..end)
}

/// The byte that `<0xNN>` spells.
pub fn byte_of(piece: &str) -> Option<u8> {
    let hex = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    // `from_str_radix` alone would take "+A".
    (hex.len() == 2 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
        .then(|| u8::from_str_radix(hex, 16).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_hex_digits_spell_a_byte() {
        for (piece, byte) in [
            ("<0x0A>", Some(10)),
            ("<0xff>", Some(255)),
            ("<0x+A>", None),
            ("<0xA>", None),
            ("<0x0AB>", None),
            ("0x0A", None),
        ] {
            assert_eq!(byte_of(piece), byte, "{piece}");
        }
    }
}
