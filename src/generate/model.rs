//! A loaded model: weights, tokenizer and template, ready to start streams.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::constrained::Vocabulary;
use super::kept::{Kept, Pin};
use super::prompt::Prompt;
use super::queue::{Id, Job};
use super::request::Request;
use super::scheduler::{Load, Ran, Scheduler};
use super::steps::Steps;
use super::stream::Stream;
use crate::engine::{self, Engine, EngineOptions, Interrupt, OnLoaded};
use crate::error::{Error, Result, bytes};
use crate::gguf::{Audit, Gguf};
use crate::model::{self, Config};
use crate::text::{self, ChatTemplate, Message, Tokenizer};

/// What to load and how.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// The GGUF file.
    pub path: PathBuf,
    /// A `tokenizer.json` to use instead of the file's own vocabulary.
    pub tokenizer: Option<PathBuf>,
    /// Map the file, or read it.
    pub mmap: bool,
    /// Engine, device, context, KV.
    pub engine: EngineOptions,
}

/// What one token costs, for comparison with what the machine can do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Bytes of the file's matrices that are read for a token whose logits are wanted.
    pub weight_bytes: u64,
    /// Multiplications by weights of the layers.
    pub layer_products: u64,
    /// The same for the logits, which a prompt needs once.
    pub output_products: u64,
}

/// Weights, tokenizer and template of one file.
pub struct Model {
    /// The file.
    pub gguf: Arc<Gguf>,
    /// Its hyperparameters.
    pub config: Config,
    /// Its vocabulary.
    pub tokenizer: Arc<Tokenizer>,
    template: Option<ChatTemplate>,
    /// What runs it.
    pub engine: Arc<dyn Engine>,
    /// Which keys and tensors of the file are used, and which change nothing.
    pub audit: Audit,
    pub(super) scheduler: Scheduler,
    pub(super) vocabulary: Vocabulary,
    pub(super) kept: Arc<Kept>,
    pid: u32,
}

impl Model {
    /// Opens, checks and loads a model.
    pub fn load(options: &LoadOptions, on_loaded: OnLoaded) -> Result<Arc<Self>> {
        let path = &options.path;
        let gguf = Arc::new(Gguf::open(path, options.mmap)?);
        let config = Config::from_gguf(&gguf).map_err(|e| e.in_file(path))?;
        let tokenizer = match &options.tokenizer {
            Some(json) => Tokenizer::from_json(json, &gguf.metadata)?,
            None => Tokenizer::from_gguf(&gguf.metadata).map_err(|e| e.in_file(path))?,
        };
        check_vocabulary(&tokenizer, &config, options.tokenizer.as_deref())
            .map_err(|e| e.in_file(path))?;
        let audit =
            audit(&gguf, &config, options.tokenizer.is_some()).map_err(|e| e.in_file(path))?;
        let template =
            ChatTemplate::from_gguf(&gguf.metadata, &tokenizer).map_err(|e| e.in_file(path))?;
        let engine = engine::load(&gguf, &config, &options.engine, on_loaded)
            .map_err(|e| e.in_file(path))?;
        let max_kept = engine.n_ctx() as u64 * engine.kv_bytes_per_token();
        Ok(Arc::new(Self {
            gguf,
            config,
            tokenizer: Arc::new(tokenizer),
            template,
            engine,
            audit,
            scheduler: Scheduler::default(),
            vocabulary: Vocabulary::default(),
            kept: Arc::new(Kept::new(max_kept)),
            pid: std::process::id(),
        }))
    }

    /// Checks `request` and encodes `prompt`; the work starts with the first [`Stream::next`].
    pub fn stream(self: &Arc<Self>, prompt: Prompt, mut request: Request) -> Result<Stream> {
        self.check_process()?;
        request.spell(&self.tokenizer)?;
        request.validate(self.config.n_vocab)?;
        let ids = prompt.encode(self)?;
        if ids.len() >= self.engine.n_ctx() {
            return Err(Error::ContextLength {
                prompt_tokens: ids.len(),
                n_ctx: self.engine.n_ctx(),
                model_ctx: self.config.n_ctx,
            });
        }
        Stream::new(self.clone(), ids, request)
    }

    /// The prompt text that `messages` become, ready for the assistant's answer.
    ///
    /// # Errors
    /// `InvalidRequest` where the model has no chat template or the template refuses the messages.
    pub fn apply_chat_template(&self, messages: &[Message]) -> Result<String> {
        let template = self.template.as_ref().ok_or_else(|| {
            Error::InvalidRequest(
                "this model has no chat template, so it was not made to chat: give it a text to continue, with raw=True"
                    .into(),
            )
        })?;
        template.render(messages)
    }

