//! Text in, tokens out, and back: vocabularies, tokenizer, detokenizer, stop strings, chat template.
//!
//! A [`Tokenizer`] comes from a GGUF's own vocabulary or from a `tokenizer.json` and is the same to
//! its users either way. [`Detokenizer`] turns generated ids into text as they come, [`StopStrings`]
//! ends that text, and [`ChatTemplate`] writes the prompt. Nothing here knows models or engines.

mod bpe;
mod decoder;
mod detokenizer;
mod dialect;
mod ends;
mod json;
mod keys;
mod merge;
mod pieces;
mod prompt;
mod special;
mod spm;
mod stop;
mod template;
#[cfg(test)]
mod testing;
mod tokenizer;
mod vocab;
mod words;

pub use detokenizer::Detokenizer;
pub use keys::audit;
pub use stop::{StopStrings, Stopped};
pub use template::{ChatTemplate, Message, PHI3_TEMPLATE};
pub use tokenizer::Tokenizer;
