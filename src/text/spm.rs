//! SentencePiece-BPE over a GGUF vocabulary: pieces are merged by score, what is left is spelled in
//! byte tokens.
//!
//! ```text
//! put one space in front if asked to; write every space as ▁
//! start with single characters; merge the adjacent pair whose joined piece scores highest
//! a character that is no piece becomes its UTF-8 bytes, `<0xNN>`, or else the unknown token
//! ```
//!
//! As llama.cpp's `llm_tokenizer_spm_session`; not the Unigram model, which reads the same scores as
//! log-probabilities and gives other ids. Differences from llama.cpp: a run of characters that cannot
//! be spelled is one unknown token, as in `tokenizers` (`fuse_unk`), where llama.cpp throws.

use super::merge::{Merger, NONE};
use super::pieces::{Kind, Pieces, byte_of};
use super::vocab::Vocab;
use crate::error::{Error, Result};

/// The encoder; it looks pieces up in the [`Pieces`] it was made for.
#[derive(Debug)]
pub struct Spm {
    /// By id: place in the order of descending scores, equal for equal scores; [`NONE`] for what
    /// merging must not make.
    ranks: Vec<u32>,
    byte_ids: Box<[u32; 256]>,
    unk: Option<u32>,
    add_space_prefix: bool,
    longest_piece: usize,
    /// No piece has a ▁ after another character, so no merge crosses the beginning of a word.
    words_are_apart: bool,
}

impl Spm {
    /// An encoder for a `llama` vocabulary.
    pub fn new(vocab: &Vocab) -> Result<Self> {
        let pieces = &vocab.pieces;
        let mut order: Vec<u32> = (0..pieces.len() as u32).collect();
        order.sort_by(|&a, &b| {
            let (a, b) = (vocab.scores[a as usize], vocab.scores[b as usize]);
            b.partial_cmp(&a)
                .expect("scores are not NaN: Vocab::from_metadata")
        });
        let mut ranks = vec![NONE; pieces.len()];
        let mut rank = 0;
        let mut last = None;
        for id in order {
            let score = vocab.scores[id as usize];
            rank += u32::from(last.is_some_and(|last| last != score));
            last = Some(score);
            // Control and unknown tokens are cut out of the text before; see `special.rs`.
            if matches!(
                pieces.kind(id),
                Some(Kind::Normal | Kind::UserDefined | Kind::Byte)
            ) {
                ranks[id as usize] = rank;
            }
        }
        let mut byte_ids = Box::new([NONE; 256]);
        for (id, kind) in pieces.iter() {
            if kind == Kind::Byte
                && let Some(byte) = pieces.piece(id).and_then(byte_of)
            {
                byte_ids[usize::from(byte)] = id;
            }
        }
        if vocab.unk.is_none()
            && let Some(byte) = byte_ids.iter().position(|&id| id == NONE)
        {
            return Err(Error::ModelFormat(format!(
                "the vocabulary has neither a byte token `<0x{byte:02X}>` nor `tokenizer.ggml.unknown_token_id`"
            )));
        }
        let mergeable = || {
            let ids = 0..pieces.len() as u32;
            ids.filter(|&id| ranks[id as usize] != NONE)
                .filter_map(|id| pieces.piece(id))
        };
        Ok(Self {
            longest_piece: mergeable().map(str::len).max().unwrap_or(0),
            words_are_apart: mergeable().all(|piece| !piece.trim_start_matches('▁').contains('▁')),
            ranks,
            byte_ids,
            unk: vocab.unk,
            add_space_prefix: vocab.add_space_prefix,
        })
    }

    /// Appends the ids of a text without special tokens, as it stands at the start or after a special
    /// token (where it gets its space).
    pub fn encode(&self, pieces: &Pieces, text: &str, merger: &mut Merger, out: &mut Vec<u32>) {
        let mut escaped = String::with_capacity(text.len() + text.len() / 2 + 3);
        if self.add_space_prefix {
            escaped.push('▁');
        }
        for part in text.split_inclusive(' ') {
            match part.strip_suffix(' ') {
                Some(word) => {
                    escaped.push_str(word);
                    escaped.push('▁');
                }
                None => escaped.push_str(part),
            }
        }
        let mut unknown = false;
        let mut word = 0;
        while word < escaped.len() {
            let end = self.word_end(&escaped, word);
            self.encode_word(pieces, &escaped, word..end, merger, &mut unknown, out);
            word = end;
        }
    }

