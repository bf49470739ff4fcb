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
use super::queue::{Id, Job, Queue, Short, Waiting};
use crate::engine::{Engine, Interrupt, Part};
use crate::error::{Error, Result};

/// How often a waiting thread looks whether it should stop.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What is waited for those that are about to come back, as a share of the last pass, and at most.
const GATHER: f64 = 0.05;
const MOST_GATHER: Duration = Duration::from_millis(20);
const LEAST_GATHER: Duration = Duration::from_micros(100);

/// How long those that wait for memory do so while nobody gives any back and nothing runs.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a job went.
pub(super) enum Ran {
    Done(Job),
    /// Others needed its memory: its stream begins again, with all of its tokens.
    Evicted,
    /// With the job, unless somebody else was running it when its stream went. After a lack of memory or an
    /// interruption its sequence has as many of the tokens as have run, after any other error it must not be used.
    Failed(Option<Job>, Error),
}

impl Ran {
    fn job(self) -> Option<Job> {
        match self {
            Self::Done(job) => Some(job),
            Self::Evicted => None,
            Self::Failed(job, _) => job,
        }
    }
}

/// What a scheduler has to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Streams that have begun and not ended.
    pub running: usize,
    /// Streams that want to begin.
    pub waiting: usize,
}

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
    // Who has not asked again since its memory went, and what for
    evicted: HashMap<Id, Error>,
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
        state.forget(id);
        // What a panic kept somebody from fetching.
        let unfetched = state.done.remove(&id);
        drop(state);
        drop(unfetched);
        self.changed.notify_all();
    }

    /// What there is to do.
    pub(super) fn load(&self) -> Load {
        let state = self.lock();
        let begins = |waiting: &&Waiting| waiting.job.sequence.n_past() == 0;
        let waiting = state.queue.iter().filter(begins).count();
        Load {
            running: state.seen.len().saturating_sub(waiting),
            waiting,
        }
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
            return Ran::Failed(Some(job), reentered());
        }
        self.submit(id, job, Some(me));
        let waits = |state: &State| state.queue.has(id);
        let ran = |state: &mut State| state.done.remove(&id);
        match self.wait(engine, kept, waits, ran, interrupt) {
            Ok(ran) => ran,
            Err(stopped) => Ran::Failed(self.withdraw(id), stopped),
        }
    }

    /// Queues a job, which comes back through [`Self::drive`] unless `thread` waits for it.
    pub(super) fn submit(&self, id: Id, job: Job, thread: Option<ThreadId>) {
        let mut state = self.lock();
        state.see(id, thread);
        let since = Instant::now();
        let short = state.evicted.remove(&id);
        state.queue.push(Waiting {
            id,
            job,
            driven: thread.is_none(),
            sought: false,
            short: short.map(|error| Short { since, error }),
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
                    let relief = state.relieve();
                    let runs = state.queue.is_runnable();
                    if runs {
                        state.leader = Some(me);
                    }
                    drop(state);
                    if relief.is_some() {
                        self.changed.notify_all();
                    }
                    drop(relief);
                    if runs {
                        self.lead(engine, kept, interrupt)?;
                        state = self.lock();
                        continue;
                    }
                    state = self.lock();
                    patience = LOOK_EVERY;
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
            went: Vec::new(),
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
        let went = |error: Option<Error>| match error {
            None => Went::Through,
            // It runs again in the next pass, with more memory.
            Some(Error::OutOfMemory { .. }) if kept.give_up_one() => Went::Nowhere,
            Some(error @ Error::OutOfMemory { .. }) if engine.shares_passes() => Went::Short(error),
            Some(error) => Went::Wrong(error),
        };
        pass.went = failed.map(went).collect();
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
        state.forget(id);
        if let Some(ran) = state.done.remove(&id) {
            return ran.job();
        }
        if let Some(i) = state.driven.iter().position(|(driven, _)| *driven == id) {
            return state.driven.swap_remove(i).1.job();
        }
        if state.running.contains(&id) {
            state.left.push(id);
            let deserted = state.left.len() == state.running.len();
            self.deserted.store(deserted, Ordering::SeqCst);
            return None;
        }
        state.queue.remove(id).map(|waiting| waiting.job)
    }

    // The state is consistent after every statement, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How one job of a pass went.
enum Went {
    Through,
    /// It is to run again.
    Nowhere,
    /// There was no memory for it.
    Short(Error),
    Wrong(Error),
}

/// What a leader took; handed back when it is dropped, whatever happened.
struct Pass<'a> {
    scheduler: &'a Scheduler,
    kept: &'a Kept,
    jobs: Vec<(Waiting, usize)>,
    // How each of them went
    went: Vec<Went>,
    // Why none has run
    error: Option<Error>,
    started: Instant,
}

impl Pass<'_> {
    /// Keeps the prompts that have been read with this pass, for those that begin like them.
    fn keep(&self) {
        for ((waiting, n), went) in self.jobs.iter().zip(&self.went) {
            let job = &waiting.job;
            if matches!(went, Went::Through) && job.is_prompt && *n == job.n_left() {
                job.keep(job.tokens.len(), self.kept);
            }
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut state = self.scheduler.lock();
        let jobs = std::mem::take(&mut self.jobs);
        let mut went = std::mem::take(&mut self.went).into_iter();
        let mut gone = Vec::new();
        for (mut waiting, n) in jobs {
            let went = match &self.error {
                None => went.next().unwrap_or(Went::Nowhere),
                Some(Error::Interrupted) => Went::Nowhere,
                Some(error) => Went::Wrong(error.clone()),
            };
            if matches!(went, Went::Through) {
                waiting.job.n_done += n;
            }
            let is_usable = !matches!(went, Went::Wrong(_));
            let is_done = matches!(went, Went::Through) && waiting.job.n_left() == 0;
            let left = state.left.contains(&waiting.id);
            if is_usable {
                state.queue.borrow_from(&waiting, left || is_done);
            }
            match went {
                _ if left => gone.push((waiting.job, is_usable)),
                Went::Wrong(error) => state.hand_out(waiting, |job| Ran::Failed(Some(job), error)),
                Went::Short(error) => {
                    let since = Instant::now();
                    waiting.short = Some(Short { since, error });
                    state.queue.put_back(waiting);
                }
                Went::Through if is_done => state.hand_out(waiting, Ran::Done),
                Went::Through | Went::Nowhere => state.queue.put_back(waiting),
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

impl State {
    /// Gives a job to whoever waits for it.
    fn hand_out(&mut self, waiting: Waiting, ran: impl FnOnce(Job) -> Ran) {
        let ran = ran(waiting.job);
        if waiting.driven {
            self.driven.push((waiting.id, ran));
        } else {
            self.done.insert(waiting.id, ran);
        }
    }

    /// Nothing is to be expected of a stream, and what it had is free.
    fn forget(&mut self, id: Id) {
        self.seen.remove(&id);
        self.evicted.remove(&id);
        self.queue.try_again();
    }

    /// Sees to those that wait for memory: somebody younger makes room, or somebody will; or there is none. Where
    /// somebody was told something, gives the jobs that had to go.
    fn relieve(&mut self) -> Option<Vec<Job>> {
        let (mut gone, mut told) = (Vec::new(), false);
        for id in self.queue.short() {
            // An older one may have taken it.
            let Some(short) = self
                .queue
                .get_mut(id)
                .and_then(|waiting| waiting.short.take())
            else {
                continue;
            };
            if let Some(victim) = self.queue.evict_after(id) {
                told = true;
                self.evicted.insert(victim.id, short.error);
                self.hand_out(victim, |job| {
                    gone.push(job);
                    Ran::Evicted
                });
            } else if self.may_end(id, &short) {
                if short.since.elapsed() < PATIENCE
                    && let Some(waiting) = self.queue.get_mut(id)
                {
                    waiting.short = Some(short);
                }
            } else if let Some(waiting) = self.queue.remove(id) {
                told = true;
                self.hand_out(waiting, |job| Ran::Failed(Some(job), short.error));
            }
        }
        told.then_some(gone)
    }

    fn see(&mut self, id: Id, thread: Option<ThreadId>) {
        let pass = self.passes;
        let seen = self.seen.entry(id).or_insert(Seen { pass, thread });
        seen.pass = pass;
        // It comes from one thread after another: which one says nothing.
        if seen.thread != thread {
            seen.thread = None;
        }
    }

    /// Whether some other stream may still end, and give back what `id` lacks.
    fn may_end(&self, id: Id, short: &Short) -> bool {
        let mine = self.seen.get(&id).and_then(|seen| seen.thread);
        self.seen.iter().any(|(&other, seen)| {
            other != id
                && match self.queue.iter().find(|waiting| waiting.id == other) {
                    Some(waiting) => waiting.short.is_none(),
                    // Its consumer has to come back, and cannot where it is the one who waits here.
                    None => {
                        (seen.thread.is_none() || seen.thread != mine)
                            && (seen.pass + 2 > self.passes || short.since.elapsed() < PATIENCE)
                    }
                }
        })
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
