//! Byte-pair merging: of all adjacent pairs the best-ranked is joined first, ties from the left.
//!
//! ```text
//! queue every adjacent pair that has a merge
//! while there is a best pair in the queue:
//!     skip it if one of its halves has changed since
//!     join it into its left half; queue the two pairs it now forms
//! ```
//!
//! One engine for both vocabularies: `spm.rs` ranks a pair by the score of the piece it makes,
//! `bpe.rs` by its line in the merge list. A heap and a linked list keep it O(n log n): a megabyte
//! without a space takes no more per byte than a sentence. As llama.cpp's `llm_tokenizer_spm_session`
//! and `tokenizers`' `Word::merge_all` do it; no code is shared with either.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// No id, or no neighbour.
pub const NONE: u32 = u32::MAX;

/// A run of the text that is one token so far.
#[derive(Debug, Clone, Copy)]
pub struct Symbol {
    /// Where it starts in the text, in bytes.
    pub start: u32,
    /// Bytes; 0 once it has been joined into its left neighbour.
    pub len: u32,
    /// Its id, or [`NONE`] when the vocabulary lacks it.
    pub id: u32,
    prev: u32,
    next: u32,
}

impl Symbol {
    /// The bytes of the text that it covers.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.start as usize..(self.start + self.len) as usize
    }
}

/// A queued pair; `order` is the rank, then the left index, so that the smallest goes first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    order: u64,
    len: u32,
    id: u32,
}

/// The working memory, to be used again for word after word.
#[derive(Debug, Default)]
pub struct Merger {
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Reverse<Pair>>,
}

impl Merger {
    /// Forgets the last word.
    pub fn clear(&mut self) {
        self.symbols.clear();
        self.queue.clear();
    }

    /// Appends a symbol of `len` bytes to the word; `start` is where it begins in the text.
    pub fn push(&mut self, start: usize, len: usize, id: u32) {
        let at = self.symbols.len() as u32;
        if let Some(last) = self.symbols.last_mut() {
            last.next = at;
        }
        self.symbols.push(Symbol {
            start: start as u32,
            len: len as u32,
            id,
            prev: at.wrapping_sub(1),
            next: NONE,
        });
    }

    /// Merges until nothing merges. `lookup` gives the rank (lower is sooner) and id of the piece
    /// that two neighbours make, if they make one.
    pub fn merge(&mut self, lookup: impl Fn(&Symbol, &Symbol) -> Option<(u32, u32)>) {
        for right in 1..self.symbols.len() as u32 {
            self.consider(right - 1, right, &lookup);
        }
        while let Some(Reverse(pair)) = self.queue.pop() {
            let left = pair.order as u32;
            let l = self.symbols[left as usize];
            if l.len == 0 || l.next == NONE {
                continue;
            }
            let r = self.symbols[l.next as usize];
            // Both halves only ever grow, so an equal sum means that neither has changed.
            if l.len + r.len != pair.len {
                continue;
            }
            self.symbols[l.next as usize].len = 0;
            let joined = &mut self.symbols[left as usize];
            joined.len = pair.len;
            joined.id = pair.id;
            joined.next = r.next;
            if r.next != NONE {
                self.symbols[r.next as usize].prev = left;
                self.consider(left, r.next, &lookup);
            }
            if l.prev != NONE {
                self.consider(l.prev, left, &lookup);
            }
        }
    }

    /// The tokens, from left to right.
    pub fn symbols(&self) -> impl Iterator<Item = &Symbol> {
        self.symbols.iter().filter(|s| s.len != 0)
    }

    fn consider(
        &mut self,
        left: u32,
        right: u32,
        lookup: &impl Fn(&Symbol, &Symbol) -> Option<(u32, u32)>,
    ) {
        let (l, r) = (&self.symbols[left as usize], &self.symbols[right as usize]);
        if let Some((rank, id)) = lookup(l, r) {
            self.queue.push(Reverse(Pair {
                order: u64::from(rank) << 32 | u64::from(left),
                len: l.len + r.len,
                id,
            }));
        }
    }
}
