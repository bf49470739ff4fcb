//! Which tokens run when: all streams of a model share passes over its weights.
//!
//! There is no thread of its own. A stream that wants tokens run queues a [`Job`]; whoever finds the engine free leads:
//! it takes what waits into one pass, runs it, and hands out the results, its own among them. Reading the weights is most
//! of the work of a pass, so several streams cost little more than one, and what each gets is to the bit what it would
//! get alone (`Engine::forward`).
//!
//! - First come, first served. A pass takes the next token of every stream that waits, and a part of one prompt or of
//!   several, [`CHUNK`] tokens in all or, where others want their next token, [`CHUNK_BESIDE`]: a long prompt does not
//!   freeze them.
//! - Before it leads, a stream waits a moment for those of the last passes that are about to come back. Without that
//!   they would fall apart into groups that take turns, and each would pay for a whole pass.
//! - A leader that is interrupted ends the pass after the layer it is in; the others' jobs are queued again, as if they
//!   had not run. A stream that is interrupted while others run its job goes at once, and loses the sequence.

use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use super::kept::Kept;
use crate::engine::{CHUNK, Engine, Interrupt, Part, Sequence};
use crate::error::{Error, Result};

/// How often a waiting thread looks whether it should stop.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Prompt tokens of a pass in which others want their next token.
const CHUNK_BESIDE: usize = 32;

/// What is waited for those that are about to come back, as a share of the last pass, and at most.
const GATHER: f64 = 0.05;
const MOST_GATHER: Duration = Duration::from_millis(20);
const LEAST_GATHER: Duration = Duration::from_micros(100);

/// Tokens that a stream wants run.
pub(super) struct Job {
    pub sequence: Box<dyn Sequence>,
    pub tokens: Vec<u32>,
    /// More than one is never split over passes.
    pub n_logits: usize,
    /// As [`Sequence::forward`] leaves them.
    pub logits: Vec<f32>,
}

/// One stream among others.
pub(super) type Id = u64;

struct Waiting {
    id: Id,
    job: Job,
    // Tokens that have run
    n_done: usize,
}

impl Waiting {
    fn is_prompt(&self) -> bool {
        self.job.n_logits <= 1 && self.job.tokens.len() > 1
    }
}

/// When and from where a stream last wanted something.
struct Seen {
    pass: u64,
    thread: ThreadId,
    // It comes from one thread after another: which one says nothing
    wanders: bool,
}

#[derive(Default)]
struct State {
    next_id: Id,
    waiting: VecDeque<Waiting>,
    // Who runs a pass, and whose jobs are in it
    leader: Option<ThreadId>,
    running: Vec<Id>,
    // Whose result nobody will fetch
    left: Vec<Id>,
    done: HashMap<Id, (Option<Job>, Result<()>)>,
    // Passes so far, how long the last one took, and until when others that were in it are waited for
    passes: u64,
    gather_until: Option<Instant>,
    seen: HashMap<Id, Seen>,
}

/// The queue in front of one engine.
#[derive(Default)]
pub(super) struct Scheduler {
    state: Mutex<State>,
    changed: Condvar,
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

    /// Runs the job of `id`, alone or with others', and gives it back, unless others were running it when `interrupt`
    /// wanted to stop.
    ///
    /// After a lack of memory or an interruption its sequence has as many of the tokens as have run, after any other
    /// error it must not be used.
    pub(super) fn run(
        &self,
        engine: &dyn Engine,
        kept: &Kept,
        id: Id,
        job: Job,
        interrupt: Interrupt,
    ) -> (Option<Job>, Result<()>) {
        let me = std::thread::current().id();
        let mut state = self.lock();
        if state.leader == Some(me) {
            return (Some(job), Err(reentered()));
        }
        state.see(id, me);
        state.waiting.push_back(Waiting { id, job, n_done: 0 });
        self.changed.notify_all();
        loop {
            let mut patience = LOOK_EVERY;
            if state.leader.is_none() && state.waiting.iter().any(|w| w.id == id) {
                patience = state.gather(me);
                if patience < LEAST_GATHER {
                    state.leader = Some(me);
                    drop(state);
                    let led = self.lead(engine, kept, interrupt);
                    state = self.lock();
                    if led.is_err() {
                        return (state.withdraw(id), led);
                    }
                }
            }
            if let Some(result) = state.done.remove(&id) {
                return result;
            }
            if patience >= LEAST_GATHER {
                state = self
                    .changed
                    .wait_timeout(state, patience)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
            }
            if let Some(result) = state.done.remove(&id) {
                return result;
            }
            drop(state);
            let go_on = interrupt();
            state = self.lock();
            if go_on.is_err() {
                return (state.withdraw(id), go_on);
            }
        }
    }

