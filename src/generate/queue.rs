//! What waits for a pass, and what of it the next one takes.
//!
//! - First come, first served: by the age of the stream, so that the first ones are done, and give their memory back,
//!   before many are begun.
//! - A long prompt does not freeze the others: of prompts a pass takes [`CHUNK`] tokens in all or, where others want
//!   their next token, [`CHUNK_BESIDE`]; and a quarter of that is for the prompt that has the least left. Prompts that
//!   are no longer than that are read whole, [`CHUNK`] tokens of them.
//! - What several prompts begin with is read once: one of them reads it, the others wait for that and go on from there.
//! - Where memory is short, the youngest begin again later.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::kept::{Kept, Pin, common};
use crate::engine::{CHUNK, Sequence};
use crate::error::Error;

/// Prompt tokens of a pass in which others want their next token.
pub(super) const CHUNK_BESIDE: usize = 32;

/// Streams in a pass. More of them would not make the tokens of all come faster, only those of each slower.
pub(super) const AT_ONCE: usize = 32;

/// One stream among others; the older, the smaller.
pub(super) type Id = u64;

/// Tokens that a stream wants run.
pub(super) struct Job {
    pub sequence: Box<dyn Sequence>,
    pub tokens: Vec<u32>,
    /// Whether they are all that the sequence is to have: a text from its beginning, that others can share.
    pub is_prompt: bool,
    /// How many of them the sequence has.
    pub n_done: usize,
    /// And how many of those others have run.
    pub n_cached: usize,
    /// Of the last tokens. More than one is never split over passes.
    pub n_logits: usize,
    /// As [`Sequence::forward`] leaves them.
    pub logits: Vec<f32>,
    /// The conversation that holds on to a prompt.
    pub pin: Option<Arc<Pin>>,
    /// Whether its stream can begin again, with all of its tokens.
    pub can_begin_again: bool,
}

impl Job {
    /// To run `tokens` after those that `sequence` has.
    pub(super) fn new(sequence: Box<dyn Sequence>, tokens: Vec<u32>, n_logits: usize) -> Self {
        Self {
            sequence,
            tokens,
            is_prompt: false,
            n_done: 0,
            n_cached: 0,
            n_logits,
            logits: Vec::new(),
            pin: None,
            can_begin_again: false,
        }
    }

    /// Whether it may be run in parts.
    pub(super) fn is_long(&self) -> bool {
        self.n_logits <= 1 && self.tokens.len() > 1
    }

    /// Keeps the first `n` of its tokens, which its sequence has, for those that begin like them.
    pub(super) fn keep(&self, n: usize, kept: &Kept) {
        if n > 0
            && let Some(fork) = self.sequence.fork(n)
        {
            kept.insert(self.tokens[..n].to_vec(), fork, self.pin.as_deref());
        }
    }

    pub(super) fn n_left(&self) -> usize {
        self.tokens.len() - self.n_done
    }

    /// Tokens at the beginning that `other` has too, but for its last one, whose logits it wants.
    fn common(&self, other: &Self) -> usize {
        if !(self.is_prompt && other.is_prompt && self.sequence.suits(other.tokens.len())) {
            return 0;
        }
        common(&self.tokens, &other.tokens[..other.tokens.len() - 1])
    }

    /// Whether it will have read some of what `other` wants read, and has not yet.
    fn reads_for(&self, other: &Self) -> bool {
        self.common(other) > self.n_done.max(other.n_done)
    }

    /// Gives `other` what it has read of their common beginning, if that is all of it or no more is to be expected.
    fn lend(&self, other: &mut Self, is_last: bool) {
        let n = self.common(other);
        if self.n_done.min(n) <= other.n_done || (self.n_done < n && !is_last) {
            return;
        }
        other.go_on_from(self.sequence.as_ref(), self.n_done.min(n));
    }

    /// Takes the first `n` tokens of another sequence instead of what it has.
    fn go_on_from(&mut self, sequence: &dyn Sequence, n: usize) {
        if let Some(fork) = sequence.fork(n) {
            self.take_over(fork, n);
        }
    }

    fn take_over(&mut self, mut sequence: Box<dyn Sequence>, n: usize) {
        sequence.announce(self.tokens.len());
        self.sequence = sequence;
        self.n_cached += n - self.n_done;
        self.n_done = n;
    }
}

pub(super) struct Waiting {
    pub id: Id,
    pub job: Job,
    /// Nobody's thread waits for it: see `Scheduler::drive`.
    pub driven: bool,
    /// Whether it has been looked for among what is kept.
    pub sought: bool,
    /// It waits for memory.
    pub short: Option<Short>,
}

pub(super) struct Short {
    pub since: Instant,
    /// What it lacks.
    pub error: Error,
}

/// Jobs, those of older streams first.
#[derive(Default)]
pub(super) struct Queue(VecDeque<Waiting>);

impl Queue {
    pub(super) fn push(&mut self, mut waiting: Waiting) {
        for other in &self.0 {
            // A younger one will not be waited for.
            other.job.lend(&mut waiting.job, other.id > waiting.id);
        }
        self.put_back(waiting);
    }

