//! The CPU engine: our own forward pass over quantized tiles, with the kernels of [`crate::kernels`].
//!
//! Weights are copied once from the file into the kernels' layout, in parallel, and the file's pages are let go;
//! only the embedding is read from the file, a row at a time. What it does not do: anything on a GPU.

mod cache;
mod layer;
mod linear;
mod weights;

use std::sync::{Arc, Mutex, PoisonError};

use self::cache::Cache;
use self::weights::Weights;
use super::regime::{Regimes, Restart};
use super::{Engine, EngineKind, Interrupt, KvType, OnLoaded, Sequence};
use crate::error::{Error, Result};
use crate::gguf::Gguf;
use crate::kernels::{Activations, Compute, Heads, Isa, KvFormat, PageLayout};
use crate::model::{Config, Regime, Rope};

struct Shared {
    config: Config,
    rope: Rope,
    weights: Weights,
    compute: Compute,
    heads: Heads,
    kv_type: KvType,
    n_ctx: usize,
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
}

struct NativeEngine(Arc<Shared>);

struct NativeSequence {
    shared: Arc<Shared>,
    cache: Cache,
    regime: Regime,
}

impl Shared {
    fn cache(&self) -> Cache {
        Cache::new(&self.config, self.heads, self.n_ctx)
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
    let heads = Heads {
        n_heads: config.n_heads,
        n_kv_heads: config.n_kv_heads,
        layout: PageLayout {
            format: match kv_type {
                KvType::F32 => KvFormat::F32,
                KvType::F16 => KvFormat::F16,
                KvType::Q8_0 => KvFormat::Q8,
            },
            head_dim: config.head_dim,
        },
        window: config.sliding_window.unwrap_or(usize::MAX),
    };
    Ok(Arc::new(NativeEngine(Arc::new(Shared {
        rope: Rope::new(&config.rope),
        config: config.clone(),
        weights,
        compute,
        heads,
        kv_type,
        n_ctx,
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
        Ok(Regimes::wrap(sequence, &self.0.config.rope))
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

    fn kv_bytes_per_token(&self) -> u64 {
        let page = self.0.config.n_layers * self.0.heads.page_bytes();
        (page / crate::kernels::PAGE) as u64
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

    fn forward(
        &mut self,
        tokens: &[u32],
        n_logits: usize,
        logits: &mut Vec<f32>,
        interrupt: Interrupt,
    ) -> Result<()> {
        let s = &*self.shared;
        let (c, start, n) = (&s.config, self.cache.n_past(), tokens.len());
        self.cache.reserve(n)?;
        let mut buffers = s.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let b = &mut *buffers;
        resize(&mut b.x, n * c.d_model);
        resize(&mut b.y, n * c.d_model);
        resize(&mut b.qkv, n * c.d_qkv());
        resize(&mut b.gate_up, n * c.d_ffn_up());
        resize(&mut b.attended, n * c.n_heads * c.head_dim);
        s.weights.embed(tokens, &mut b.x)?;
        let (cos, sin) = s.rope.tables(self.regime, start, n);
        for (i, layer) in s.weights.layers.iter().enumerate() {
            interrupt()?;
            // What the layer before computed for the residual stream is added with the next norm.
            layer.forward(s, b, i > 0, start, (&cos, &sin), &mut self.cache.layer(i))?;
        }
        interrupt()?;
        self.cache.advance(n);
        if n_logits == 0 {
            logits.clear();
            return Ok(());
        }
        let from = (n - n_logits) * c.d_model;
        let output = &s.weights.output;
        s.compute.norm(
            &mut b.x[from..],
            Some(&b.y[from..]),
            &s.weights.output_norm,
            output.input(),
            &mut b.inputs,
        )?;
        resize(logits, n_logits * c.n_vocab);
        output.forward(&s.compute, &mut b.inputs, logits, layer::one_part)
    }
}

impl Restart for NativeSequence {
    fn restart(&mut self, regime: Regime) -> Result<()> {
        self.cache = self.shared.cache();
        self.regime = regime;
        Ok(())
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