    /// One pass over the weights; an error is an interruption.
    fn lead(&self, engine: &dyn Engine, kept: &Kept, interrupt: Interrupt) -> Result<()> {
        let mut pass = Pass {
            scheduler: self,
            jobs: self.lock().take(engine.shares_passes()),
            failed: Vec::new(),
            error: Some(Error::Engine("a step of the engine panicked".into())),
            started: Instant::now(),
        };
        // A long prompt takes much memory: it should not drive others out of theirs.
        if pass.jobs.iter().any(|(waiting, _)| waiting.is_prompt()) {
            kept.leave_room(0);
        }
        let mut parts = Vec::with_capacity(pass.jobs.len());
        for (waiting, n) in &mut pass.jobs {
            let Job {
                sequence,
                tokens,
                n_logits,
                logits,
            } = &mut waiting.job;
            let end = waiting.n_done + *n;
            parts.push(Part {
                sequence: sequence.as_mut(),
                tokens: &tokens[waiting.n_done..end],
                n_logits: if end == tokens.len() { *n_logits } else { 0 },
                logits,
                failed: None,
            });
        }
        let result = engine.forward(&mut parts, interrupt);
        let failed = parts.into_iter().map(|part| part.failed);
        let retry = |error: Option<Error>| match error {
            // It runs again in the next pass, with more memory.
            Some(Error::OutOfMemory { .. }) if kept.give_up_one() => Some(None),
            error => error.map(Some),
        };
        pass.failed = failed.map(retry).collect();
        pass.error = result.err();
        match pass.error {
            Some(Error::Interrupted) => Err(Error::Interrupted),
            _ => Ok(()),
        }
    }

    // The state is consistent after every statement, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a leader took; handed back when it is dropped, whatever happened.
struct Pass<'a> {
    scheduler: &'a Scheduler,
    jobs: Vec<(Waiting, usize)>,
    // For each job, if it did not run: why, or nothing if it is to run again
    failed: Vec<Option<Option<Error>>>,
    // Why none has run
    error: Option<Error>,
    started: Instant,
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut state = self.scheduler.lock();
        let jobs = std::mem::take(&mut self.jobs);
        let mut failed = std::mem::take(&mut self.failed).into_iter();
        let mut again = Vec::new();
        for (mut waiting, n) in jobs {
            let failed = failed.next().flatten();
            let id = waiting.id;
            let result = match (&self.error, failed) {
                (Some(Error::Interrupted), _) | (None, Some(None)) => None,
                (Some(error), _) => Some(Err(error.clone())),
                (None, Some(Some(error))) => Some(Err(error)),
                (None, None) => {
                    waiting.n_done += n;
                    (waiting.n_done == waiting.job.tokens.len()).then_some(Ok(()))
                }
            };
            if let Some(i) = state.left.iter().position(|left| *left == id) {
                state.left.swap_remove(i);
                continue;
            }
            match result {
                None => again.push(waiting),
                Some(result) => {
                    state.done.insert(id, (Some(waiting.job), result));
                }
            }
        }
        // What is not done keeps its place.
        for waiting in again.into_iter().rev() {
            state.waiting.push_front(waiting);
        }
        state.running.clear();
        state.leader = None;
        let gather = self.started.elapsed().mul_f64(GATHER).min(MOST_GATHER);
        state.gather_until = Some(Instant::now() + gather);
        drop(state);
        self.scheduler.changed.notify_all();
    }
}

impl State {
    fn see(&mut self, id: Id, thread: ThreadId) {
        let pass = self.passes;
        let seen = self.seen.entry(id).or_insert(Seen {
            pass,
            thread,
            wanders: false,
        });
        seen.wanders |= seen.thread != thread;
        (seen.pass, seen.thread) = (pass, thread);
    }

