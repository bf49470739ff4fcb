use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

use super::super::queue::{AT_ONCE, CHUNK_BESIDE};
use super::*;
use crate::engine::{CHUNK, EngineKind, KvType, Sequence};

/// Counts its tokens, and those of all others with the same memory.
struct Counter(usize, Arc<AtomicUsize>);

impl Drop for Counter {
    fn drop(&mut self) {
        self.1.fetch_sub(self.0, Ordering::SeqCst);
    }
}

fn counter(n: usize) -> Box<dyn Sequence> {
    counter_in(&Arc::default(), n)
}

fn counter_in(memory: &Arc<AtomicUsize>, n: usize) -> Box<dyn Sequence> {
    memory.fetch_add(n, Ordering::SeqCst);
    Box::new(Counter(n, memory.clone()))
}

impl Sequence for Counter {
    fn n_past(&self) -> usize {
        self.0
    }

    fn forward(&mut self, tokens: &[u32], _: usize, _: &mut Vec<f32>, _: Interrupt) -> Result<()> {
        self.0 += tokens.len();
        self.1.fetch_add(tokens.len(), Ordering::SeqCst);
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

    fn fork(&self, n_past: usize) -> Option<Box<dyn Sequence>> {
        (n_past <= self.0).then(|| counter_in(&self.1, n_past))
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
    // Tokens that all sequences have together, and may have
    memory: Arc<AtomicUsize>,
    limit: Option<usize>,
}

impl Engine for Log {
    fn sequence(&self) -> Result<Box<dyn Sequence>> {
        Ok(counter_in(&self.memory, 0))
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
            let used = self.memory.load(Ordering::SeqCst) + tokens.len();
            if let Some(limit) = self.limit.filter(|&limit| used > limit) {
                part.failed = Some(Error::OutOfMemory {
                    what: "tokens".into(),
                    needed: used as u64,
                    available: limit as u64,
                    remedy: "wait".into(),
                });
                continue;
            }
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
        is_prompt: true,
        ..Job::new(counter(0), tokens.to_vec(), 1)
    }
}

/// The job that came back, and whether it was done.
fn split(ran: Ran) -> (Option<Job>, Result<()>) {
    match ran {
        Ran::Done(job) => (Some(job), Ok(())),
        Ran::Evicted => (None, Ok(())),
        Ran::Failed(job, error) => (job, Err(error)),
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
                // No two begin alike.
                let mut job = job(&vec![n as u32; n]);
                for step in 1..=steps {
                    let (back, result) = split(scheduler.run(engine, kept, id, job, &mut never));
                    result.unwrap();
                    job = back.unwrap();
                    assert_eq!(job.sequence.n_past(), n + step - 1);
                    assert_eq!(job.logits.len(), 1);
                    job = Job::new(job.sequence, vec![2], 1);
                }
                scheduler.leave(id);
            });
        }
    });
    let state = scheduler.lock();
    assert!(state.queue.iter().next().is_none() && state.running.is_empty());
    assert!(state.done.is_empty() && state.driven.is_empty());
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
        let (other, result) = split(scheduler.run(&engine, &kept, b, job(&[2]), &mut never));
        result.unwrap();
        assert_eq!(other.unwrap().sequence.n_past(), 1);
        let (back, result) = split(leader.join().unwrap());
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
        let (back, result) = split(scheduler.run(&engine, &kept, b, job(&[2]), &mut stop));
        assert!(matches!(result, Err(Error::Interrupted)));
        assert!(back.is_some(), "it had not begun");
        assert!(started.elapsed() < Duration::from_millis(80));
        split(leader.join().unwrap()).1.unwrap();
        let (_, result) = split(scheduler.run(&engine, &kept, c, job(&[3]), &mut never));
        result.unwrap();
    });
}

#[test]
fn short_of_memory_alone_is_the_error_of_one() {
    let engine = Log::default();
    engine.short_of_memory.store(1, Ordering::SeqCst);
    let (scheduler, kept) = (Scheduler::default(), Kept::new(0));
    let id = scheduler.join();
    let (back, result) = split(scheduler.run(&engine, &kept, id, job(&[99]), &mut never));
    assert!(matches!(result, Err(Error::OutOfMemory { .. })));
    // It was not run, and can be again; where something was kept, it is without being asked.
    let job = back.unwrap();
    kept.insert(vec![1, 2], counter(2), None);
    engine.short_of_memory.store(1, Ordering::SeqCst);
    let (back, result) = split(scheduler.run(&engine, &kept, id, job, &mut never));
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
    let (_, result) = split(scheduler.run(&engine, &kept, scheduler.join(), job(&[1]), &mut never));
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
        nested = Some(split(scheduler.run(&engine, &kept, b, job(&[2]), &mut never)).1);
        Ok(())
    };
    let (_, result) = split(scheduler.run(&engine, &kept, a, job(&[1]), &mut handler));
    result.unwrap();
    assert!(matches!(nested, Some(Err(Error::InvalidRequest(_)))));
}

