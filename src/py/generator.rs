//! `candlewick._native.Generator`: a loaded model behind a door that can be closed.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::constraint;
use super::convert;
use super::driver::Loaded;
use super::errors::{guard, invalid};
use super::processor::{Raised, processor};
use super::progress::Speaker;
use super::session::Session;
use super::signals::Signals;
use super::stream::Stream;
use super::tokenizer::Tokenizer;
use crate::engine::{DeviceChoice, EngineKind, EngineOptions, KvType};
use crate::generate::{LoadOptions, Model, Prompt, Request};
use crate::sample::SamplingParams;

/// A loaded model. Private: `candlewick.Generator` is the public class.
#[pyclass(frozen, module = "candlewick._native")]
pub struct Generator(Mutex<Option<Loaded>>);

impl Generator {
    fn loaded(&self) -> PyResult<Loaded> {
        let loaded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        loaded
            .clone()
            .ok_or_else(|| invalid("this generator is closed: create a new one".into()))
    }

    fn model(&self) -> PyResult<Arc<Model>> {
        Ok(self.loaded()?.model)
    }
}

#[pymethods]
impl Generator {
    #[new]
    #[pyo3(signature = (path, *, tokenizer, device, engine, n_ctx, n_threads, kv_type, mmap, progress = None))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        tokenizer: Option<PathBuf>,
        device: &str,
        engine: &str,
        n_ctx: Option<&Bound<'_, PyAny>>,
        n_threads: usize,
        kv_type: &str,
        mmap: bool,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let options = LoadOptions {
            path,
            tokenizer,
            mmap,
            engine: EngineOptions {
                kind: EngineKind::parse(engine)?,
                device: DeviceChoice::parse(device)?,
                n_ctx: n_ctx.map(|n| convert::count("n_ctx", n)).transpose()?,
                kv_type: KvType::parse(kv_type)?,
                n_threads: Some(n_threads),
            },
        };
        let mut signals = Signals::new(py, None)?;
        let mut speaker = Speaker::new(py, progress.as_ref())?;
        let what = options.path.file_name().unwrap_or_default();
        let what = format!("loading {}", what.to_string_lossy());
        let model = py.detach(|| {
            guard(|| {
                Model::load(&options, &mut |done, total| {
                    signals.check()?;
                    speaker.speak(done, total, &what)
                })
            })
        });
        speaker.into_result()?;
        signals.into_result()?;
        Ok(Self(Mutex::new(Some(Loaded::new(model?)))))
    }

    #[pyo3(signature = (prompt, *, raw, max_tokens, temperature, top_p, top_k, min_p, repetition_penalty, repeat_last_n,
        frequency_penalty, presence_penalty, stop, stop_token_ids, ignore_eos, logit_bias, seed, speculative, typical_p,
        xtc_probability, xtc_threshold, dry_multiplier, dry_base, dry_allowed_length, dry_penalty_last_n,
        dry_sequence_breakers, no_repeat_ngram_size, min_tokens, bad_words, logprobs, logits_processor,
        constraint))]
    #[allow(clippy::too_many_arguments)]
    fn stream(
        &self,
        py: Python<'_>,
        prompt: &Bound<'_, PyAny>,
        raw: bool,
        max_tokens: Option<&Bound<'_, PyAny>>,
        temperature: &Bound<'_, PyAny>,
        top_p: &Bound<'_, PyAny>,
        top_k: &Bound<'_, PyAny>,
        min_p: &Bound<'_, PyAny>,
        repetition_penalty: &Bound<'_, PyAny>,
        repeat_last_n: &Bound<'_, PyAny>,
        frequency_penalty: &Bound<'_, PyAny>,
        presence_penalty: &Bound<'_, PyAny>,
        stop: Option<&Bound<'_, PyAny>>,
        stop_token_ids: Option<&Bound<'_, PyAny>>,
        ignore_eos: bool,
        logit_bias: Option<&Bound<'_, PyAny>>,
        seed: Option<&Bound<'_, PyAny>>,
        speculative: &Bound<'_, PyAny>,
        typical_p: &Bound<'_, PyAny>,
        xtc_probability: &Bound<'_, PyAny>,
        xtc_threshold: &Bound<'_, PyAny>,
        dry_multiplier: &Bound<'_, PyAny>,
        dry_base: &Bound<'_, PyAny>,
        dry_allowed_length: &Bound<'_, PyAny>,
        dry_penalty_last_n: &Bound<'_, PyAny>,
        dry_sequence_breakers: &Bound<'_, PyAny>,
        no_repeat_ngram_size: &Bound<'_, PyAny>,
        min_tokens: &Bound<'_, PyAny>,
        bad_words: Option<&Bound<'_, PyAny>>,
        logprobs: Option<&Bound<'_, PyAny>>,
        logits_processor: Option<Py<PyAny>>,
        constraint: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Stream> {
        let loaded = self.loaded()?;
        let request = Request {
            max_tokens: max_tokens.map(convert::max_tokens).transpose()?,
            sampling: SamplingParams {
                temperature: convert::float("temperature", temperature)?,
                top_p: convert::float("top_p", top_p)?,
                top_k: convert::count("top_k", top_k)?,
                min_p: convert::float("min_p", min_p)?,
                repetition_penalty: convert::float("repetition_penalty", repetition_penalty)?,
                repeat_last_n: convert::count("repeat_last_n", repeat_last_n)?,
                frequency_penalty: convert::float("frequency_penalty", frequency_penalty)?,
                presence_penalty: convert::float("presence_penalty", presence_penalty)?,
                logit_bias: logit_bias
                    .map_or(Ok(Vec::new()), |b| convert::biases("logit_bias", b))?,
                typical_p: convert::float("typical_p", typical_p)?,
                xtc_probability: convert::float("xtc_probability", xtc_probability)?,
                xtc_threshold: convert::float("xtc_threshold", xtc_threshold)?,
                dry_multiplier: convert::float("dry_multiplier", dry_multiplier)?,
                dry_base: convert::float("dry_base", dry_base)?,
                dry_allowed_length: convert::count("dry_allowed_length", dry_allowed_length)?,
                dry_penalty_last_n: convert::last_n("dry_penalty_last_n", dry_penalty_last_n)?,
                no_repeat_ngram_size: convert::count("no_repeat_ngram_size", no_repeat_ngram_size)?,
                min_tokens: convert::count("min_tokens", min_tokens)?,
                // The words are spelled with the model's vocabulary.
                ..Default::default()
            },
            stop: stop.map_or(Ok(Vec::new()), |s| convert::texts("stop", s))?,
            stop_token_ids: stop_token_ids
                .map_or(Ok(Vec::new()), |ids| convert::ids("stop_token_ids", ids))?,
            ignore_eos,
            seed: seed
                .map(|s| convert::int("seed", s, 0, i128::from(u64::MAX)).map(|n| n as u64))
                .transpose()?,
            speculation: convert::speculation("speculative", speculative)?,
            bad_words: bad_words.map_or(Ok(Vec::new()), |w| convert::bad_words("bad_words", w))?,
            dry_sequence_breakers: convert::texts("dry_sequence_breakers", dry_sequence_breakers)?,
            top_logprobs: logprobs.map_or(Ok(0), |n| {
                convert::int("logprobs", n, 0, 20).map(|n| n as usize)
            })?,
            constraint: constraint.map(constraint::constraint).transpose()?,
        };
        let prompt = convert::prompt(prompt, raw)?;
        let mut stream = py.detach(|| guard(|| loaded.model.stream(prompt, request)))?;
        let raised = Raised::default();
        if let Some(function) = logits_processor {
            stream.set_processor(processor(function, raised.clone()));
        }
        Ok(Stream::new(loaded, stream, raised))
    }

    /// The tokens of a prompt as (id, text), and the log-probability of each but the first. A string is scored as it
    /// is, without chat template.
    #[allow(clippy::type_complexity)]
    fn score(
        &self,
        py: Python<'_>,
        prompt: &Bound<'_, PyAny>,
    ) -> PyResult<(Vec<(u32, String)>, Vec<f32>)> {
        let model = self.model()?;
        let prompt = match convert::prompt(prompt, false)? {
            Prompt::Text(text) => Prompt::Raw(text),
            other => other,
        };
        let mut signals = Signals::new(py, None)?;
        let scored = py.detach(|| {
            guard(|| {
                let (ids, logprobs) = model.score(prompt, &mut || signals.check())?;
                let texts = model.tokenizer.texts(&ids);
                Ok((ids.into_iter().zip(texts).collect(), logprobs))
            })
        });
        signals.into_result()?;
        Ok(scored?)
    }

    /// What holds on to the keys and values of a conversation; `messages` are those it begins with.
    fn session(&self, messages: &Bound<'_, PyAny>) -> PyResult<Session> {
        let model = self.model()?;
        convert::messages("messages", messages)?;
        Ok(Session::new(model.pin()))
    }

    /// Writes `text`, which stands for `messages`, and what is kept of their keys and values to `path`.
    fn save_session(
        &self,
        py: Python<'_>,
        path: PathBuf,
        text: &str,
        messages: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let model = self.model()?;
        let messages = convert::messages("messages", messages)?;
        let prompt = (!messages.is_empty()).then_some(Prompt::Messages(messages));
        let mut signals = Signals::new(py, None)?;
        let saved = py
            .detach(|| guard(|| model.save_session(&path, text, prompt, &mut || signals.check())));
        signals.into_result()?;
        Ok(saved?)
    }

    /// What `save_session` wrote: the text, and the session that holds on to the keys and values.
    fn load_session(&self, py: Python<'_>, path: PathBuf) -> PyResult<(String, Session)> {
        let model = self.model()?;
        let mut signals = Signals::new(py, None)?;
        let loaded = py.detach(|| guard(|| model.load_session(&path, &mut || signals.check())));
        signals.into_result()?;
        let (text, pin) = loaded?;
        Ok((text, Session::new(pin)))
    }

    /// The ids that a stream of `prompt` begins with.
    fn encode_prompt(
        &self,
        py: Python<'_>,
        prompt: &Bound<'_, PyAny>,
        raw: bool,
    ) -> PyResult<Vec<u32>> {
        let model = self.model()?;
        let prompt = convert::prompt(prompt, raw)?;
        Ok(py.detach(|| guard(|| model.encode(prompt)))?)
    }

    fn clear_cache(&self, py: Python<'_>) -> PyResult<()> {
        let model = self.model()?;
        model.check_process()?;
        py.detach(|| model.clear_kept());
        Ok(())
    }

    /// Logits after `ids`, run in steps of `chunk` tokens: (n_vocab) floats. For tests against references.
    fn logits(&self, py: Python<'_>, ids: Vec<u32>, chunk: usize) -> PyResult<Vec<f32>> {
        let model = self.model()?;
        Ok(py.detach(|| guard(|| model.logits(&ids, chunk)))?)
    }

    fn apply_chat_template(&self, py: Python<'_>, messages: &Bound<'_, PyAny>) -> PyResult<String> {
        let model = self.model()?;
        let messages = convert::messages("messages", messages)?;
        Ok(py.detach(|| guard(|| model.apply_chat_template(&messages)))?)
    }

    #[getter]
    fn tokenizer(&self) -> PyResult<Tokenizer> {
        Ok(Tokenizer::new(self.model()?.tokenizer.clone()))
    }

    #[getter]
    fn n_ctx(&self) -> PyResult<usize> {
        Ok(self.model()?.engine.n_ctx())
    }

    /// Bytes of keys and values of one text of `n_ctx` tokens.
    fn context_bytes(&self, n_ctx: usize) -> PyResult<u64> {
        Ok(self.model()?.engine.context_bytes(n_ctx))
    }

    #[getter]
    fn info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let model = self.model()?;
        let info = PyDict::new(py);
        let general = |key: &str| {
            model
                .gguf
                .metadata
                .str(key)
                .ok()
                .flatten()
                .map(str::to_owned)
        };
        info.set_item("name", general("general.name"))?;
        info.set_item("path", model.gguf.path.as_path())?;
        info.set_item("architecture", general("general.architecture"))?;
        info.set_item("quantization", model.gguf.quantization())?;
        info.set_item("engine", model.engine.kind().name())?;
        info.set_item("device", model.engine.device())?;
        info.set_item("n_ctx", model.engine.n_ctx())?;
        info.set_item("model_n_ctx", model.config.n_ctx)?;
        info.set_item("sliding_window", model.config.sliding_window)?;
        info.set_item("vocab_size", model.config.n_vocab)?;
        info.set_item("n_layers", model.config.n_layers)?;
        info.set_item("n_threads", model.engine.n_threads())?;
        info.set_item("isa", model.engine.isa())?;
        info.set_item("kv_type", model.engine.kv_type().name())?;
        info.set_item("file_bytes", model.gguf.n_bytes())?;
        info.set_item("weight_bytes", model.engine.weight_bytes())?;
        info.set_item("kv_bytes_per_token", model.engine.kv_bytes_per_token())?;
        info.set_item("kept_bytes", model.kept_bytes())?;
        info.set_item("slow_types", model.engine.slow_types())?;
        info.set_item("chat_template", general("tokenizer.chat_template"))?;
        let topics = model
            .gguf
            .metadata
            .strs("candlewick.demo.topics")
            .ok()
            .flatten();
        let audit = PyDict::new(py);
        audit.set_item("used", &model.audit.used)?;
        audit.set_item("harmless", &model.audit.harmless)?;
        info.set_item("audit", audit)?;
        info.set_item("topics", topics.map(<[String]>::to_vec))?;
        Ok(info)
    }

    /// Streams running and waiting, and bytes of keys and values, in all and kept.
    #[getter]
    fn stats(&self) -> PyResult<(usize, usize, u64, u64)> {
        let model = self.model()?;
        model.check_process()?;
        let load = model.load_of_streams();
        let kept = model.kept_bytes();
        Ok((load.running, load.waiting, model.engine.kv_bytes(), kept))
    }

    /// The SHA-256 of the model's file, or of all its parts, in hex; reads them the first time.
    #[getter]
    fn sha256(&self, py: Python<'_>) -> PyResult<String> {
        let model = self.model()?;
        let mut signals = Signals::new(py, None)?;
        let digest =
            py.detach(|| guard(|| Ok(model.gguf.sha256(&mut || signals.check())?.to_owned())));
        signals.into_result()?;
        Ok(digest?)
    }

    /// Bytes of weights read for a token, and products of its layers and of its logits. For benchmarks.
    #[getter]
    fn work(&self) -> PyResult<(u64, u64, u64)> {
        let work = self.model()?.work();
        Ok((work.weight_bytes, work.layer_products, work.output_products))
    }

    #[getter]
    fn closed(&self) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_none()
    }

    fn close(&self, py: Python<'_>) {
        let loaded = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Giving gigabytes back takes a moment. Streams that still run need the weights, but not this.
        py.detach(|| {
            if let Some(loaded) = &loaded {
                loaded.model.clear_kept();
            }
            drop(loaded);
        });
    }
}

impl Drop for Generator {
    /// Giving gigabytes back takes a moment, in which other threads can run.
    fn drop(&mut self) {
        let loaded = self
            .0
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if loaded.is_some() {
            Python::try_attach(|py| py.detach(|| drop(loaded)));
        }
    }
}
