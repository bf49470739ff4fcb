//! Phi-3 in Candle tensors and `QMatMul`: for CUDA and Metal, and the reference on the CPU.
//!
//! Weights are shared and immutable; each sequence has its own KV ([`cache`]). What it does not do: batches
//! of sequences, and fused kernels.
//!
//! Reference: `modeling_phi3.py` of `transformers` (fused qkv in the order Q, K, V; the gate before the
//! values in the fused feed-forward matrix; NEOX rope; f32 softmax).

mod cache;

use std::sync::Arc;

use candle_core::quantized::QMatMul;
use candle_core::{D, DType, Device, Module, Tensor};
use candle_nn::ops::{rms_norm, silu, softmax_last_dim};
use candle_nn::rotary_emb::rope;

use self::cache::Cache;
use super::{Engine, EngineKind, Interrupt, KvType, Sequence, cpu, device, threads, weights};
use crate::error::{Error, Result};
use crate::gguf::Gguf;
use crate::memory;
use crate::model::{Config, LayerTensors, ModelTensors, Rope};

/// Elements of one block of attention scores: (heads, queries, keys) is cut along the queries to stay below it.
const MAX_SCORES: usize = 8 << 20;

struct Layer {
    attn_norm: Tensor,
    attn_qkv: QMatMul,
    attn_output: QMatMul,
    ffn_norm: Tensor,
    ffn_up: QMatMul,
    ffn_down: QMatMul,
}

struct Weights {
    gguf: Arc<Gguf>,
    config: Config,
    rope: Rope,
    layers: Vec<Layer>,
    output_norm: Tensor,
    output: QMatMul,
    device: Device,
    kv_type: KvType,
    n_ctx: usize,
    n_bytes: u64,
}

struct CandleEngine(Arc<Weights>);

struct CandleSequence {
    weights: Arc<Weights>,
    cache: Cache,
}

