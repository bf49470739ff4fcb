//! The threads that share the work of one step: many short jobs in a row, each of 0.1 to 1 ms, with little in between.
//!
//! [`Pool::run`] is called some 200 times for each generated token, so a warm hand-over has to cost about a
//! microsecond, and yet a core that somebody else takes away must not stall the rest, and an idle pool must use no
//! CPU. It knows nothing of what the items are, does not split them, and does not pin threads to cores.
//!
//! One job:
//!
//! ```text
//! caller                                        worker
//!   job = (task, n); unfinished = n               loop:
//!   remaining = n            (publish)              spin, then park, until remaining > 0
//!   unpark workers                                  take part
//!   take part
//!   spin, then sleep, until unfinished = 0      take part:
//!                                                 while remaining > 0 and it goes from r to r - 1:   (claim)
//!                                                   task(worker, n - r)
//!                                                 unfinished -= number of claims                     (settle)
//! ```
//!
//! A claim succeeds only while the job lives, and the job lives until every claim is settled: whoever holds one may
//! look at the task, and a worker that wakes too late finds nothing to claim, so nobody waits for it. There is no
//! number of the job in this: a worker that slept through one and claims from the next does just what it should.
//! Waking relies on the token of `unpark`: a worker that was about to park returns from it at once and looks again.

use std::any::Any;
use std::cell::Cell;
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;
use std::ptr;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{io, mem};

use crate::error::{Error, Result};

/// How long to spin before sleeping. Whoever finishes first waits for the last item of another and for what the caller
/// does between two jobs: 60 microseconds for 0.9 MB at 15 GB/s, and a few. (An odd number of such items, job after job
/// on two threads, cost 9% over the ideal with 20 microseconds here, 4% with 50 and 0.6% with 100.)
const SPIN: Duration = Duration::from_micros(100);

thread_local! {
    // Whether this thread is inside a task, of whichever pool.
    static IN_TASK: Cell<bool> = const { Cell::new(false) };
}

/// A caller and `n_threads - 1` workers that it shares its items with.
///
/// In a forked child the pool starts workers of its own at the first job there.
#[derive(Debug)]
pub struct Pool {
    n_threads: usize,
    // Never null. Replaced only in a forked child, which leaks the parent's, so it outlives every `&self`.
    team: AtomicPtr<Team>,
}

/// The workers of one process.
#[derive(Debug)]
struct Team {
    pid: u32,
    shared: Arc<Shared>,
    // Held for the length of a job: callers take turns.
    workers: Mutex<Workers>,
}

#[derive(Debug, Default)]
struct Workers {
    started: bool,
    threads: Vec<JoinHandle<()>>,
}

/// What the caller and the workers both touch.
#[derive(Debug, Default)]
struct Shared {
    /// Items that nobody has claimed; zero between jobs.
    remaining: Line<AtomicUsize>,
    /// Items not yet finished or skipped; zero between jobs.
    unfinished: Line<AtomicUsize>,
    /// The current job, dangling between jobs.
    job: AtomicPtr<Job<'static>>,
    stop: AtomicBool,
    /// Whether the caller sleeps until `unfinished` is zero.
    caller_asleep: Mutex<bool>,
    finished: Condvar,
    /// What the first panic of the current job said.
    panic: Mutex<Option<String>>,
}

/// Keeps two counters from sharing a cache line; 128 because some CPUs fetch lines in pairs and Apple's are as long.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Line<T>(T);

struct Job<'a> {
    task: &'a (dyn Fn(usize, usize) + Sync),
    n: usize,
}

impl Pool {
    /// A pool of `n_threads`, at least one, of which the caller of [`Pool::run`] is one. Nothing is started before
    /// the first job.
    pub fn new(n_threads: usize) -> Self {
        Self {
            n_threads: n_threads.max(1),
            team: AtomicPtr::new(Box::into_raw(Box::new(Team::new()))),
        }
    }

    /// How many threads it was made for, the caller's included. Fewer take part if the system refuses to start them.
    pub fn n_threads(&self) -> usize {
        self.n_threads
    }

