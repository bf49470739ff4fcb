//! `candlewick._native.Stream`: one generation, stepped with the GIL released.

use std::borrow::Cow;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::ThreadId;
use std::time::Duration;

use pyo3::prelude::*;

use super::driver::{Loaded, Request, Wanted};
use super::errors::guard;
use super::processor::Raised;
use super::session::Session;
use super::signals::Signals;
use crate::error::{Error, Result};
use crate::generate::{self, FinishReason, StopReason, Timings, Token, Usage};

/// A stream in progress. Private: `candlewick.TextStream` is the public class.
#[pyclass(frozen, module = "candlewick._native")]
pub struct Stream {
    pub(super) loaded: Loaded,
    // None while the driver has it
    inner: Mutex<Option<generate::Stream>>,
    // The thread that is in a step
    stepping: Mutex<Option<ThreadId>>,
    cancelled: AtomicBool,
    // What can be asked while a step runs
    view: Mutex<View>,
    prompt: Vec<u32>,
    seed: u64,
    raised: Raised,
}

/// Id, text, log-probability and bytes of a token that could have come.
type Alternative = (u32, String, f32, Cow<'static, [u8]>);

/// Id, text, log-probability and alternatives.
type Item = (u32, String, f32, Vec<Alternative>);

/// The stream, for one thread.
struct Held<'a>(MutexGuard<'a, Option<generate::Stream>>);

impl Deref for Held<'_> {
    type Target = generate::Stream;

    fn deref(&self) -> &generate::Stream {
        self.0.as_ref().expect("held only while it is there")
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut generate::Stream {
        self.0.as_mut().expect("held only while it is there")
    }
}

struct View {
    text: String,
    tokens: Vec<Token>,
    finish: Option<FinishReason>,
    stop_reason: Option<StopReason>,
    usage: Usage,
    timings: Timings,
}

impl View {
    fn update(&mut self, stream: &generate::Stream) {
        self.text.push_str(&stream.text()[self.text.len()..]);
        self.tokens
            .extend_from_slice(&stream.tokens()[self.tokens.len()..]);
        self.finish = stream.finish_reason();
        self.stop_reason = stream.stop_reason().cloned();
        self.usage = stream.usage();
        self.timings = stream.timings();
    }
}

impl Stream {
    pub(super) fn new(loaded: Loaded, inner: generate::Stream, raised: Raised) -> Self {
        let mut view = View {
            text: String::new(),
            tokens: Vec::new(),
            finish: None,
            stop_reason: None,
            usage: Usage::default(),
            timings: Timings::default(),
        };
        view.update(&inner);
        let (seed, prompt) = (inner.seed(), inner.prompt().to_vec());
        Self {
            loaded,
            prompt,
            raised,
            inner: Mutex::new(Some(inner)),
            stepping: Mutex::new(None),
            cancelled: AtomicBool::new(false),
            view: Mutex::new(view),
            seed,
        }
    }

    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while another thread is in a step of this stream, without becoming deaf to signals.
    fn lock(&self, signals: &mut Signals) -> Result<Held<'_>> {
        loop {
            if let Some(held) = self.held() {
                return Ok(held);
            }
            if *self.stepping() == Some(std::thread::current().id()) {
                return Err(generate::reentered());
            }
            signals.check()?;
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The stream, unless another thread is in a step of it.
    fn held(&self) -> Option<Held<'_>> {
        let inner = match self.inner.try_lock() {
            Ok(inner) => inner,
            Err(TryLockError::Poisoned(inner)) => inner.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        inner.is_some().then_some(Held(inner))
    }

    /// Takes the stream to another thread.
    pub(super) fn take(&self) -> Option<generate::Stream> {
        let taken = self.held()?.0.take();
        *self.stepping() = Some(std::thread::current().id());
        taken
    }

    /// Takes it back.
    pub(super) fn put_back(&self, stream: generate::Stream) {
        self.view().update(&stream);
        *self.stepping() = None;
        *self.inner.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
        if self.is_cancelled() {
            self.settle();
        }
    }

    /// What can be asked while a step runs is brought up to date.
    pub(super) fn show(&self, stream: &generate::Stream) {
        self.view().update(stream);
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }

    pub(super) fn raised(&self) -> PyResult<()> {
        self.raised.take()
    }

    fn stepping(&self) -> MutexGuard<'_, Option<ThreadId>> {
        self.stepping.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tokens until `enough` of one is true, or the end.
    fn advance(&self, py: Python<'_>, enough: fn(&Token) -> bool) -> PyResult<Option<Token>> {
        self.loaded.model.check_process()?;
        let mut signals = Signals::new(py, Some(&self.cancelled))?;
        let result = py.detach(|| {
            let result = guard(|| {
                let mut stream = match self.lock(&mut signals) {
                    Err(Error::Interrupted) => return Ok(None),
                    locked => locked?,
                };
                *self.stepping() = Some(std::thread::current().id());
                let result = loop {
                    let next = stream.next(&mut || signals.check());
                    self.view().update(&stream);
                    match next {
                        Ok(Some(token)) if !enough(&token) => {}
                        other => break other,
                    }
                };
                *self.stepping() = None;
                result
            });
            // A cancellation that came while the stream was locked, but after its last look.
            if self.is_cancelled() {
                self.settle();
            }
            result
        });
        self.raised()?;
        signals.into_result()?;
        Ok(result?)
    }

    /// A token as Python sees it: (id, text, logprob, alternatives).
    pub(super) fn token(&self, token: Token) -> Item {
        let tokenizer = &self.loaded.model.tokenizer;
        let alternative = |(id, logprob)| {
            let bytes = Cow::Owned(tokenizer.token_bytes(id).to_vec());
            (id, tokenizer.label(id), logprob, bytes)
        };
        let alternatives = token.top_logprobs.into_iter().map(alternative);
        (token.id, token.text, token.logprob, alternatives.collect())
    }

    /// Ends the stream if no thread is in a step of it; one that is will do so itself.
    pub(super) fn settle(&self) {
        match self.held() {
            Some(mut stream) => {
                stream.cancel();
                self.view().update(&stream);
            }
            None => self.loaded.driver.look(&self.loaded.model),
        }
    }
}

#[pymethods]
impl Stream {
    /// The next delta that is not empty, or `None` at the end.
    fn next_text(&self, py: Python<'_>) -> PyResult<Option<String>> {
        Ok(self
            .advance(py, |token| !token.text.is_empty())?
            .map(|token| token.text))
    }

