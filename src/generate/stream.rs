//! The loop: prefill in chunks, then sample, decode, emit, until something ends it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::kept::Pin;
use super::lookup::Lookup;
use super::model::Model;
use super::queue::{Id, Job};
use super::request::Request;
use super::scheduler::Ran;
use crate::engine::{Interrupt, Sequence};
use crate::error::{Error, Result};
use crate::sample::{Logprobs, Matcher, Sampler};
use crate::text::{Detokenizer, StopStrings, Stopped};

/// Why a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// An end token, a stop token or a stop string.
    Stop,
    /// `max_tokens`, or the end of the context.
    Length,
    /// Somebody asked for it.
    Cancelled,
}

impl FinishReason {
    /// As in OpenAI's API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What a stream stopped at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopReason {
    /// A stop string of the request.
    Text(String),
    /// An end token of the model, or a stop token of the request.
    Id(u32),
}

/// One generated token.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// The text that became certain with it: none while a character or a stop string may be incomplete.
    pub text: String,
    /// Its natural-log probability under the model, before penalties, temperature and filters.
    pub logprob: f32,
    /// The likeliest tokens in its place, likeliest first, as ids and log-probabilities of the same kind.
    pub top_logprobs: Vec<(u32, f32)>,
}

/// Changes the logits that the model gave after some ids, prompt included: (n_vocab), before all else.
pub type Processor = Box<dyn FnMut(&[u32], &mut [f32]) -> Result<()> + Send>;

/// Counts, as in OpenAI's API.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt, template and BOS included.
    pub prompt_tokens: usize,
    /// Generated tokens, the one that ended the stream included.
    pub completion_tokens: usize,
    /// Generated tokens that were guessed right and came with an earlier one's step.
    pub accepted_tokens: usize,
    /// Tokens of the prompt whose keys and values were there already.
    pub cached_tokens: usize,
}

/// How long things took.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Timings {
    /// From the first `next` to the first token.
    pub ttft: Option<Duration>,
    /// From the first token to the last.
    pub generation: Option<Duration>,
    /// Part of it that went into running the tokens again when the sequence outgrew the original context of a model
    /// with long rope.
    pub recomputed: Duration,
}

/// One generation in progress. Dropping it frees its KV.
pub struct Stream {
    model: Arc<Model>,
    id: Id,
    request: Request,
    seed: u64,
    prompt: Vec<u32>,
    // None before the first step and after the last
    sequence: Option<Box<dyn Sequence>>,
    // The conversation that will want to go on from here
    pin: Option<Arc<Pin>>,
    n_cached: usize,
    // (1 + guesses, n_vocab) of the last step, which row is the next token's, and that row for the sampler to change
    logits: Vec<f32>,
    row: usize,
    guesses: Vec<u32>,
    lookup: Lookup,
    n_accepted: usize,
    adjusted: Vec<f32>,
    // The last chosen token, not yet run
    last: Option<u32>,
    sampler: Sampler,
    matcher: Option<Matcher>,
    processor: Option<Processor>,
    tokens: Vec<Token>,
    detokenizer: Detokenizer,
    stops: StopStrings,
    text: String,
    finish: Option<FinishReason>,
    stop_reason: Option<StopReason>,
    n_generated: usize,
    started: Option<Instant>,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
    recomputed: Duration,
    // When the last step was asked for
    asked: Instant,
}

impl Stream {
    pub(super) fn new(model: Arc<Model>, prompt: Vec<u32>, request: Request) -> Result<Self> {
        let seed = request.seed.unwrap_or_else(random_seed);
        let lookup = Lookup::new(request.speculation, &prompt);
        let detokenizer = Detokenizer::new(model.tokenizer.clone(), &prompt);
        Ok(Self {
            id: model.scheduler.join(),
            sampler: Sampler::new(
                request.sampling.clone(),
                &prompt,
                request.ends(&model.tokenizer),
                seed,
            ),
            matcher: model
                .vocabulary
                .matcher(&model.tokenizer, &request, &detokenizer)?,
            processor: None,
            tokens: Vec::new(),
            detokenizer,
            stops: StopStrings::new(request.stop.clone())?,
            seed,
            prompt,
            sequence: None,
            pin: None,
            n_cached: 0,
            logits: Vec::new(),
            row: 0,
            guesses: Vec::new(),
            lookup,
            n_accepted: 0,
            adjusted: Vec::new(),
            last: None,
            text: String::new(),
            finish: None,
            stop_reason: None,
            n_generated: 0,
            started: None,
            first_token: None,
            last_token: None,
            recomputed: Duration::ZERO,
            asked: Instant::now(),
            model,
            request,
        })
    }

