//! The ids of a whole prompt: its text, and BOS exactly once.

use super::tokenizer::Tokenizer;
use crate::error::Result;

impl Tokenizer {
    /// The ids of a prompt, whether a template wrote it or a person. BOS goes in front if the file
    /// asks for it and the text does not begin with it already, white space aside, so that a template
    /// that writes `<s>` and a file that adds it make one BOS between them.
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = self.encode(text)?;
        if self.add_bos()
            && let Some(bos) = self.bos()
            && !self
                .piece(bos)
                .is_some_and(|piece| text.trim_start().starts_with(piece))
        {
            ids.insert(0, bos);
        }
        Ok(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{phi3, with};
    use super::*;
    use crate::gguf::Value;

    #[test]
    fn bos_appears_once() {
        let asks = phi3(&["▁", "a"]);
        let does_not = with(&asks, "add_bos_token", Some(Value::Bool(false)));
        for (metadata, text, ids) in [
            (&asks, "a", &[1, 259, 260][..]),
            (&asks, "<s>a", &[1, 259, 260]),
            (&asks, "", &[1]),
            (&asks, "\n <s>a", &[259, 13, 259, 1, 259, 260]),
            (&does_not, "a", &[259, 260]),
            (&does_not, "<s>a", &[1, 259, 260]),
        ] {
            let tokenizer = Tokenizer::from_gguf(metadata).unwrap();
            assert_eq!(tokenizer.encode_prompt(text).unwrap(), ids, "{text:?}");
        }
    }
}
