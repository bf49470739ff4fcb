//! Special tokens that are written in the text: finds them and cuts the text around them.
//!
//! Leftmost first, the longest at each place, as `tokenizers` does; llama.cpp's
//! `tokenizer_st_partition` takes the longest anywhere first, which differs only for tokens that
//! overlap. One Aho-Corasick pass, so many specials and long texts cost the same per byte.
//!
//! Some specials swallow the white space around them. A `tokenizer.json` says which; a GGUF does not,
//! so they are known here by the vocabulary (llama.cpp knows Phi-3's by the model's name, which anyone
//! may change).

use daachorse::{DoubleArrayAhoCorasick, DoubleArrayAhoCorasickBuilder, MatchKind};

use super::pieces::{Kind, Pieces};
use super::vocab::Model;
use crate::error::{Error, Result};

/// A part of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    /// Text without special tokens; never empty.
    Text(&'a str),
    /// A special token.
    Special(u32),
}

/// Finds the special tokens of a vocabulary.
pub struct Specials {
    automaton: Option<DoubleArrayAhoCorasick<u32>>,
    strip: Strip,
    pieces: Vec<(u32, Box<str>)>,
}

/// Which specials swallow white space, after the `added_tokens` of the models' `tokenizer.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strip {
    /// None.
    None,
    /// What follows it: all but `<s>`, `<unk>` and `<|endoftext|>`.
    Phi3,
    /// What follows the four that mark turns.
    Phi4Mini,
    /// What is on either side of any of them.
    Phi4,
}

impl Specials {
    /// The tokens of `pieces` that a text may spell out: control and user-defined ones, and the
    /// unknown token.
    pub fn new(model: Model, pieces: &Pieces) -> Result<Self> {
        let mut found: Vec<(u32, Box<str>)> = pieces
            .iter()
            .filter(|(_, kind)| matches!(kind, Kind::Control | Kind::UserDefined | Kind::Unknown))
            .filter_map(|(id, _)| Some((id, pieces.piece(id).filter(|p| !p.is_empty())?.into())))
            .collect();
        found.sort_unstable_by_key(|(id, _)| *id);
        let automaton = if found.is_empty() {
            None
        } else {
            Some(
                DoubleArrayAhoCorasickBuilder::new()
                    .match_kind(MatchKind::LeftmostLongest)
                    .build_with_values(found.iter().map(|(id, piece)| (piece.as_bytes(), *id)))
                    .map_err(|e| {
                        Error::ModelFormat(format!("the special tokens cannot be searched: {e}"))
                    })?,
            )
        };
        let has = |piece| pieces.id(piece).is_some();
        let phi3 = has("<|end|>") && has("<|user|>") && has("<|assistant|>");
        let strip = match model {
            Model::Llama if phi3 => Strip::Phi3,
            Model::Gpt2(_) if phi3 => Strip::Phi4Mini,
            Model::Gpt2(_) if has("<|im_sep|>") => Strip::Phi4,
            _ => Strip::None,
        };
        Ok(Self {
            automaton,
            strip,
            pieces: found,
        })
    }

    /// Calls `each` with the parts of `text` in order.
    pub fn partition<'a>(
        &self,
        text: &'a str,
        mut each: impl FnMut(Part<'a>) -> Result<()>,
    ) -> Result<()> {
        let mut from = 0;
        for found in self
            .automaton
            .iter()
            .flat_map(|a| a.leftmost_find_iter(text))
        {
            if found.start() < from {
                continue;
            }
            let (left, right) = self.strips(found.value());
            let mut before = &text[from..found.start()];
            if left {
                before = before.trim_end();
            }
            if !before.is_empty() {
                each(Part::Text(before))?;
            }
            each(Part::Special(found.value()))?;
            from = found.end();
            if right {
                from = text.len() - text[from..].trim_start().len();
            }
        }
        if from < text.len() {
            each(Part::Text(&text[from..]))?;
        }
        Ok(())
    }

    /// Whether the special takes the white space on its left, and on its right.
    fn strips(&self, id: u32) -> (bool, bool) {
        let piece = || {
            let at = self.pieces.binary_search_by_key(&id, |(id, _)| *id);
            at.map_or("", |at| &*self.pieces[at].1)
        };
        match self.strip {
            Strip::None => (false, false),
            Strip::Phi3 => (false, !matches!(piece(), "<s>" | "<unk>" | "<|endoftext|>")),
            Strip::Phi4Mini => (
                false,
                matches!(
                    piece(),
                    "<|user|>" | "<|assistant|>" | "<|system|>" | "<|end|>"
                ),
            ),
            Strip::Phi4 => (true, true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{gpt2, phi3};
    use super::super::vocab::Vocab;
    use super::*;
    use crate::gguf::Metadata;

    fn parts(metadata: &Metadata, text: &str) -> String {
        let vocab = Vocab::from_metadata(metadata).unwrap();
        let specials = Specials::new(vocab.model, &vocab.pieces).unwrap();
        let mut out = Vec::new();
        specials
            .partition(text, |part| {
                out.push(match part {
                    Part::Text(text) => format!("{text:?}"),
                    Part::Special(id) => vocab.pieces.piece(id).unwrap().to_string(),
                });
                Ok(())
            })
            .unwrap();
        out.join(" ")
    }

    #[test]
    fn white_space_goes_where_the_model_swallows_it() {
        let phi3 = phi3(&[]);
        for (text, expected) in [
            ("", ""),
            ("plain", r#""plain""#),
            (
                "<|user|>\n Hi <|end|>\n\u{3000}<|assistant|>",
                r#"<|user|> "Hi " <|end|> <|assistant|>"#,
            ),
            (
                "<s> a<unk> b<|endoftext|> c</s> d",
                r#"<s> " a" <unk> " b" <|endoftext|> " c" </s> "d""#,
            ),
            ("<|user|<|user|>|>", r#""<|user|" <|user|> "|>""#),
            ("[PAD]<0x0A>", r#""[PAD]<0x0A>""#),
        ] {
            assert_eq!(parts(&phi3, text), expected, "{text:?}");
        }
        let phi4 = gpt2(
            "dbrx",
            &[],
            &["<|endoftext|>", "<|im_start|>", "<|im_sep|>"],
        );
        let text = " a \n<|im_start|> user <|im_sep|> <|im_sep|>\n";
        assert_eq!(
            parts(&phi4, text),
            r#"" a" <|im_start|> "user" <|im_sep|> <|im_sep|>"#
        );
    }

    #[test]
    fn the_leftmost_longest_token_is_found() {
        let metadata = gpt2("gpt-2", &[], &["<a>", "<a><b>", "<b>", "b><c>"]);
        assert_eq!(parts(&metadata, "x <a> y"), r#""x " <a> " y""#);
        assert_eq!(parts(&metadata, "<a><b><c>"), r#"<a><b> "<c>""#);
        assert_eq!(parts(&metadata, "<b><c>"), r#"<b> "<c>""#);
        assert_eq!(parts(&metadata, "b><c>"), "b><c>");
    }
}