    /// Calls `task(worker, i)` once for each `i` in `0..n`, handed out in ascending order to whoever is free, and returns
    /// when all are done.
    ///
    /// `worker`, in `0..n_threads`, differs between calls that run at the same time, whichever thread called
    /// `run`: it may index scratch memory. What the tasks wrote is visible to the caller afterwards. Several
    /// callers take turns, in no promised order. A task must not fork.
    ///
    /// # Errors
    /// A bug, namely a task that panicked, in which case items not yet begun are skipped, or a task that calls
    /// `run`, of any pool (two pools could wait for each other). The pool is usable afterwards.
    pub fn run(&self, n: usize, task: &(dyn Fn(usize, usize) + Sync)) -> Result<()> {
        if IN_TASK.get() {
            return Err(bug("a task of the thread pool gave it another job"));
        }
        let team = self.team();
        let mut workers = lock(&team.workers);
        let refused = workers.start(self.n_threads, &team.shared);
        IN_TASK.set(true);
        let outcome = if n <= 1 || workers.threads.is_empty() {
            run_alone(n, task)
        } else {
            team.shared.run(&workers.threads, n, task)
        };
        IN_TASK.set(false);
        let n_started = workers.threads.len();
        drop(workers);
        // Only now: a logger may wait for a lock of its own.
        if let Some(error) = refused {
            log::warn!(
                "{} threads compute instead of {}: the system refused to start another ({error})",
                n_started + 1,
                self.n_threads
            );
        }
        outcome.map_err(|what| bug(&format!("a task of the thread pool panicked: {what}")))
    }

    /// The team of this process.
    fn team(&self) -> &Team {
        let pid = process::id();
        // Acquire: whoever put it there had built it.
        let mut current = self.team.load(Acquire);
        // SAFETY: `team` is never null and what it points to is freed only by `drop`, which has `&mut self`.
        if unsafe { (*current).pid } != pid {
            // A forked child, where the other threads do not exist and may have left every lock held. Teams of other
            // processes are leaked for the sake of the references that this thread may have had when it forked.
            let new = Box::into_raw(Box::new(Team::new()));
            match self.team.compare_exchange(current, new, AcqRel, Acquire) {
                Ok(_) => current = new,
                Err(theirs) => {
                    // SAFETY: `new` comes from `Box::into_raw` above and was not published.
                    drop(unsafe { Box::from_raw(new) });
                    // Another thread of the child was faster.
                    current = theirs;
                }
            }
        }
        // SAFETY: as above; the reference ends with the borrow of `self`.
        unsafe { &*current }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let team = *self.team.get_mut();
        // SAFETY: never null, and not freed before.
        if unsafe { (*team).pid } == process::id() {
            // SAFETY: from `Box::into_raw`, and `&mut self` says that nobody else has a reference.
            drop(unsafe { Box::from_raw(team) });
        }
        // Else it is the parent's: its threads are not here to be joined.
    }
}

