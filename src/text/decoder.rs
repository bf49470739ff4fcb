//! The decoder of a `tokenizer.json`, as a description of how pieces become text.
//!
//! Text is made by `detokenizer.rs`, a token at a time; a decoder of the `tokenizers` crate wants all
//! tokens at once. So a decoder is not run but recognised: see [`decoder`] for the shapes that are
//! understood; any other is an error that names it.

use serde_json::Value;

use super::bpe::bytes_of;
use super::pieces::byte_of;
use super::tokenizer::Spacing;
use crate::error::{Error, Result};

/// How the file says that a piece becomes bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bytes {
    /// GPT-2's table of bytes.
    ByteLevel,
    /// ▁ is a space where `space` is set; `<0xNN>` is a byte where `bytes` is set.
    Spelled { space: bool, bytes: bool },
}

/// Appends the bytes of a piece.
pub fn spell(spelling: Bytes, piece: &str, out: &mut Vec<u8>) {
    match spelling {
        Bytes::ByteLevel => bytes_of(piece, out),
        Bytes::Spelled { space, bytes } => match byte_of(piece) {
            Some(byte) if bytes => out.push(byte),
            _ if space => out.extend_from_slice(piece.replace('▁', " ").as_bytes()),
            _ => out.extend_from_slice(piece.as_bytes()),
        },
    }
}

/// Reads a decoder's description: `ByteLevel`, `Metaspace`, nothing, or a sequence of
/// `Replace` ▁ by a space, `ByteFallback`, `Fuse` and `Strip` of one leading space, in this order and
/// each optional.
pub fn decoder(value: &Value) -> Result<(Bytes, Spacing)> {
    let spelled = |space, bytes| Bytes::Spelled { space, bytes };
    match type_of(value) {
        None if value.is_null() => Ok((spelled(false, false), Spacing::Joined)),
        Some("ByteLevel") => Ok((Bytes::ByteLevel, Spacing::Kept)),
        Some("Metaspace") => {
            if value["replacement"] != "▁" {
                return Err(unsupported(value));
            }
            let never = value["prepend_scheme"] == "never" || value["add_prefix_space"] == false;
            let spacing = if never {
                Spacing::Kept
            } else {
                Spacing::FirstPiece
            };
            Ok((spelled(true, false), spacing))
        }
        Some("Sequence") => {
            let steps = value["decoders"]
                .as_array()
                .ok_or_else(|| unsupported(value))?;
            let (mut space, mut bytes, mut fused, mut spacing) =
                (false, false, false, Spacing::Kept);
            for step in steps {
                match type_of(step) {
                    Some("ByteLevel") if steps.len() == 1 => return decoder(step),
                    Some("Replace")
                        if step["pattern"]["String"] == "▁"
                            && step["content"] == " "
                            && !bytes
                            && !fused =>
                    {
                        space = true;
                    }
                    Some("ByteFallback") if !fused => bytes = true,
                    Some("Fuse") => fused = true,
                    Some("Strip")
                        if fused
                            && step["content"] == " "
                            && step["start"] == 1
                            && step["stop"] == 0 =>
                    {
                        spacing = Spacing::First;
                    }
                    _ => return Err(unsupported(step)),
                }
            }
            Ok((spelled(space, bytes), spacing))
        }
        _ => Err(unsupported(value)),
    }
}

fn type_of(value: &Value) -> Option<&str> {
    value.get("type").and_then(Value::as_str)
}

fn unsupported(value: &Value) -> Error {
    Error::Unsupported(format!(
        "the decoder is `{}`, expected `ByteLevel`, `Metaspace`, none, or a `Sequence` of `Replace` ▁ by a space, \
         `ByteFallback`, `Fuse` and `Strip` of one leading space",
        value
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokenizers::Tokenizer as HfTokenizer;

    use super::super::testing::{JsonFile, Random, phi3, tokenizer_json};
    use super::super::tokenizer::Tokenizer;
    use super::*;
    use crate::gguf::Metadata;

    fn open(json: &Value, metadata: &Metadata) -> Result<Tokenizer> {
        let file = JsonFile::new(&serde_json::to_vec(json).unwrap());
        Tokenizer::from_json(&file.0, metadata)
    }

    #[test]
    fn decoders_are_understood_or_refused() {
        let replace = json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "});
        let strip = json!({"type": "Strip", "content": " ", "start": 1, "stop": 0});
        let fallback = json!({"type": "ByteFallback"});
        let fuse = json!({"type": "Fuse"});
        let sequence = |steps: &[&Value]| json!({"type": "Sequence", "decoders": steps});
        let metaspace = |scheme| json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": true});
        let level = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
        let metadata = phi3(&["▁", "a", "▁a", "▁▁a▁"]);
        let mut random = Random::new(8);
        for decoder in [
            Value::Null,
            level.clone(),
            sequence(&[&level]),
            metaspace("always"),
            metaspace("first"),
            metaspace("never"),
            sequence(&[&replace, &fallback, &fuse, &strip]),
            sequence(&[&replace, &fallback, &fuse]),
            sequence(&[&replace, &fuse, &strip]),
            sequence(&[&replace]),
            sequence(&[]),
        ] {
            let mut json = tokenizer_json(&metadata, "");
            json["decoder"] = decoder;
            let tokenizer = open(&json, &metadata).unwrap();
            let judge: HfTokenizer = serde_json::from_value(json.clone()).unwrap();
            let pool = ["<0x20>", "<0xC3>", "<0xA9>", "▁", "a", "▁a", "▁▁a▁", "</s>"];
            let mut judged = 0;
            for _ in 0..2000 {
                let words = random.words(&pool, 6);
                let ids: Vec<u32> = words
                    .split(' ')
                    .filter_map(|p| tokenizer.token_id(p))
                    .collect();
                let text = tokenizer.decode(&ids, true).unwrap();
                if !text.contains('\u{FFFD}') {
                    assert_eq!(
                        text,
                        judge.decode(&ids, true).unwrap(),
                        "{words} {}",
                        json["decoder"]
                    );
                    judged += 1;
                }
            }
            assert!(judged > 500, "{judged}");
        }
        for (decoder, words) in [
            (
                json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
                "WordPiece",
            ),
            (json!({"type": "CTC"}), "CTC"),
            (json!({}), "{}"),
            (json!({"type": "Metaspace", "replacement": "_"}), "\"_\""),
            (sequence(&[&strip]), "Strip"),
            (sequence(&[&fallback, &replace]), "Replace"),
            (
                sequence(&[
                    &fuse,
                    &json!({"type": "Strip", "content": " ", "start": 1, "stop": 1}),
                ]),
                "\"stop\":1",
            ),
            (
                sequence(&[
                    &fuse,
                    &json!({"type": "Strip", "content": " ", "start": 2, "stop": 0}),
                ]),
                "\"start\":2",
            ),
        ] {
            let mut json = tokenizer_json(&metadata, "");
            json["decoder"] = decoder;
            let error = open(&json, &metadata).unwrap_err();
            assert!(matches!(error, Error::Unsupported(_)), "{error:?}");
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
