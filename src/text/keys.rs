//! The keys under `tokenizer.ggml.`: what each means to the tokenizer and to the end of an answer.
//!
//! The names are those of the `gguf` package (0.19, `constants.Keys.Tokenizer`) and of llama.cpp's `llama-arch.cpp`.

use crate::error::Result;
use crate::gguf::{Audit, Meaning, Metadata, Neutral};

use Meaning::{Harmless, Off, Refused, Used};

const MEANINGS: &[(&str, Meaning)] = &[
    ("model", Used),
    ("pre", Used),
    ("tokens", Used),
    ("token_type", Used),
    // BERT's kinds of sentences.
    ("token_type_count", Off(Neutral::Number(1.0))),
    ("scores", Used),
    ("merges", Used),
    ("bos_token_id", Used),
    ("eos_token_id", Used),
    ("eot_token_id", Used),
    ("eom_token_id", Used),
    ("unknown_token_id", Used),
    // Tokens that nothing here adds to a text.
    ("seperator_token_id", Harmless),
    ("padding_token_id", Harmless),
    ("mask_token_id", Harmless),
    ("cls_token_id", Harmless),
    ("fim_pre_token_id", Harmless),
    ("fim_suf_token_id", Harmless),
    ("fim_mid_token_id", Harmless),
    ("fim_pad_token_id", Harmless),
    ("fim_rep_token_id", Harmless),
    ("fim_sep_token_id", Harmless),
    ("prefix_token_id", Harmless),
    ("suffix_token_id", Harmless),
    ("middle_token_id", Harmless),
    ("add_bos_token", Used),
    // Would end every prompt, so it is not applied.
    ("add_eos_token", Harmless),
    ("add_sep_token", Off(Neutral::Bool(false))),
    ("add_space_prefix", Used),
    ("remove_extra_whitespaces", Off(Neutral::Bool(false))),
    (
        "precompiled_charsmap",
        Refused("a normalization of the text"),
    ),
];

/// Sorts the file's keys by what they mean. With a `tokenizer.json` none of them but the ids that begin and end texts
/// takes part, and none is refused.
///
/// # Errors
/// `Unsupported`, naming the key, for one that would change the ids in a way that is not known or not done.
pub fn audit(metadata: &Metadata, from_json: bool) -> Result<Audit> {
    let known = |name: &str| MEANINGS.iter().find(|row| row.0 == name).map(|row| row.1);
    Audit::of_keys(metadata, "tokenizer.ggml.", |name| match known(name) {
        _ if from_json && !(name.ends_with("_token_id") || name == "add_bos_token") => {
            Some(Harmless)
        }
        None if from_json => Some(Harmless),
        meaning => meaning,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::Value;

    #[test]
    fn a_key_that_would_change_the_ids_is_refused() {
        for (name, value, words) in [
            (
                "precompiled_charsmap",
                Value::Int(0),
                "asks for a normalization",
            ),
            ("remove_extra_whitespaces", Value::Bool(true), "is true"),
            ("byte_order", Value::Int(1), "is not known"),
        ] {
            let mut metadata = Metadata::default();
            let key = format!("tokenizer.ggml.{name}");
            metadata.insert(key.clone(), value).unwrap();
            let error = audit(&metadata, false).unwrap_err().to_string();
            assert!(error.contains(&key) && error.contains(words), "{error}");
            assert_eq!(audit(&metadata, true).unwrap().harmless, [key]);
        }
    }
}
