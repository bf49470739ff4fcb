//! How a vocabulary spells a text that somebody names, to forbid or to notice it; and what single tokens look like.

use super::detokenizer::Decoding;
use super::tokenizer::Tokenizer;
use crate::error::Result;

// llama.cpp's limits for sequence breakers.
const MAX_BYTES: usize = 40;
const MAX_TAIL: usize = 20;

impl Tokenizer {
    /// The ids of `text` where a text begins, after a space and after anything else, each once.
    pub fn spellings(&self, text: &str) -> Result<Vec<Vec<u32>>> {
        let mut spellings = vec![self.encode(text)?];
        let spaced = self.encode(&format!(" {text}"))?;
        // A space of its own before the word says nothing new.
        if !spaced.ends_with(&spellings[0]) {
            spellings.push(spaced);
        }
        let inside = self.continued(text)?;
        if !spellings.contains(&inside) {
            spellings.push(inside);
        }
        Ok(spellings)
    }

    /// All ways in which tokens come to hold `text`, each a token and those after it, as llama.cpp finds the places
    /// that DRY's sequence breakers have: the token holds it, or ends with its beginning and the rest follows. (Where a
    /// text begins with a space of its own llama.cpp expects one before the rest, too, and so never finds it.)
    pub fn occurrences(&self, text: &str) -> Result<Vec<Vec<u32>>> {
        let end = (0..=text.len().min(MAX_BYTES))
            .rev()
            .find(|&n| text.is_char_boundary(n));
        let text = &text[..end.unwrap_or(0)];
        let mut tails: Vec<Option<Vec<u32>>> = vec![None; text.len()];
        let mut found: Vec<Vec<u32>> = Vec::new();
        for id in 0..self.vocab_size() as u32 {
            let bytes = if self.is_special(id) {
                self.piece(id).unwrap_or_default().as_bytes()
            } else {
                self.token_bytes(id)
            };
            if bytes
                .windows(text.len().max(1))
                .any(|window| window == text.as_bytes())
            {
                found.push(vec![id]);
                continue;
            }
            for n in 1..text.len().min(bytes.len() + 1) {
                if !text.is_char_boundary(n) || !bytes.ends_with(&text.as_bytes()[..n]) {
                    continue;
                }
                if tails[n].is_none() {
                    let mut tail = self.continued(&text[n..])?;
                    tail.truncate(MAX_TAIL);
                    tails[n] = Some(tail);
                }
                let tail = tails[n].iter().flatten().copied();
                found.push(std::iter::once(id).chain(tail).collect());
            }
        }
        Ok(found)
    }

    /// What `id` looks like by itself: its text, invalid bytes as U+FFFD, or the spelling of a special token.
    pub fn label(&self, id: u32) -> String {
        if self.is_special(id) {
            return self.piece(id).unwrap_or_default().to_owned();
        }
        String::from_utf8_lossy(self.token_bytes(id)).into_owned()
    }

    /// The text that becomes certain with each of `ids`; special tokens by their spelling.
    pub fn texts(&self, ids: &[u32]) -> Vec<String> {
        let mut state = Decoding::default();
        let mut texts: Vec<String> = ids
            .iter()
            .map(|&id| {
                let mut text = String::new();
                state.push(self, id, false, &mut text);
                text
            })
            .collect();
        if let Some(last) = texts.last_mut() {
            state.finish(last);
        }
        texts
    }

    /// The ids of `text` in the middle of a line: without the space that some models put before a text.
    fn continued(&self, text: &str) -> Result<Vec<u32>> {
        let line = self.encode("\n")?;
        let ids = self.encode(&format!("\n{text}"))?;
        match ids.strip_prefix(&line[..]) {
            Some(ids) => Ok(ids.to_vec()),
            // A token goes across the end of the line.
            None => self.encode(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{gpt2, phi3};
    use super::*;

    fn spelled(tokenizer: &Tokenizer, ids: &[Vec<u32>]) -> Vec<String> {
        let piece = |id: &u32| tokenizer.piece(*id).unwrap_or("?");
        ids.iter()
            .map(|ids| ids.iter().map(piece).collect::<Vec<_>>().join("+"))
            .collect()
    }

    #[test]
    fn words_are_spelled_as_a_beginning_and_as_a_continuation() {
        let phi3 = phi3(&["▁ab", "ab", "▁a", "a", "b", "▁"]);
        let tokenizer = Tokenizer::from_gguf(&phi3).unwrap();
        let found = tokenizer.spellings("ab").unwrap();
        assert_eq!(spelled(&tokenizer, &found), ["▁ab", "ab"]);

        let merges = [("a", "b"), ("Ġ", "ab")].map(|(l, r)| (l.to_string(), r.to_string()));
        let tokenizer = Tokenizer::from_gguf(&gpt2("gpt-2", &merges, &["<|endoftext|>"])).unwrap();
        let found = tokenizer.spellings("ab").unwrap();
        assert_eq!(spelled(&tokenizer, &found), ["ab", "Ġab"]);
    }

    #[test]
    fn a_text_is_found_in_and_across_tokens() {
        let phi3 = phi3(&["▁", "x", "y", "z", "ax", "xy", "axyb", "▁x"]);
        let tokenizer = Tokenizer::from_gguf(&phi3).unwrap();
        let mut found = spelled(&tokenizer, &tokenizer.occurrences("xy").unwrap());
        found.sort();
        assert_eq!(found, ["<0x78>+y", "ax+y", "axyb", "x+y", "xy", "▁x+y"]);
        // Special tokens are found by their spelling.
        let found = tokenizer.occurrences("<|end|>").unwrap();
        assert!(spelled(&tokenizer, &found).contains(&"<|end|>".to_string()));
    }
}
