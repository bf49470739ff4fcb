//! Ids to text, as they come: O(1) per id, whole characters only, never an error.
//!
//! One machine, [`Decoding`], serves both [`Tokenizer::decode`] and the stream, so a stream's text
//! cannot differ from what decoding all ids at once gives. It works on bytes:
//!
//! ```text
//! an ordinary id appends its bytes, less one leading space if nothing has been shown since the
//!     start or since the last special id, and the vocabulary is one that adds such a space
//! a special id ends a segment: an unfinished character becomes U+FFFD, and the next segment
//!     begins as a text begins
//! complete characters go out; a tail that may still become one waits
//! ```
//!
//! Bytes that can no longer become a character are replaced at once, one U+FFFD for each maximal
//! subpart, as Python's `bytes.decode("utf-8", "replace")` and `String::from_utf8_lossy` do.
//!
//! Where this differs from `tokenizers` 0.23, on purpose:
//! 1. Its decoders see the ids with the special ones filtered out, or all in one text, and strip one
//!    space at the very start only. Here each segment between special ids is decoded as `tokenizers`
//!    decodes it alone: encoding puts a space after each special token, so decoding takes it away.
//! 2. `ByteFallback` replaces every byte of a run that has one bad byte, good characters included.
//!
//! As there, the space that is dropped may also be a byte token `<0x20>`: `Strip` runs after `Fuse`.

use std::borrow::Cow;
use std::sync::Arc;

use super::pieces::Kind;
use super::tokenizer::{Spacing, Tokenizer};

/// Turns generated ids into text, continuing after a prompt.
#[derive(Debug, Clone)]
pub struct Detokenizer {
    tokenizer: Arc<Tokenizer>,
    state: Decoding,
}

impl Detokenizer {
    /// A detokenizer as it stands after the prompt. A character that the prompt leaves unfinished is
    /// not part of the prompt's text; it comes out with the id that completes it.
    pub fn new(tokenizer: Arc<Tokenizer>, prompt_ids: &[u32]) -> Self {
        let mut state = Decoding::default();
        let mut unused = String::new();
        for &id in prompt_ids {
            state.push(&tokenizer, id, true, &mut unused);
            unused.clear();
        }
        Self { tokenizer, state }
    }

    /// The text that `id` adds: complete characters, perhaps none. Special ids, and ids that the
    /// vocabulary lacks, have no text.
    pub fn push(&mut self, id: u32) -> String {
        let mut text = String::new();
        self.state.push(&self.tokenizer, id, true, &mut text);
        text
    }

    /// Whether the next text begins as a text begins, so that a leading space may go.
    pub fn is_at_start(&self) -> bool {
        self.state.at_start
    }

    /// Whether the ids so far leave a character unfinished.
    pub fn is_inside_character(&self) -> bool {
        self.state.utf8.n_held > 0
    }

    /// The end of the text: U+FFFD if a character is unfinished, else nothing.
    pub fn finish(&mut self) -> String {
        let mut text = String::new();
        self.state.utf8.flush(&mut text);
        text
    }
}

/// The state between two ids.
#[derive(Debug, Clone)]
pub(super) struct Decoding {
    /// Nothing has been shown since the start or the last special id.
    at_start: bool,
    utf8: Utf8,
}

impl Default for Decoding {
    fn default() -> Self {
        Self {
            at_start: true,
            utf8: Utf8::default(),
        }
    }
}

impl Decoding {
    /// Appends what `id` adds to the text.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32, skip_special: bool, out: &mut String) {
        let pieces = tokenizer.pieces();
        let (Some(kind), Some(mut bytes)) = (pieces.kind(id), pieces.bytes(id)) else {
            return;
        };
        if kind == Kind::Unused {
            return;
        }
        if tokenizer.spacing() == Spacing::Joined {
            if kind.is_special() && skip_special {
                return;
            }
            if !self.at_start {
                self.utf8.push(b" ", out);
            }
            self.at_start = false;
            self.utf8.push(bytes, out);
            return;
        }
        if kind.is_special() {
            self.utf8.flush(out);
            if !skip_special {
                out.push_str(pieces.piece(id).unwrap_or_default());
            }
            self.at_start = true;
            return;
        }
        let first;
        if self.at_start && !bytes.is_empty() {
            self.at_start = false;
            first = first_bytes(tokenizer, id, bytes);
            bytes = &first;
        }
        self.utf8.push(bytes, out);
    }

    /// Appends U+FFFD for a character that stayed unfinished.
    pub fn finish(&mut self, out: &mut String) {
        self.utf8.flush(out);
    }
}

