//! One thread that steps any number of streams for those who cannot wait themselves, such as asyncio's tasks.
//!
//! It is started when something is first wanted, takes its part in the passes like every thread that wants a token
//! ([`Scheduler::drive`]), and is gone when nothing was wanted for [`LINGER`].
//!
//! [`Scheduler::drive`]: super::scheduler::Scheduler::drive

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::model::Model;
use super::queue::Id;
use super::scheduler::{LOOK_EVERY, Ran};
use super::stream::{Stream, Token};
use crate::error::{Error, Result};

/// How long the thread stays when it has nothing to do.
const LINGER: Duration = Duration::from_secs(1);

/// Something of a stream that somebody waits for.
pub trait Awaited: Send + Sized + 'static {
    /// The stream; `None` while somebody else has it.
    fn take(&self) -> Option<Stream>;

    /// Whether the stream is to end.
    fn is_cancelled(&self) -> bool;

    /// Takes note of a token; true if the waiting has an end with it.
    fn saw(&self, stream: &Stream, token: &Token) -> bool;

    /// Gives streams back, with what [`Stream::next`] would have given.
    fn give(all: Vec<Given<Self>>);
}

/// What became of something awaited.
pub struct Given<A> {
    /// The waiting has an end.
    pub awaited: A,
    /// None where somebody else has it still.
    pub stream: Option<Stream>,
    /// As [`Stream::next`] has it.
    pub result: Result<Option<Token>>,
}

/// The thread of one model, when there is one.
pub struct Driver<A> {
    shared: Arc<Shared<A>>,
    pid: u32,
}

struct Shared<A> {
    inbox: Mutex<Inbox<A>>,
    changed: Condvar,
    // Somebody may have been cancelled
    look: AtomicBool,
    // For ever
    closed: AtomicBool,
}

struct Inbox<A> {
    wanted: Vec<A>,
    thread: Option<JoinHandle<()>>,
    // It has not decided to end
    is_there: bool,
}

