//! Keys and values of texts that were read or written: a prompt that begins like one of them goes on from there.
//!
//! What a stream has read is kept when its prompt has been read and when it ends, so that a conversation pays for each
//! token once and many prompts with one beginning for that once. Sequences share the pages they have in common. Together
//! they take no more memory than one sequence of the whole context, and no more than they leave to everybody else: what
//! was not used for the longest time goes first, and what a conversation holds on to last.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::engine::Sequence;
use crate::memory;

struct Entry {
    id: u64,
    ids: Vec<u32>,
    sequence: Box<dyn Sequence>,
    // Conversations that hold on to it
    pins: usize,
    // When it was used last, in uses of any
    used: u64,
}

impl Entry {
    /// Whether it has all that `other` has.
    fn covers(&self, ids: &[u32], other: &dyn Sequence) -> bool {
        let rotated = |sequence: &dyn Sequence| sequence.kv().map(|(extent, _)| extent.regime);
        self.ids.starts_with(ids)
            && rotated(self.sequence.as_ref()) == rotated(other)
            && self.sequence.fork(ids.len()).is_some()
    }
}

#[derive(Default)]
struct State {
    entries: Vec<Entry>,
    clock: u64,
}

impl State {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn entry(&mut self, id: u64) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|e| e.id == id)
    }

    /// Takes out what was not used for the longest time, pinned ones last.
    fn oldest(&mut self) -> Option<Entry> {
        let entries = self.entries.iter().enumerate();
        let (i, _) = entries.min_by_key(|(_, e)| (e.pins > 0, e.used))?;
        Some(self.entries.swap_remove(i))
    }

    /// Takes out those that `id` covers and nobody holds on to.
    fn covered_by(&mut self, id: u64) -> Vec<Entry> {
        let Some(i) = self.entries.iter().position(|e| e.id == id) else {
            return Vec::new();
        };
        let cover = self.entries.swap_remove(i);
        let gone = |e: &mut Entry| e.pins == 0 && cover.covers(&e.ids, e.sequence.as_ref());
        let covered = self.entries.extract_if(.., gone).collect();
        self.entries.push(cover);
        covered
    }

    /// Takes out `id` if nobody holds on to it and another one covers it.
    fn if_covered(&mut self, id: u64) -> Option<Entry> {
        let i = self.entries.iter().position(|e| e.id == id)?;
        let entry = &self.entries[i];
        let is_cover = |e: &Entry| e.id != id && e.covers(&entry.ids, entry.sequence.as_ref());
        let covered = entry.pins == 0 && self.entries.iter().any(is_cover);
        covered.then(|| self.entries.swap_remove(i))
    }
}

/// The texts of one model, each with its sequence.
pub(super) struct Kept {
    state: Mutex<State>,
    max_bytes: u64,
    pid: u32,
}

impl Kept {
    pub(super) fn new(max_bytes: u64) -> Self {
        Self {
            state: Mutex::default(),
            max_bytes,
            pid: std::process::id(),
        }
    }

