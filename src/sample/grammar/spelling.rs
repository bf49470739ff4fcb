//! The fewest tokens that spell a text.

use llguidance::toktrie::{SimpleVob, TokTrie};

/// A vocabulary.
pub(super) struct Spelling<'a> {
    pub tokens: &'a TokTrie,
    /// Tokens that have other bytes at the start of a text, and those.
    pub altered: &'a SimpleVob,
    pub first: &'a TokTrie,
}

impl Spelling<'_> {
    /// `None` where the vocabulary lacks the letters.
    pub(super) fn shortest(&self, text: &[u8], at_start: bool) -> Option<Vec<u32>> {
        // By place: how many tokens the rest needs, and the first of them with its length
        let mut best: Vec<Option<(usize, u32, usize)>> = vec![None; text.len() + 1];
        best[text.len()] = Some((0, 0, 0));
        for place in (0..text.len()).rev() {
            let begins = at_start && place == 0;
            let mut take = |id: u32, length: usize| {
                if let Some((rest, ..)) = best[place + length]
                    && best[place].is_none_or(|(n, ..)| rest + 1 < n)
                {
                    best[place] = Some((rest + 1, id, length));
                }
            };
            each_token(self.tokens, &text[place..], |id, length| {
                if !(begins && self.altered.is_allowed(id)) {
                    take(id, length);
                }
            });
            if begins {
                each_token(self.first, text, take);
            }
        }
        let mut ids = Vec::new();
        let mut place = 0;
        while place < text.len() {
            let (_, id, length) = best[place]?;
            ids.push(id);
            place += length;
        }
        Some(ids)
    }
}

/// The tokens that `text` begins with, and their lengths.
fn each_token(trie: &TokTrie, text: &[u8], mut found: impl FnMut(u32, usize)) {
    let mut node = trie.root();
    for (i, &byte) in text.iter().enumerate() {
        let Some(child) = trie.child_at_byte(node, byte) else {
            return;
        };
        node = child;
        if let Some(id) = node.token_id() {
            found(id, i + 1);
        }
    }
}
