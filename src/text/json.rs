//! A `tokenizer.json`, read with the `tokenizers` crate, which then encodes.
//!
//! Decoding is ours (`detokenizer.rs`), so the file's decoder is read as a description: see
//! `decoder.rs`. What would change ids at random or cut them (dropout, truncation, padding) is switched
//! off. The crate panics on some broken files (merges shorter than the prefix of their pieces, for one);
//! that is caught and becomes an error.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use serde_json::Value;
use tokenizers::Tokenizer as HfTokenizer;

use super::decoder::{Bytes, decoder, spell};
use super::pieces::{Kind, Pieces, byte_of};
use super::tokenizer::Spacing;
use super::vocab::n_tokens;
use crate::error::{Error, Result};
use crate::gguf::Metadata;

/// The largest `tokenizer.json` in use has some 40 MB.
const MAX_BYTES: u64 = 512 << 20;
/// Ids are an index into tables; no vocabulary in use comes near.
const MAX_TOKENS: usize = 1 << 24;

/// The encoder of a `tokenizer.json`.
pub struct Json(Box<HfTokenizer>);

impl Json {
    /// Reads the file and makes the table of its vocabulary, as large as the model's.
    pub fn open(path: &Path, metadata: &Metadata) -> Result<(Self, Pieces, Spacing)> {
        let size = std::fs::metadata(path)
            .map_err(|e| Error::io(path, &e))?
            .len();
        if size > MAX_BYTES {
            return Err(Error::ModelFormat(format!(
                "`{}` has {size} bytes, expected a tokenizer.json of at most {MAX_BYTES}",
                path.display()
            )));
        }
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, &e))?;
        Self::parse(&bytes, metadata).map_err(|e| match e {
            Error::ModelFormat(m) => Error::ModelFormat(format!("`{}`: {m}", path.display())),
            Error::Unsupported(m) => Error::Unsupported(format!("`{}`: {m}", path.display())),
            other => other,
        })
    }

    fn parse(bytes: &[u8], metadata: &Metadata) -> Result<(Self, Pieces, Spacing)> {
        let mut value: Value = serde_json::from_slice(bytes)
            .map_err(|e| Error::ModelFormat(format!("not JSON: {e}")))?;
        let Some(file) = value.as_object_mut() else {
            return Err(Error::ModelFormat(
                "not a tokenizer: expected a JSON object".into(),
            ));
        };
        file.insert("truncation".into(), Value::Null);
        file.insert("padding".into(), Value::Null);
        if let Some(model) = file.get_mut("model").and_then(Value::as_object_mut)
            && model.contains_key("dropout")
        {
            model.insert("dropout".into(), Value::Null);
        }
        let (spelling, spacing) = decoder(file.get("decoder").unwrap_or(&Value::Null))?;
        check_merges(file.get("model").unwrap_or(&Value::Null))?;
        let tokenizer = guarded(|| serde_json::from_value::<HfTokenizer>(value))
            .ok_or_else(|| Error::ModelFormat("not a tokenizer: it contradicts itself".into()))?
            .map_err(|e| Error::ModelFormat(format!("not a tokenizer: {e}")))?;
        let pieces = pieces(&tokenizer, spelling, metadata)?;
        Ok((Self(Box::new(tokenizer)), pieces, spacing))
    }

    /// The ids of a text, special tokens recognised and none added.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        match guarded(|| self.0.encode_fast(text, false)) {
            Some(Ok(encoding)) => Ok(encoding.get_ids().to_vec()),
            Some(Err(e)) => Err(Error::Engine(format!("tokenizer.json: {e}"))),
            None => Err(Error::Engine(
                "tokenizer.json: the tokenizer panicked".into(),
            )),
        }
    }
}

/// The crate panics on a merge longer than the longest piece; other merges that make no piece it
/// refuses by itself.
fn check_merges(model: &Value) -> Result<()> {
    let (Some(vocab), Some(merges)) = (model["vocab"].as_object(), model["merges"].as_array())
    else {
        return Ok(());
    };
    let longest = vocab.keys().map(String::len).max().unwrap_or(0);
    for (rank, merge) in merges.iter().enumerate() {
        let joined = match merge {
            Value::String(pair) => pair.len().saturating_sub(1),
            Value::Array(pair) => pair.iter().filter_map(Value::as_str).map(str::len).sum(),
            _ => 0,
        };
        if joined > longest {
            return Err(Error::ModelFormat(format!(
                "not a tokenizer: merge {rank} makes a piece of {joined} bytes, but the longest has {longest}"
            )));
        }
    }
    Ok(())
}

/// `f`, or nothing if it panicked. What it touches is read-only or thrown away after.
fn guarded<T>(f: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(f)).ok()
}