    /// How long `me`, who is about to lead, waits for others.
    fn gather(&self, me: ThreadId) -> Duration {
        let until = self.gather_until.filter(|_| self.expects_more(me));
        until.map_or(Duration::ZERO, |until| {
            until.saturating_duration_since(Instant::now())
        })
    }

    /// Whether a stream of the last pass is about to come back: not one that `me` or a waiting thread would have to
    /// bring.
    fn expects_more(&self, me: ThreadId) -> bool {
        let waits = |id: Id| self.waiting.iter().any(|w| w.id == id);
        let busy = |thread: ThreadId| {
            thread == me
                || (self.waiting.iter())
                    .filter_map(|w| self.seen.get(&w.id))
                    .any(|seen| seen.thread == thread)
        };
        self.seen.iter().any(|(&id, seen)| {
            seen.pass + 2 > self.passes && !waits(id) && (seen.wanders || !busy(seen.thread))
        })
    }

    /// The jobs of the next pass, each with how many of its tokens run; one only where passes are not `shared`.
    fn take(&mut self, shared: bool) -> Vec<(Waiting, usize)> {
        let beside = self.waiting.iter().any(|w| !w.is_prompt());
        let mut room = if beside { CHUNK_BESIDE } else { CHUNK };
        let mut jobs = Vec::new();
        let mut rest = VecDeque::new();
        for waiting in std::mem::take(&mut self.waiting) {
            let left = waiting.job.tokens.len() - waiting.n_done;
            let n = if waiting.is_prompt() {
                left.min(room)
            } else {
                left
            };
            if n == 0 || (!shared && !jobs.is_empty()) {
                rest.push_back(waiting);
                continue;
            }
            if waiting.is_prompt() {
                room -= n;
            }
            jobs.push((waiting, n));
        }
        self.waiting = rest;
        self.running = jobs.iter().map(|(waiting, _)| waiting.id).collect();
        self.passes += 1;
        jobs
    }

