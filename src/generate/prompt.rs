//! What a user gives as prompt -> token ids, with BOS exactly once.

use super::model::Model;
use crate::error::{Error, Result};
use crate::text::Message;

/// A prompt.
#[derive(Debug, Clone)]
pub enum Prompt {
    /// One user turn, put through the chat template.
    Text(String),
    /// Text as it is: nothing is added but the BOS that the file asks for.
    Raw(String),
    /// A conversation, put through the chat template.
    Messages(Vec<Message>),
    /// Token ids, taken as they are.
    Ids(Vec<u32>),
}

impl Prompt {
    pub(super) fn encode(self, model: &Model) -> Result<Vec<u32>> {
        let ids = match self {
            Self::Ids(ids) => ids,
            Self::Raw(text) => model.tokenizer.encode_prompt(&text)?,
            Self::Messages(messages) => model
                .tokenizer
                .encode_prompt(&model.apply_chat_template(&messages)?)?,
            Self::Text(text) => {
                if text.is_empty() {
                    return Err(empty("is an empty string"));
                }
                let message = Message::new("user", text);
                model
                    .tokenizer
                    .encode_prompt(&model.apply_chat_template(&[message])?)?
            }
        };
        if ids.is_empty() {
            return Err(empty("has no tokens"));
        }
        let n_vocab = model.config.n_vocab;
        if let Some(id) = ids.iter().find(|&&id| id as usize >= n_vocab) {
            return Err(Error::InvalidRequest(format!(
                "the prompt holds the token id {id}, and the vocabulary has {n_vocab} tokens"
            )));
        }
        Ok(ids)
    }
}

fn empty(what: &str) -> Error {
    Error::InvalidRequest(format!("the prompt {what}: there is nothing to continue"))
}