fn pieces(tokenizer: &HfTokenizer, spelling: Bytes, metadata: &Metadata) -> Result<Pieces> {
    let vocab = tokenizer.get_vocab(true);
    let n_json = vocab.values().max().map_or(0, |&id| id as usize + 1);
    let n = match n_tokens(metadata)? {
        Some(n) if n < n_json => {
            return Err(Error::ModelFormat(format!(
                "has token id {}, expected less than the model's {n} tokens: it belongs to another model",
                n_json - 1
            )));
        }
        Some(n) => n,
        None if n_json > MAX_TOKENS => {
            return Err(Error::ModelFormat(format!(
                "has token id {}, expected less than {MAX_TOKENS}",
                n_json - 1
            )));
        }
        None => n_json,
    };
    let added = tokenizer.get_added_vocabulary();
    let mut by_id: Vec<Option<&str>> = vec![None; n];
    for (piece, &id) in &vocab {
        // Two pieces may share an id (an added token over a plain one): the added one is decoded.
        let place = &mut by_id[id as usize];
        if place.is_none() || added.get_vocab().contains_key(piece) {
            *place = Some(piece);
        }
    }
    let mut pieces = Pieces::default();
    let mut bytes = Vec::new();
    for (id, piece) in by_id.into_iter().enumerate() {
        let id = id as u32;
        let Some(piece) = piece else {
            pieces.push("", &[], Kind::Unused);
            continue;
        };
        bytes.clear();
        let special = added.is_special_token(piece);
        let kind = match spelling {
            _ if special => Kind::Control,
            _ if added.get_added_tokens_decoder().contains_key(&id) => Kind::UserDefined,
            Bytes::Spelled { bytes: true, .. } if byte_of(piece).is_some() => Kind::Byte,
            _ => Kind::Normal,
        };
        if !special {
            // An added token that was normalized on its way in is decoded from its normalized form.
            let shown = added.simple_id_to_token(id);
            spell(spelling, shown.as_deref().unwrap_or(piece), &mut bytes);
        }
        pieces.push(piece, &bytes, kind);
    }
    same_ends(metadata, &pieces)?;
    Ok(pieces)
}

