//! Byte-level BPE over a GGUF vocabulary: words by a pattern, then merges by rank.
//!
//! ```text
//! split the text into words; write each byte of a word as a printable character (GPT-2's table)
//! a whole word that is a piece is taken as it is, where the vocabulary says so
//! else start with single characters; merge the adjacent pair that is first in the merge list
//! ```
//!
//! The patterns are those of the models' `tokenizer.json` (and of llama.cpp's
//! `llm_tokenizer_bpe`), less their one look-ahead, `\s+(?!\S)`, which is done by hand: with the
//! `regex` crate every text takes linear time, where a backtracking engine gives up on long runs of
//! white space, and `tokenizers` then silently leaves the rest of the text unsplit.

use std::sync::LazyLock;

use ahash::{HashMap, HashMapExt};
use regex::Regex;

use super::merge::{Merger, NONE};
use super::pieces::Pieces;
use super::vocab::{Split, Vocab};
use crate::error::{Error, Result};
use crate::gguf::Metadata;

/// The encoder; it looks whole words up in the [`Pieces`] it was made for.
#[derive(Debug)]
pub struct Bpe {
    words: Regex,
    /// The pattern has a rule of its own for white space up to a line end.
    line_ends_apart: bool,
    byte_ids: Box<[u32; 256]>,
    /// Pair of ids to rank and joined id.
    merges: HashMap<(u32, u32), (u32, u32)>,
    ignore_merges: bool,
}

impl Bpe {
    /// An encoder for a `gpt2` vocabulary.
    pub fn new(metadata: &Metadata, vocab: &Vocab, split: Split) -> Result<Self> {
        const KEY: &str = "tokenizer.ggml.merges";
        let lines = metadata.strs(KEY)?.ok_or_else(|| {
            Error::ModelFormat(format!(
                "the file has no `{KEY}`, which its vocabulary needs"
            ))
        })?;
        let pieces = &vocab.pieces;
        let mut merges = HashMap::with_capacity(lines.len());
        let mut joined = String::new();
        for (rank, line) in lines.iter().enumerate() {
            // GPT-2's table leaves no space in a piece, but a piece may begin with one in files made
            // from other vocabularies; as llama.cpp, take the first space after the first character.
            let pair = line
                .char_indices()
                .skip(1)
                .find(|&(_, c)| c == ' ')
                .map(|(at, _)| (&line[..at], &line[at + 1..]));
            let Some((left, right)) = pair else {
                return Err(Error::ModelFormat(format!(
                    "`{KEY}` has {line:?} as entry {rank}, expected two pieces"
                )));
            };
            joined.clear();
            joined.push_str(left);
            joined.push_str(right);
            let id = |piece: &str| {
                pieces.id(piece).ok_or_else(|| {
                    Error::ModelFormat(format!(
                        "entry {rank} of `{KEY}` is {line:?}, but the vocabulary has no {piece:?}"
                    ))
                })
            };
            merges
                .entry((id(left)?, id(right)?))
                .or_insert((rank as u32, id(&joined)?));
        }
        let mut byte_ids = Box::new([NONE; 256]);
        for byte in 0..=255u8 {
            let mut piece = [0; 4];
            let piece = CHARS[usize::from(byte)].encode_utf8(&mut piece);
            byte_ids[usize::from(byte)] = pieces.id(piece).ok_or_else(|| {
                Error::ModelFormat(format!(
                    "the vocabulary has no {piece:?}, so it cannot spell byte 0x{byte:02X}"
                ))
            })?;
        }
        Ok(Self {
            words: Regex::new(pattern(split))
                .map_err(|e| Error::Engine(format!("word pattern: {e}")))?,
            line_ends_apart: split != Split::Gpt2,
            byte_ids,
            merges,
            ignore_merges: vocab.ignore_merges,
        })
    }

    /// Appends the ids of a text without special tokens.
    pub fn encode(&self, pieces: &Pieces, text: &str, merger: &mut Merger, out: &mut Vec<u32>) {
        let mut from = 0;
        while from < text.len() {
            let word = self.word(text, from);
            self.encode_word(pieces, &text[from..word], merger, out);
            from = word;
        }
    }

    /// Where the word that starts at `from` ends.
    fn word(&self, text: &str, from: usize) -> usize {
        // Every pattern matches any character at any place, so a match begins where the last ended.
        let end = self
            .words
            .find_at(text, from)
            .map_or(text.len(), |m| m.end());
        let word = &text[from..end];
        // `\s+(?!\S)|\s+`: of white space before a word, the last character belongs to the word.
        let last = word.chars().next_back().filter(|c| c.is_whitespace());
        if let Some(last) = last
            && end < text.len()
            && word.len() > last.len_utf8()
            && !(self.line_ends_apart && matches!(last, '\r' | '\n'))
            && word.chars().all(char::is_whitespace)
        {
            return end - last.len_utf8();
        }
        end
    }