/// What the bytes of an id become where a text begins.
pub(super) fn first_bytes<'a>(tokenizer: &Tokenizer, id: u32, bytes: &'a [u8]) -> Cow<'a, [u8]> {
    match tokenizer.spacing() {
        Spacing::Kept | Spacing::Joined => bytes.into(),
        Spacing::First => bytes.strip_prefix(b" ").unwrap_or(bytes).into(),
        Spacing::FirstPiece => {
            let piece = tokenizer.pieces().piece(id).unwrap_or_default();
            piece.replace('▁', "").into_bytes().into()
        }
    }
}

/// Bytes to characters, holding back at most the three bytes that may begin one.
#[derive(Debug, Clone, Default)]
struct Utf8 {
    held: [u8; 4],
    n_held: usize,
}

impl Utf8 {
    fn push(&mut self, mut bytes: &[u8], out: &mut String) {
        while self.n_held > 0 {
            let Some((&byte, rest)) = bytes.split_first() else {
                return;
            };
            // What is held is a proper prefix of a character, so one byte more either completes it,
            // keeps it a prefix, or proves it broken; then that byte starts afresh.
            self.held[self.n_held] = byte;
            match std::str::from_utf8(&self.held[..=self.n_held]) {
                Ok(char) => {
                    out.push_str(char);
                    self.n_held = 0;
                    bytes = rest;
                }
                Err(e) if e.error_len().is_none() => {
                    self.n_held += 1;
                    bytes = rest;
                }
                Err(_) => self.flush(out),
            }
        }
        loop {
            let error = match std::str::from_utf8(bytes) {
                Ok(text) => return out.push_str(text),
                Err(error) => error,
            };
            let (valid, rest) = bytes.split_at(error.valid_up_to());
            out.push_str(std::str::from_utf8(valid).unwrap_or_default());
            match error.error_len() {
                Some(n) => {
                    out.push(char::REPLACEMENT_CHARACTER);
                    bytes = &rest[n..];
                }
                None => {
                    self.held[..rest.len()].copy_from_slice(rest);
                    self.n_held = rest.len();
                    return;
                }
            }
        }
    }

    fn flush(&mut self, out: &mut String) {
        if self.n_held > 0 {
            out.push(char::REPLACEMENT_CHARACTER);
            self.n_held = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::testing::{Random, gpt2, phi3, tokenizer_json, with};
    use super::*;
    use crate::gguf::{Metadata, Value};

    fn tokenizer(metadata: &Metadata) -> Arc<Tokenizer> {
        Arc::new(Tokenizer::from_gguf(metadata).unwrap())
    }

    /// Ids of pieces.
    fn ids(tokenizer: &Tokenizer, pieces: &str) -> Vec<u32> {
        pieces
            .split_whitespace()
            .map(|p| tokenizer.token_id(p).unwrap_or_else(|| panic!("no {p}")))
            .collect()
    }

    const PIECES: &[&str] = &["▁", "▁the", "▁cat", "s", "é", "▁▁", "▁\u{1FAE0}"];

    #[test]
    fn deltas_are_whole_characters_as_soon_as_they_are() {
        let tokenizer = tokenizer(&phi3(PIECES));
        // Prompt, ids, the delta of each, what finish gives.
        for (prompt, generated, deltas, rest) in [
            ("", "▁the ▁cat s", &["the", " cat", "s"][..], ""),
            ("▁the", "▁cat", &[" cat"], ""),
            (
                "<|user|> ▁the <|end|> <|assistant|>",
                "▁cat s ▁",
                &["cat", "s", " "],
                "",
            ),
            ("<s>", "▁▁ ▁cat", &[" ", " cat"], ""),
            // A special token has no text, and a space follows it as it follows nothing.
            ("", "▁the <|end|> ▁cat", &["the", "", "cat"], ""),
            // `</s>` is an ordinary word to Phi-3's tokenizer.json.
            ("", "▁the </s> ▁cat", &["the", "</s>", " cat"], ""),
            ("", "</s> ▁cat", &["</s>", " cat"], ""),
            // Padding is not there at all.
            ("▁the", "▁ s", &[" ", "s"], ""),
            ("", "<0xC3> <0xA9> s", &["", "é", "s"], ""),
            (
                "",
                "<0xF0> <0x9F> <0xAB> <0xA0>",
                &["", "", "", "\u{1FAE0}"],
                "",
            ),
            // A byte token may be the space in front: `Strip` comes after `Fuse`.
            ("", "<0x20> <0x20> s", &["", " ", "s"], ""),
            // Broken: at once when it is certain, and only then.
            ("", "<0xC3> s", &["", "\u{FFFD}s"], ""),
            (
                "",
                "<0xFF> <0xE2> <0x82>",
                &["\u{FFFD}", "", ""],
                "\u{FFFD}",
            ),
            ("", "<0xE2> <0xC3> <0xA9>", &["", "\u{FFFD}", "é"], ""),
            ("", "<0xE0> <0x80>", &["", "\u{FFFD}\u{FFFD}"], ""),
            (
                "",
                "<0xC3> <|end|> <0xA9>",
                &["", "\u{FFFD}", "\u{FFFD}"],
                "",
            ),
            // The prompt ends within a character.
            ("▁the <0xC3>", "<0xA9> s", &["é", "s"], ""),
            ("▁the <0xC3>", "", &[], "\u{FFFD}"),
        ] {
            let mut detokenizer = Detokenizer::new(tokenizer.clone(), &ids(&tokenizer, prompt));
            let pushed: Vec<String> = ids(&tokenizer, generated)
                .into_iter()
                .map(|id| detokenizer.push(id))
                .collect();
            assert_eq!(pushed, deltas, "{prompt:?} {generated:?}");
            assert_eq!(detokenizer.finish(), rest, "{prompt:?} {generated:?}");
            assert_eq!(detokenizer.finish(), "");
        }
    }

    #[test]
    fn an_id_without_text_changes_nothing() {
        let tokenizer = tokenizer(&phi3(PIECES));
        let pad = tokenizer.vocab_size() as u32 - 1;
        let cat = ids(&tokenizer, "▁cat")[0];
        let mut detokenizer = Detokenizer::new(tokenizer.clone(), &[cat]);
        let texts = [pad, u32::MAX, cat].map(|id| detokenizer.push(id));
        assert_eq!(texts, ["", "", " cat"]);
    }

    #[test]
    fn special_tokens_can_be_shown() {
        let tokenizer = tokenizer(&phi3(PIECES));
        let ids = ids(&tokenizer, "<s> <|user|> ▁the ▁cat <|end|> ▁cat");
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), "the catcat");
        assert_eq!(
            tokenizer.decode(&ids, false).unwrap(),
            "<s><|user|>the cat<|end|>cat"
        );
    }

