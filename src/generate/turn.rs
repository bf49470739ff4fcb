//! Whose turn it is to use the engine: first come, first served, one step at a time.
//!
//! A plain mutex would let one thread take the engine again and again, and a thread that waits for it could
//! not be interrupted while another's prompt is being read.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::Duration;

use crate::engine::Interrupt;
use crate::error::{Error, Result};

/// How often a waiting thread looks whether it should stop.
const LOOK_EVERY: Duration = Duration::from_millis(20);

#[derive(Debug, Default)]
struct State {
    next_ticket: u64,
    // The front holds the engine, the rest wait.
    queue: VecDeque<(u64, ThreadId)>,
}

/// The queue in front of one engine.
#[derive(Debug, Default)]
pub(super) struct Turns {
    state: Mutex<State>,
    changed: Condvar,
}

/// Holds the engine until dropped.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    ticket: u64,
}

impl Turns {
    /// Waits for the engine; an interruption gives up the place in the queue.
    pub(super) fn take(&self, interrupt: Interrupt) -> Result<Turn<'_>> {
        let me = std::thread::current().id();
        let mut state = self.lock();
        if state.queue.front().is_some_and(|&(_, holder)| holder == me) {
            return Err(reentered());
        }
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.queue.push_back((ticket, me));
        // From here on, dropping `turn` leaves the queue.
        let turn = Turn {
            turns: self,
            ticket,
        };
        while state.queue.front() != Some(&(ticket, me)) {
            state = self
                .changed
                .wait_timeout(state, LOOK_EVERY)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            if state.queue.front() != Some(&(ticket, me)) {
                drop(state);
                interrupt()?;
                state = self.lock();
            }
        }
        drop(state);
        Ok(turn)
    }

    // The queue is consistent after every statement, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread that is in a step and asks for another would wait for itself for ever.
pub fn reentered() -> Error {
    Error::InvalidRequest(
        "this generator is in the middle of a step in this very thread: a signal handler cannot generate text, only \
         cancel it"
            .into(),
    )
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.lock().queue.retain(|&(t, _)| t != self.ticket);
        self.turns.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_served_in_order_and_alone() {
        let (turns, inside) = (Turns::default(), std::sync::atomic::AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let _turn = turns.take(&mut || Ok(())).expect("never interrupted");
                        assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    }
                });
            }
        });
        assert!(turns.lock().queue.is_empty());
    }

    #[test]
    fn a_thread_does_not_wait_for_itself() {
        let turns = Turns::default();
        let _held = turns.take(&mut || Ok(())).expect("free");
        let again = turns.take(&mut || Ok(())).err();
        assert!(matches!(again, Some(Error::InvalidRequest(_))), "{again:?}");
    }

    #[test]
    fn an_interrupted_wait_leaves_the_queue() {
        let turns = Turns::default();
        let held = turns.take(&mut || Ok(())).expect("free");
        std::thread::scope(|scope| {
            let other = scope.spawn(|| turns.take(&mut || Err(Error::Interrupted)).err());
            assert!(matches!(
                other.join().expect("no panic"),
                Some(Error::Interrupted)
            ));
        });
        drop(held);
        turns
            .take(&mut || Err(Error::Interrupted))
            .expect("free again, without waiting");
    }
}
