//! The CPU engine: our own forward pass over quantized tiles, with the kernels of [`crate::kernels`].
//!
//! Weights are copied once from the file into the kernels' layout, in parallel, and the file's pages are let go;
//! only the embedding is read from the file, a row at a time. What it does not do: anything on a GPU.

mod cache;
mod footprint;
mod layer;
mod linear;
mod weights;

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

pub use self::cache::room as context_room;
use self::cache::{Cache, Memory};
pub use self::footprint::{context_bytes, weight_bytes};
use self::weights::Weights;
use super::regime::{Regimes, Restart};
use super::{Engine, EngineKind, Extent, Interrupt, KvType, OnLoaded, Part, Sequence};
use crate::error::{Error, Result};
use crate::gguf::Gguf;
use crate::kernels::{Activations, Compute, Heads, Isa, PAGE};
use crate::model::{Config, Dimensions, Regime, Rope};

struct Shared {
    config: Config,
    rope: Rope,
    weights: Weights,
    compute: Compute,
    dimensions: Dimensions,
    heads: Heads,
    kv_type: KvType,
    n_ctx: usize,
    memory: Arc<Memory>,
    // One step runs at a time, and its memory is kept.
    buffers: Mutex<Buffers>,
}

/// Memory of one step of n tokens.
#[derive(Default)]
struct Buffers {
    // (n, d_model): the residual stream, and what is added to it
    x: Vec<f32>,
    y: Vec<f32>,
    // (n, d_qkv) and (n, 2 * d_ff)
    qkv: Vec<f32>,
    gate_up: Vec<f32>,
    // (n, n_heads * head_dim)
    attended: Vec<f32>,
    inputs: Activations,
    // (rows wanted, n_vocab), where several sequences want some
    logits: Vec<f32>,
}

struct NativeEngine(Arc<Shared>);

struct NativeSequence {
    shared: Arc<Shared>,
    cache: Cache,
    regime: Regime,
}

/// The tokens of one sequence in a step.
struct Span<'a> {
    cache: &'a mut Cache,
    regime: Regime,
    tokens: &'a [u32],
    n_logits: usize,
    logits: &'a mut Vec<f32>,
}

impl Shared {
    fn cache(&self) -> Cache {
        Cache::new(&self.config, self.heads, self.n_ctx, self.memory.clone())
    }

    /// One pass over the weights for the tokens of all `spans`, whose caches have room for them. No bit depends on
    /// what else is in the pass.
    fn run(&self, spans: &mut [Span], interrupt: Interrupt) -> Result<()> {
        let c = &self.config;
        let n = spans.iter().map(|span| span.tokens.len()).sum::<usize>();
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let b = &mut *buffers;
        resize(&mut b.x, n * c.d_model);
        resize(&mut b.y, n * c.d_model);
        resize(&mut b.qkv, n * c.d_qkv());
        resize(&mut b.gate_up, n * c.d_ffn_up());
        resize(&mut b.attended, n * c.n_heads * c.head_dim);
        let (mut cos, mut sin, mut first) = (Vec::new(), Vec::new(), 0);
        for span in spans.iter() {
            let n = span.tokens.len();
            let x = &mut b.x[first * c.d_model..(first + n) * c.d_model];
            self.weights.embed(span.tokens, x)?;
            let tables = self.rope.tables(span.regime, span.cache.n_past(), n);
            cos.extend(tables.0);
            sin.extend(tables.1);
            first += n;
        }
        for (i, layer) in self.weights.layers.iter().enumerate() {
            interrupt()?;
            // What the layer before computed for the residual stream is added with the next norm.
            layer.forward(self, b, i, spans, (&cos, &sin))?;
        }
        interrupt()?;
        // The rows whose logits are wanted, moved to the front.
        let (mut from, mut wanted) = (0, 0);
        for span in spans.iter_mut() {
            span.cache.advance(span.tokens.len());
            from += span.tokens.len();
            let rows = (from - span.n_logits) * c.d_model..from * c.d_model;
            b.x.copy_within(rows.clone(), wanted * c.d_model);
            b.y.copy_within(rows, wanted * c.d_model);
            wanted += span.n_logits;
        }
        if wanted == 0 {
            spans.iter_mut().for_each(|span| span.logits.clear());
            return Ok(());
        }
        let output = &self.weights.output;
        self.compute.norm(
            &mut b.x[..wanted * c.d_model],
            Some(&b.y[..wanted * c.d_model]),
            &self.weights.output_norm,
            output.input(),
            &mut b.inputs,
        )?;
        if let [span] = spans {
            resize(span.logits, wanted * c.n_vocab);
            return output.forward(&self.compute, &mut b.inputs, span.logits, layer::one_part);
        }
        resize(&mut b.logits, wanted * c.n_vocab);
        output.forward(&self.compute, &mut b.inputs, &mut b.logits, layer::one_part)?;
        let mut rest = b.logits.as_slice();
        for span in spans {
            let (logits, others) = rest.split_at(span.n_logits * c.n_vocab);
            span.logits.clear();
            span.logits.extend_from_slice(logits);
            rest = others;
        }
        Ok(())
    }
}