    /// Puts one back that was taken.
    pub(super) fn put_back(&mut self, waiting: Waiting) {
        let at = self.0.partition_point(|other| other.id < waiting.id);
        self.0.insert(at, waiting);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Waiting> {
        self.0.iter()
    }

    pub(super) fn has(&self, id: Id) -> bool {
        self.position(id).is_some()
    }

    fn position(&self, id: Id) -> Option<usize> {
        self.0.binary_search_by_key(&id, |waiting| waiting.id).ok()
    }

    /// Takes the job of `id` out; others keep what it has read for them.
    pub(super) fn remove(&mut self, id: Id) -> Option<Waiting> {
        let waiting = self.0.remove(self.position(id)?)?;
        self.borrow_from(&waiting, true);
        Some(waiting)
    }

    /// Whether a pass would have something to run.
    pub(super) fn is_runnable(&self) -> bool {
        self.0.iter().any(|waiting| waiting.short.is_none())
    }

    /// Those that wait for memory.
    pub(super) fn short(&self) -> Vec<Id> {
        let short = self.0.iter().filter(|waiting| waiting.short.is_some());
        short.map(|waiting| waiting.id).collect()
    }

    pub(super) fn get_mut(&mut self, id: Id) -> Option<&mut Waiting> {
        self.position(id).map(|i| &mut self.0[i])
    }

    /// There may be memory again.
    pub(super) fn try_again(&mut self) {
        for waiting in &mut self.0 {
            waiting.short = None;
        }
    }

    /// Takes out the youngest one after `id` that has keys and values and can begin again.
    pub(super) fn evict_after(&mut self, id: Id) -> Option<Waiting> {
        let can_go = |waiting: &Waiting| {
            waiting.id > id && waiting.job.can_begin_again && waiting.job.sequence.n_past() > 0
        };
        let i = self.0.iter().rposition(can_go)?;
        self.0.remove(i)
    }

    /// Gives what `reader` has read to those that wait for it, all of it if nothing more `is_last`.
    pub(super) fn borrow_from(&mut self, reader: &Waiting, is_last: bool) {
        for other in &mut self.0 {
            // An older one will not wait for it.
            let is_last = is_last || other.id < reader.id;
            reader.job.lend(&mut other.job, is_last);
        }
    }

    /// The jobs of the next pass, each with how many of its tokens run; one only where passes are not `shared`.
    pub(super) fn take(&mut self, shared: bool, kept: &Kept) -> Vec<(Waiting, usize)> {
        let mut chosen: Vec<Waiting> = Vec::new();
        let mut rest = VecDeque::new();
        let at_once = if shared { AT_ONCE } else { 1 };
        while let Some(mut waiting) = self.0.pop_front() {
            if chosen.len() == at_once {
                rest.push_back(waiting);
                break;
            }
            if waiting.short.is_some() {
                rest.push_back(waiting);
                continue;
            }
            if !waiting.sought && waiting.job.is_prompt {
                waiting.sought = true;
                let resumed = kept.resume(&waiting.job.tokens);
                if let Some((sequence, n)) = resumed.filter(|&(_, n)| n > waiting.job.n_done) {
                    waiting.job.take_over(sequence, n);
                }
            }
            if shared && chosen.iter().any(|c| c.job.reads_for(&waiting.job)) {
                rest.push_back(waiting);
            } else {
                chosen.push(waiting);
            }
        }
        rest.append(&mut self.0);
        self.0 = rest;
        let shares = shares(&chosen);
        let mut taken = Vec::with_capacity(chosen.len());
        for (waiting, n) in chosen.into_iter().zip(shares) {
            if n > 0 {
                taken.push((waiting, n));
            } else {
                self.put_back(waiting);
            }
        }
        taken
    }
}

/// How many tokens of each run.
fn shares(chosen: &[Waiting]) -> Vec<usize> {
    let mut shares: Vec<usize> = chosen
        .iter()
        .map(|waiting| {
            if waiting.job.is_long() {
                0
            } else {
                waiting.job.n_left()
            }
        })
        .collect();
    let beside = shares.iter().any(|&n| n > 0);
    let mut room = if beside { CHUNK_BESIDE } else { CHUNK };
    let mut long: Vec<usize> = (0..chosen.len())
        .filter(|&i| chosen[i].job.is_long())
        .collect();
    if beside {
        // What is short is read at once: one longer pass is less than many that are somewhat longer. Measured with eight
        // streams that start together (Zen 5, Phi-3-mini): p95 between tokens 1.8 times one stream's, and 2.8 without.
        let mut most = CHUNK;
        long.retain(|&i| {
            let n = chosen[i].job.n_left();
            let fits = n <= CHUNK_BESIDE && n <= most;
            if fits {
                shares[i] = n;
                most -= n;
            }
            !fits
        });
    }
    let shortest = long.iter().copied().min_by_key(|&i| chosen[i].job.n_left());
    if let Some(i) = shortest {
        shares[i] = chosen[i].job.n_left().min(room / 4);
        room -= shares[i];
    }
    for i in long {
        let more = (chosen[i].job.n_left() - shares[i]).min(room);
        shares[i] += more;
        room -= more;
    }
    shares
}
