//! Which tokens run when: all streams of a model share passes over its weights.
//!
//! A stream that wants tokens run queues a [`Job`]; whoever finds the engine free leads: it takes what waits into one
//! pass, runs it, and hands out the results, its own among them. Reading the weights is most of the work of a pass, so
//! several streams cost little more than one, and what each gets is to the bit what it would get alone
//! (`Engine::forward`). Which jobs a pass takes is the [`Queue`]'s business.
//!
//! - A thread that waits for one job leads and waits in [`Scheduler::run`]; the one that waits for many, in
//!   [`Scheduler::drive`].
//! - Before it leads, a thread waits a moment for those of the last passes that are about to come back. Without that
//!   they would fall apart into groups that take turns, and each would pay for a whole pass.
//! - A leader that is interrupted ends the pass after the layer it is in; the others' jobs are queued again, as if they
//!   had not run. A stream that goes while others run its job goes at once, and loses the sequence; where all of a
//!   pass have gone, it ends after the layer it is in.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use super::kept::Kept;
use super::queue::{Id, Job, Queue, Waiting};
use crate::engine::{Engine, Interrupt, Part};
use crate::error::{Error, Result};

/// How often a waiting thread looks whether it should stop.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What is waited for those that are about to come back, as a share of the last pass, and at most.
const GATHER: f64 = 0.05;
const MOST_GATHER: Duration = Duration::from_millis(20);
const LEAST_GATHER: Duration = Duration::from_micros(100);

/// A job as it comes back, unless somebody else was running it when its stream went, and how it went.
///
/// After a lack of memory or an interruption its sequence has as many of the tokens as have run, after any other error
/// it must not be used.
pub(super) type Ran = (Option<Job>, Result<()>);

/// When a stream last wanted something, and who can bring it back.
struct Seen {
    pass: u64,
    // None where no certain thread does
    thread: Option<ThreadId>,
}

#[derive(Default)]
struct State {
    next_id: Id,
    queue: Queue,
    // Who runs a pass, and whose jobs are in it
    leader: Option<ThreadId>,
    running: Vec<Id>,
    // Whose result nobody will fetch
    left: Vec<Id>,
    // What has run and was not fetched yet: by the threads that wait for it, and by the one that drives
    done: HashMap<Id, Ran>,
    driven: Vec<(Id, Ran)>,
    // The one that drives has something else to do
    woken: bool,
    // Passes so far, and how long and until when others that were in the last one are waited for
    passes: u64,
    gather: Duration,
    gather_until: Option<Instant>,
    seen: HashMap<Id, Seen>,
}

/// The queue in front of one engine.
#[derive(Default)]
pub(super) struct Scheduler {
    state: Mutex<State>,
    changed: Condvar,
    // Everybody whose job is in this pass has gone
    deserted: AtomicBool,
}

impl Scheduler {
    /// A name for a stream.
    pub(super) fn join(&self) -> Id {
        let mut state = self.lock();
        state.next_id += 1;
        state.next_id
    }

    /// Nothing more is to be expected of it.
    pub(super) fn leave(&self, id: Id) {
        let mut state = self.lock();
        state.seen.remove(&id);
        // What a panic kept somebody from fetching.
        let unfetched = state.done.remove(&id);
        drop(state);
        drop(unfetched);
        self.changed.notify_all();
    }

    /// Runs the job of `id`, alone or with others', and gives it back.
    pub(super) fn run(
        &self,
        engine: &dyn Engine,
        kept: &Kept,
        id: Id,
        job: Job,
        interrupt: Interrupt,
    ) -> Ran {
        let me = std::thread::current().id();
        if self.lock().leader == Some(me) {
            return (Some(job), Err(reentered()));
        }
        self.submit(id, job, Some(me));
        let waits = |state: &State| state.queue.has(id);
        let ran = |state: &mut State| state.done.remove(&id);
        match self.wait(engine, kept, waits, ran, interrupt) {
            Ok(ran) => ran,
            Err(stopped) => (self.withdraw(id), Err(stopped)),
        }
    }