impl NativeSequence {
    /// Makes room for `tokens`.
    fn span<'a>(
        &'a mut self,
        tokens: &'a [u32],
        n_logits: usize,
        logits: &'a mut Vec<f32>,
    ) -> Result<Span<'a>> {
        self.cache.reserve(tokens.len())?;
        Ok(Span {
            cache: &mut self.cache,
            regime: self.regime,
            tokens,
            n_logits,
            logits,
        })
    }
}

/// Copies the weights.
pub(super) fn load(
    gguf: &Arc<Gguf>,
    config: &Config,
    n_ctx: usize,
    kv_type: KvType,
    n_threads: usize,
    on_loaded: OnLoaded,
) -> Result<Arc<dyn Engine>> {
    let compute = Compute::new(Isa::choose()?, n_threads);
    let weights = Weights::load(gguf, config, &compute, on_loaded)?;
    let dimensions = Dimensions::read(&gguf.metadata)?;
    let heads = footprint::heads(&dimensions, kv_type);
    Ok(Arc::new(NativeEngine(Arc::new(Shared {
        rope: Rope::new(&config.rope),
        config: config.clone(),
        weights,
        compute,
        dimensions,
        heads,
        kv_type,
        n_ctx,
        memory: Arc::new(Memory::new()),
        buffers: Mutex::default(),
    }))))
}

impl Engine for NativeEngine {
    fn sequence(&self) -> Result<Box<dyn Sequence>> {
        let sequence = NativeSequence {
            cache: self.0.cache(),
            shared: self.0.clone(),
            regime: Regime::Short,
        };
        Ok(Regimes::wrap(sequence, &self.0.config.rope, &[]))
    }

    fn n_ctx(&self) -> usize {
        self.0.n_ctx
    }

    fn device(&self) -> String {
        "cpu".into()
    }