    /// Takes the job of `id` out, if it does not run.
    fn withdraw(&mut self, id: Id) -> Option<Job> {
        self.seen.remove(&id);
        if let Some((job, _)) = self.done.remove(&id) {
            return job;
        }
        if let Some(i) = self.waiting.iter().position(|w| w.id == id) {
            return self.waiting.remove(i).map(|waiting| waiting.job);
        }
        if self.running.contains(&id) {
            self.left.push(id);
        }
        None
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
mod tests {
    use std::any::Any;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;
    use crate::engine::{EngineKind, KvType};

    /// Counts its tokens.
    struct Counter(usize);

    impl Sequence for Counter {
        fn n_past(&self) -> usize {
            self.0
        }

        fn forward(
            &mut self,
            tokens: &[u32],
            _: usize,
            _: &mut Vec<f32>,
            _: Interrupt,
        ) -> Result<()> {
            self.0 += tokens.len();
            Ok(())
        }

        fn core(&mut self) -> &mut dyn Any {
            self
        }

        fn rewind(&mut self, _: usize) -> bool {
            false
        }

        fn room(&self) -> usize {
            usize::MAX
        }
    }

    /// Writes down how many tokens of each sequence a pass has, and takes a while.
    #[derive(Default)]
    struct Log {
        passes: Mutex<Vec<Vec<usize>>>,
        layers: usize,
        alone: bool,
        panics: AtomicBool,
        short_of_memory: AtomicUsize,
    }

    impl Engine for Log {
        fn sequence(&self) -> Result<Box<dyn Sequence>> {
            Ok(Box::new(Counter(0)))
        }

        fn shares_passes(&self) -> bool {
            !self.alone
        }

        fn forward(&self, parts: &mut [Part], interrupt: Interrupt) -> Result<()> {
            for _ in 0..self.layers {
                std::thread::sleep(Duration::from_millis(5));
                interrupt()?;
            }
            assert!(!self.panics.swap(false, Ordering::SeqCst), "as asked for");
            let sizes = parts.iter().map(|part| part.tokens.len()).collect();
            self.passes.lock().unwrap().push(sizes);
            for part in parts.iter_mut() {
                let tokens = part.tokens;
                if tokens.contains(&99) && self.short_of_memory.load(Ordering::SeqCst) > 0 {
                    self.short_of_memory.fetch_sub(1, Ordering::SeqCst);
                    part.failed = Some(Error::OutOfMemory {
                        what: "a page".into(),
                        needed: 2,
                        available: 1,
                        remedy: "wait".into(),
                    });
                    continue;
                }
                part.sequence
                    .forward(tokens, 0, &mut Vec::new(), interrupt)?;
                part.logits.resize(part.n_logits, 0.5);
            }
            Ok(())
        }

        fn n_ctx(&self) -> usize {
            1000
        }

        fn device(&self) -> String {
            "cpu".into()
        }

        fn isa(&self) -> &'static str {
            "none"
        }

        fn n_threads(&self) -> usize {
            1
        }

        fn kind(&self) -> EngineKind {
            EngineKind::Native
        }

        fn weight_bytes(&self) -> u64 {
            0
        }

        fn kv_type(&self) -> KvType {
            KvType::F16
        }

        fn kv_bytes_per_token(&self) -> u64 {
            1
        }
    }

    fn job(tokens: &[u32]) -> Job {
        Job {
            sequence: Box::new(Counter(0)),
            tokens: tokens.to_vec(),
            n_logits: 1,
            logits: Vec::new(),
        }
    }

    fn never() -> Result<()> {
        Ok(())
    }

    /// `n` streams, each with a prompt of its length and then `steps` tokens one by one.
    fn streams(engine: &Log, prompts: &[usize], steps: usize) -> Vec<Vec<usize>> {
        let (scheduler, kept) = (Scheduler::default(), Kept::new(0));
        let start = Barrier::new(prompts.len());
        std::thread::scope(|scope| {
            for &n in prompts {
                let (scheduler, kept, start) = (&scheduler, &kept, &start);
                scope.spawn(move || {
                    let id = scheduler.join();
                    start.wait();
                    let mut job = job(&vec![1; n]);
                    for step in 1..=steps {
                        let (back, result) = scheduler.run(engine, kept, id, job, &mut never);
                        result.unwrap();
                        job = back.unwrap();
                        assert_eq!(job.sequence.n_past(), n + step - 1);
                        assert_eq!(job.logits.len(), 1);
                        job.tokens = vec![2];
                    }
                    scheduler.leave(id);
                });
            }
        });
        let state = scheduler.lock();
        assert!(state.waiting.is_empty() && state.running.is_empty() && state.done.is_empty());
        assert!(state.seen.is_empty() && state.left.is_empty() && state.leader.is_none());
        engine.passes.lock().unwrap().clone()
    }

    #[test]
    fn streams_share_passes_and_stay_together() {
        let engine = Log {
            layers: 4,
            ..Log::default()
        };
        let passes = streams(&engine, &[1; 6], 20);
        // 20 passes if all are always there; each alone would be 120.
        assert!(passes.len() <= 26, "{passes:?}");
    }

    #[test]
    fn a_long_prompt_goes_in_parts_beside_the_others() {
        let engine = Log {
            layers: 2,
            ..Log::default()
        };
        let passes = streams(&engine, &[300, 1, 1], 12);
        let sum: usize = passes.iter().flatten().sum();
        assert_eq!(sum, 302 + 3 * 11);
        let beside = passes.iter().filter(|pass| pass.len() == 3);
        assert!(beside.clone().count() >= 6, "{passes:?}");
        for pass in beside {
            assert!(pass.iter().all(|&n| n <= CHUNK_BESIDE), "{passes:?}");
        }
        // Alone it goes in whole chunks.
        let engine = Log::default();
        assert_eq!(streams(&engine, &[300], 1), [[128], [128], [44]]);
    }

    #[test]
    fn engines_that_share_nothing_run_one_at_a_time() {
        let engine = Log {
            alone: true,
            ..Log::default()
        };
        let passes = streams(&engine, &[40, 1, 1], 5);
        assert!(passes.iter().all(|pass| pass.len() == 1), "{passes:?}");
    }

    #[test]
    fn an_interrupted_leader_leaves_the_others_their_pass() {
        let engine = Log {
            layers: 10,
            ..Log::default()
        };
        let (scheduler, kept) = (Scheduler::default(), Kept::new(0));
        let (a, b) = (scheduler.join(), scheduler.join());
        std::thread::scope(|scope| {
            let leader = scope.spawn(|| {
                let mut looks = 0;
                let mut stop = || {
                    looks += 1;
                    if looks > 4 {
                        Err(Error::Interrupted)
                    } else {
                        Ok(())
                    }
                };
                scheduler.run(&engine, &kept, a, job(&[1]), &mut stop)
            });
            std::thread::sleep(Duration::from_millis(10));
            let (other, result) = scheduler.run(&engine, &kept, b, job(&[2]), &mut never);
            result.unwrap();
            assert_eq!(other.unwrap().sequence.n_past(), 1);
            let (back, result) = leader.join().unwrap();
            assert!(matches!(result, Err(Error::Interrupted)));
            assert_eq!(back.unwrap().sequence.n_past(), 0);
        });
    }

    #[test]
    fn who_waits_for_another_leader_can_go() {
        let engine = Log {
            layers: 20,
            ..Log::default()
        };
        let (scheduler, kept) = (Scheduler::default(), Kept::new(0));
        let (a, b, c) = (scheduler.join(), scheduler.join(), scheduler.join());
        std::thread::scope(|scope| {
            let leader = scope.spawn(|| scheduler.run(&engine, &kept, a, job(&[1]), &mut never));
            std::thread::sleep(Duration::from_millis(10));
            let started = Instant::now();
            let mut stop = || Err(Error::Interrupted);
            let (back, result) = scheduler.run(&engine, &kept, b, job(&[2]), &mut stop);
            assert!(matches!(result, Err(Error::Interrupted)));
            assert!(back.is_some(), "it had not begun");
            assert!(started.elapsed() < Duration::from_millis(80));
            leader.join().unwrap().1.unwrap();
            let (_, result) = scheduler.run(&engine, &kept, c, job(&[3]), &mut never);
            result.unwrap();
        });
    }

    #[test]
    fn short_of_memory_alone_is_the_error_of_one() {
        let engine = Log::default();
        engine.short_of_memory.store(1, Ordering::SeqCst);
        let (scheduler, kept) = (Scheduler::default(), Kept::new(0));
        let id = scheduler.join();
        let (back, result) = scheduler.run(&engine, &kept, id, job(&[99]), &mut never);
        assert!(matches!(result, Err(Error::OutOfMemory { .. })));
        // It was not run, and can be again; where something was kept, it is without being asked.
        let job = back.unwrap();
        kept.insert(vec![1, 2], Box::new(Counter(2)), None);
        engine.short_of_memory.store(1, Ordering::SeqCst);
        let (back, result) = scheduler.run(&engine, &kept, id, job, &mut never);
        result.unwrap();
        assert_eq!(back.unwrap().sequence.n_past(), 1);
    }

    #[test]
    fn a_panic_is_an_error_of_that_pass() {
        let engine = Log::default();
        engine.panics.store(true, Ordering::SeqCst);
        let (scheduler, kept) = (Scheduler::default(), Kept::new(0));
        let id = scheduler.join();
        let run = || scheduler.run(&engine, &kept, id, job(&[1]), &mut never);
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
        let (_, result) = scheduler.run(&engine, &kept, scheduler.join(), job(&[1]), &mut never);
        result.unwrap();
    }

    #[test]
    fn a_thread_does_not_wait_for_itself() {
        let engine = Log {
            layers: 1,
            ..Log::default()
        };
        let (scheduler, kept) = (Scheduler::default(), Kept::new(0));
        let (a, b) = (scheduler.join(), scheduler.join());
        let mut nested = None;
        let mut handler = || {
            nested = Some(scheduler.run(&engine, &kept, b, job(&[2]), &mut never).1);
            Ok(())
        };
        let (_, result) = scheduler.run(&engine, &kept, a, job(&[1]), &mut handler);
        result.unwrap();
        assert!(matches!(nested, Some(Err(Error::InvalidRequest(_)))));
    }
}