    /// The next token as (id, text, logprob, alternatives), or `None` at the end; an alternative is (id, text, logprob,
    /// bytes).
    fn next_token(&self, py: Python<'_>) -> PyResult<Option<Item>> {
        Ok(self.advance(py, |_| true)?.map(|token| self.token(token)))
    }

    /// Calls `deliver(item, error)` from another thread when there is what `next_text` would give or raise.
    fn await_text(slf: &Bound<'_, Self>, deliver: Py<PyAny>) -> PyResult<()> {
        Request::send(slf, Wanted::Text, deliver)
    }

    /// The same for `next_token`.
    fn await_token(slf: &Bound<'_, Self>, deliver: Py<PyAny>) -> PyResult<()> {
        Request::send(slf, Wanted::Token, deliver)
    }

    /// The same when the stream has ended.
    fn await_end(slf: &Bound<'_, Self>, deliver: Py<PyAny>) -> PyResult<()> {
        Request::send(slf, Wanted::End, deliver)
    }

    /// All tokens so far.
    #[getter]
    fn tokens(&self) -> Vec<Item> {
        let tokens = self.view().tokens.clone();
        tokens.into_iter().map(|token| self.token(token)).collect()
    }

    /// The token ids of the prompt.
    #[getter]
    fn prompt_ids(&self) -> Vec<u32> {
        self.prompt.clone()
    }

    /// Ends the stream, at once or after the layer that is running in another thread.
    pub(super) fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        self.settle();
    }

    /// As `cancel`, and waits until no thread is in a step: nothing changes any more after this.
    fn end(&self, py: Python<'_>) -> PyResult<()> {
        self.loaded.model.check_process()?;
        self.cancelled.store(true, Ordering::SeqCst);
        self.settle();
        let mut signals = Signals::new(py, None)?;
        let ended = py.detach(|| {
            guard(|| {
                let mut stream = self.lock(&mut signals)?;
                stream.cancel();
                self.view().update(&stream);
                Ok(())
            })
        });
        signals.into_result()?;
        Ok(ended?)
    }

    /// What this reads and writes is held on to by `session`. Before the first step.
    fn hold(&self, session: &Session) {
        if let Some(mut stream) = self.held() {
            stream.pin(session.pin());
        }
    }

    #[getter]
    fn text(&self) -> String {
        self.view().text.clone()
    }

    #[getter]
    fn finish_reason(&self) -> Option<&'static str> {
        // Cancelled is what a stream is from the call on, though a layer may still be running.
        let cancelled = self.is_cancelled();
        let finish = self.view().finish;
        finish
            .or(cancelled.then_some(FinishReason::Cancelled))
            .map(FinishReason::name)
    }

    #[getter]
    fn stop_reason<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match &self.view().stop_reason {
            None => Ok(py.None().into_bound(py)),
            Some(StopReason::Text(text)) => Ok(text.into_pyobject(py)?.into_any()),
            Some(StopReason::Id(id)) => Ok(id.into_pyobject(py)?.into_any()),
        }
    }

    #[getter]
    fn usage(&self) -> (usize, usize, usize, usize) {
        let usage = self.view().usage;
        (
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.accepted_tokens,
            usage.cached_tokens,
        )
    }

    /// (ttft_s, generation_s, recompute_s), the first two `None` until they are known.
    #[getter]
    fn timings(&self) -> (Option<f64>, Option<f64>, f64) {
        let timings = self.view().timings;
        (
            timings.ttft.map(|d| d.as_secs_f64()),
            timings.generation.map(|d| d.as_secs_f64()),
            timings.recomputed.as_secs_f64(),
        )
    }

    #[getter]
    fn seed(&self) -> u64 {
        self.seed
    }
}