    #[test]
    fn a_vocabulary_that_adds_no_space_loses_none() {
        let metadata = phi3(PIECES);
        let metadata = with(&metadata, "add_space_prefix", Some(Value::Bool(false)));
        let bare = tokenizer(&metadata);
        assert_eq!(
            bare.decode(&ids(&bare, "▁the ▁cat"), true).unwrap(),
            " the cat"
        );
        let bpe = tokenizer(&gpt2(
            "gpt-2",
            &[("Ġ".into(), "a".into())],
            &["<|endoftext|>"],
        ));
        assert_eq!(
            bpe.decode(&ids(&bpe, "Ġa <|endoftext|> Ġa"), true).unwrap(),
            " a a"
        );
    }

    /// The law: a stream's deltas are what the whole text has beyond the prompt's.
    #[test]
    fn deltas_add_up_to_the_text_of_all_ids() {
        let mut random = Random::new(3);
        for metadata in [
            phi3(PIECES),
            gpt2(
                "gpt-2",
                &[("Ġ".into(), "Ã".into()), ("Ã".into(), "©".into())],
                &["<|end|>"],
            ),
        ] {
            let tokenizer = tokenizer(&metadata);
            for _ in 0..20_000 {
                let n = tokenizer.vocab_size();
                let interesting = [0, 1, 2, 3 + 0x20, 3 + 0xC3, 3 + 0xA9, 3 + 0xE2, 3 + 0x82];
                let all: Vec<u32> = (0..random.below(10))
                    .map(|_| match random.below(3) {
                        0 => random.below(n) as u32,
                        1 => *random.pick(&interesting),
                        _ => (n - 1 - random.below(14)) as u32,
                    })
                    .collect();
                let (prompt, generated) = all.split_at(random.below(all.len() + 1));
                let mut whole = Detokenizer::new(tokenizer.clone(), &[]);
                let mut text: String = prompt.iter().map(|&id| whole.push(id)).collect();
                let mut stream = Detokenizer::new(tokenizer.clone(), prompt);
                text.extend(generated.iter().map(|&id| stream.push(id)));
                text.push_str(&stream.finish());
                assert_eq!(text, tokenizer.decode(&all, true).unwrap(), "{all:?}");
            }
        }
    }