    fn encode_word(&self, pieces: &Pieces, word: &str, merger: &mut Merger, out: &mut Vec<u32>) {
        if self.ignore_merges {
            let piece: String = word.bytes().map(|b| CHARS[usize::from(b)]).collect();
            if let Some(id) = pieces.id(&piece) {
                out.push(id);
                return;
            }
        }
        merger.clear();
        for (i, byte) in word.bytes().enumerate() {
            merger.push(i, 1, self.byte_ids[usize::from(byte)]);
        }
        merger.merge(|left, right| self.merges.get(&(left.id, right.id)).copied());
        out.extend(merger.symbols().map(|s| s.id));
    }
}

/// The bytes that a piece stands for; a piece with a character outside the table stands for itself,
/// as in `tokenizers`' `ByteLevel`.
pub fn bytes_of(piece: &str, out: &mut Vec<u8>) {
    let begin = out.len();
    for c in piece.chars() {
        match BYTES.get(&c) {
            Some(&byte) => out.push(byte),
            None => {
                out.truncate(begin);
                out.extend_from_slice(piece.as_bytes());
                return;
            }
        }
    }
}

/// GPT-2's table: printable Latin-1 stands for itself, the other bytes for U+0100 and on.
/// <https://github.com/openai/gpt-2/blob/9b63575ef42771a015060c964af2c3da4cf7c8ab/src/encoder.py#L9>
pub(super) static CHARS: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut other = '\u{100}'..;
    std::array::from_fn(|byte| match byte as u8 {
        b @ (b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF) => char::from(b),
        _ => other.next().unwrap_or(char::REPLACEMENT_CHARACTER),
    })
});

static BYTES: LazyLock<HashMap<char, u8>> =
    LazyLock::new(|| CHARS.iter().zip(0u8..=255).map(|(&c, b)| (c, b)).collect());

