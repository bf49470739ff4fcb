//! Tokens and their KV in, logits out. Nothing outside this folder knows which engine runs.

mod candle;
pub mod cpu;
mod device;
mod native;
mod original;
mod regime;
mod threads;
mod weights;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

pub use self::device::DeviceChoice;
pub use self::native::{context_bytes, context_room, weight_bytes};
pub use self::threads::start as start_threads;
use crate::error::{Error, Result};
use crate::gguf::Gguf;
use crate::model::{Config, Regime};

/// Called between the layers of a forward pass; an error stops the work there.
pub type Interrupt<'a> = &'a mut dyn FnMut() -> Result<()>;

/// Called between the layers of a load with the bytes of weights that are there and those of all; an error stops the
/// load.
pub type OnLoaded<'a> = &'a mut dyn FnMut(u64, u64) -> Result<()>;

/// Which forward pass runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineKind {
    /// The best for the device: `Native` on the CPU, `Candle` elsewhere.
    Auto,
    /// Our own kernels, on the CPU.
    Native,
    /// Our own model in Candle tensors.
    Candle,
    /// `candle_transformers`' `quantized_phi3`, as the program that candlewick grew from used it.
    Original,
}

impl EngineKind {
    /// All names a user can give.
    pub const NAMES: [&'static str; 4] = ["auto", "native", "candle", "original"];

    /// The engine called `name`.
    pub fn parse(name: &str) -> Result<Self> {
        match name {
            "auto" => Ok(Self::Auto),
            "native" => Ok(Self::Native),
            "candle" => Ok(Self::Candle),
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
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Candle => "candle",
            Self::Original => "original",
        }
    }
}

/// How keys and values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(non_camel_case_types)]
pub enum KvType {
    /// Four bytes an element.
    F32,
    /// Two bytes an element.
    F16,
    /// A byte an element and two for 32 of them; the native engine only.
    Q8_0,
}

impl KvType {
    /// The type called `name`; `None` for `"auto"`, which leaves it to the engine.
    pub fn parse(name: &str) -> Result<Option<Self>> {
        match name {
            "auto" => Ok(None),
            "f32" => Ok(Some(Self::F32)),
            "f16" => Ok(Some(Self::F16)),
            "q8_0" => Ok(Some(Self::Q8_0)),
            other => Err(Error::InvalidRequest(format!(
                "kv_type is {other:?}, expected \"auto\", \"f16\", \"f32\" or \"q8_0\""
            ))),
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Q8_0 => "q8_0",
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
    /// Threads of the native engine; `None` is all that this process may use.
    pub n_threads: Option<usize>,
}

/// One sequence's part of a step that several share.
pub struct Part<'a> {
    /// Whose keys and values.
    pub sequence: &'a mut dyn Sequence,
    /// As for [`Sequence::forward`].
    pub tokens: &'a [u32],
    /// As for [`Sequence::forward`].
    pub n_logits: usize,
    /// As for [`Sequence::forward`].
    pub logits: &'a mut Vec<f32>,
    /// Why this part did not run, though the others did: as if it had been alone.
    pub failed: Option<Error>,
}

/// Loaded weights that can run any number of independent sequences.
pub trait Engine: Send + Sync {
    /// A sequence with no tokens yet, and KV of its own.
    fn sequence(&self) -> Result<Box<dyn Sequence>>;

    /// Whether several sequences in one pass cost less than one after the other, and an interruption leaves each as it
    /// was.
    fn shares_passes(&self) -> bool {
        false
    }

    /// Runs `parts`, whose sequences are this engine's, in one pass over the weights where the engine can; what each
    /// gets is what it would get alone.
    ///
    /// After an interruption the sequences are as [`Sequence::forward`] says; after another error, none must be used.
    fn forward(&self, parts: &mut [Part], interrupt: Interrupt) -> Result<()> {
        for part in parts {
            let done = part
                .sequence
                .forward(part.tokens, part.n_logits, part.logits, interrupt);
            match done {
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                done => part.failed = done.err(),
            }
        }
        Ok(())
    }

    /// Tokens one sequence can hold.
    fn n_ctx(&self) -> usize;

    /// Where it runs, such as `"cpu"` or `"cuda:0"`.
    fn device(&self) -> String;

    /// What the products use, such as `"avx2"`; for people to read.
    fn isa(&self) -> &'static str;

    /// Threads that take part in a product.
    fn n_threads(&self) -> usize;

    /// Which engine this is.
    fn kind(&self) -> EngineKind;

    /// Bytes of weights held in memory beside the file.
    fn weight_bytes(&self) -> u64;

    /// Types of matrices that are dequantized whenever they are used, such as `"IQ1_S"`; for people to read.
    fn slow_types(&self) -> &[&'static str] {
        &[]
    }

    /// How keys and values are stored.
    fn kv_type(&self) -> KvType;

    /// Bytes of keys and values for one token.
    fn kv_bytes_per_token(&self) -> u64;

    /// Bytes of keys and values of all sequences there are, what they share once; 0 where this is not counted.
    fn kv_bytes(&self) -> u64 {
        0
    }

    /// Bytes of keys and values of a sequence of `n_tokens`, at the moment when they are most.
    fn context_bytes(&self, n_tokens: usize) -> u64 {
        n_tokens as u64 * self.kv_bytes_per_token()
    }