    /// Queues a job, which comes back through [`Self::drive`] unless `thread` waits for it.
    pub(super) fn submit(&self, id: Id, job: Job, thread: Option<ThreadId>) {
        let mut state = self.lock();
        state.see(id, thread);
        state.queue.push(Waiting {
            id,
            job,
            driven: thread.is_none(),
            sought: false,
        });
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until jobs that no thread waits for have run, or until it is woken, and leads passes meanwhile.
    pub(super) fn drive(
        &self,
        engine: &dyn Engine,
        kept: &Kept,
        interrupt: Interrupt,
    ) -> Result<Vec<(Id, Ran)>> {
        let waits = |state: &State| state.queue.iter().any(|waiting| waiting.driven);
        let ran = |state: &mut State| {
            let woken = std::mem::take(&mut state.woken);
            (woken || !state.driven.is_empty()).then(|| std::mem::take(&mut state.driven))
        };
        self.wait(engine, kept, waits, ran, interrupt)
    }

    /// Makes the one that drives look around.
    pub(super) fn wake(&self) {
        self.lock().woken = true;
        self.changed.notify_all();
    }

    /// What the last pass gave has been handed on, and those that got it are about to come back.
    pub(super) fn expect(&self) {
        let mut state = self.lock();
        state.gather_until = Some(Instant::now() + state.gather);
    }

    /// Waits until `ready` has something, and leads while `waits` says that a job of this thread's is queued.
    fn wait<T>(
        &self,
        engine: &dyn Engine,
        kept: &Kept,
        waits: impl Fn(&State) -> bool,
        mut ready: impl FnMut(&mut State) -> Option<T>,
        interrupt: Interrupt,
    ) -> Result<T> {
        let me = std::thread::current().id();
        let mut state = self.lock();
        loop {
            if let Some(ready) = ready(&mut state) {
                return Ok(ready);
            }
            let mut patience = LOOK_EVERY;
            if state.leader.is_none() && waits(&state) {
                patience = state.gathering(me);
                if patience < LEAST_GATHER {
                    state.leader = Some(me);
                    drop(state);
                    self.lead(engine, kept, interrupt)?;
                    state = self.lock();
                    continue;
                }
            }
            state = self
                .changed
                .wait_timeout(state, patience)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            if let Some(ready) = ready(&mut state) {
                return Ok(ready);
            }
            drop(state);
            interrupt()?;
            state = self.lock();
        }
    }

    /// One pass over the weights; an error is an interruption.
    fn lead(&self, engine: &dyn Engine, kept: &Kept, interrupt: Interrupt) -> Result<()> {
        self.deserted.store(false, Ordering::SeqCst);
        let mut pass = Pass {
            scheduler: self,
            kept,
            jobs: self.lock().take(engine.shares_passes(), kept),
            failed: Vec::new(),
            error: Some(Error::Engine("a step of the engine panicked".into())),
            started: Instant::now(),
        };
        // A long prompt takes much memory: it should not drive others out of theirs.
        if pass.jobs.iter().any(|(waiting, _)| waiting.job.is_long()) {
            kept.leave_room(0);
        }
        let mut parts = Vec::with_capacity(pass.jobs.len());
        for (waiting, n) in &mut pass.jobs {
            let job = &mut waiting.job;
            let end = job.n_done + *n;
            parts.push(Part {
                sequence: job.sequence.as_mut(),
                tokens: &job.tokens[job.n_done..end],
                n_logits: if end == job.tokens.len() {
                    job.n_logits
                } else {
                    0
                },
                logits: &mut job.logits,
                failed: None,
            });
        }
        let mut stopped = Ok(());
        let result = engine.forward(&mut parts, &mut || {
            stopped = interrupt();
            if self.deserted.load(Ordering::SeqCst) {
                return Err(Error::Interrupted);
            }
            stopped.clone()
        });
        let failed = parts.into_iter().map(|part| part.failed);
        let retry = |error: Option<Error>| match error {
            // It runs again in the next pass, with more memory.
            Some(Error::OutOfMemory { .. }) if kept.give_up_one() => Some(None),
            error => error.map(Some),
        };
        pass.failed = failed.map(retry).collect();
        pass.error = result.err();
        if pass.error.is_none() {
            pass.keep();
        }
        drop(pass);
        stopped
    }

    /// Takes the job of `id` out, if it does not run.
    pub(super) fn withdraw(&self, id: Id) -> Option<Job> {
        let mut state = self.lock();
        state.seen.remove(&id);
        if let Some((job, _)) = state.done.remove(&id) {
            return job;
        }
        if let Some(i) = state.driven.iter().position(|(driven, _)| *driven == id) {
            return state.driven.swap_remove(i).1.0;
        }
        if state.running.contains(&id) {
            state.left.push(id);
            let deserted = state.left.len() == state.running.len();
            self.deserted.store(deserted, Ordering::SeqCst);
            return None;
        }
        state.queue.remove(id)
    }

    // The state is consistent after every statement, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a leader took; handed back when it is dropped, whatever happened.
struct Pass<'a> {
    scheduler: &'a Scheduler,
    kept: &'a Kept,
    jobs: Vec<(Waiting, usize)>,
    // For each job, if it did not run: why, or nothing if it is to run again
    failed: Vec<Option<Option<Error>>>,
    // Why none has run
    error: Option<Error>,
    started: Instant,
}

impl Pass<'_> {
    /// Keeps the prompts that have been read with this pass, for those that begin like them.
    fn keep(&self) {
        for ((waiting, n), failed) in self.jobs.iter().zip(&self.failed) {
            let job = &waiting.job;
            if failed.is_none() && job.is_prompt && *n == job.n_left() {
                job.keep(job.tokens.len(), self.kept);
            }
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut state = self.scheduler.lock();
        let jobs = std::mem::take(&mut self.jobs);
        let mut failed = std::mem::take(&mut self.failed).into_iter();
        let mut gone = Vec::new();
        for (mut waiting, n) in jobs {
            let failed = failed.next().flatten();
            let id = waiting.id;
            let result = match (&self.error, failed) {
                (Some(Error::Interrupted), _) | (None, Some(None)) => None,
                (Some(error), _) => Some(Err(error.clone())),
                (None, Some(Some(error))) => Some(Err(error)),
                (None, None) => {
                    waiting.job.n_done += n;
                    (waiting.job.n_left() == 0).then_some(Ok(()))
                }
            };
            let left = state.left.contains(&id);
            if is_usable(result.as_ref()) {
                state.queue.borrow_from(&waiting, left || result.is_some());
            }
            if left {
                gone.push((waiting.job, is_usable(result.as_ref())));
                continue;
            }
            match result {
                None => state.queue.put_back(waiting),
                Some(result) if waiting.driven => {
                    state.driven.push((id, (Some(waiting.job), result)));
                }
                Some(result) => {
                    state.done.insert(id, (Some(waiting.job), result));
                }
            }
        }
        state.left.clear();
        state.running.clear();
        state.leader = None;
        state.gather = self.started.elapsed().mul_f64(GATHER).min(MOST_GATHER);
        state.gather_until = Some(Instant::now() + state.gather);
        drop(state);
        self.scheduler.changed.notify_all();
        // Whoever comes with the same prompt again need not read all of it again.
        for (job, _) in gone
            .into_iter()
            .filter(|(job, usable)| *usable && job.is_prompt)
        {
            job.keep(job.n_done, self.kept);
        }
    }
}

/// Whether the sequence of a job that went like this is one after a whole number of tokens.
pub(super) fn is_usable(result: Option<&Result<()>>) -> bool {
    !matches!(result, Some(Err(error)) if !matches!(error, Error::Interrupted | Error::OutOfMemory { .. }))
}

impl State {
    fn see(&mut self, id: Id, thread: Option<ThreadId>) {
        let pass = self.passes;
        let seen = self.seen.entry(id).or_insert(Seen { pass, thread });
        seen.pass = pass;
        // It comes from one thread after another: which one says nothing.
        if seen.thread != thread {
            seen.thread = None;
        }
    }

