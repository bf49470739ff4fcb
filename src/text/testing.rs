//! For tests: tiny vocabularies in both forms, and a seeded source of random choices.
//!
//! [`tokenizer_json`] writes a GGUF vocabulary the way `transformers` converts it, so that the
//! `tokenizers` crate can judge what we make of the GGUF.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde_json::{Value as Json, json};

use super::bpe::CHARS;
use crate::gguf::{Array, Metadata, Value};

/// Metadata from pairs.
pub fn metadata(pairs: Vec<(&str, Value)>) -> Metadata {
    let mut metadata = Metadata::default();
    for (key, value) in pairs {
        metadata
            .insert(format!("tokenizer.ggml.{key}"), value)
            .unwrap();
    }
    metadata
}

/// `metadata` with one more pair, or with another value for it, or without it.
pub fn with(metadata: &Metadata, key: &str, value: Option<Value>) -> Metadata {
    let key = format!("tokenizer.ggml.{key}");
    let mut other = Metadata::default();
    for (k, v) in metadata.iter().filter(|(k, _)| *k != key) {
        other.insert(k.to_string(), v.clone()).unwrap();
    }
    if let Some(value) = value {
        other.insert(key, value).unwrap();
    }
    other
}

pub fn strs<S: ToString>(items: impl IntoIterator<Item = S>) -> Value {
    Value::Array(Array::Str(
        items.into_iter().map(|s| s.to_string()).collect(),
    ))
}

pub fn ints(items: impl IntoIterator<Item = i64>) -> Value {
    Value::Array(Array::Int(items.into_iter().collect()))
}

pub fn floats(items: impl IntoIterator<Item = f32>) -> Value {
    Value::Array(Array::Float(items.into_iter().collect()))
}

/// Phi-3's vocabulary in small: `<unk>` `<s>` `</s>`, 256 bytes from id 3, `pieces` from id 259 with
/// falling scores, `<|endoftext|>` `<|assistant|>` `<|placeholder1|>` `<|system|>` `<|end|>` `<|user|>`,
/// and one row of padding.
pub fn phi3(pieces: &[&str]) -> Metadata {
    let scored: Vec<_> = pieces
        .iter()
        .enumerate()
        .map(|(i, &p)| (p, -(i as f32)))
        .collect();
    phi3_scored(&scored)
}

/// As [`phi3`], with scores.
pub fn phi3_scored(pieces: &[(&str, f32)]) -> Metadata {
    let mut tokens: Vec<(String, i64, f32)> = vec![
        ("<unk>".into(), 2, 0.0),
        ("<s>".into(), 3, 0.0),
        ("</s>".into(), 4, 0.0),
    ];
    tokens.extend((0..=255u8).map(|b| (format!("<0x{b:02X}>"), 6, 0.0)));
    tokens.extend(pieces.iter().map(|&(p, score)| (p.to_string(), 1, score)));
    let endoftext = tokens.len();
    for special in [
        "<|endoftext|>",
        "<|assistant|>",
        "<|placeholder1|>",
        "<|system|>",
        "<|end|>",
        "<|user|>",
    ] {
        tokens.push((special.into(), 3, -1000.0));
    }
    tokens.push(("[PAD]".into(), 2, -10000.0));
    metadata(vec![
        ("model", Value::Str("llama".into())),
        ("pre", Value::Str("default".into())),
        ("tokens", strs(tokens.iter().map(|t| &t.0))),
        ("scores", floats(tokens.iter().map(|t| t.2))),
        ("token_type", ints(tokens.iter().map(|t| t.1))),
        ("bos_token_id", Value::Int(1)),
        ("eos_token_id", Value::Int(endoftext as i128)),
        ("unknown_token_id", Value::Int(0)),
        ("padding_token_id", Value::Int(endoftext as i128)),
        ("add_bos_token", Value::Bool(true)),
    ])
}

/// A byte-level vocabulary: 256 bytes, the results of `merges`, then `specials`.
pub fn gpt2(pre: &str, merges: &[(String, String)], specials: &[&str]) -> Metadata {
    let mut tokens: Vec<String> = CHARS.iter().map(char::to_string).collect();
    for (l, r) in merges {
        let joined = format!("{l}{r}");
        if !tokens.contains(&joined) {
            tokens.push(joined);
        }
    }
    let n_plain = tokens.len();
    tokens.extend(specials.iter().map(|s| s.to_string()));
    let types: Vec<i64> = (0..tokens.len())
        .map(|i| if i < n_plain { 1 } else { 3 })
        .collect();
    metadata(vec![
        ("model", Value::Str("gpt2".into())),
        ("pre", Value::Str(pre.into())),
        ("tokens", strs(tokens)),
        ("token_type", ints(types)),
        (
            "merges",
            strs(merges.iter().map(|(l, r)| format!("{l} {r}"))),
        ),
        ("eos_token_id", Value::Int(n_plain as i128)),
    ])
}

