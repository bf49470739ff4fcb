//! The vocabulary of a GGUF file, `tokenizer.ggml.*`, checked before it is believed.
//!
//! What is accepted is what the rest of `text/` understands: model `llama` (SentencePiece-BPE with
//! scores) and `gpt2` (byte-level BPE with merges) with a known way of splitting words. Anything else
//! is an error that names it, since a wrong split gives wrong ids and no other sign of trouble.
//!
//! Keys and defaults: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#ggml> and
//! llama.cpp's `llama_vocab::impl::load`. Differences, with reasons:
//! 1. Tokens of type *unknown* other than the unknown token itself are padding (the Phi-3 converter
//!    marks `[PAD32011]` so): no text reaches them and they have none, as with `tokenizer.json`, which
//!    lacks them.
//! 2. Phi-3's `<|user|>` and its kind are special tokens whatever type the file gives them; early
//!    files mark them as user-defined, and llama.cpp too overrides the types of the end tokens.

use super::ends::{Ends, id_key};
use super::pieces::{Kind, Pieces, byte_of};
use crate::error::{Error, Result};
use crate::gguf::Metadata;

/// How a vocabulary turns text into ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Model {
    /// SentencePiece-BPE: pieces with scores (`tokenizer.ggml.model` = `llama`).
    Llama,
    /// Byte-level BPE: merges, after words are split by a pattern (`gpt2`).
    Gpt2(Split),
}

/// How a byte-level BPE splits a text into words (`tokenizer.ggml.pre`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// GPT-2, Phi-2.
    Gpt2,
    /// Llama 3 and, under the name `dbrx`, Phi-4: the split of cl100k.
    Llama3,
    /// As `Llama3`, with single digits.
    Qwen2,
    /// Phi-4-mini: the split of o200k.
    Gpt4o,
}

/// Names of `tokenizer.ggml.pre` and what they mean, after llama.cpp's list; the flag is whether a
/// word that is a piece as a whole is taken without merging (`ignore_merges`).
const SPLITS: [(&str, Split, bool); 9] = [
    ("default", Split::Gpt2, false),
    ("gpt-2", Split::Gpt2, false),
    ("phi-2", Split::Gpt2, false),
    ("dbrx", Split::Llama3, false),
    ("llama-bpe", Split::Llama3, true),
    ("llama-v3", Split::Llama3, true),
    ("llama3", Split::Llama3, true),
    ("qwen2", Split::Qwen2, false),
    ("gpt-4o", Split::Gpt4o, false),
];

/// A checked vocabulary.
#[derive(Debug)]
pub struct Vocab {
    /// Which algorithm encodes.
    pub model: Model,
    /// Pieces, bytes and kinds.
    pub pieces: Pieces,
    /// By id, for [`Model::Llama`].
    pub scores: Vec<f32>,
    /// Whether a word that is a piece is taken whole.
    pub ignore_merges: bool,
    /// The id for what cannot be spelled.
    pub unk: Option<u32>,
    /// Whether a text, and what follows a special token, gets a space in front.
    pub add_space_prefix: bool,
    /// The ids that begin and end texts.
    pub ends: Ends,
}

impl Vocab {
    /// Reads and checks the vocabulary of a file.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self> {
        let (model, ignore_merges) = model(metadata)?;
        let tokens = metadata
            .strs("tokenizer.ggml.tokens")?
            .ok_or_else(|| missing("tokenizer.ggml.tokens"))?;
        if tokens.is_empty() {
            return Err(Error::ModelFormat(
                "`tokenizer.ggml.tokens` is empty, expected a vocabulary".into(),
            ));
        }
        let types = metadata
            .ints("tokenizer.ggml.token_type")?
            .ok_or_else(|| missing("tokenizer.ggml.token_type"))?;
        same_length("tokenizer.ggml.token_type", types.len(), tokens.len())?;
        let scores = match (model, metadata.floats("tokenizer.ggml.scores")?) {
            (Model::Gpt2(_), _) => Vec::new(),
            (Model::Llama, None) => return Err(missing("tokenizer.ggml.scores")),
            (Model::Llama, Some(scores)) => {
                same_length("tokenizer.ggml.scores", scores.len(), tokens.len())?;
                if let Some(id) = scores.iter().position(|s| s.is_nan()) {
                    return Err(Error::ModelFormat(format!(
                        "`tokenizer.ggml.scores` has NaN for token {id}, expected a number"
                    )));
                }
                scores.to_vec()
            }
        };

