//! The Phi family in Candle tensors and `QMatMul`: for CUDA and Metal, and the reference on the CPU.
//!
//! Weights are shared and immutable; each sequence has its own KV ([`cache`]). What it does not do: batches
//! of sequences, and fused kernels.
//!
//! Reference: `modeling_phi3.py` and `modeling_phi.py` of `transformers`.

mod cache;
mod layer;
mod parts;

use std::any::Any;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use self::cache::Cache;
use self::layer::Layer;
use self::parts::{Linear, Norm};
use super::regime::{Regimes, Restart};
use super::{
    Engine, EngineKind, Interrupt, KvType, OnLoaded, Sequence, cpu, device, threads, weights,
};
use crate::error::{Error, Result};
use crate::gguf::Gguf;
use crate::memory;
use crate::model::{Config, ModelTensors, Regime, Rope};

struct Weights {
    gguf: Arc<Gguf>,
    config: Config,
    rope: Rope,
    layers: Vec<Layer>,
    output_norm: Norm,
    output: Linear,
    device: Device,
    kv_type: KvType,
    n_ctx: usize,
    n_bytes: u64,
}

impl Weights {
    fn cache(&self) -> Cache {
        Cache::new(&self.config, self.kv_type, self.n_ctx, &self.device)
    }
}

struct CandleEngine(Arc<Weights>);

struct CandleSequence {
    weights: Arc<Weights>,
    cache: Cache,
    regime: Regime,
}

/// Copies the weights to `device`.
pub(super) fn load(
    gguf: &Arc<Gguf>,
    config: &Config,
    n_ctx: usize,
    kv_type: KvType,
    device: Device,
    on_loaded: OnLoaded,
) -> Result<Arc<dyn Engine>> {
    let tensors = ModelTensors::locate(gguf, config)?;
    let n_bytes = gguf
        .tensors()
        .iter()
        .filter(|t| config.tied_output || t.name != "token_embd.weight")
        .map(|t| weights::resident_bytes(t, &device))
        .sum();
    if let Some(available) = memory::available().filter(|&a| device.is_cpu() && n_bytes > a) {
        return Err(Error::OutOfMemory {
            what: format!("`{}` in the candle engine", gguf.path.display()),
            needed: n_bytes,
            available,
            remedy: "use a smaller quantization or free some memory".into(),
        });
    }
    let mut layers = Vec::with_capacity(config.n_layers);
    for (i, tensors) in tensors.layers.iter().enumerate() {
        on_loaded(n_bytes * i as u64 / config.n_layers as u64, n_bytes)?;
        layers.push(Layer::load(gguf, config, tensors, &device)?);
    }
    Ok(Arc::new(CandleEngine(Arc::new(Weights {
        rope: Rope::new(&config.rope),
        layers,
        output_norm: Norm::load(gguf, config, &tensors.output_norm, &device)?,
        output: Linear::load(gguf, &tensors.output, &device)?,
        gguf: gguf.clone(),
        config: config.clone(),
        device,
        kv_type,
        n_ctx,
        n_bytes,
    }))))
}

impl Engine for CandleEngine {
    fn sequence(&self) -> Result<Box<dyn Sequence>> {
        let sequence = CandleSequence {
            weights: self.0.clone(),
            cache: self.0.cache(),
            regime: Regime::Short,
        };
        Ok(Regimes::wrap(sequence, &self.0.config.rope, &[]))
    }

    fn n_ctx(&self) -> usize {
        self.0.n_ctx
    }

    fn device(&self) -> String {
        device::name(&self.0.device)
    }

    fn isa(&self) -> &'static str {
        cpu::candle_tier()
    }

    fn n_threads(&self) -> usize {
        threads::started()
    }

    fn kind(&self) -> EngineKind {
        EngineKind::Candle
    }

    fn weight_bytes(&self) -> u64 {
        self.0.n_bytes
    }

    fn kv_type(&self) -> KvType {
        self.0.kv_type
    }

    fn kv_bytes_per_token(&self) -> u64 {
        self.0
            .config
            .kv_bytes_per_token(cache::element_bytes(self.0.kv_type))
    }
}

impl Sequence for CandleSequence {
    fn n_past(&self) -> usize {
        self.cache.n_past()
    }

    fn core(&mut self) -> &mut dyn Any {
        self
    }

    fn rewind(&mut self, _n_past: usize) -> bool {
        false
    }

    fn room(&self) -> usize {
        1
    }

    fn forward(
        &mut self,
        tokens: &[u32],
        n_logits: usize,
        logits: &mut Vec<f32>,
        interrupt: Interrupt,
    ) -> Result<()> {
        let w = &*self.weights;
        let n = tokens.len();
        self.cache.reserve(n)?;
        let embedding = w.gguf.tensor("token_embd.weight").expect("checked at load");
        let step = Step::new(w, &self.cache, self.regime, n)?;
        // x: (n, d_model)
        let mut x = weights::rows(&w.gguf, embedding, tokens, &w.device)?;
        for (i, layer) in w.layers.iter().enumerate() {
            interrupt()?;
            x = layer.forward(&x, i, w, &step, &mut self.cache)?;
        }
        self.cache.advance(n);
        logits.clear();
        if n_logits == 0 {
            return Ok(());
        }
        let last = x.narrow(0, n - n_logits, n_logits)?.contiguous()?;
        let output = w.output.forward(&w.output_norm.forward(&last)?)?;
        let output = output.to_dtype(DType::F32)?.flatten_all()?;
        logits.extend(output.to_vec1::<f32>()?);
        Ok(())
    }
}

impl Restart for CandleSequence {
    fn restart(&mut self, regime: Regime) -> Result<()> {
        self.cache = self.weights.cache();
        self.regime = regime;
        Ok(())
    }

    fn regime(&self) -> Regime {
        self.regime
    }

    /// Candle sums in an order that depends on how many tokens a step has: what others computed is not to the bit what
    /// this sequence would have.
    fn branch(&self, _n_past: usize) -> Option<Self> {
        None
    }
}

/// What all layers of one step share.
struct Step {
    n: usize,
    // (n, rope_dim / 2) each
    cos: Tensor,
    sin: Tensor,
    // (n, keys) f32, 0 where a query sees a key and -inf elsewhere; none for a single query that sees all
    mask: Option<Tensor>,
}

impl Step {
    fn new(w: &Weights, cache: &Cache, regime: Regime, n: usize) -> Result<Self> {
        let start = cache.n_past();
        let (cos, sin) = w.rope.tables(regime, start, n);
        let shape = (n, w.config.rope.dim / 2);
        let (first, n_keys) = (cache.first(), start + n - cache.first());
        let window = w.config.sliding_window.unwrap_or(usize::MAX);
        let sees = |query: usize, key: usize| key <= query && query - key < window;
        let mask = (n > 1 || !sees(start, first))
            .then(|| {
                let values: Vec<f32> = (start..start + n)
                    .flat_map(|q| {
                        (first..first + n_keys)
                            .map(move |k| if sees(q, k) { 0.0 } else { f32::NEG_INFINITY })
                    })
                    .collect();
                Tensor::from_vec(values, (n, n_keys), &w.device)
            })
            .transpose()?;
        Ok(Self {
            n,
            cos: Tensor::from_vec(cos, shape, &w.device)?,
            sin: Tensor::from_vec(sin, shape, &w.device)?,
            mask,
        })
    }
}