/// The ids that begin and end texts must mean the same in both, or the file is another model's.
fn same_ends(metadata: &Metadata, pieces: &Pieces) -> Result<()> {
    let Some(tokens) = metadata.strs("tokenizer.ggml.tokens")? else {
        return Ok(());
    };
    for key in ["tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"] {
        if let Some(id) = metadata.u32(key)?
            && let Some(expected) = tokens.get(id as usize)
            && let Some(found) = pieces.piece(id)
            && found != expected
        {
            return Err(Error::ModelFormat(format!(
                "token {id} (`{key}`) is {found:?}, expected {expected:?} as in the model: it belongs to another model"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{JsonFile, Random, gpt2, phi3, tokenizer_json, with};
    use super::super::tokenizer::Tokenizer;
    use super::*;
    use crate::gguf::Value as Entry;

    fn open(json: &Value, metadata: &Metadata) -> Result<Tokenizer> {
        let file = JsonFile::new(&serde_json::to_vec(json).unwrap());
        Tokenizer::from_json(&file.0, metadata)
    }

    /// One tokenizer, whether it comes from the GGUF or from `tokenizer.json`.
    #[test]
    fn both_sources_give_the_same() {
        // Each piece can be made in one way only, so that equal scores and merge order cannot differ.
        let llama = phi3(&["▁", "t", "h", "e", "▁t", "he", "▁the", "é", "\n", "▁▁"]);
        let merges =
            [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("Ã", "©")].map(|(l, r)| (l.into(), r.into()));
        let phi4 = gpt2(
            "dbrx",
            &merges,
            &["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_sep|>"],
        );
        let split = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
        let mut random = Random::new(7);
        for metadata in [llama, phi4] {
            let gguf = Tokenizer::from_gguf(&metadata).unwrap();
            let json = open(&tokenizer_json(&metadata, split), &metadata).unwrap();
            assert_eq!(gguf.vocab_size(), json.vocab_size());
            assert_eq!((gguf.bos(), gguf.add_bos()), (json.bos(), json.add_bos()));
            assert_eq!(gguf.eos_ids(), json.eos_ids());
            for id in 0..gguf.vocab_size() as u32 {
                assert_eq!(gguf.is_special(id), json.is_special(id), "{id}");
                assert_eq!(gguf.token_bytes(id), json.token_bytes(id), "{id}");
                if let Some(piece) = json.piece(id).filter(|p| !p.is_empty()) {
                    assert_eq!(gguf.piece(id), Some(piece));
                    assert_eq!(
                        (gguf.token_id(piece), json.token_id(piece)),
                        (Some(id), Some(id))
                    );
                }
            }
            let words = [
                "the",
                " ",
                "\n",
                "h",
                "é",
                "▁",
                "😀",
                "<s>",
                "</s>",
                "<unk>",
                "<|user|>",
                "<|end|>",
                "<|endoftext|>",
                "<|",
                "<|im_start|>",
                "<|im_sep|>",
                "\u{a0}",
            ];
            for _ in 0..5000 {
                let text = random.text(&words, 10);
                let ids = gguf.encode(&text).unwrap();
                assert_eq!(ids, json.encode(&text).unwrap(), "{text:?}");
                for skip in [true, false] {
                    assert_eq!(
                        gguf.decode(&ids, skip).unwrap(),
                        json.decode(&ids, skip).unwrap(),
                        "{text:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn broken_files_are_errors() {
        let metadata = phi3(&["a", "b", "ab"]);
        let good = tokenizer_json(&metadata, "");
        open(&good, &metadata).unwrap();
        let with_value = |pointer: &str, value: Value| {
            let mut json = good.clone();
            *json.pointer_mut(pointer).unwrap() = value;
            serde_json::to_vec(&json).unwrap()
        };
        let bytes = serde_json::to_vec(&good).unwrap();
        let longest = "x".repeat(40);
        let mut panics = good.clone();
        panics["model"]["continuing_subword_prefix"] = json!("##");
        panics["model"]["merges"] = json!([["a", "b"]]);
        let mut too_long = good.clone();
        too_long["model"]["vocab"][&longest] = json!(259);
        too_long["model"]["merges"] = json!([[longest, longest]]);
        let other_model = serde_json::to_string(&good).unwrap().replace("<s>", "<t>");
        for (contents, words) in [
            (b"".to_vec(), "not JSON"),
            (bytes[..bytes.len() / 2].to_vec(), "not JSON"),
            (b"\xff\xfe".to_vec(), "not JSON"),
            (vec![b'['; 1 << 20], "not JSON"),
            (b"[]".to_vec(), "expected a JSON object"),
            (b"{}".to_vec(), "not a tokenizer"),
            (with_value("/version", json!("9")), "not a tokenizer"),
            (with_value("/model/type", json!("GPT")), "not a tokenizer"),
            (
                with_value("/model/merges", json!(["a zz"])),
                "not a tokenizer",
            ),
            (serde_json::to_vec(&panics).unwrap(), "contradicts itself"),
            (
                with_value("/model/vocab/a", json!(4_000_000_000u32)),
                "token id 4000000000",
            ),
            (other_model.into_bytes(), "(`tokenizer.ggml.bos_token_id`)"),
            (
                serde_json::to_vec(&too_long).unwrap(),
                "makes a piece of 80 bytes",
            ),
        ] {
            let file = JsonFile::new(&contents);
            let error = Tokenizer::from_json(&file.0, &metadata).unwrap_err();
            assert!(matches!(error, Error::ModelFormat(_)), "{words}: {error:?}");
            assert!(error.to_string().contains(words), "{words}: {error}");
            assert!(error.to_string().contains("tokenizer.json`"), "{error}");
        }
        let error = Tokenizer::from_json(Path::new("/nowhere"), &metadata).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error:?}");
        let bare = Metadata::default();
        let error = open(
            &serde_json::from_slice(&with_value("/model/vocab/a", json!(1 << 30))).unwrap(),
            &bare,
        );
        assert!(error.unwrap_err().to_string().contains("1073741824"));
    }

    #[test]
    fn what_would_change_ids_at_random_is_off() {
        let metadata = phi3(&["a", "b", "ab"]);
        let mut json = tokenizer_json(&metadata, "");
        json["model"]["dropout"] = json!(0.9);
        json["truncation"] =
            json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
        json["padding"] = json!({"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "<unk>"});
        let tokenizer = open(&json, &metadata).unwrap();
        for _ in 0..20 {
            assert_eq!(tokenizer.encode("<s>abab").unwrap().len(), 6);
        }
    }

    #[test]
    fn a_file_without_metadata_stands_alone() {
        let metadata = phi3(&["a"]);
        let json = tokenizer_json(&metadata, "");
        let tokenizer = open(&json, &Metadata::default()).unwrap();
        assert_eq!(
            tokenizer.vocab_size(),
            Tokenizer::from_gguf(&metadata).unwrap().vocab_size() - 1
        );
        assert_eq!((tokenizer.bos(), tokenizer.add_bos()), (None, false));
        assert_eq!(tokenizer.eos_ids().len(), 3);
        let far = with(&metadata, "eot_token_id", Some(Entry::Int(9999)));
        assert!(
            open(&json, &far)
                .unwrap_err()
                .to_string()
                .contains("eot_token_id")
        );
    }
}