        let phi3 =
            model == Model::Llama && has_all(tokens, &["<|end|>", "<|user|>", "<|assistant|>"]);
        let unk = id_key(metadata, "tokenizer.ggml.unknown_token_id", tokens.len())?
            .or_else(|| default_id(model, tokens, 0, "<unk>"));
        let mut pieces = Pieces::default();
        let mut bytes = Vec::new();
        for (id, (token, &ty)) in tokens.iter().zip(types).enumerate() {
            let id = id as u32;
            let mut kind = kind(ty, id)?;
            if kind == Kind::Unknown && unk != Some(id) {
                kind = Kind::Unused;
            }
            if matches!(kind, Kind::Normal | Kind::UserDefined) && is_special_by_name(token, phi3) {
                kind = Kind::Control;
            }
            bytes.clear();
            decoded(model, kind, token, id, &mut bytes)?;
            if let Some(first) = pieces.push(token, &bytes, kind) {
                return Err(Error::ModelFormat(format!(
                    "`tokenizer.ggml.tokens` has {token:?} twice, as {first} and {id}"
                )));
            }
        }
        let ends = Ends::from_metadata(metadata, &pieces)?;
        Ok(Self {
            model,
            scores,
            ignore_merges,
            unk,
            add_space_prefix: metadata
                .bool("tokenizer.ggml.add_space_prefix")?
                .unwrap_or(model == Model::Llama),
            ends,
            pieces,
        })
    }
}

/// Number of tokens of the model, if the metadata has a vocabulary.
pub fn n_tokens(metadata: &Metadata) -> Result<Option<usize>> {
    Ok(metadata.strs("tokenizer.ggml.tokens")?.map(<[_]>::len))
}

fn model(metadata: &Metadata) -> Result<(Model, bool)> {
    const WAY_OUT: &str = "pass the model's tokenizer.json as `tokenizer`";
    match metadata.str("tokenizer.ggml.model")? {
        None => Err(missing("tokenizer.ggml.model")),
        Some("llama") => Ok((Model::Llama, false)),
        Some("gpt2") => {
            let names = || SPLITS.map(|(name, ..)| format!("`{name}`")).join(", ");
            let Some(pre) = metadata.str("tokenizer.ggml.pre")? else {
                return Err(Error::Unsupported(format!(
                    "the file does not say how it splits words (`tokenizer.ggml.pre`), expected one of {}: {WAY_OUT}",
                    names()
                )));
            };
            SPLITS
                .iter()
                .find(|(name, ..)| *name == pre)
                .map(|&(_, split, whole)| (Model::Gpt2(split), whole))
                .ok_or_else(|| {
                    Error::Unsupported(format!(
                        "`tokenizer.ggml.pre` is `{pre}`, expected one of {}: {WAY_OUT}",
                        names()
                    ))
                })
        }
        Some(other) => Err(Error::Unsupported(format!(
            "`tokenizer.ggml.model` is `{other}`, expected `llama` or `gpt2`: {WAY_OUT}"
        ))),
    }
}

/// `LLAMA_TOKEN_TYPE_*`.
fn kind(ty: i64, id: u32) -> Result<Kind> {
    Ok(match ty {
        1 => Kind::Normal,
        2 => Kind::Unknown,
        3 => Kind::Control,
        4 => Kind::UserDefined,
        5 => Kind::Unused,
        6 => Kind::Byte,
        _ => {
            return Err(Error::ModelFormat(format!(
                "`tokenizer.ggml.token_type` is {ty} for token {id}, expected 1 to 6"
            )));
        }
    })
}

