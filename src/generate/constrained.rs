//! A request's constraint meets the model's vocabulary.

use std::sync::{Arc, OnceLock};

use super::request::Request;
use crate::error::{Error, Result};
use crate::sample::{Grammars, Matcher, TokenTable};
use crate::text::{Detokenizer, Tokenizer};

/// A model's vocabulary as grammars need it, sorted when the first request asks for it.
#[derive(Debug, Default)]
pub(super) struct Vocabulary(OnceLock<Result<Arc<Grammars>>>);

impl Vocabulary {
    /// What watches over the text of `request`, if it has a constraint; `detokenizer` stands after the prompt.
    pub(super) fn matcher(
        &self,
        tokenizer: &Tokenizer,
        request: &Request,
        detokenizer: &Detokenizer,
    ) -> Result<Option<Matcher>> {
        let Some(constraint) = &request.constraint else {
            return Ok(None);
        };
        if request.ignore_eos {
            return Err(Error::InvalidRequest(
                "ignore_eos goes on past the end, and a grammar says where the end is: give one of them".into(),
            ));
        }
        if tokenizer.joins_with_spaces() {
            return Err(Error::InvalidRequest(
                "this tokenizer.json has no decoder, so tokens are joined with spaces and no grammar can hold: use the \
                 vocabulary of the GGUF"
                    .into(),
            ));
        }
        if detokenizer.is_inside_character() {
            return Err(Error::InvalidRequest(
                "the prompt ends inside a character, and a grammar cannot begin there: end it with a whole one".into(),
            ));
        }
        let grammars = self
            .0
            .get_or_init(|| Grammars::new(token_table(tokenizer)).map(Arc::new));
        let mut matcher = grammars
            .as_ref()
            .map_err(Clone::clone)?
            .matcher(constraint, detokenizer.is_at_start())?;
        // Control tokens that the request stops at end the text as the model's own do.
        let stops = request.stop_token_ids.iter().copied();
        matcher.add_ends(stops.filter(|&id| tokenizer.text_bytes(id).is_empty()));
        Ok(Some(matcher))
    }
}

/// The bytes of a tokenizer's tokens, as grammars want them.
pub fn token_table(tokenizer: &Tokenizer) -> TokenTable {
    let ids = 0..tokenizer.vocab_size() as u32;
    let altered = ids.clone().filter_map(|id| {
        let first = tokenizer.first_bytes(id);
        (*first != *tokenizer.text_bytes(id)).then(|| (id, first.into_owned().into()))
    });
    TokenTable {
        first: altered.collect(),
        bytes: ids.map(|id| tokenizer.text_bytes(id).into()).collect(),
        ends: tokenizer.eos_ids().to_vec(),
    }
}