    #[test]
    fn valid_text_is_what_tokenizers_makes_of_each_segment() {
        let mut random = Random::new(4);
        let merges = [("Ġ".into(), "Ã".into()), ("Ã".into(), "©".into())];
        for (metadata, pool) in [
            (
                phi3(PIECES),
                &[
                    "<0xC3> <0xA9>",
                    "<0x20>",
                    "<0xC3>",
                    "▁",
                    "▁▁",
                    "▁the",
                    "s",
                    "</s>",
                    "<s>",
                    "<|end|>",
                    "<unk>",
                ][..],
            ),
            (
                gpt2("gpt-2", &merges, &["<|end|>"]),
                &["Ã©", "ĠÃ ©", "Ã", "Ġ", "a", "<|end|>"],
            ),
        ] {
            let json = tokenizer_json(&metadata, r"\s+|\S+");
            let judge: tokenizers::Tokenizer = serde_json::from_value(json).unwrap();
            let tokenizer = tokenizer(&metadata);
            let (mut judged, mut specials) = (0, 0);
            for _ in 0..20_000 {
                let all = ids(&tokenizer, &random.words(pool, 9));
                let text = tokenizer.decode(&all, true).unwrap();
                if text.contains('\u{FFFD}') {
                    continue;
                }
                let segments: Vec<&[u32]> = all.split(|&id| tokenizer.is_special(id)).collect();
                let judgement: String = segments
                    .iter()
                    .map(|ids| judge.decode(ids, true).unwrap())
                    .collect();
                assert_eq!(text, judgement, "{all:?}");
                judged += 1;
                specials += usize::from(segments.len() > 1);
            }
            assert!(judged > 5000 && specials > 2000, "{judged} {specials}");
        }
    }

    /// All proper prefixes of the UTF-8 of all characters.
    fn prefixes() -> HashSet<Vec<u8>> {
        let mut prefixes = HashSet::new();
        for c in '\u{80}'..=char::MAX {
            let mut buffer = [0; 4];
            let bytes = c.encode_utf8(&mut buffer).as_bytes();
            for n in 1..bytes.len() {
                prefixes.insert(bytes[..n].to_vec());
            }
        }
        prefixes
    }

    #[test]
    fn raw_bytes_read_as_rust_and_python_read_them() {
        let tokenizer = tokenizer(&phi3(&[]));
        let byte_ids = |bytes: &[u8]| bytes.iter().map(|&b| u32::from(b) + 3).collect::<Vec<_>>();
        // bytes.fromhex(...).decode("utf-8", "replace"), CPython 3.
        for (bytes, text) in [
            (&b"\xc3\xc3\xa9"[..], "\u{fffd}é"),
            (b"\xe2\x82", "\u{fffd}"),
            (b"\xe2\x82A", "\u{fffd}A"),
            (b"\xe0\x80", "\u{fffd}\u{fffd}"),
            (b"\xed\xa0\x80", "\u{fffd}\u{fffd}\u{fffd}"),
            (b"\xf0\x9f\x98A", "\u{fffd}A"),
            (b"\xf0\x80\x80\x80", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
            (b"\xf4\x90\x80\x80", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
            (b"\xff\xfeA", "\u{fffd}\u{fffd}A"),
            (b"\xe2\xf0\x9f\x98\x80", "\u{fffd}\u{1f600}"),
            (b"\xf1\x80\x80\xc3\xa9", "\u{fffd}é"),
        ] {
            assert_eq!(tokenizer.decode(&byte_ids(bytes), true).unwrap(), text);
        }

        let prefixes = prefixes();
        let interesting =
            *b"A \x80\x82\x9f\xa0\xa9\xac\xbf\xc2\xc3\xdf\xe0\xe2\xed\xef\xf0\xf4\xf5\xff";
        let mut random = Random::new(5);
        for _ in 0..50_000 {
            let mut bytes: Vec<u8> = (0..random.below(9))
                .map(|_| *random.pick(&interesting))
                .collect();
            bytes.insert(0, b'A');
            let mut stream = Detokenizer::new(tokenizer.clone(), &[]);
            let mut text = String::new();
            for (i, id) in byte_ids(&bytes).into_iter().enumerate() {
                text += &stream.push(id);
                // Only what may still become a character is held back.
                let read = &bytes[..=i];
                let held =
                    (1..4.min(read.len())).find(|n| prefixes.contains(&read[read.len() - n..]));
                let done = &read[..read.len() - held.unwrap_or(0)];
                assert_eq!(text, String::from_utf8_lossy(done), "{read:x?}");
            }
            text += &stream.finish();
            assert_eq!(text, String::from_utf8_lossy(&bytes), "{bytes:x?}");
        }
    }
}