/// The `tokenizer.json` of a GGUF vocabulary. `split` is the word pattern of a byte-level one.
pub fn tokenizer_json(metadata: &Metadata, split: &str) -> Json {
    let tokens = metadata.strs("tokenizer.ggml.tokens").unwrap().unwrap();
    let types = metadata.ints("tokenizer.ggml.token_type").unwrap().unwrap();
    let llama = metadata.str("tokenizer.ggml.model").unwrap() == Some("llama");
    let phi4 = tokens.iter().any(|t| t == "<|im_sep|>");
    let vocab: serde_json::Map<String, Json> = tokens
        .iter()
        .enumerate()
        .filter(|(_, t)| *t != "[PAD]")
        .map(|(i, t)| (t.clone(), json!(i)))
        .collect();
    let added: Vec<Json> = (0..tokens.len())
        .filter(|&i| vocab.contains_key(&tokens[i]) && matches!(types[i], 2..=4))
        .map(|i| {
            let piece = tokens[i].as_str();
            let rstrip = phi4 || llama && !matches!(piece, "<s>" | "<unk>" | "<|endoftext|>");
            json!({"id": i, "content": piece, "single_word": false, "lstrip": phi4, "rstrip": rstrip,
                   "normalized": false, "special": types[i] != 4})
        })
        .collect();
    let (normalizer, pre_tokenizer, decoder, merges) = if llama {
        (
            json!({"type": "Sequence", "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}),
            Json::Null,
            json!({"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"}, {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}),
            merges_of_scores(metadata, tokens, &vocab),
        )
    } else {
        (
            Json::Null,
            json!({"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": split}, "behavior": "Isolated", "invert": false},
                {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]}),
            json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
            metadata
                .strs("tokenizer.ggml.merges")
                .unwrap()
                .unwrap()
                .to_vec(),
        )
    };
    json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": decoder,
        "model": {"type": "BPE", "dropout": null, "unk_token": if llama { json!("<unk>") } else { Json::Null },
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": llama,
            "ignore_merges": false, "vocab": vocab, "merges": merges}})
}

/// Every way to make a piece of two others, best score first, as `transformers`'
/// `SentencePieceExtractor` finds merges.
fn merges_of_scores(
    metadata: &Metadata,
    tokens: &[String],
    vocab: &serde_json::Map<String, Json>,
) -> Vec<String> {
    let scores = metadata.floats("tokenizer.ggml.scores").unwrap().unwrap();
    let types = metadata.ints("tokenizer.ggml.token_type").unwrap().unwrap();
    let mut merges = Vec::new();
    for (i, token) in tokens.iter().enumerate().filter(|&(i, _)| types[i] == 1) {
        for (at, _) in token.char_indices().skip(1) {
            let (l, r) = token.split_at(at);
            if vocab.contains_key(l) && vocab.contains_key(r) {
                merges.push((scores[i], format!("{l} {r}")));
            }
        }
    }
    merges.sort_by(|a, b| b.0.total_cmp(&a.0));
    merges.into_iter().map(|(_, m)| m).collect()
}

/// A file with `json` in it, removed when dropped.
pub struct JsonFile(pub std::path::PathBuf);

impl JsonFile {
    pub fn new(contents: &[u8]) -> Self {
        static N: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let n = N.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("candlewick-{}-{n}-tokenizer.json", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, contents).unwrap();
        Self(path)
    }
}

impl Drop for JsonFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Random choices, the same in every run.
pub struct Random(ChaCha8Rng);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Less than `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.0.next_u64() % n as u64) as usize
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// Up to `max` of `of`, joined.
    pub fn text<S: AsRef<str>>(&mut self, of: &[S], max: usize) -> String {
        (0..self.below(max + 1))
            .map(|_| self.pick(of).as_ref().to_string())
            .collect()
    }

    /// Up to `max` of `of`, with spaces between.
    pub fn words(&mut self, of: &[&str], max: usize) -> String {
        (0..self.below(max + 1))
            .map(|_| format!("{} ", self.pick(of)))
            .collect()
    }

    /// `text` cut into pieces at random character boundaries, empty ones among them.
    pub fn chunks<'a>(&mut self, text: &'a str) -> Vec<&'a str> {
        let mut chunks = Vec::new();
        let mut from = 0;
        for (at, _) in text.char_indices().chain([(text.len(), ' ')]) {
            if self.below(3) == 0 || at == text.len() {
                chunks.push(&text[from..at]);
                from = at;
            }
        }
        chunks
    }
}