/// Copies the weights to `device`.
pub(super) fn load(
    gguf: &Arc<Gguf>,
    config: &Config,
    n_ctx: usize,
    kv_type: KvType,
    device: Device,
    interrupt: Interrupt,
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
    weights::dtype(tensors.token_embd)?;
    let mut layers = Vec::with_capacity(config.n_layers);
    for tensors in &tensors.layers {
        interrupt()?;
        layers.push(Layer::load(gguf, tensors, &device)?);
    }
    Ok(Arc::new(CandleEngine(Arc::new(Weights {
        rope: Rope::new(&config.rope),
        layers,
        output_norm: weights::vector(gguf, tensors.output_norm, &device)?,
        output: weights::matrix(gguf, tensors.output, &device)?,
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
        let weights = self.0.clone();
        let cache = Cache::new(
            &weights.config,
            weights.kv_type,
            weights.n_ctx,
            &weights.device,
        );
        Ok(Box::new(CandleSequence { weights, cache }))
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

    fn rewind(&mut self, _n_past: usize) -> bool {
        false
    }

    fn forward(
        &mut self,
        tokens: &[u32],
        n_logits: usize,
        logits: &mut Vec<f32>,
        interrupt: Interrupt,
    ) -> Result<()> {
        let w = &*self.weights;
        let (start, n) = (self.cache.n_past(), tokens.len());
        self.cache.reserve(n)?;
        let embedding = w.gguf.tensor("token_embd.weight").expect("checked at load");
        let step = Step::new(w, &self.cache, start, n)?;
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
        let last = rms_norm(
            &x.narrow(0, n - n_logits, n_logits)?.contiguous()?,
            &w.output_norm,
            w.config.rms_eps,
        )?;
        let output = w.output.forward(&last)?.to_dtype(DType::F32)?;
        logits.extend(output.flatten_all()?.to_vec1::<f32>()?);
        Ok(())
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
    fn new(w: &Weights, cache: &Cache, start: usize, n: usize) -> Result<Self> {
        let (cos, sin) = w.rope.tables(start, n);
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

impl Layer {
    fn load(gguf: &Gguf, tensors: &LayerTensors, device: &Device) -> Result<Self> {
        Ok(Self {
            attn_norm: weights::vector(gguf, tensors.attn_norm, device)?,
            attn_qkv: weights::matrix(gguf, tensors.attn_qkv, device)?,
            attn_output: weights::matrix(gguf, tensors.attn_output, device)?,
            ffn_norm: weights::vector(gguf, tensors.ffn_norm, device)?,
            ffn_up: weights::matrix(gguf, tensors.ffn_up, device)?,
            ffn_down: weights::matrix(gguf, tensors.ffn_down, device)?,
        })
    }

    // x: (n, d_model) -> (n, d_model)
    fn forward(
        &self,
        x: &Tensor,
        i: usize,
        w: &Weights,
        step: &Step,
        cache: &mut Cache,
    ) -> Result<Tensor> {
        let eps = w.config.rms_eps;
        let attended = self.attention(&rms_norm(x, &self.attn_norm, eps)?, i, w, step, cache)?;
        let x = (x + attended)?;
        let gate_up = self.ffn_up.forward(&rms_norm(&x, &self.ffn_norm, eps)?)?;
        let gate = gate_up.narrow(D::Minus1, 0, w.config.d_ff)?;
        let up = gate_up.narrow(D::Minus1, w.config.d_ff, w.config.d_ff)?;
        let down = self.ffn_down.forward(&(silu(&gate)? * up)?)?;
        Ok((x + down)?)
    }

    // x: (n, d_model) -> (n, d_model)
    fn attention(
        &self,
        x: &Tensor,
        i: usize,
        w: &Weights,
        step: &Step,
        cache: &mut Cache,
    ) -> Result<Tensor> {
        let c = &w.config;
        let (n, heads, kv_heads, dim) = (step.n, c.n_heads, c.n_kv_heads, c.head_dim);
        let qkv = self.attn_qkv.forward(x)?;
        // (n, heads * dim) -> (heads, n, dim)
        let split = |first: usize, heads: usize| {
            qkv.narrow(1, first * dim, heads * dim)?
                .reshape((n, heads, dim))?
                .transpose(0, 1)?
                .contiguous()
        };
        let q = rotate(&split(0, heads)?, c.rope.dim, step)?;
        let k = rotate(&split(heads, kv_heads)?, c.rope.dim, step)?;
        let v = split(heads + kv_heads, kv_heads)?;
        // (kv_heads, keys, dim) each
        let (k, v) = cache.append(i, &k, &v)?;
        let n_keys = k.dim(1)?;
        let k_t = k.transpose(1, 2)?;

        let group = heads / kv_heads;
        let q = (q * (1.0 / (dim as f64).sqrt()))?;
        let block = (MAX_SCORES / (heads * n_keys)).clamp(1, n);
        let mut outputs = Vec::with_capacity(n.div_ceil(block));
        for at in (0..n).step_by(block) {
            let m = block.min(n - at);
            // The queries of a group are rows against the same keys: no copy of keys or values per head.
            let q = q
                .narrow(1, at, m)?
                .contiguous()?
                .reshape((kv_heads, group * m, dim))?;
            let mut scores = q.matmul(&k_t)?.reshape((heads, m, n_keys))?;
            if let Some(mask) = &step.mask {
                scores = scores.broadcast_add(&mask.narrow(0, at, m)?)?;
            }
            let weights = softmax_last_dim(&scores)?.reshape((kv_heads, group * m, n_keys))?;
            outputs.push(weights.matmul(&v)?.reshape((heads, m, dim))?);
        }
        let attended = if outputs.len() == 1 {
            outputs.remove(0)
        } else {
            Tensor::cat(&outputs, 1)?
        };
        let attended = attended.transpose(0, 1)?.reshape((n, heads * dim))?;
        Ok(self.attn_output.forward(&attended)?)
    }
}

/// Rotates the first `rope_dim` of each head; x: (heads, n, head_dim).
fn rotate(x: &Tensor, rope_dim: usize, step: &Step) -> candle_core::Result<Tensor> {
    let head_dim = x.dim(2)?;
    let rotated = x.narrow(2, 0, rope_dim)?.contiguous()?.unsqueeze(0)?;
    let rotated = rope(&rotated, &step.cos, &step.sin)?.squeeze(0)?;
    if rope_dim == head_dim {
        return Ok(rotated);
    }
    Tensor::cat(&[&rotated, &x.narrow(2, rope_dim, head_dim - rope_dim)?], 2)
}