    /// Bytes of all pages of a sequence of `n_tokens` of which `extent` is there; `None` where there can be no such
    /// sequence, or where this engine keeps none.
    fn stored_bytes(&self, _n_tokens: usize, _extent: &Extent) -> Option<u64> {
        None
    }

    /// A sequence with the keys and values that one of the same model had after `tokens`: `read` fills its pages, one
    /// after the other, with the bytes that [`Sequence::kv`] gave. Only where [`Self::stored_bytes`] has an answer.
    fn restore(
        &self,
        _tokens: &[u32],
        _extent: &Extent,
        _read: &mut dyn FnMut(&mut [u8]) -> Result<()>,
    ) -> Result<Box<dyn Sequence>> {
        Err(Error::Engine("this engine keeps no keys and values".into()))
    }

    /// Clears what `page`, the last one of those that hold `n_tokens`, holds beyond them.
    fn blank(&self, _page: &mut [u8], _n_tokens: usize) {}
}

/// What is there of a sequence's keys and values, and how they were rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The factors of long rope.
    pub regime: Regime,
    /// Position of the first token that is still there: 0 but for sliding windows.
    pub first: usize,
}

/// One sequence: the tokens so far, as keys and values.
pub trait Sequence: Send {
    /// Tokens so far.
    fn n_past(&self) -> usize;

    /// Runs `tokens`, at most [`CHUNK`], after those so far. `logits` becomes those of the last `n_logits` of them:
    /// (n_logits, n_vocab). More than one is only asked of sequences that can go back.
    ///
    /// After an interruption or a lack of memory, a sequence that can fork is as it was before; after any other error,
    /// and for any other sequence, it must not be used.
    fn forward(
        &mut self,
        tokens: &[u32],
        n_logits: usize,
        logits: &mut Vec<f32>,
        interrupt: Interrupt,
    ) -> Result<()>;

    /// What [`Self::forward`] does before a step of `tokens`, for an engine that runs the step itself.
    fn prepare(&mut self, _tokens: &[u32], _interrupt: Interrupt) -> Result<()> {
        Ok(())
    }

    /// And after it.
    fn ran(&mut self, _tokens: &[u32]) {}

    /// The engine's own sequence, inside of what wraps it.
    fn core(&mut self) -> &mut dyn Any;

    /// Goes back to the first `n_past` tokens; false where that is not possible, and nothing has changed then.
    fn rewind(&mut self, n_past: usize) -> bool;

    /// Tokens that one step can run such that each row of its logits is what steps of one token would give, and the
    /// sequence can go back between them.
    fn room(&self) -> usize;

    /// Says that `n_tokens` in all will be there before logits are of interest: a long prompt in several steps is
    /// then rotated with the factors it ends with, and need not be run twice ([`regime`]).
    fn announce(&mut self, _n_tokens: usize) {}

    /// Another sequence that begins with the first `n_past` tokens of this one and shares their keys and values; `None`
    /// where they are not there any more, or where going on from them is not to the bit what running all tokens gives.
    fn fork(&self, _n_past: usize) -> Option<Box<dyn Sequence>> {
        None
    }

    /// Whether its keys and values are those that a sequence of `n_tokens` in all has for the same tokens.
    fn suits(&self, _n_tokens: usize) -> bool {
        true
    }

    /// Its keys and values in pages, of which sequences that share one have the very same; `None` where it cannot fork.
    fn kv(&self) -> Option<(Extent, Vec<&[u8]>)> {
        None
    }

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
    on_loaded: OnLoaded,
) -> Result<Arc<dyn Engine>> {
    let device = options.device.open()?;
    let kind = match options.kind {
        EngineKind::Auto if device.is_cpu() => EngineKind::Native,
        EngineKind::Auto => EngineKind::Candle,
        kind => kind,
    };
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
    if kind == EngineKind::Native {
        if !device.is_cpu() {
            return Err(Error::InvalidRequest(
                "engine=\"native\" runs on the CPU only: use engine=\"candle\" for this device"
                    .into(),
            ));
        }
        let n_threads = match options.n_threads {
            Some(n) => n,
            None => std::thread::available_parallelism().map_or(1, usize::from),
        };
        let kv_type = options.kv_type.unwrap_or(KvType::F16);
        return native::load(gguf, config, n_ctx, kv_type, n_threads, on_loaded);
    }
    if options.kv_type == Some(KvType::Q8_0) {
        return Err(Error::InvalidRequest(format!(
            "kv_type is \"q8_0\", which the {} engine does not have: use engine=\"native\"",
            kind.name()
        )));
    }
    threads::start()?;
    weights::refuse_old_arm(&device)?;
    match kind {
        EngineKind::Original if options.kv_type == Some(KvType::F16) => Err(Error::InvalidRequest(
            "kv_type is \"f16\", and the original engine keeps keys and values in f32: use engine=\"candle\"".into(),
        )),
        EngineKind::Original => original::load(gguf, config, options.n_ctx, device, on_loaded),
        _ => {
            // Candle converts f16 keys and values on the CPU anew for each token, which at a context of 300 costs
            // 40% of the decoding rate (Phi-3-mini, benches/compare.py).
            let best = if device.is_cpu() { KvType::F32 } else { KvType::F16 };
            let kv_type = options.kv_type.unwrap_or(best);
            candle::load(gguf, config, n_ctx, kv_type, device, on_loaded)
        }
    }
}