/// Runs what was submitted without a thread, and gives it in the order in which it was done.
fn driven(engine: &Log, scheduler: &Scheduler, kept: &Kept, n: usize) -> Vec<(Id, Job)> {
    let mut done = Vec::new();
    while done.len() < n {
        for (id, ran) in scheduler.drive(engine, kept, &mut never).unwrap() {
            let (job, result) = split(ran);
            result.unwrap();
            done.push((id, job.unwrap()));
        }
    }
    done
}

fn n_run(engine: &Log) -> usize {
    engine.passes.lock().unwrap().iter().flatten().sum()
}

/// A prompt that begins with as many tokens as others' and goes on with its own.
fn branch(common: usize, own: u32, n: usize) -> Vec<u32> {
    let mut tokens: Vec<u32> = (0..common as u32).map(|i| 1000 + i).collect();
    tokens.extend((0..n).map(|_| own));
    tokens
}

#[test]
fn what_prompts_begin_with_is_read_once() {
    // Also where nothing is kept.
    for max_kept in [0, 1 << 40] {
        let (engine, scheduler) = (Log::default(), Scheduler::default());
        let kept = Kept::new(max_kept);
        for i in 0..8 {
            let tokens = branch(500, i, 10 + i as usize);
            scheduler.submit(scheduler.join(), job(&tokens), None);
        }
        let done = driven(&engine, &scheduler, &kept, 8);
        assert_eq!(n_run(&engine), 500 + (10..18).sum::<usize>());
        for (_, job) in &done {
            assert_eq!(job.sequence.n_past(), job.tokens.len());
            assert!(job.n_cached == 500 || (job.n_cached == 0 && job.tokens[500] == 0));
        }
    }
}

#[test]
fn prompts_of_which_one_is_the_beginning_of_another_are_read_once() {
    let (engine, scheduler, kept) = (Log::default(), Scheduler::default(), Kept::new(0));
    for n in [300, 700, 700, 150] {
        scheduler.submit(scheduler.join(), job(&branch(n, 0, 0)), None);
    }
    let done = driven(&engine, &scheduler, &kept, 4);
    // The last token of each is run for its logits.
    assert_eq!(n_run(&engine), 700 + 2);
    let cached: usize = done.iter().map(|(_, job)| job.n_cached).sum();
    assert_eq!(cached, 300 + 699 + 149);
}

#[test]
fn a_prompt_that_comes_later_goes_on_from_one_that_is_being_read() {
    for older in [false, true] {
        let (engine, scheduler, kept) = (Log::default(), Scheduler::default(), Kept::new(0));
        let (a, b) = (scheduler.join(), scheduler.join());
        let (first, second) = if older { (b, a) } else { (a, b) };
        scheduler.submit(first, job(&branch(500, 1, 5)), None);
        for _ in 0..2 {
            scheduler.lead(&engine, &kept, &mut never).unwrap();
        }
        assert_eq!(n_run(&engine), 2 * CHUNK);
        scheduler.submit(second, job(&branch(500, 2, 5)), None);
        driven(&engine, &scheduler, &kept, 2);
        assert_eq!(n_run(&engine), 500 + 5 + 5, "{older}");
    }
}

#[test]
fn who_waited_for_a_prompt_goes_on_when_its_stream_goes() {
    let (engine, scheduler, kept) = (Log::default(), Scheduler::default(), Kept::new(0));
    let ids: Vec<Id> = (0..3).map(|_| scheduler.join()).collect();
    for (i, &id) in ids.iter().enumerate() {
        scheduler.submit(id, job(&branch(500, i as u32, 5)), None);
    }
    // Between two passes.
    scheduler.lead(&engine, &kept, &mut never).unwrap();
    assert!(scheduler.withdraw(ids[0]).is_some());
    scheduler.lead(&engine, &kept, &mut never).unwrap();
    // And in the middle of one, which goes on because somebody else has a token in it.
    let mut leaves = || {
        scheduler.withdraw(ids[1]);
        Ok(())
    };
    let other = scheduler.join();
    scheduler.submit(other, Job::new(counter(7), vec![7], 1), None);
    let engine = Log {
        layers: 1,
        passes: Mutex::new(engine.passes.into_inner().unwrap()),
        ..Log::default()
    };
    scheduler.lead(&engine, &kept, &mut leaves).unwrap();
    let done = driven(&engine, &scheduler, &kept, 2);
    assert_eq!(n_run(&engine), 500 + 5 + 1);
    assert_eq!(done[1].1.n_cached, 2 * CHUNK + CHUNK_BESIDE);
    let state = scheduler.lock();
    assert!(state.left.is_empty() && state.queue.iter().next().is_none());
}