/// The text of a token when it is shown, as llama.cpp's `token_to_piece`.
fn decoded(model: Model, kind: Kind, token: &str, id: u32, out: &mut Vec<u8>) -> Result<()> {
    match (kind, model) {
        (Kind::Control | Kind::Unknown | Kind::Unused, _) => {}
        (Kind::UserDefined, _) => out.extend_from_slice(token.as_bytes()),
        (Kind::Byte, _) => out.push(byte_of(token).ok_or_else(|| {
            Error::ModelFormat(format!(
                "token {id} of `tokenizer.ggml.tokens` is {token:?} and typed as a byte, expected `<0xNN>`"
            ))
        })?),
        (Kind::Normal, Model::Llama) => out.extend_from_slice(token.replace('▁', " ").as_bytes()),
        (Kind::Normal, Model::Gpt2(_)) => super::bpe::bytes_of(token, out),
    }
    Ok(())
}

fn is_special_by_name(token: &str, phi3: bool) -> bool {
    matches!(token, "<|end|>" | "<|endoftext|>" | "<|im_end|>")
        || phi3
            && (matches!(token, "<|user|>" | "<|assistant|>" | "<|system|>")
                || token.starts_with("<|placeholder") && token.ends_with("|>"))
}

fn has_all(tokens: &[String], wanted: &[&str]) -> bool {
    wanted.iter().all(|w| tokens.iter().any(|t| t == w))
}

fn default_id(model: Model, tokens: &[String], id: u32, piece: &str) -> Option<u32> {
    (model == Model::Llama && tokens.get(id as usize).is_some_and(|t| t == piece)).then_some(id)
}

fn same_length(key: &str, found: usize, expected: usize) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::ModelFormat(format!(
        "`{key}` has {found} entries, expected {expected} as `tokenizer.ggml.tokens`"
    )))
}