    /// Lets `processor` see each position once, in order.
    pub fn set_processor(&mut self, processor: Processor) {
        self.processor = Some(processor);
    }

    /// What is read and written goes on to be held on to by `pin`.
    pub fn pin(&mut self, pin: Arc<Pin>) {
        self.pin = Some(pin);
    }

    /// The next token, or `None` at the end.
    ///
    /// # Errors
    /// What the engine or `interrupt` gives; the stream has ended then, with what it gave so far.
    /// [`Error::Interrupted`] is not given but ends the stream as cancelled.
    pub fn next(&mut self, interrupt: Interrupt) -> Result<Option<Token>> {
        if self.finish.is_some() {
            return Ok(None);
        }
        let advanced = self.advance(interrupt);
        self.came(advanced)
    }

    /// Ends the stream where there was an error.
    pub(super) fn came(&mut self, advanced: Result<Token>) -> Result<Option<Token>> {
        match advanced {
            Ok(token) => Ok(Some(token)),
            Err(error) => {
                self.end(FinishReason::Cancelled);
                if matches!(error, Error::Interrupted) {
                    Ok(None)
                } else {
                    Err(error)
                }
            }
        }
    }

    fn advance(&mut self, interrupt: Interrupt) -> Result<Token> {
        while let Some(job) = self.wanted()? {
            let ran = self.model.run(self.id, job, interrupt);
            if self.ran(ran)? {
                break;
            }
        }
        interrupt()?;
        self.choose()
    }

    /// What must run before the next token can be chosen, if anything.
    pub(super) fn wanted(&mut self) -> Result<Option<Job>> {
        self.started.get_or_insert_with(Instant::now);
        match (self.last, self.sequence.take()) {
            (Some(id), sequence) if self.guesses.get(self.row) == Some(&id) => {
                self.sequence = sequence;
                self.row += 1;
                self.n_accepted += 1;
                Ok(None)
            }
            (Some(id), Some(sequence)) => self.token_job(id, sequence).map(Some),
            _ => self.text_job().map(Some),
        }
    }

    /// Chooses the next token, once what is [`Self::wanted`] has run.
    pub(super) fn choose(&mut self) -> Result<Token> {
        let n_vocab = self.model.config.n_vocab;
        let logits = &self.logits[self.row * n_vocab..(self.row + 1) * n_vocab];
        self.adjusted.clear();
        self.adjusted.extend_from_slice(logits);
        if let Some(processor) = &mut self.processor {
            processor(self.sampler.ids(), &mut self.adjusted)?;
            check_processed(logits, &self.adjusted)?;
        }
        let left = self.left();
        let id = match &mut self.matcher {
            Some(matcher) => self
                .sampler
                .sample_within(&mut self.adjusted, matcher, left),
            None => self.sampler.sample(&mut self.adjusted),
        };
        let id = id.map_err(|error| match error {
            Error::Engine(_) if self.matcher.is_some() && self.processor.is_some() => {
                Error::InvalidRequest(
                    "logits_processor forbids every token that may come next here".into(),
                )
            }
            error => error,
        })?;
        if let Some(matcher) = &mut self.matcher {
            matcher.push(id)?;
        }
        let logprobs = Logprobs::new(logits);
        let (logprob, top_logprobs) = (logprobs.of(id), logprobs.top(self.request.top_logprobs));
        self.lookup.push(id);
        let now = Instant::now();
        self.first_token.get_or_insert(now);
        self.last_token = Some(now);
        self.last = Some(id);
        self.n_generated += 1;
        let token = Token {
            id,
            text: self.emit(id),
            logprob,
            top_logprobs,
        };
        self.tokens.push(token.clone());
        Ok(token)
    }