    /// How long `me`, who is about to lead, waits for others.
    fn gathering(&self, me: ThreadId) -> Duration {
        let until = self.gather_until.filter(|_| self.expects_more(me));
        until.map_or(Duration::ZERO, |until| {
            until.saturating_duration_since(Instant::now())
        })
    }

    /// Whether a stream of the last pass is about to come back: not one that `me` or a waiting thread would have to
    /// bring.
    fn expects_more(&self, me: ThreadId) -> bool {
        let busy = |thread: ThreadId| {
            thread == me
                || (self.queue.iter())
                    .filter_map(|w| self.seen.get(&w.id))
                    .any(|seen| seen.thread == Some(thread))
        };
        self.seen.iter().any(|(&id, seen)| {
            seen.pass + 2 > self.passes
                && !self.queue.has(id)
                && seen.thread.is_none_or(|thread| !busy(thread))
        })
    }

    fn take(&mut self, shared: bool, kept: &Kept) -> Vec<(Waiting, usize)> {
        let jobs = self.queue.take(shared, kept);
        self.running = jobs.iter().map(|(waiting, _)| waiting.id).collect();
        self.passes += 1;
        jobs
    }
}

/// A thread that is in a pass and asks for another would wait for itself for ever.
pub fn reentered() -> Error {
    Error::InvalidRequest(
        "this generator is in the middle of a step in this very thread: a signal handler cannot generate text, only \
         cancel it"
            .into(),
    )
}

#[cfg(test)]
mod tests;
