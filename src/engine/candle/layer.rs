//! One transformer block: attention and feed-forward layer, one after the other or side by side.
//!
//! Fused queries, keys and values lie in this order, and in a gated feed-forward matrix the gate lies before the
//! values; the rotary embedding pairs halves (NEOX); softmax is in f32.

use candle_core::{D, Device, Tensor};
use candle_nn::ops::{silu, softmax_last_dim};
use candle_nn::rotary_emb::rope;

use super::cache::Cache;
use super::parts::{Linear, Norm};
use super::{Step, Weights};
use crate::error::Result;
use crate::gguf::Gguf;
use crate::model::{Config, FeedForward, LayerTensors, QkvTensors};

/// Elements of one block of attention scores: (heads, queries, keys) is cut along the queries to stay below it.
const MAX_SCORES: usize = 8 << 20;

enum Qkv {
    Fused(Linear),
    Split([Linear; 3]),
}

pub(super) struct Layer {
    attn_norm: Norm,
    qkv: Qkv,
    attn_output: Linear,
    // None where the feed-forward layer shares the attention's
    ffn_norm: Option<Norm>,
    ffn_up: Linear,
    ffn_down: Linear,
}

impl Layer {
    pub(super) fn load(
        gguf: &Gguf,
        config: &Config,
        tensors: &LayerTensors,
        device: &Device,
    ) -> Result<Self> {
        let linear = |tensors| Linear::load(gguf, tensors, device);
        let norm = |tensors| Norm::load(gguf, config, tensors, device);
        Ok(Self {
            attn_norm: norm(&tensors.attn_norm)?,
            qkv: match &tensors.qkv {
                QkvTensors::Fused(qkv) => Qkv::Fused(linear(qkv)?),
                QkvTensors::Split { q, k, v } => Qkv::Split([linear(q)?, linear(k)?, linear(v)?]),
            },
            attn_output: linear(&tensors.attn_output)?,
            ffn_norm: tensors.ffn_norm.as_ref().map(norm).transpose()?,
            ffn_up: linear(&tensors.ffn_up)?,
            ffn_down: linear(&tensors.ffn_down)?,
        })
    }

    // x: (n, d_model) -> (n, d_model)
    pub(super) fn forward(
        &self,
        x: &Tensor,
        i: usize,
        w: &Weights,
        step: &Step,
        cache: &mut Cache,
    ) -> Result<Tensor> {
        let normed = self.attn_norm.forward(x)?;
        let x = (x + self.attention(&normed, i, w, step, cache)?)?;
        let normed = match &self.ffn_norm {
            Some(norm) => norm.forward(&x)?,
            None => normed,
        };
        Ok((x + self.feed_forward(&normed, &w.config)?)?)
    }

    // x: (n, d_model) -> (n, d_model)
    fn feed_forward(&self, x: &Tensor, config: &Config) -> Result<Tensor> {
        let up = self.ffn_up.forward(x)?;
        let hidden = match config.ffn {
            FeedForward::GatedSilu => {
                let gate = up.narrow(D::Minus1, 0, config.d_ff)?;
                (silu(&gate)? * up.narrow(D::Minus1, config.d_ff, config.d_ff)?)?
            }
            // Candle's `gelu` is the tanh approximation.
            FeedForward::Gelu => up.gelu()?,
        };
        Ok(self.ffn_down.forward(&hidden)?)
    }

    /// Queries, keys and values of x: (n, d_model), each (heads, n, head_dim).
    fn project(&self, x: &Tensor, c: &Config) -> Result<[Tensor; 3]> {
        let n = x.dim(0)?;
        let by_head = |all: &Tensor, first: usize, heads: usize| {
            all.narrow(1, first * c.head_dim, heads * c.head_dim)?
                .reshape((n, heads, c.head_dim))?
                .transpose(0, 1)?
                .contiguous()
        };
        let (heads, kv_heads) = (c.n_heads, c.n_kv_heads);
        Ok(match &self.qkv {
            Qkv::Fused(qkv) => {
                let all = qkv.forward(x)?;
                [
                    by_head(&all, 0, heads)?,
                    by_head(&all, heads, kv_heads)?,
                    by_head(&all, heads + kv_heads, kv_heads)?,
                ]
            }
            Qkv::Split([q, k, v]) => [
                by_head(&q.forward(x)?, 0, heads)?,
                by_head(&k.forward(x)?, 0, kv_heads)?,
                by_head(&v.forward(x)?, 0, kv_heads)?,
            ],
        })
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
        let [q, k, v] = self.project(x, c)?;
        let q = rotate(&q, c.rope.dim, step)?;
        let k = rotate(&k, c.rope.dim, step)?;
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