impl Team {
    fn new() -> Self {
        Self {
            pid: process::id(),
            shared: Arc::default(),
            workers: Mutex::default(),
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        // Relaxed: `unpark` happens before the return of the `park` that takes its token, which is followed by a look
        // at `stop`.
        self.shared.stop.store(true, Relaxed);
        let workers = self
            .workers
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        for thread in &workers.threads {
            thread.thread().unpark();
        }
        for thread in workers.threads.drain(..) {
            // Tasks' panics are caught, so there is none to pass on.
            let _ = thread.join();
        }
    }
}

impl Workers {
    /// Starts `n_threads - 1` of them, once; returns why there are fewer.
    fn start(&mut self, n_threads: usize, shared: &Arc<Shared>) -> Option<io::Error> {
        if mem::replace(&mut self.started, true) {
            return None;
        }
        for worker in 1..n_threads {
            let shared = Arc::clone(shared);
            let thread = thread::Builder::new()
                .name(format!("candlewick-{worker}"))
                .spawn(move || shared.serve(worker));
            match thread {
                Ok(thread) => self.threads.push(thread),
                Err(error) => return Some(error),
            }
        }
        None
    }
}

impl Shared {
    /// The caller's side of a job; `Err` is what a panic said.
    fn run(
        &self,
        threads: &[JoinHandle<()>],
        n: usize,
        task: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<(), String> {
        let job = Job { task, n };
        let erased = ptr::from_ref(&job).cast::<Job<'static>>().cast_mut();
        // Relaxed: published by the next store to `remaining`.
        self.job.store(erased, Relaxed);
        self.unfinished.0.store(n, Relaxed);
        // From here to the end of `wait` nothing may unwind: `job` must outlive every claim.
        // Release: with the Acquire of `claim`, whoever claims sees the two stores above and all that the
        // caller did before. (Claims in between are read-modify-writes, so they continue the release sequence.)
        self.remaining.0.store(n, Release);
        // The caller takes an item itself. Waking costs a system call only where the worker is really parked.
        for thread in threads.iter().take(n - 1) {
            thread.thread().unpark();
        }
        self.take_part(0);
        self.wait();
        lock(&self.panic).take().map_or(Ok(()), Err)
    }

    /// Until every claim of the current job is settled.
    fn wait(&self) {
        // Acquire: what the tasks wrote, and their last use of `job`, happened before.
        let finished = || self.unfinished.0.load(Acquire) == 0;
        if spin_until(finished) {
            return;
        }
        let mut asleep = lock(&self.caller_asleep);
        while !finished() {
            *asleep = true;
            asleep = self
                .finished
                .wait(asleep)
                .unwrap_or_else(PoisonError::into_inner);
        }
        *asleep = false;
    }

    /// A worker's life.
    fn serve(&self, worker: usize) {
        IN_TASK.set(true);
        // Relaxed: `take_part` looks again, with the ordering that it needs, and for `stop` see `Team::drop`.
        while !self.stop.load(Relaxed) {
            if spin_until(|| self.remaining.0.load(Relaxed) > 0) {
                self.take_part(worker);
            } else {
                thread::park();
            }
        }
    }

    /// Takes items of the current job, if there is one, until none is left.
    fn take_part(&self, worker: usize) {
        let mut n_claimed = 0;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let Some(mut remaining) = self.claim() else {
                return;
            };
            n_claimed = 1;
            // Relaxed: the claim has acquired what `run` stored, and `run` stores no other before we settle.
            let job = self.job.load(Relaxed);
            // SAFETY: it points to the `Job` on the stack of `run`, which returns only after `unfinished` has come
            // down to zero, and that takes the `settle` below, after the last use of `job`. The task is `Sync`.
            let job = unsafe { &*job };
            loop {
                (job.task)(worker, job.n - remaining);
                match self.claim() {
                    Some(r) => remaining = r,
                    None => break,
                }
                n_claimed += 1;
            }
        }));
        if let Err(payload) = outcome {
            let message = message(payload);
            lock(&self.panic).get_or_insert(message);
            // What is skipped counts as ours. Still our job, because our claims are not settled.
            n_claimed += self.remaining.0.swap(0, Relaxed);
        }
        if n_claimed > 0 {
            self.settle(n_claimed);
        }
    }

    /// Takes one item and returns how many were left, itself included.
    fn claim(&self) -> Option<usize> {
        // Acquire: see `run`. Failure needs none, nothing is touched then.
        self.remaining
            .0
            .fetch_update(Acquire, Relaxed, |r| r.checked_sub(1))
            .ok()
    }

    /// Says that `n_claimed` items are done with. If they were the last, the caller has none left and waits.
    fn settle(&self, n_claimed: usize) {
        // Release: with the Acquire of `wait`, see there.
        if self.unfinished.0.fetch_sub(n_claimed, Release) > n_claimed {
            return;
        }
        // The caller looks at `unfinished` under this lock before it sleeps, so either it has seen the zero or we see
        // that it sleeps. By now it may be in another job: then it wakes in vain and looks again.
        if *lock(&self.caller_asleep) {
            self.finished.notify_one();
        }
    }
}