    /// Where the word that starts at `from` ends: before the next ▁ that follows something else.
    fn word_end(&self, text: &str, from: usize) -> usize {
        if !self.words_are_apart {
            return text.len();
        }
        let word = text[from..].trim_start_matches('▁');
        word.find('▁')
            .map_or(text.len(), |at| text.len() - word.len() + at)
    }

    fn encode_word(
        &self,
        pieces: &Pieces,
        text: &str,
        word: std::ops::Range<usize>,
        merger: &mut Merger,
        unknown: &mut bool,
        out: &mut Vec<u32>,
    ) {
        merger.clear();
        let mut from = word.start;
        for c in text[word].chars() {
            let to = from + c.len_utf8();
            merger.push(from, to - from, self.id(pieces, &text[from..to]));
            from = to;
        }
        merger.merge(|left, right| {
            let range = left.range().start..right.range().end;
            if range.len() > self.longest_piece {
                return None;
            }
            let id = self.id(pieces, &text[range]);
            (id != NONE).then(|| (self.ranks[id as usize], id))
        });
        for symbol in merger.symbols() {
            if symbol.id != NONE {
                out.push(symbol.id);
                *unknown = false;
                continue;
            }
            let bytes = &text.as_bytes()[symbol.range()];
            let ids = || bytes.iter().map(|&b| self.byte_ids[usize::from(b)]);
            if ids().all(|id| id != NONE) {
                out.extend(ids());
                *unknown = false;
            } else if let Some(unk) = self.unk
                && !std::mem::replace(unknown, true)
            {
                out.push(unk);
            }
        }
    }

    fn id(&self, pieces: &Pieces, piece: &str) -> u32 {
        pieces
            .id(piece)
            .filter(|&id| self.ranks[id as usize] != NONE)
            .unwrap_or(NONE)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Random, ints, phi3, phi3_scored, with};
    use super::*;
    use crate::gguf::{Metadata, Value};

    fn encode(metadata: &Metadata, text: &str) -> Vec<u32> {
        let vocab = Vocab::from_metadata(metadata).unwrap();
        let mut ids = Vec::new();
        Spm::new(&vocab)
            .unwrap()
            .encode(&vocab.pieces, text, &mut Merger::default(), &mut ids);
        ids
    }

    fn pieces(metadata: &Metadata, text: &str) -> Vec<String> {
        let tokens = metadata.strs("tokenizer.ggml.tokens").unwrap().unwrap();
        let ids = encode(metadata, text);
        ids.iter().map(|&id| tokens[id as usize].clone()).collect()
    }

    /// The definition, word for word: the best pair of the whole text, again and again.
    fn naive(metadata: &Metadata, text: &str) -> Vec<u32> {
        let tokens = metadata.strs("tokenizer.ggml.tokens").unwrap().unwrap();
        let scores = metadata.floats("tokenizer.ggml.scores").unwrap().unwrap();
        let id = |piece: &str| tokens.iter().position(|t| t == piece);
        let text = format!("▁{}", text.replace(' ', "▁"));
        let mut symbols: Vec<String> = text.chars().map(String::from).collect();
        loop {
            let mut best: Option<(f32, usize)> = None;
            for i in 1..symbols.len() {
                if let Some(id) = id(&(symbols[i - 1].clone() + &symbols[i]))
                    && best.is_none_or(|(score, _)| scores[id] > score)
                {
                    best = Some((scores[id], i));
                }
            }
            let Some((_, i)) = best else { break };
            let right = symbols.remove(i);
            symbols[i - 1].push_str(&right);
        }
        let bytes = |s: &str| s.bytes().map(|b| u32::from(b) + 3).collect::<Vec<_>>();
        symbols
            .iter()
            .flat_map(|s| id(s).map_or_else(|| bytes(s), |id| vec![id as u32]))
            .collect()
    }