#[test]
fn a_pass_that_everybody_has_left_ends_within_a_layer() {
    let engine = Log {
        layers: 100,
        ..Log::default()
    };
    let (scheduler, kept) = (Scheduler::default(), Kept::new(1 << 40));
    let (a, b) = (scheduler.join(), scheduler.join());
    scheduler.submit(a, job(&[1; 60]), None);
    scheduler.submit(b, job(&[2; 60]), None);
    let mut layers = 0;
    let mut leave_one_by_one = || {
        layers += 1;
        if let Some(id) = [a, b].get(layers - 1) {
            assert!(scheduler.withdraw(*id).is_none());
        }
        Ok(())
    };
    scheduler
        .lead(&engine, &kept, &mut leave_one_by_one)
        .unwrap();
    assert_eq!(layers, 2);
    assert_eq!(n_run(&engine), 0);
    let state = scheduler.lock();
    assert!(state.left.is_empty() && state.running.is_empty() && state.leader.is_none());
}

#[test]
fn the_first_ones_come_first_and_nobody_is_forgotten() {
    let (engine, scheduler, kept) = (Log::default(), Scheduler::default(), Kept::new(0));
    let n = 3 * AT_ONCE;
    let ids: Vec<Id> = (0..n).map(|_| scheduler.join()).collect();
    // They come in any order, each wants three tokens.
    for &id in ids.iter().rev() {
        scheduler.submit(id, Job::new(counter(1), vec![5], 1), None);
    }
    let mut steps = HashMap::<Id, usize>::new();
    let mut ended = Vec::new();
    while ended.len() < n {
        for (id, ran) in scheduler.drive(&engine, &kept, &mut never).unwrap() {
            let (job, result) = split(ran);
            result.unwrap();
            let steps = steps.entry(id).or_default();
            *steps += 1;
            if *steps < 3 {
                scheduler.submit(id, Job::new(job.unwrap().sequence, vec![5], 1), None);
            } else {
                scheduler.leave(id);
                ended.push(id);
            }
        }
    }
    assert_eq!(ended, ids);
    let passes = engine.passes.lock().unwrap();
    assert!(
        passes.iter().all(|pass| pass.len() == AT_ONCE),
        "{passes:?}"
    );
}

#[test]
fn a_short_prompt_is_not_held_up_by_long_ones_nor_they_by_many_short_ones() {
    let (engine, scheduler, kept) = (Log::default(), Scheduler::default(), Kept::new(0));
    let long = scheduler.join();
    scheduler.submit(long, job(&[1; 960]), None);
    // There is always another short one, and somebody who wants the next token.
    let talker = scheduler.join();
    scheduler.submit(talker, Job::new(counter(1), vec![2], 1), None);
    let mut short = None;
    let (mut n_short, mut passes) = (0, 0);
    loop {
        if short.is_none() {
            n_short += 1;
            let id = scheduler.join();
            scheduler.submit(id, job(&[100 + n_short; 16]), None);
            short = Some(id);
        }
        scheduler.lead(&engine, &kept, &mut never).unwrap();
        passes += 1;
        let done = std::mem::take(&mut scheduler.lock().driven);
        assert!(
            done.iter().any(|(id, _)| *id == talker),
            "a token with each pass"
        );
        for (id, _) in &done {
            if *id == talker {
                let job = Job::new(counter(1), vec![2], 1);
                scheduler.submit(talker, job, None);
            } else if Some(*id) == short {
                short = None;
            }
        }
        if done.iter().any(|(id, _)| *id == long) {
            break;
        }
    }
    // Each is read whole, and takes nothing from the long one.
    assert_eq!(passes, 960 / CHUNK_BESIDE);
    assert_eq!(n_short as usize, passes);
}

