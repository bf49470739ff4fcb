//! Tokens and their KV in, logits out. Nothing outside this folder knows which engine runs.

mod candle;
pub mod cpu;
mod device;
mod original;
mod regime;
mod threads;
mod weights;

use std::sync::Arc;
use std::time::Duration;

pub use self::device::DeviceChoice;
pub use self::threads::start as start_threads;
use crate::error::{Error, Result};
use crate::gguf::Gguf;
use crate::model::Config;

/// Called between the layers of a forward pass and the tensors of a load; an error stops the work there.
pub type Interrupt<'a> = &'a mut dyn FnMut() -> Result<()>;

/// Which forward pass runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineKind {
    /// Our own model in Candle tensors.
    Candle,
    /// `candle_transformers`' `quantized_phi3`, as the program that candlewick grew from used it.
    Original,
}

impl EngineKind {
    /// All names a user can give.
    pub const NAMES: [&'static str; 3] = ["auto", "candle", "original"];

    /// The engine called `name`.
    pub fn parse(name: &str) -> Result<Self> {
        match name {
            "auto" | "candle" => Ok(Self::Candle),
            "original" => Ok(Self::Original),
            other => Err(Error::InvalidRequest(format!(
                "engine is {other:?}, expected one of {}",
                Self::NAMES.map(|n| format!("{n:?}")).join(", ")
            ))),
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Candle => "candle",
            Self::Original => "original",
        }
    }
}

/// How keys and values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvType {
    /// Four bytes an element.
    F32,
    /// Two bytes an element.
    F16,
}

impl KvType {
    /// The type called `name`; `None` for `"auto"`, which leaves it to the engine.
    pub fn parse(name: &str) -> Result<Option<Self>> {
        match name {
            "auto" => Ok(None),
            "f32" => Ok(Some(Self::F32)),
            "f16" => Ok(Some(Self::F16)),
            other => Err(Error::InvalidRequest(format!(
                "kv_type is {other:?}, expected \"auto\", \"f16\" or \"f32\""
            ))),
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
        }
    }

    /// Bytes of one element.
    pub fn element_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }
}

/// What a user can choose about an engine.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Which forward pass.
    pub kind: EngineKind,
    /// Where it runs.
    pub device: DeviceChoice,
    /// Context in tokens; `None` is the model's.
    pub n_ctx: Option<usize>,
    /// How keys and values are stored; `None` is what is best for the engine and device.
    pub kv_type: Option<KvType>,
}

/// Loaded weights that can run any number of independent sequences.
pub trait Engine: Send + Sync {
    /// A sequence with no tokens yet, and KV of its own.
    fn sequence(&self) -> Result<Box<dyn Sequence>>;

    /// Tokens one sequence can hold.
    fn n_ctx(&self) -> usize;

    /// Where it runs, such as `"cpu"` or `"cuda:0"`.
    fn device(&self) -> String;

    /// Bytes of weights held in memory beside the file.
    fn weight_bytes(&self) -> u64;

    /// How keys and values are stored.
    fn kv_type(&self) -> KvType;

    /// Bytes of keys and values for one token.
    fn kv_bytes_per_token(&self) -> u64;
}

/// One sequence: the tokens so far, as keys and values.
pub trait Sequence: Send {
    /// Runs `tokens` after those so far. With `logits`, returns those of the last one: (n_vocab) f32.
    ///
    /// At most [`CHUNK`] tokens at once. After an error, an interruption included, the sequence must not be used.
    fn forward(
        &mut self,
        tokens: &[u32],
        logits: bool,
        interrupt: Interrupt,
    ) -> Result<Option<Vec<f32>>>;

    /// Says that `n_tokens` in all will be there before logits are of interest: a long prompt in several steps is
    /// then rotated with the factors it ends with, and need not be run twice ([`regime`]).
    fn announce(&mut self, _n_tokens: usize) {}

    /// Time that went into running tokens again because the sequence outgrew the original context of its model.
    fn recomputed(&self) -> Duration {
        Duration::ZERO
    }
}

/// Prompt tokens in one step: enough that a tile of weights is unpacked once for many tokens, and few enough
/// that other streams get their turn and that the attention scores stay small.
pub const CHUNK: usize = 128;

/// Loads the weights of `gguf`.
///
/// # Errors
/// `Unsupported` where this engine, device or CPU cannot run the file, `OutOfMemory` where it does not fit.
pub fn load(
    gguf: &Arc<Gguf>,
    config: &Config,
    options: &EngineOptions,
    interrupt: Interrupt,
) -> Result<Arc<dyn Engine>> {
    let device = options.device.open()?;
    threads::start()?;
    weights::refuse_old_arm(&device)?;
    let n_ctx = match options.n_ctx {
        None => config.n_ctx,
        Some(n) if (1..=config.n_ctx).contains(&n) => n,
        Some(n) => {
            return Err(Error::InvalidRequest(format!(
                "n_ctx is {n}, expected 1 to {} (what this model was made for)",
                config.n_ctx
            )));
        }
    };
    match options.kind {
        EngineKind::Candle => {
            // Candle converts f16 keys and values on the CPU anew for each token, which at a context of 300 costs
            // 40% of the decoding rate (Phi-3-mini, benches/generate.py).
            let best = if device.is_cpu() { KvType::F32 } else { KvType::F16 };
            let kv_type = options.kv_type.unwrap_or(best);
            candle::load(gguf, config, n_ctx, kv_type, device, interrupt)
        }
        EngineKind::Original if options.kv_type == Some(KvType::F16) => Err(Error::InvalidRequest(
            "kv_type is \"f16\", and the original engine keeps keys and values in f32: use engine=\"candle\"".into(),
        )),
        EngineKind::Original => original::load(gguf, config, options.n_ctx, device, interrupt),
    }
}