    fn isa(&self) -> &'static str {
        self.0.compute.isa().name()
    }

    fn n_threads(&self) -> usize {
        self.0.compute.n_threads()
    }

    fn kind(&self) -> EngineKind {
        EngineKind::Native
    }

    fn weight_bytes(&self) -> u64 {
        self.0.weights.n_bytes
    }

    fn slow_types(&self) -> &[&'static str] {
        &self.0.weights.slow_types
    }

    fn kv_type(&self) -> KvType {
        self.0.kv_type
    }

    fn shares_passes(&self) -> bool {
        true
    }

    fn forward(&self, parts: &mut [Part], interrupt: Interrupt) -> Result<()> {
        let mut spans = Vec::with_capacity(parts.len());
        for part in parts.iter_mut() {
            let Part {
                sequence,
                tokens,
                n_logits,
                logits,
                failed,
            } = part;
            let ready = sequence.prepare(tokens, interrupt).and_then(|()| {
                let sequence = sequence.core().downcast_mut::<NativeSequence>();
                let sequence = sequence.expect("a sequence of this engine");
                sequence.span(tokens, *n_logits, logits)
            });
            match ready {
                Ok(span) => spans.push(span),
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(error) => *failed = Some(error),
            }
        }
        if spans.is_empty() {
            return Ok(());
        }
        self.0.run(&mut spans, interrupt)?;
        for part in parts.iter_mut().filter(|part| part.failed.is_none()) {
            part.sequence.ran(part.tokens);
        }
        Ok(())
    }

    fn kv_bytes_per_token(&self) -> u64 {
        let page = self.0.config.n_layers * self.0.heads.page_bytes();
        (page / PAGE) as u64
    }

    fn kv_bytes(&self) -> u64 {
        self.0.memory.used()
    }

    fn context_bytes(&self, n_tokens: usize) -> u64 {
        context_bytes(&self.0.dimensions, self.0.kv_type, n_tokens)
    }

    fn stored_bytes(&self, n_tokens: usize, extent: &Extent) -> Option<u64> {
        let rope = &self.0.config.rope;
        // The long factors may have come before the tokens that made them necessary, the short ones never stay.
        let rotated = match extent.regime {
            Regime::Short => rope.regime(n_tokens) == Regime::Short,
            Regime::Long => rope.long.is_some(),
        };
        let cache = self.0.cache();
        cache
            .stored_bytes(n_tokens, extent.first)
            .filter(|_| rotated)
    }

    fn restore(
        &self,
        tokens: &[u32],
        extent: &Extent,
        read: &mut dyn FnMut(&mut [u8]) -> Result<()>,
    ) -> Result<Box<dyn Sequence>> {
        let mut cache = self.0.cache();
        cache.restore(tokens.len(), extent.first, read)?;
        let sequence = NativeSequence {
            cache,
            shared: self.0.clone(),
            regime: extent.regime,
        };
        Ok(Regimes::wrap(sequence, &self.0.config.rope, tokens))
    }

    fn blank(&self, page: &mut [u8], n_tokens: usize) {
        let layout = self.0.heads.layout;
        let filled = (n_tokens + PAGE - 1) % PAGE + 1;
        for head in page.chunks_exact_mut(layout.bytes()) {
            layout.blank(head, filled);
        }
    }
}

impl Sequence for NativeSequence {
    fn n_past(&self) -> usize {
        self.cache.n_past()
    }

    fn rewind(&mut self, n_past: usize) -> bool {
        self.cache.truncate(n_past)
    }

    fn room(&self) -> usize {
        self.shared.n_ctx - self.cache.n_past()
    }

    fn fork(&self, n_past: usize) -> Option<Box<dyn Sequence>> {
        let fork: Box<dyn Sequence> = Box::new(self.branch(n_past)?);
        Some(fork)
    }

    fn kv(&self) -> Option<(Extent, Vec<&[u8]>)> {
        let (first, pages) = self.cache.pages();
        let regime = self.regime;
        Some((Extent { regime, first }, pages.collect()))
    }

    fn forward(
        &mut self,
        tokens: &[u32],
        n_logits: usize,
        logits: &mut Vec<f32>,
        interrupt: Interrupt,
    ) -> Result<()> {
        let shared = self.shared.clone();
        let span = self.span(tokens, n_logits, logits)?;
        shared.run(&mut [span], interrupt)
    }

    fn core(&mut self) -> &mut dyn Any {
        self
    }
}

impl Restart for NativeSequence {
    fn restart(&mut self, regime: Regime) -> Result<()> {
        self.cache = self.shared.cache();
        self.regime = regime;
        Ok(())
    }

    fn regime(&self) -> Regime {
        self.regime
    }

    fn branch(&self, n_past: usize) -> Option<Self> {
        Some(Self {
            shared: self.shared.clone(),
            cache: self.cache.fork(n_past)?,
            regime: self.regime,
        })
    }
}

/// Sets the length; what is there is overwritten before it is read.
fn resize(buffer: &mut Vec<f32>, n: usize) {
    buffer.truncate(n);
    buffer.resize(n, 0.0);
}

impl std::fmt::Debug for NativeEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NativeEngine({})", self.isa())
    }
}

/// Too little memory for `what`.
fn out_of_memory(what: &str, needed: u64, available: u64, remedy: &str) -> Error {
    Error::OutOfMemory {
        what: what.into(),
        needed,
        available,
        remedy: remedy.into(),
    }
}