    /// Logits after `ids`, run in steps of `chunk` tokens; for comparison with references.
    pub fn logits(&self, ids: &[u32], chunk: usize) -> Result<Vec<f32>> {
        let mut steps = Steps::new(self, self.engine.sequence()?);
        for tokens in ids.chunks(chunk.max(1)) {
            steps.run(tokens, 1, &mut || Ok(()))?;
        }
        if steps.logits.is_empty() {
            return Err(Error::InvalidRequest("no ids to run".into()));
        }
        Ok(std::mem::take(&mut steps.logits))
    }

    /// What passing one token through the matrices costs.
    pub fn work(&self) -> Work {
        let tied = self.gguf.tensor("output.weight").is_none();
        let mut work = Work::default();
        for tensor in self.gguf.tensors() {
            let is_output = match tensor.name.as_str() {
                "token_embd.weight" if !tied => continue,
                "token_embd.weight" | "output.weight" => true,
                _ if tensor.shape.len() != 2 => continue,
                _ => false,
            };
            work.weight_bytes += tensor.n_bytes() as u64;
            *(if is_output {
                &mut work.output_products
            } else {
                &mut work.layer_products
            }) += tensor.n_elements() as u64;
        }
        work
    }

    /// Refuses to work in a forked child: the threads stayed behind, and locks may be held for ever.
    pub fn check_process(&self) -> Result<()> {
        if std::process::id() == self.pid {
            return Ok(());
        }
        Err(Error::InvalidRequest(
            "this generator was made before a fork, and its threads live in the parent process: create the \
             Generator in the child, or use multiprocessing's \"spawn\" start method"
                .into(),
        ))
    }

    /// Something to hold on to the keys and values of a conversation with.
    pub fn pin(&self) -> Pin {
        Pin::new(self.kept.clone())
    }

    /// What its streams are doing.
    pub fn load_of_streams(&self) -> Load {
        self.scheduler.load()
    }

    /// Bytes of keys and values that are kept for prompts to come.
    pub fn kept_bytes(&self) -> u64 {
        self.kept.bytes()
    }

    /// Forgets them.
    pub fn clear_kept(&self) {
        self.kept.clear();
    }

    /// The token ids of `prompt`, as a stream of it has them.
    pub fn encode(&self, prompt: Prompt) -> Result<Vec<u32>> {
        prompt.encode(self)
    }

    /// Runs `job` of the stream `id`, alone or together with what others want: see [`Scheduler::run`].
    pub(super) fn run(&self, id: Id, job: Job, interrupt: Interrupt) -> Ran {
        let engine = self.engine.as_ref();
        self.scheduler.run(engine, &self.kept, id, job, interrupt)
    }

    /// See [`Scheduler::drive`].
    pub(super) fn drive(&self, interrupt: Interrupt) -> Result<Vec<(Id, Ran)>> {
        let engine = self.engine.as_ref();
        self.scheduler.drive(engine, &self.kept, interrupt)
    }
}

impl Error {
    /// Names the file that an error is about, where its text does not yet.
    fn in_file(self, path: &Path) -> Self {
        let name = |m: String| {
            let path = path.display().to_string();
            if m.contains(&path) {
                m
            } else {
                format!("`{path}`: {m}")
            }
        };
        match self {
            Self::ModelFormat(m) => Self::ModelFormat(name(m)),
            Self::Unsupported(m) => Self::Unsupported(name(m)),
            other => other,
        }
    }
}

fn audit(gguf: &Gguf, config: &Config, tokenizer_json: bool) -> Result<Audit> {
    let mut audit = model::audit(gguf, config)?;
    audit.extend(text::audit(&gguf.metadata, tokenizer_json)?);
    Ok(audit)
}

/// A vocabulary of the file is as large as the embedding; a tokenizer.json may leave padding rows unnamed.
fn check_vocabulary(tokenizer: &Tokenizer, config: &Config, json: Option<&Path>) -> Result<()> {
    let (found, rows) = (tokenizer.vocab_size(), config.n_vocab);
    match json {
        None if found != rows => Err(Error::ModelFormat(format!(
            "the vocabulary has {found} tokens and the embedding `token_embd.weight` {rows} rows, expected as many"
        ))),
        Some(path) if found > rows => Err(Error::ModelFormat(format!(
            "`{}` has {found} tokens and the model only {rows}: it belongs to another model",
            path.display()
        ))),
        _ => Ok(()),
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Model({}, {}, {})",
            self.gguf.path.display(),
            self.gguf.quantization(),
            bytes(self.gguf.n_bytes())
        )
    }
}