fn missing(key: &str) -> Error {
    Error::ModelFormat(format!(
        "the file has no `{key}`: it has no vocabulary to tokenize with"
    ))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{floats, gpt2, ints, phi3, strs, with};
    use super::*;
    use crate::gguf::Value;

    #[test]
    fn each_broken_key_is_named() {
        let good = phi3(&["a", "b"]);
        let n = good.strs("tokenizer.ggml.tokens").unwrap().unwrap().len();
        let tokens = |change: fn(&mut Vec<String>)| {
            let mut tokens = good
                .strs("tokenizer.ggml.tokens")
                .unwrap()
                .unwrap()
                .to_vec();
            change(&mut tokens);
            Some(strs(tokens))
        };
        let int = |i| Some(Value::Int(i));
        let name = |s: &str| Some(Value::Str(s.into()));
        Vocab::from_metadata(&good).unwrap();
        for (key, value, unsupported, words) in [
            ("model", None, false, "`tokenizer.ggml.model`"),
            ("model", int(1), false, "expected a string"),
            ("model", name("t5"), true, "`t5`"),
            ("tokens", None, false, "`tokenizer.ggml.tokens`"),
            ("tokens", Some(strs([""; 0])), false, "is empty"),
            (
                "tokens",
                tokens(|t| t[260] = "a".into()),
                false,
                "\"a\" twice, as 259 and 260",
            ),
            (
                "tokens",
                tokens(|t| t[3] = "<0xZZ>".into()),
                false,
                "<0xZZ>",
            ),
            ("scores", None, false, "`tokenizer.ggml.scores`"),
            (
                "scores",
                Some(floats([0.0])),
                false,
                "has 1 entries, expected",
            ),
            (
                "scores",
                Some(floats(vec![f32::NAN; n])),
                false,
                "NaN for token 0",
            ),
            ("token_type", None, false, "`tokenizer.ggml.token_type`"),
            (
                "token_type",
                Some(ints([1])),
                false,
                "has 1 entries, expected",
            ),
            (
                "token_type",
                Some(ints(vec![7; n])),
                false,
                "is 7 for token 0",
            ),
            (
                "bos_token_id",
                int(n as i128),
                false,
                "`tokenizer.ggml.bos_token_id`",
            ),
            (
                "eos_token_id",
                int(-1),
                false,
                "`tokenizer.ggml.eos_token_id`",
            ),
            (
                "eot_token_id",
                int(1 << 40),
                false,
                "`tokenizer.ggml.eot_token_id`",
            ),
            (
                "unknown_token_id",
                int(n as i128),
                false,
                "`tokenizer.ggml.unknown_token_id`",
            ),
            (
                "padding_token_id",
                int(n as i128),
                false,
                "`tokenizer.ggml.padding_token_id`",
            ),
            (
                "add_bos_token",
                int(1),
                false,
                "`tokenizer.ggml.add_bos_token`",
            ),
            (
                "add_space_prefix",
                name("yes"),
                false,
                "`tokenizer.ggml.add_space_prefix`",
            ),
        ] {
            let error = Vocab::from_metadata(&with(&good, key, value)).unwrap_err();
            assert_eq!(
                matches!(error, Error::Unsupported(_)),
                unsupported,
                "{key}: {error}"
            );
            assert!(error.to_string().contains(words), "{key}: {error}");
        }
    }

    #[test]
    fn an_unknown_way_of_splitting_words_is_refused() {
        for pre in [None, Some("tekken")] {
            let metadata = gpt2("gpt-2", &[], &["<|endoftext|>"]);
            let metadata = with(&metadata, "pre", pre.map(|p| Value::Str(p.into())));
            let error = Vocab::from_metadata(&metadata).unwrap_err();
            assert!(matches!(error, Error::Unsupported(_)), "{error}");
            assert!(
                error.to_string().contains("`tokenizer.ggml.pre`"),
                "{error}"
            );
            assert!(
                error.to_string().contains(pre.unwrap_or("`dbrx`")),
                "{error}"
            );
        }
    }

    #[test]
    fn kinds_and_ends_are_those_of_the_model() {
        let metadata = phi3(&["a"]);
        let tokens = metadata.strs("tokenizer.ggml.tokens").unwrap().unwrap();
        let id = |piece| tokens.iter().position(|t| t == piece).unwrap() as u32;
        // Early Phi-3 files: all the specials are user-defined.
        let types = metadata.ints("tokenizer.ggml.token_type").unwrap().unwrap();
        let early = types
            .iter()
            .zip(tokens)
            .map(|(&ty, t)| if t.starts_with("<|") { 4 } else { ty });
        for metadata in [
            metadata.clone(),
            with(&metadata, "token_type", Some(ints(early))),
        ] {
            let vocab = Vocab::from_metadata(&metadata).unwrap();
            for (piece, kind) in [
                ("<unk>", Kind::Unknown),
                ("<s>", Kind::Control),
                ("</s>", Kind::UserDefined),
                ("<0x0A>", Kind::Byte),
                ("a", Kind::Normal),
                ("<|user|>", Kind::Control),
                ("<|placeholder1|>", Kind::Control),
                ("[PAD]", Kind::Unused),
            ] {
                assert_eq!(vocab.pieces.kind(id(piece)), Some(kind), "{piece}");
            }
            assert_eq!(
                vocab.ends,
                Ends {
                    bos: Some(1),
                    add_bos: true,
                    eos: vec![id("<|endoftext|>"), id("<|assistant|>"), id("<|end|>")],
                }
            );
        }
    }

    #[test]
    fn flags_have_the_defaults_of_their_model() {
        let llama = with(&phi3(&[]), "add_bos_token", None);
        assert!(Vocab::from_metadata(&llama).unwrap().ends.add_bos);
        let gpt2 = gpt2("dbrx", &[], &["<|endoftext|>"]);
        assert!(!Vocab::from_metadata(&gpt2).unwrap().ends.add_bos);
        let error = Vocab::from_metadata(&with(&gpt2, "add_bos_token", Some(Value::Bool(true))));
        assert!(
            error
                .unwrap_err()
                .to_string()
                .contains("`tokenizer.ggml.bos_token_id`")
        );
        // The ids that llama.cpp assumes, where the pieces bear them out.
        let bare = with(
            &with(&llama, "bos_token_id", None),
            "unknown_token_id",
            None,
        );
        let vocab = Vocab::from_metadata(&bare).unwrap();
        assert_eq!((vocab.ends.bos, vocab.unk), (Some(1), Some(0)));
    }
}