/// `run` without help, hence without atomics; `Err` is what a panic said.
fn run_alone(n: usize, task: &(dyn Fn(usize, usize) + Sync)) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| (0..n).for_each(|i| task(0, i)))).map_err(message)
}

/// Whether `done` came true before patience ran out.
fn spin_until(done: impl Fn() -> bool) -> bool {
    if done() {
        return true;
    }
    let start = Instant::now();
    loop {
        // A pause lasts from a few cycles to 140, so this is at most some 2 microseconds between looks at the clock.
        for _ in 0..32 {
            spin_loop();
            if done() {
                return true;
            }
        }
        if start.elapsed() >= SPIN {
            return false;
        }
    }
}

/// No code of ours panics with one of these locks held, and what they guard is whole at every step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn message(mut payload: Box<dyn Any + Send>) -> String {
    let message = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
        .to_string();
    // A payload can be of any type, and one whose drop panics must not end the worker.
    while let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        payload = another;
    }
    message
}

fn bug(what: &str) -> Error {
    Error::Engine(format!("internal error, please report it: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::sync::{Barrier, mpsc};

    /// A job that all `n_threads` must take part in: nobody goes on before everybody is there. Returns their names.
    fn meet(pool: &Pool) -> BTreeSet<String> {
        let barrier = Barrier::new(pool.n_threads());
        let names = Mutex::new(BTreeSet::new());
        pool.run(pool.n_threads(), &|_, _| {
            let name = thread::current().name().unwrap_or("?").to_string();
            lock(&names).insert(name);
            barrier.wait();
        })
        .unwrap();
        names.into_inner().unwrap()
    }

    fn sum(pool: &Pool, n: usize) -> usize {
        let sum = AtomicUsize::new(0);
        pool.run(n, &|_, i| {
            sum.fetch_add(i, Relaxed);
        })
        .unwrap();
        sum.into_inner()
    }

    fn jobs(n: usize) -> usize {
        if cfg!(miri) { n.div_ceil(500) } else { n }
    }

    #[test]
    fn each_item_is_done_once_in_order_by_a_worker_of_its_own() {
        // More threads than cores included.
        for n_threads in [1, 2, 3, 8, 33] {
            let pool = Pool::new(n_threads);
            for n in [0, 1, 2, 3, 7, 8, 9, 100, jobs(5000)] {
                let done: Vec<_> = (0..n).map(|_| AtomicUsize::new(0)).collect();
                // What each worker did last, plus one; MAX while it is at it.
                let last: Vec<_> = (0..n_threads).map(|_| AtomicUsize::new(0)).collect();
                pool.run(n, &|worker, i| {
                    let before = last[worker].swap(usize::MAX, Relaxed);
                    assert!(before <= i, "item {i} after item {before} - 1");
                    done[i].fetch_add(1, Relaxed);
                    last[worker].store(i + 1, Relaxed);
                })
                .unwrap();
                assert!(done.iter().all(|d| d.load(Relaxed) == 1));
            }
        }
        assert_eq!(Pool::new(0).n_threads(), 1);
    }

    #[test]
    fn the_workers_take_part_and_have_names() {
        fn shared<T: Send + Sync>(_: &T) {}
        let pool = Pool::new(4);
        // `AtomicPtr` would let a team through that is not.
        shared(&pool);
        shared(pool.team());
        let names = meet(&pool);
        assert_eq!(names.len(), 4);
        for worker in 1..4 {
            assert!(names.contains(&format!("candlewick-{worker}")));
        }
    }

    // Each job needs the worker; one wake-up lost and this hangs. The pauses end about when it goes to sleep.
    #[test]
    fn no_wake_up_is_lost() {
        let pool = Pool::new(2);
        for i in 0..jobs(5000) {
            let pause = Duration::from_nanos(i as u64 * 67 % (3 * SPIN.as_nanos() as u64));
            let start = Instant::now();
            while start.elapsed() < pause {
                spin_loop();
            }
            assert_eq!(meet(&pool).len(), 2);
        }
    }

    #[test]
    fn many_tiny_jobs() {
        for n_threads in [2, 4] {
            let pool = Pool::new(n_threads);
            for i in 0..jobs(100_000) {
                let n = i % 5;
                assert_eq!(sum(&pool, n), n * n.saturating_sub(1) / 2);
            }
        }
    }

    #[test]
    fn results_are_visible_to_the_caller_and_to_the_next_job() {
        let pool = Pool::new(4);
        let cells: Vec<_> = (0..64).map(|_| AtomicUsize::new(0)).collect();
        for round in 0..jobs(2000) {
            pool.run(cells.len(), &|_, i| {
                // Another's cell as the last job left it, whoever did it, and our own.
                assert!(cells[(i + 1) % 64].load(Relaxed) >= round);
                assert_eq!(cells[i].swap(round + 1, Relaxed), round);
            })
            .unwrap();
            assert!(cells.iter().all(|c| c.load(Relaxed) == round + 1));
        }
    }

    #[test]
    fn a_panic_becomes_an_error_and_the_pool_goes_on() {
        let pool = Pool::new(2);
        for _ in 0..jobs(20) {
            for (guilty, text) in [(0, "at 0"), (1, "at 1")] {
                // One item each.
                let both = Barrier::new(2);
                let error = pool.run(2, &|worker, _| {
                    both.wait();
                    assert!(worker != guilty, "at {worker}");
                });
                assert_eq!(
                    error.unwrap_err().to_string(),
                    format!(
                        "internal error, please report it: a task of the thread pool panicked: {text}"
                    )
                );
                assert_eq!(sum(&pool, 1000), 499_500);
            }
        }
        assert_eq!(meet(&pool).len(), 2);
    }

    // What it panics with panics again when dropped.
    struct Nasty;

    impl Drop for Nasty {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }

    #[test]
    fn a_panic_skips_what_is_not_begun() {
        for n_threads in [1, 2] {
            let pool = Pool::new(n_threads);
            let n_done = AtomicUsize::new(0);
            let everybody = Barrier::new(n_threads);
            // All threads hold an item when the first panics.
            let error = pool.run(1000, &|_, _| {
                everybody.wait();
                n_done.fetch_add(1, Relaxed);
                std::panic::panic_any(Nasty);
            });
            assert!(
                error
                    .unwrap_err()
                    .to_string()
                    .ends_with("panicked: no message")
            );
            assert_eq!(n_done.into_inner(), n_threads);
            assert_eq!(sum(&pool, 1000), 499_500);
        }
    }

    #[test]
    fn a_job_within_a_task_is_an_error_and_no_deadlock() {
        let (pool, other) = (Pool::new(2), Pool::new(1));
        for inner in [&pool, &other] {
            let both = Barrier::new(2);
            pool.run(2, &|_, _| {
                both.wait();
                for n in [0, 1, 2] {
                    let error = inner.run(n, &|_, _| unreachable!()).unwrap_err();
                    assert!(error.to_string().contains("gave it another job"));
                }
            })
            .unwrap();
            assert_eq!(sum(inner, 10), 45);
        }
    }

    #[test]
    fn callers_take_turns() {
        let pool = Pool::new(2);
        let busy: Vec<_> = (0..2).map(|_| AtomicBool::new(false)).collect();
        let all_here = Barrier::new(4);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    all_here.wait();
                    for _ in 0..jobs(100) {
                        let n_done = AtomicUsize::new(0);
                        pool.run(5, &|worker, _| {
                            assert!(!busy[worker].swap(true, Relaxed));
                            n_done.fetch_add(1, Relaxed);
                            thread::yield_now();
                            busy[worker].store(false, Relaxed);
                        })
                        .unwrap();
                        assert_eq!(n_done.into_inner(), 5);
                    }
                });
            }
        });
    }

    #[test]
    fn nobody_waits_for_a_worker_that_comes_too_late() {
        let pool = Pool::new(2);
        let (come, wait) = mpsc::channel();
        {
            let team = pool.team();
            let mut workers = lock(&team.workers);
            let shared = Arc::clone(&team.shared);
            workers.started = true;
            workers.threads.push(thread::spawn(move || {
                wait.recv().unwrap();
                shared.serve(1);
            }));
        }
        // What the tasks borrow is gone when the worker comes.
        for n in [2, 3, 100] {
            assert_eq!(sum(&pool, n), n * (n - 1) / 2);
        }
        come.send(()).unwrap();
        assert_eq!(meet(&pool).len(), 2);
    }

    #[test]
    fn drop_ends_the_threads_at_once() {
        drop(Pool::new(4));
        for pause in [Duration::ZERO, 2 * SPIN, 20 * SPIN] {
            let pool = Pool::new(4);
            meet(&pool);
            let shared = Arc::downgrade(&pool.team().shared);
            thread::sleep(pause);
            let start = Instant::now();
            drop(pool);
            assert!(start.elapsed() < Duration::from_secs(1));
            assert_eq!(shared.strong_count(), 0);
        }
    }

    #[test]
    #[ignore = "a measurement: cargo test --release -- pool::tests::cost --ignored --nocapture"]
    #[allow(clippy::print_stdout)]
    fn cost_of_a_job() {
        fn work(length: Duration) {
            let start = Instant::now();
            while start.elapsed() < length {
                spin_loop();
            }
        }
        fn measure(what: &str, n: usize, pause: Duration, mut job: impl FnMut()) {
            let mut times: Vec<_> = (0..n)
                .map(|_| {
                    if pause > SPIN {
                        thread::sleep(pause);
                    } else {
                        work(pause);
                    }
                    let start = Instant::now();
                    job();
                    start.elapsed().as_secs_f64() * 1e6
                })
                .collect();
            let mean = times.iter().sum::<f64>() / n as f64;
            times.sort_by(f64::total_cmp);
            println!(
                "{what:44} median {:8.2}   mean {mean:8.2}   99% {:8.2} microseconds",
                times[n / 2],
                times[n * 99 / 100]
            );
        }
        let us = Duration::from_micros;
        for n_threads in [1, 2, 4] {
            let pool = Pool::new(n_threads);
            println!("{n_threads} threads");
            for (pause, name) in [(0, "at once"), (20, "after 20 us"), (2000, "after 2 ms")] {
                let n = if pause > 1000 { 300 } else { 10_000 };
                measure(&format!("nothing to do, {name}"), n, us(pause), || {
                    pool.run(n_threads, &|_, _| ()).unwrap();
                });
                if n_threads > thread::available_parallelism().unwrap().get() {
                    continue;
                }
                measure(&format!("all take part, {name}"), n, us(pause), || {
                    let n_here = AtomicUsize::new(0);
                    pool.run(n_threads, &|_, _| {
                        n_here.fetch_add(1, Relaxed);
                        while n_here.load(Relaxed) < n_threads {
                            spin_loop();
                        }
                    })
                    .unwrap();
                });
            }
            // An odd number: at the end one thread waits for the other.
            for pause in [0, 2000] {
                measure(
                    &format!("15 items of 60 us, {pause} us apart"),
                    500,
                    us(pause),
                    || {
                        pool.run(15, &|_, _| work(us(60))).unwrap();
                    },
                );
            }
        }
    }

    #[cfg(all(unix, not(miri)))]
    mod unix {
        use super::*;
        use std::process::Command;

        /// Runs `body` in a process where no other test does; `name` is the test that calls this.
        fn alone(name: &str, body: impl FnOnce()) {
            const KEY: &str = "CANDLEWICK_POOL_TEST";
            if std::env::var_os(KEY).is_some() {
                return body();
            }
            let (_, module) = module_path!().split_once("::").unwrap();
            let this = std::env::current_exe().unwrap();
            // An emulator, where the kernel would not start this program by itself.
            let mut command = match std::env::var_os("CANDLEWICK_TEST_RUNNER") {
                Some(runner) => {
                    let mut command = Command::new(runner);
                    command.arg(this);
                    command
                }
                None => Command::new(this),
            };
            let output = command
                .args([&format!("{module}::{name}"), "--exact", "--test-threads=1"])
                .env(KEY, "1")
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(
                output.status.success() && text.contains("1 passed"),
                "{text}{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }

        fn cpu_time() -> Duration {
            let mut time = libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            // SAFETY: `time` is a valid place for the answer.
            let rc = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
            assert_eq!(rc, 0);
            Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
        }

        #[test]
        fn an_idle_pool_uses_no_cpu() {
            alone("an_idle_pool_uses_no_cpu", || {
                let pool = Pool::new(4);
                meet(&pool);
                thread::sleep(Duration::from_millis(50));
                let before = cpu_time();
                thread::sleep(Duration::from_millis(500));
                let used = cpu_time() - before;
                assert!(used < Duration::from_millis(5), "{used:?}");
                // A caller that waits long for a worker sleeps too.
                let both = Barrier::new(4);
                let before = cpu_time();
                pool.run(4, &|worker, _| {
                    both.wait();
                    if worker == 1 {
                        thread::sleep(Duration::from_millis(500));
                    }
                })
                .unwrap();
                let used = cpu_time() - before;
                assert!(used < Duration::from_millis(5), "{used:?}");
            });
        }

        /// Whether `body` is true in a forked child, which has 20 seconds.
        fn in_child(body: impl FnOnce() -> bool) -> bool {
            // SAFETY: the child calls nothing that a libc with `atfork` handlers for its allocator forbids, and leaves
            // by `_exit`.
            let pid = unsafe { libc::fork() };
            assert!(pid >= 0);
            if pid == 0 {
                // SAFETY: no memory is involved; a hang ends with SIGALRM.
                unsafe { libc::alarm(20) };
                let good = catch_unwind(AssertUnwindSafe(body)).unwrap_or(false);
                // SAFETY: does not return.
                unsafe { libc::_exit(i32::from(!good)) };
            }
            let mut status = -1;
            // SAFETY: `status` is a valid place for the answer.
            assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
            status == 0
        }

        #[test]
        fn a_forked_child_has_workers_of_its_own() {
            alone("a_forked_child_has_workers_of_its_own", || {
                let pool = Pool::new(3);
                let works = || meet(&pool).len() == 3 && sum(&pool, 100) == 4950;
                // Before the first job, in the pause after it, and in a child's child.
                assert!(in_child(works));
                assert!(works());
                assert!(in_child(works));
                assert!(in_child(|| works() && in_child(works) && works()));
                // In the middle of another thread's job, with all the locks in whatever state they are.
                let stop = AtomicBool::new(false);
                thread::scope(|scope| {
                    scope.spawn(|| {
                        while !stop.load(Relaxed) {
                            meet(&pool);
                        }
                    });
                    for _ in 0..300 {
                        assert!(in_child(works));
                    }
                    stop.store(true, Relaxed);
                });
                assert!(works());
                // Dropping: the parent's team, and one's own.
                let mut pool = Some(pool);
                assert!(in_child(|| {
                    drop(pool.take());
                    true
                }));
                assert!(in_child(|| {
                    let pool = pool.take().unwrap();
                    sum(&pool, 100) == 4950 && meet(&pool).len() == 3
                }));
                assert_eq!(meet(&pool.unwrap()).len(), 3);
            });
        }

        // The limit is honoured on Linux alone.
        #[cfg(target_os = "linux")]
        #[test]
        fn fewer_threads_do_where_the_system_refuses_more() {
            // qemu keeps the limit from the system, so that it stays able to work itself.
            if std::env::var_os("CANDLEWICK_TEST_RUNNER").is_some() {
                return;
            }
            alone("fewer_threads_do_where_the_system_refuses_more", || {
                let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
                let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
                let limit = libc::rlimit {
                    // Room for the stacks of a few.
                    rlim_cur: pages * 4096 + (16 << 20),
                    rlim_max: libc::RLIM_INFINITY,
                };
                // SAFETY: `limit` is a valid limit.
                let rc = unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) };
                assert_eq!(rc, 0);
                let pool = Pool::new(64);
                for _ in 0..3 {
                    assert_eq!(sum(&pool, 1000), 499_500);
                    let n = lock(&pool.team().workers).threads.len();
                    assert!((1..63).contains(&n), "{n}");
                }
            });
        }
    }
}