fn pattern(split: Split) -> &'static str {
    match split {
        Split::Gpt2 => r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+",
        Split::Llama3 => concat!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
        ),
        Split::Qwen2 => concat!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
        ),
        Split::Gpt4o => concat!(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
            r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Random, gpt2, strs, tokenizer_json, with};
    use super::*;
    use crate::gguf::Value;

    /// The patterns as `tokenizer.json` has them, look-ahead included.
    const ORIGINALS: [(&str, &str); 4] = [
        (
            "gpt-2",
            r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        ),
        (
            "dbrx",
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ),
        (
            "qwen2",
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ),
        (
            "gpt-4o",
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ),
    ];

    fn encoder(metadata: &Metadata) -> Result<(Vocab, Bpe)> {
        let vocab = Vocab::from_metadata(metadata)?;
        let super::super::vocab::Model::Gpt2(split) = vocab.model else {
            panic!("a gpt2 vocabulary");
        };
        let bpe = Bpe::new(metadata, &vocab, split)?;
        Ok((vocab, bpe))
    }

    fn words(pre: &str, text: &str) -> Vec<String> {
        let (_, bpe) = encoder(&gpt2(pre, &[], &["<|endoftext|>"])).unwrap();
        let mut words = Vec::new();
        let mut from = 0;
        while from < text.len() {
            let end = bpe.word(text, from);
            words.push(text[from..end].to_string());
            from = end;
        }
        words
    }

    #[test]
    fn words_are_split_as_the_model_was_taught() {
        for (pre, text, expected) in [
            (
                "gpt-2",
                "I'M  sure\n\n it's 1234",
                &["I", "'", "M", " ", " sure", "\n\n", " it", "'s", " 1234"][..],
            ),
            (
                "dbrx",
                "I'M  sure\n\n it's 1234",
                &[
                    "I", "'M", " ", " sure", "\n\n", " it", "'s", " ", "123", "4",
                ],
            ),
            ("qwen2", " 12", &[" ", "1", "2"]),
            (
                "gpt-4o",
                "HelloWorld's //\n/x",
                &["Hello", "World's", " //\n/", "x"],
            ),
            ("dbrx", "a \t \n  b   ", &["a", " \t \n", " ", " b", "   "]),
        ] {
            assert_eq!(words(pre, text), expected, "{pre} {text:?}");
        }
    }

    #[test]
    fn random_vocabularies_encode_as_with_tokenizers() {
        let texts = [
            "a", "B", "b", " ", "  ", "\n", "\r\n", "\t", "'", "'s", "'RE", "7", "89", "é", "É",
            "中", "\u{301}", "\u{a0}", "\u{3000}", "!", "/", "😀", "ǅ",
        ];
        let mut random = Random::new(6);
        for (pre, original) in ORIGINALS {
            for _ in 0..40 {
                // Merges of what the texts are made of, and of one another.
                let mut parts: Vec<String> = texts
                    .iter()
                    .flat_map(|t| t.bytes())
                    .map(|b| CHARS[usize::from(b)].to_string())
                    .collect();
                let mut merges = Vec::new();
                for _ in 0..random.below(60) {
                    let pair = (random.pick(&parts).clone(), random.pick(&parts).clone());
                    if !merges.contains(&pair) {
                        parts.push(format!("{}{}", pair.0, pair.1));
                        merges.push(pair);
                    }
                }
                let metadata = gpt2(pre, &merges, &["<|endoftext|>"]);
                let (vocab, bpe) = encoder(&metadata).unwrap();
                let judge: tokenizers::Tokenizer =
                    serde_json::from_value(tokenizer_json(&metadata, original)).unwrap();
                let mut merger = Merger::default();
                for _ in 0..100 {
                    let text = random.text(&texts, 16);
                    let mut ids = Vec::new();
                    bpe.encode(&vocab.pieces, &text, &mut merger, &mut ids);
                    let judgement = judge.encode(text.as_str(), false).unwrap();
                    assert_eq!(ids, judgement.get_ids(), "{pre} {text:?} {merges:?}");
                }
            }
        }
    }

    #[test]
    fn a_whole_word_is_taken_where_the_vocabulary_says_so() {
        let merges = [("b", "c"), ("a", "b"), ("ab", "c")].map(|(l, r)| (l.into(), r.into()));
        for (pre, pieces) in [("dbrx", &["a", "bc"][..]), ("llama-bpe", &["abc"])] {
            let (vocab, bpe) = encoder(&gpt2(pre, &merges, &["<|endoftext|>"])).unwrap();
            let mut ids = Vec::new();
            bpe.encode(&vocab.pieces, "abc", &mut Merger::default(), &mut ids);
            let found: Vec<_> = ids
                .iter()
                .map(|&id| vocab.pieces.piece(id).unwrap())
                .collect();
            assert_eq!(found, pieces, "{pre}");
        }
    }

    #[test]
    fn broken_merges_are_named() {
        let good = gpt2("dbrx", &[("a".into(), "b".into())], &["<|endoftext|>"]);
        let mut tokens = good
            .strs("tokenizer.ggml.tokens")
            .unwrap()
            .unwrap()
            .to_vec();
        tokens[0] = "other".into();
        for (key, value, words) in [
            ("merges", None, "no `tokenizer.ggml.merges`"),
            (
                "merges",
                Some(Value::Bool(true)),
                "expected an array of strings",
            ),
            ("merges", Some(strs(["ab"])), "\"ab\" as entry 0"),
            ("merges", Some(strs(["a b", "a zz"])), "has no \"zz\""),
            ("merges", Some(strs(["a c"])), "has no \"ac\""),
            ("tokens", Some(strs(tokens)), "cannot spell byte 0x00"),
        ] {
            let error = encoder(&with(&good, key, value)).map(drop).unwrap_err();
            assert!(matches!(error, Error::ModelFormat(_)), "{error:?}");
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn the_table_of_bytes_is_gpt2s() {
        for (byte, c) in [
            (0, 'Ā'),
            (b'\n', 'Ċ'),
            (b' ', 'Ġ'),
            (b'!', '!'),
            (0x7F, 'ġ'),
            (0xAD, 'Ń'),
            (0xFF, 'ÿ'),
        ] {
            assert_eq!(CHARS[usize::from(byte)], c);
        }
        let mut bytes = Vec::new();
        bytes_of("Ġé€", &mut bytes);
        assert_eq!(bytes, "Ġé€".as_bytes());
    }

    #[test]
    fn a_megabyte_without_a_word_takes_no_longer_per_byte() {
        let (vocab, bpe) =
            encoder(&gpt2("gpt-4o", &[("Ġ".into(), "Ġ".into())], &["<|end|>"])).unwrap();
        let mut merger = Merger::default();
        for text in ["a", "A", " ", "\n", " \n", "é", "'"] {
            let mut ids = Vec::new();
            bpe.encode(
                &vocab.pieces,
                &text.repeat((1 << 20) / text.len()),
                &mut merger,
                &mut ids,
            );
            assert!(ids.len() >= 1 << 19);
        }
    }
}