    /// Keeps what has been run of the prompt and of the chosen tokens, for those that begin like this.
    fn keep(&self, sequence: &dyn Sequence) {
        // The last token was chosen and not run. Guesses after it may have been.
        let known = self.prompt.len() + self.n_generated.saturating_sub(1);
        let n = sequence.n_past().min(known);
        if n == 0 {
            return;
        }
        if let Some(fork) = sequence.fork(n) {
            let ids = self.sampler.ids()[..n].to_vec();
            self.model.kept.insert(ids, fork, self.pin.as_deref());
        }
    }

    /// All tokens so far: the prompt, or also what was chosen where its keys and values had to go.
    fn text_job(&mut self) -> Result<Job> {
        let ids = self.sampler.ids().to_vec();
        let mut sequence = self.model.engine.sequence()?;
        sequence.announce(ids.len());
        Ok(Job {
            is_prompt: true,
            pin: self.pin.clone(),
            logits: std::mem::take(&mut self.logits),
            can_begin_again: true,
            ..Job::new(sequence, ids, 1)
        })
    }

    /// The last chosen token, and guesses after it where the engine can take them back.
    fn token_job(&mut self, id: u32, mut sequence: Box<dyn Sequence>) -> Result<Job> {
        let n_past = self.prompt.len() + self.n_generated - 1;
        if sequence.n_past() != n_past && !sequence.rewind(n_past) {
            return Err(Error::Engine(format!(
                "guesses after {n_past} tokens could not be taken back"
            )));
        }
        let mut room = sequence.room().saturating_sub(1);
        if let Some(max) = self.request.max_tokens {
            room = room.min(max - self.n_generated - 1);
        }
        self.row = 0;
        self.guesses.clear();
        self.guesses.extend_from_slice(self.lookup.guess(room));
        let tokens: Vec<u32> = std::iter::once(id)
            .chain(self.guesses.iter().copied())
            .collect();
        let n_logits = tokens.len();
        self.asked = Instant::now();
        Ok(Job {
            logits: std::mem::take(&mut self.logits),
            can_begin_again: true,
            ..Job::new(sequence, tokens, n_logits)
        })
    }

    /// Takes in how what was [`Self::wanted`] went; false if more is wanted.
    pub(super) fn ran(&mut self, ran: Ran) -> Result<bool> {
        let (job, result) = match ran {
            Ran::Done(job) => (Some(job), Ok(true)),
            Ran::Evicted => (None, Ok(false)),
            Ran::Failed(job, error) => (job, Err(error)),
        };
        let Some(job) = job else {
            (self.row, self.guesses) = (0, Vec::new());
            return result;
        };
        self.logits = job.logits;
        self.recomputed = job.sequence.recomputed();
        if !job.is_prompt {
            let seconds = self.asked.elapsed().as_secs_f64();
            self.lookup.measured(self.guesses.len(), seconds);
        } else if self.last.is_none() {
            self.n_cached = job.n_cached;
        }
        // After any other error it is half-way between two tokens.
        if matches!(
            result,
            Ok(_) | Err(Error::Interrupted | Error::OutOfMemory { .. })
        ) {
            self.sequence = Some(job.sequence);
        }
        result
    }

    /// Takes in a chosen token: its text, and whether it ends the stream.
    fn emit(&mut self, id: u32) -> String {
        let ends = self.request.stop_token_ids.contains(&id)
            || (!self.request.ignore_eos && self.model.tokenizer.eos_ids().contains(&id));
        let mut text = if ends { String::new() } else { self.push(id) };
        let length = self.left() == 0;
        let complete = self
            .matcher
            .as_ref()
            .is_some_and(|matcher| matcher.is_done() || length && matcher.is_complete());
        if self.finish.is_none() && (ends || complete || length) {
            text += &self.flush();
            if ends && self.finish.is_none() {
                self.stop_reason = Some(StopReason::Id(id));
            }
            self.end(if ends || complete {
                FinishReason::Stop
            } else {
                FinishReason::Length
            });
        }
        self.text += &text;
        text
    }