impl<A> Shared<A> {
    fn lock(&self) -> MutexGuard<'_, Inbox<A>> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<A: Awaited> Driver<A> {
    /// No thread yet.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                inbox: Mutex::new(Inbox {
                    wanted: Vec::new(),
                    thread: None,
                    is_there: false,
                }),
                changed: Condvar::new(),
                look: AtomicBool::new(false),
                closed: AtomicBool::new(false),
            }),
            pid: std::process::id(),
        }
    }

    /// Has a stream of `model` stepped until there is what is `awaited`.
    ///
    /// # Errors
    /// `InvalidRequest` after [`Self::close`]; `Engine` where the system gives no thread.
    pub fn send(&self, model: &Model, awaited: A) -> Result<()> {
        model.check_process()?;
        let mut inbox = self.shared.lock();
        if self.shared.closed.load(Ordering::SeqCst) {
            return Err(Error::InvalidRequest(
                "the interpreter is shutting down: nothing can be waited for any more".into(),
            ));
        }
        if !inbox.is_there {
            let shared = self.shared.clone();
            let thread = std::thread::Builder::new().name("candlewick".into());
            let thread = thread.spawn(move || Crew::new(shared).drive());
            let error = |e| Error::Engine(format!("no thread could be started to wait in: {e}"));
            inbox.thread = Some(thread.map_err(error)?);
            inbox.is_there = true;
        }
        inbox.wanted.push(awaited);
        drop(inbox);
        self.shared.changed.notify_all();
        model.scheduler.wake();
        Ok(())
    }

    /// Ends streams that have been cancelled; the step that they are in, after the layer that is running.
    pub fn look(&self, model: &Model) {
        if model.check_process().is_ok() {
            self.shared.look.store(true, Ordering::SeqCst);
            model.scheduler.wake();
        }
    }

    /// Ends all streams, and the thread, for ever.
    pub fn close(&self) {
        // In a forked child there is no thread, and its lock may be held for ever.
        if std::process::id() != self.pid {
            return;
        }
        let mut inbox = self.shared.lock();
        self.shared.closed.store(true, Ordering::SeqCst);
        self.shared.look.store(true, Ordering::SeqCst);
        let thread = inbox.thread.take();
        drop(inbox);
        self.shared.changed.notify_all();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

/// What the thread has to do.
struct Crew<A> {
    shared: Arc<Shared<A>>,
    // Whose stream somebody else has
    wanted: Vec<A>,
    running: HashMap<Id, (A, Stream)>,
    given: Vec<Given<A>>,
}

impl<A: Awaited> Crew<A> {
    fn new(shared: Arc<Shared<A>>) -> Self {
        Self {
            shared,
            wanted: Vec::new(),
            running: HashMap::new(),
            given: Vec::new(),
        }
    }

    fn drive(mut self) {
        while self.receive() {
            for awaited in std::mem::take(&mut self.wanted) {
                match awaited.take() {
                    Some(stream) => self.go_on(awaited, stream),
                    None if self.is_cancelled(&awaited) => self.end(awaited, None, Ok(None)),
                    None => self.wanted.push(awaited),
                }
            }
            self.give();
            let Some(model) = self
                .running
                .values()
                .next()
                .map(|(_, stream)| stream.model())
            else {
                if !self.wanted.is_empty() {
                    std::thread::sleep(LOOK_EVERY / 10);
                }
                continue;
            };
            // Of a panic, each job says so itself.
            let ran = catch_unwind(AssertUnwindSafe(|| {
                model.drive(&mut || {
                    self.look(&model);
                    Ok(())
                })
            }));
            for (id, ran) in ran.ok().and_then(Result::ok).unwrap_or_default() {
                self.came(id, ran);
            }
            if !self.given.is_empty() {
                self.give();
                model.scheduler.expect();
            }
        }
    }

    /// Takes what is newly wanted; false when the thread is to end.
    fn receive(&mut self) -> bool {
        let shared = self.shared.clone();
        let mut inbox = shared.lock();
        if self.running.is_empty() && self.wanted.is_empty() {
            let idle = |inbox: &mut Inbox<A>| {
                inbox.wanted.is_empty() && !shared.closed.load(Ordering::SeqCst)
            };
            let waited = shared.changed.wait_timeout_while(inbox, LINGER, idle);
            inbox = waited.unwrap_or_else(PoisonError::into_inner).0;
            if inbox.wanted.is_empty() {
                inbox.is_there = false;
                return false;
            }
        }
        self.wanted.append(&mut inbox.wanted);
        true
    }

    /// Steps a stream as far as it goes without a pass, and has run what it then wants.
    fn go_on(&mut self, awaited: A, mut stream: Stream) {
        loop {
            if self.is_cancelled(&awaited) {
                stream.cancel();
            }
            if stream.finish_reason().is_some() {
                return self.end(awaited, Some(stream), Ok(None));
            }
            let chosen = match stream.wanted() {
                Ok(Some(job)) => {
                    let (id, model) = (stream.id(), stream.model());
                    self.running.insert(id, (awaited, stream));
                    return model.scheduler.submit(id, job, None);
                }
                Ok(None) => guarded(|| stream.choose()),
                Err(error) => Err(error),
            };
            if let Some(ended) = saw(&awaited, &mut stream, chosen) {
                return self.end(awaited, Some(stream), ended);
            }
        }
    }

    /// Takes in a job that has run.
    fn came(&mut self, id: Id, ran: Ran) {
        let Some((awaited, mut stream)) = self.running.remove(&id) else {
            return;
        };
        let chosen = match stream.ran(ran) {
            Ok(false) => return self.go_on(awaited, stream),
            Ok(true) => guarded(|| stream.choose()),
            Err(error) => Err(error),
        };
        match saw(&awaited, &mut stream, chosen) {
            Some(ended) => self.end(awaited, Some(stream), ended),
            None => self.go_on(awaited, stream),
        }
    }

    /// Looks for those that were cancelled.
    fn look(&mut self, model: &Model) {
        if !self.wanted.is_empty() {
            // Whoever has their streams may have given them back.
            model.scheduler.wake();
        }
        if !self.shared.look.swap(false, Ordering::SeqCst) {
            return;
        }
        let gone = self
            .running
            .iter()
            .filter(|(_, (awaited, _))| self.is_cancelled(awaited));
        for id in gone.map(|(id, _)| *id).collect::<Vec<_>>() {
            let job = model.scheduler.withdraw(id);
            if let Some((awaited, mut stream)) = self.running.remove(&id) {
                // It says that it was interrupted.
                let _ = stream.ran(Ran::Failed(job, Error::Interrupted));
                stream.cancel();
                self.end(awaited, Some(stream), Ok(None));
                // It may have been the last one.
                model.scheduler.wake();
            }
        }
        self.give();
    }

    fn end(&mut self, awaited: A, stream: Option<Stream>, result: Result<Option<Token>>) {
        self.given.push(Given {
            awaited,
            stream,
            result,
        });
    }

    fn is_cancelled(&self, awaited: &A) -> bool {
        awaited.is_cancelled() || self.shared.closed.load(Ordering::SeqCst)
    }

    fn give(&mut self) {
        if !self.given.is_empty() {
            A::give(std::mem::take(&mut self.given));
        }
    }
}

/// What is to be given, if that is what `chosen` leads to.
fn saw<A: Awaited>(
    awaited: &A,
    stream: &mut Stream,
    chosen: Result<Token>,
) -> Option<Result<Option<Token>>> {
    match stream.came(chosen) {
        Ok(Some(token)) if !awaited.saw(stream, &token) => None,
        came => Some(came),
    }
}

/// A panic of one stream is not the end of the others.
fn guarded(choose: impl FnOnce() -> Result<Token>) -> Result<Token> {
    catch_unwind(AssertUnwindSafe(choose)).unwrap_or_else(|_| {
        Err(Error::Engine(
            "internal error, please report it: a step panicked".into(),
        ))
    })
}