    /// None in a forked child, where another thread of the parent's may hold the lock for ever.
    fn lock(&self) -> Option<MutexGuard<'_, State>> {
        // Nothing that can panic leaves the state half changed.
        (std::process::id() == self.pid)
            .then(|| self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A sequence that has as many of the first tokens of `prompt` as there are anywhere, and how many: all but one at
    /// most, since somebody must give the next token's logits.
    pub(super) fn resume(&self, prompt: &[u32]) -> Option<(Box<dyn Sequence>, usize)> {
        let most = prompt.len().checked_sub(1)?;
        let mut state = self.lock()?;
        let mut found: Vec<(usize, usize)> = state
            .entries
            .iter()
            .enumerate()
            .filter(|(_, e)| e.sequence.suits(prompt.len()))
            .map(|(i, e)| (common(&e.ids, &prompt[..most]), i))
            .filter(|&(n, _)| n > 0)
            .collect();
        found.sort_unstable_by_key(|&(n, _)| std::cmp::Reverse(n));
        let (n, i, mut sequence) = found
            .into_iter()
            .find_map(|(n, i)| Some((n, i, state.entries[i].sequence.fork(n)?)))?;
        let used = state.tick();
        state.entries[i].used = used;
        sequence.announce(prompt.len());
        Some((sequence, n))
    }

    /// Keeps `sequence`, which has run `ids`; `pin` then holds on to it and no longer to what it held before.
    pub(super) fn insert(&self, ids: Vec<u32>, sequence: Box<dyn Sequence>, pin: Option<&Pin>) {
        let Some(mut state) = self.lock() else { return };
        let used = state.tick();
        let there = state
            .entries
            .iter_mut()
            .find(|e| e.covers(&ids, sequence.as_ref()));
        let id = if let Some(entry) = there {
            entry.used = used;
            entry.id
        } else {
            state.entries.push(Entry {
                id: used,
                ids,
                sequence,
                pins: 0,
                used,
            });
            used
        };
        let released = pin.and_then(|pin| pin.hold(&mut state, Some(id)));
        let mut gone = state.covered_by(id);
        gone.extend(released);
        while state.entries.len() > 1 && bytes(&state.entries) > self.max_bytes {
            gone.extend(state.oldest());
        }
        drop(state);
        // Giving memory back takes a moment, in which others need not wait.
        drop(gone);
        // The last one takes what its stream had taken, which was there: a long conversation goes on.
        self.leave_room(1);
    }

    /// Gives up what takes more memory than is still available, but for the last `n`.
    pub(super) fn leave_room(&self, n: usize) {
        let is_short = |state: &State| {
            state.entries.len() > n
                && memory::available().is_some_and(|left| left < bytes(&state.entries))
        };
        while let Some(oldest) = self
            .lock()
            .and_then(|mut state| is_short(&state).then(|| state.oldest()))
        {
            drop(oldest);
        }
    }

    /// Gives one up, because memory is short; false when there is none.
    pub(super) fn give_up_one(&self) -> bool {
        let oldest = self.lock().and_then(|mut state| state.oldest());
        oldest.is_some()
    }

    /// Gives all of them up.
    pub(super) fn clear(&self) {
        let entries = self.lock().map(|mut s| std::mem::take(&mut s.entries));
        drop(entries);
    }

    /// Bytes of keys and values that are kept.
    pub(super) fn bytes(&self) -> u64 {
        self.lock().map_or(0, |state| bytes(&state.entries))
    }
}

/// Bytes of all pages, each of them once.
fn bytes(entries: &[Entry]) -> u64 {
    let pages = entries.iter().filter_map(|e| e.sequence.kv());
    let pages: HashMap<*const u8, usize> = pages
        .flat_map(|(_, pages)| pages)
        .map(|page| (page.as_ptr(), page.len()))
        .collect();
    pages.values().map(|&n| n as u64).sum()
}

/// Tokens at the beginning that both have.
pub(super) fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// What a conversation holds on to: the last thing it read or wrote goes when nothing else is left to go.
pub struct Pin {
    kept: Arc<Kept>,
    // Changed under the lock of `kept` alone
    entry: Mutex<Option<u64>>,
}

impl Pin {
    pub(super) fn new(kept: Arc<Kept>) -> Self {
        Self {
            kept,
            entry: Mutex::new(None),
        }
    }

    /// Another conversation with the same past.
    pub fn fork(&self) -> Self {
        let fork = Self::new(self.kept.clone());
        if let Some(mut state) = self.kept.lock() {
            let entry = *self.entry.lock().unwrap_or_else(PoisonError::into_inner);
            fork.hold(&mut state, entry);
        }
        fork
    }

    /// Holds on to `id` instead of what it held; gives what nobody needs any more.
    fn hold(&self, state: &mut State, id: Option<u64>) -> Option<Entry> {
        let mut entry = self.entry.lock().unwrap_or_else(PoisonError::into_inner);
        let before = entry.take();
        // Either may have been given up since.
        if let Some(now) = id.and_then(|id| state.entry(id)) {
            now.pins += 1;
            *entry = id;
        }
        let before = before.and_then(|id| state.entry(id))?;
        before.pins -= 1;
        let id = before.id;
        state.if_covered(id)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        if let Some(mut state) = self.kept.lock() {
            let released = self.hold(&mut state, None);
            drop(state);
            drop(released);
        }
    }
}