#[test]
fn short_prompts_that_come_together_are_one_pass() {
    let (engine, scheduler, kept) = (Log::default(), Scheduler::default(), Kept::new(0));
    let talker = scheduler.join();
    scheduler.submit(talker, Job::new(counter(1), vec![2], 1), None);
    for i in 0..10 {
        let id = scheduler.join();
        scheduler.submit(id, job(&[100 + i; CHUNK_BESIDE - 12]), None);
    }
    scheduler.lead(&engine, &kept, &mut never).unwrap();
    // As many as fit whole; the others share what prompts have beside a talker.
    let passes = engine.passes.lock().unwrap();
    let whole = CHUNK / (CHUNK_BESIDE - 12);
    assert_eq!(
        passes[0][..=whole],
        [vec![1], vec![CHUNK_BESIDE - 12; whole]].concat()
    );
    assert_eq!(passes[0][whole + 1..].iter().sum::<usize>(), CHUNK_BESIDE);
}

/// Streams with a prompt of their own each and `n_steps` tokens after it, in one thread; how often each began again.
fn in_memory(limit: usize, prompts: &[usize], n_steps: usize) -> (Log, Vec<usize>, Vec<Id>) {
    let engine = Log {
        limit: Some(limit),
        ..Log::default()
    };
    let (scheduler, kept) = (Scheduler::default(), Kept::new(0));
    let text = |id: Id, n: usize| Job {
        is_prompt: true,
        can_begin_again: true,
        ..Job::new(counter_in(&engine.memory, 0), vec![id as u32; n], 1)
    };
    let ids: Vec<Id> = prompts.iter().map(|_| scheduler.join()).collect();
    let mut n_tokens: HashMap<Id, usize> =
        ids.iter().copied().zip(prompts.iter().copied()).collect();
    for &id in &ids {
        scheduler.submit(id, text(id, n_tokens[&id]), None);
    }
    let (mut again, mut ended) = (vec![0; ids.len()], Vec::new());
    while ended.len() < ids.len() {
        for (id, ran) in scheduler.drive(&engine, &kept, &mut never).unwrap() {
            let i = ids.iter().position(|other| *other == id).unwrap();
            match ran {
                Ran::Done(job) if job.sequence.n_past() == prompts[i] + n_steps => {
                    drop(job);
                    scheduler.leave(id);
                    ended.push(id);
                }
                Ran::Done(job) => {
                    *n_tokens.get_mut(&id).unwrap() += 1;
                    let next = Job {
                        can_begin_again: true,
                        ..Job::new(job.sequence, vec![7], 1)
                    };
                    scheduler.submit(id, next, None);
                }
                Ran::Evicted => {
                    again[i] += 1;
                    scheduler.submit(id, text(id, n_tokens[&id]), None);
                }
                Ran::Failed(_, error) => panic!("{error}"),
            }
        }
    }
    assert_eq!(engine.memory.load(Ordering::SeqCst), 0);
    let load = scheduler.load();
    assert_eq!(load, Load::default());
    (engine, again, ended)
}

#[test]
fn where_memory_is_short_the_youngest_begin_again_and_all_come_to_their_end() {
    // One of them fits with all of its tokens, two do not.
    let (_, again, ended) = in_memory(100, &[40, 40, 40, 40], 50);
    assert_eq!(ended, [1, 2, 3, 4]);
    assert_eq!(again[0], 0, "{again:?}");
    assert!(again[1] + again[2] + again[3] > 0, "{again:?}");
    // Nobody is sent away again and again.
    assert!(again.iter().all(|&n| n <= 3), "{again:?}");
}

#[test]
fn prompts_that_do_not_fit_together_are_read_one_after_the_other() {
    let (engine, _, ended) = in_memory(150, &[140, 100, 130], 5);
    assert_eq!(ended, [1, 2, 3]);
    assert!(
        n_run(&engine) < 2 * (140 + 100 + 130),
        "little is read twice"
    );
}

#[test]
fn what_never_fits_is_an_error_with_both_numbers() {
    let engine = Log {
        limit: Some(50),
        ..Log::default()
    };
    let (scheduler, kept) = (Scheduler::default(), Kept::new(0));
    let (big, small) = (scheduler.join(), scheduler.join());
    let job_in = |n: usize| Job {
        is_prompt: true,
        can_begin_again: true,
        ..Job::new(counter_in(&engine.memory, 0), vec![n as u32; n], 1)
    };
    scheduler.submit(big, job_in(60), None);
    scheduler.submit(small, job_in(20), None);
    let mut outcomes = HashMap::new();
    while outcomes.len() < 2 {
        for (id, ran) in scheduler.drive(&engine, &kept, &mut never).unwrap() {
            if matches!(ran, Ran::Evicted) {
                scheduler.submit(id, job_in(20), None);
            } else {
                outcomes.insert(id, split(ran).1);
                scheduler.leave(id);
            }
        }
    }
    let needs = |error: &Error| error.to_string().contains("50 bytes");
    assert!(outcomes[&big].as_ref().is_err_and(needs));
    assert!(outcomes[&small].is_ok());
}