    #[test]
    fn pieces_merge_by_score_from_the_left() {
        let metadata = phi3_scored(&[
            ("▁", -9.0),
            ("a", -9.0),
            ("b", -9.0),
            ("c", -9.0),
            ("bc", -1.0),
            ("ab", -2.0),
            ("▁a", -3.0),
            ("aa", -4.0),
            ("▁abc", -5.0),
        ]);
        for (text, expected) in [
            // The better score goes first, though "ab" is further left.
            ("cabc", "▁ c a bc"),
            ("abc", "▁abc"),
            ("ab", "▁ ab"),
            ("a", "▁a"),
            (" a", "▁ ▁a"),
            // Equal scores: from the left.
            ("baaa", "▁ b aa a"),
            // No piece: bytes. A line end is no piece here.
            ("é\n", "▁ <0xC3> <0xA9> <0x0A>"),
            ("<0x41>", "▁ <0x3C> <0x30> <0x78> <0x34> <0x31> <0x3E>"),
        ] {
            assert_eq!(pieces(&metadata, text).join(" "), expected, "{text:?}");
        }
        let bare = with(&metadata, "add_space_prefix", Some(Value::Bool(false)));
        assert_eq!(pieces(&bare, "a b"), ["a", "▁", "b"]);
    }

    #[test]
    fn what_cannot_be_spelled_is_one_unknown_token() {
        let metadata = phi3(&["a"]);
        let types = metadata.ints("tokenizer.ggml.token_type").unwrap().unwrap();
        // No byte tokens: they are padding now.
        let types: Vec<i64> = types.iter().map(|&t| if t == 6 { 5 } else { t }).collect();
        let metadata = with(&metadata, "token_type", Some(ints(types)));
        assert_eq!(encode(&metadata, "éééaé"), [0, 259, 0]);
        let tokens = metadata.strs("tokenizer.ggml.tokens").unwrap().unwrap();
        let mut types = metadata
            .ints("tokenizer.ggml.token_type")
            .unwrap()
            .unwrap()
            .to_vec();
        types[0] = 1;
        assert_eq!(tokens[0], "<unk>");
        let vocab =
            Vocab::from_metadata(&with(&metadata, "token_type", Some(ints(types)))).unwrap();
        assert_eq!(vocab.unk, Some(0));
        let error = Spm::new(&Vocab { unk: None, ..vocab }).unwrap_err();
        assert!(error.to_string().contains("<0x00>"), "{error}");
    }

    #[test]
    fn random_vocabularies_encode_as_the_definition_says() {
        let mut random = Random::new(1);
        for round in 0..300 {
            let mut pieces: Vec<String> = ["▁", "a", "b", "é"].map(String::from).to_vec();
            for _ in 0..random.below(25) {
                let joined = format!("{}{}", random.pick(&pieces), random.pick(&pieces));
                // Every other vocabulary has no piece that crosses from one word into the next.
                let crosses = joined.trim_start_matches('▁').contains('▁');
                if !(pieces.contains(&joined) || crosses && round % 2 == 0) {
                    pieces.push(joined);
                }
            }
            let scored: Vec<(&str, f32)> = pieces
                .iter()
                .map(|p| (p.as_str(), -(random.below(12) as f32)))
                .collect();
            let metadata = phi3_scored(&scored);
            let vocab = Vocab::from_metadata(&metadata).unwrap();
            let spm = Spm::new(&vocab).unwrap();
            let mut merger = Merger::default();
            for _ in 0..20 {
                let text = random.text(&["a", "b", " ", "é", "z", "▁"], 24);
                let mut ids = Vec::new();
                spm.encode(&vocab.pieces, &text, &mut merger, &mut ids);
                assert_eq!(ids, naive(&metadata, &text), "{scored:?} {text:?}");
            }
        }
    }

    #[test]
    fn a_megabyte_without_a_space_takes_no_longer_per_byte() {
        // Quadratic merging would take hours.
        for pieces in [&["▁", "a", "aa", "aaaa", "a▁"][..], &["▁", "▁▁", "a", "aa"]] {
            let metadata = phi3(pieces);
            assert!(encode(&metadata, &"a".repeat(1 << 20)).len() > 1 << 17);
            assert!(encode(&metadata, &" ".repeat(1 << 20)).len() > 1 << 17);
            assert_eq!(encode(&metadata, &"é".repeat(1 << 19)).len(), (1 << 20) + 1);
        }
    }
}