    /// Tokens that may still be generated.
    fn left(&self) -> usize {
        let room = self.model.engine.n_ctx() - self.prompt.len() - self.n_generated;
        let max = self.request.max_tokens;
        max.map_or(room, |max| room.min(max - self.n_generated))
    }

    fn push(&mut self, id: u32) -> String {
        let delta = self.detokenizer.push(id);
        // What stops is looked for in the text after that.
        if self.n_generated <= self.request.sampling.min_tokens {
            return delta;
        }
        let stopped = self.stops.push(&delta);
        self.take(stopped)
    }

    /// What was held back, now that nothing follows.
    fn flush(&mut self) -> String {
        let rest = self.detokenizer.finish();
        let stopped = self.stops.push(&rest);
        let mut text = self.take(stopped);
        if self.finish.is_none() {
            let held = self.stops.finish();
            text += &self.take(held);
        }
        text
    }

    fn take(&mut self, stopped: Stopped) -> String {
        if let Some(index) = stopped.matched {
            self.stop_reason = Some(StopReason::Text(self.request.stop[index].clone()));
            self.end(FinishReason::Stop);
        }
        stopped.text
    }

    fn end(&mut self, reason: FinishReason) {
        self.finish.get_or_insert(reason);
        // In a forked child another thread of the parent's may hold the scheduler's lock for ever.
        if self.model.check_process().is_ok() {
            self.model.scheduler.leave(self.id);
        }
        if let Some(sequence) = self.sequence.take() {
            self.keep(sequence.as_ref());
        }
        // It may hold on to whoever holds this stream.
        self.processor = None;
    }

    /// Ends the stream; what it gave so far stays.
    pub fn cancel(&mut self) {
        self.end(FinishReason::Cancelled);
    }

    pub(super) fn id(&self) -> Id {
        self.id
    }

    pub(super) fn model(&self) -> Arc<Model> {
        self.model.clone()
    }

    /// The token ids of the prompt.
    pub fn prompt(&self) -> &[u32] {
        &self.prompt
    }

    /// All tokens so far.
    pub fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// All text so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Why it ended, or `None` while it runs.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.finish
    }

    /// What it stopped at.
    pub fn stop_reason(&self) -> Option<&StopReason> {
        self.stop_reason.as_ref()
    }

    /// Counts so far.
    pub fn usage(&self) -> Usage {
        Usage {
            prompt_tokens: self.prompt.len(),
            completion_tokens: self.n_generated,
            accepted_tokens: self.n_accepted,
            cached_tokens: self.n_cached,
        }
    }

    /// Times so far.
    pub fn timings(&self) -> Timings {
        let between = |from: Option<Instant>, to: Option<Instant>| Some(to?.duration_since(from?));
        Timings {
            ttft: between(self.started, self.first_token),
            generation: between(self.first_token, self.last_token),
            recomputed: self.recomputed,
        }
    }

    /// The seed in use.
    pub fn seed(&self) -> u64 {
        self.seed
    }
}

impl Drop for Stream {
    /// Also what nobody reads to its end is kept.
    fn drop(&mut self) {
        self.end(FinishReason::Cancelled);
    }
}

/// A processor may forbid tokens with -inf, but not all, and gives numbers otherwise.
fn check_processed(before: &[f32], after: &[f32]) -> Result<()> {
    let is_new = |bad: fn(f32) -> bool| {
        let mut pairs = before.iter().zip(after);
        pairs.position(|(&b, &a)| bad(a) && !bad(b))
    };
    for (name, bad) in [
        ("NaN", f32::is_nan as fn(f32) -> bool),
        ("inf", |x| x == f32::INFINITY),
    ] {
        if let Some(id) = is_new(bad) {
            return Err(Error::InvalidRequest(format!(
                "logits_processor gave {name} for the token id {id}, expected a finite number or -inf"
            )));
        }
    }
    if before.iter().any(|l| l.is_finite()) && !after.iter().any(|l| l.is_finite()) {
        return Err(Error::InvalidRequest(
            "logits_processor gave -inf for every token, expected at least one finite number"
                .into(),
        ));
    }
    Ok(())
}

/// From the system's randomness, by way of the standard library's hasher; 53 bits survive JSON.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish()
        >> 11
}
