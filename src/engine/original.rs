//! The engine candlewick grew from: `candle_transformers`' `quantized_phi3::ModelWeights`, unchanged.
//!
//! A chunk of the prompt, once begun, cannot be interrupted: the forward pass is not ours.
//!
//! It is the baseline of every benchmark and an oracle of the tests, for the files and lengths where it is
//! right, and refuses the others: it fixes the rope base at 10000, rotates whole heads, wants an output matrix of its own and
//! fused queries, keys and values, and knows no biases, no long rope and no sliding window.

use std::any::Any;
use std::collections::HashMap;
use std::io::Cursor;
use std::sync::Arc;

use candle_core::quantized::gguf_file::{Content, TensorInfo, Value, VersionedMagic};
use candle_core::{DType, Device, Tensor};
use candle_transformers::models::quantized_phi3::ModelWeights;

use super::{
    Engine, EngineKind, Interrupt, KvType, OnLoaded, Sequence, cpu, device, threads, weights,
};
use crate::error::{Error, Result};
use crate::gguf::Gguf;
use crate::memory;
use crate::model::{Architecture, Config, ModelTensors, Norm};

struct OriginalEngine {
    // Never run: a clone of a model that has run shares its KV storage, and the two overwrite each other.
    pristine: ModelWeights,
    device: Device,
    n_ctx: usize,
    n_bytes: u64,
    kv_bytes_per_token: u64,
}

struct OriginalSequence {
    model: ModelWeights,
    device: Device,
    n_past: usize,
}

/// Copies the weights to `device`. `n_ctx` of `None` is the longest that is right.
pub(super) fn load(
    gguf: &Arc<Gguf>,
    config: &Config,
    n_ctx: Option<usize>,
    device: Device,
    on_loaded: OnLoaded,
) -> Result<Arc<dyn Engine>> {
    let right_up_to = config.sliding_window.unwrap_or(config.n_ctx);
    let n_ctx = n_ctx.unwrap_or(right_up_to);
    ModelTensors::locate(gguf, config)?;
    let rms_eps = refuse_what_it_gets_wrong(gguf, config, n_ctx, right_up_to)?;

    // The embedding is expanded to f32 whole.
    let embedding_bytes = 4 * (config.n_vocab * config.d_model) as u64;
    let n_bytes = gguf
        .tensors()
        .iter()
        .map(|t| weights::resident_bytes(t, &device))
        .sum::<u64>()
        + embedding_bytes;
    fits(
        &format!("`{}` in the original engine", gguf.path.display()),
        n_bytes,
        &device,
    )?;
    on_loaded(0, n_bytes)?;
    let tensor_infos = gguf
        .tensors()
        .iter()
        .map(|tensor| {
            let info = TensorInfo {
                ggml_dtype: weights::dtype(tensor)?,
                shape: tensor.shape.clone().into(),
                offset: gguf.offset(tensor) as u64,
            };
            Ok((tensor.name.clone(), info))
        })
        .collect::<Result<HashMap<_, _>>>()?;
    let mut files = gguf.files();
    let (Some(file), None) = (files.next(), files.next()) else {
        return Err(Error::Unsupported(
            "the original engine reads one file, and this model is split into several; use engine=\"candle\"".into(),
        ));
    };
    let content = Content {
        magic: VersionedMagic::GgufV3,
        metadata: metadata(config, rms_eps, n_ctx),
        tensor_infos,
        tensor_data_offset: 0,
    };
    let pristine = ModelWeights::from_gguf(false, content, &mut Cursor::new(file), &device)?;
    Ok(Arc::new(OriginalEngine {
        pristine,
        kv_bytes_per_token: config.kv_bytes_per_token(4),
        device,
        n_ctx,
        n_bytes,
    }))
}

/// Gives the epsilon of RMSNorm, which every model that it gets right has.
fn refuse_what_it_gets_wrong(
    gguf: &Gguf,
    config: &Config,
    n_ctx: usize,
    right_up_to: usize,
) -> Result<f32> {
    let wrong = |what: String| {
        Err(Error::Unsupported(format!(
            "the original engine {what}; use engine=\"candle\""
        )))
    };
    let (Architecture::Phi3, Norm::Rms { eps }) = (config.architecture, config.norm) else {
        return wrong(format!(
            "runs `phi3` models, and this is a `{}`",
            config.architecture.name()
        ));
    };
    if config.rope.base != 10_000.0 {
        return wrong(format!(
            "has its rope base fixed at 10000, and this model's is {}",
            config.rope.base
        ));
    }
    if config.rope.dim != config.head_dim {
        return wrong(format!(
            "rotates whole heads of {}, and this model rotates {} of them",
            config.head_dim, config.rope.dim
        ));
    }
    if config.rope.long.is_some() {
        return wrong("ignores this model's rope factors (long rope)".into());
    }
    if config.tied_output {
        return wrong("needs an `output.weight`, which this model does not have".into());
    }
    if let Some(tensor) = gguf
        .tensors()
        .iter()
        .find(|t| t.name.ends_with(".bias") || t.name.ends_with(".attn_q.weight"))
    {
        return wrong(format!(
            "does not know the tensor `{}`, which this model has",
            tensor.name
        ));
    }
    if n_ctx > right_up_to {
        return wrong(format!(
            "ignores this model's sliding window and is right up to {right_up_to} tokens, n_ctx is {n_ctx}"
        ));
    }
    Ok(eps)
}

/// The keys it reads, with the context cut to what is used: its KV is allocated whole.
fn metadata(config: &Config, rms_eps: f32, n_ctx: usize) -> HashMap<String, Value> {
    let int = |n: usize| Value::U32(n as u32);
    [
        ("attention.head_count", int(config.n_heads)),
        ("attention.head_count_kv", int(config.n_kv_heads)),
        ("block_count", int(config.n_layers)),
        ("embedding_length", int(config.d_model)),
        ("context_length", int(n_ctx)),
        ("feed_forward_length", int(config.d_ff)),
        ("rope.dimension_count", int(config.rope.dim)),
        ("attention.layer_norm_rms_epsilon", Value::F32(rms_eps)),
    ]
    .into_iter()
    .map(|(key, value)| (format!("phi3.{key}"), value))
    .collect()
}

fn fits(what: &str, needed: u64, device: &Device) -> Result<()> {
    match memory::available() {
        Some(available) if device.is_cpu() && needed > available => Err(Error::OutOfMemory {
            what: what.into(),
            needed,
            available,
            remedy: "use engine=\"candle\", a smaller n_ctx or a smaller quantization".into(),
        }),
        _ => Ok(()),
    }
}

impl Engine for OriginalEngine {
    fn sequence(&self) -> Result<Box<dyn Sequence>> {
        fits(
            &format!("the KV cache of {} tokens", self.n_ctx),
            self.n_ctx as u64 * self.kv_bytes_per_token,
            &self.device,
        )?;
        Ok(Box::new(OriginalSequence {
            model: self.pristine.clone(),
            device: self.device.clone(),
            n_past: 0,
        }))
    }

    fn n_ctx(&self) -> usize {
        self.n_ctx
    }

    fn device(&self) -> String {
        device::name(&self.device)
    }

    fn isa(&self) -> &'static str {
        cpu::candle_tier()
    }

    fn n_threads(&self) -> usize {
        threads::started()
    }

    fn kind(&self) -> EngineKind {
        EngineKind::Original
    }

    fn weight_bytes(&self) -> u64 {
        self.n_bytes
    }

    fn kv_type(&self) -> KvType {
        KvType::F32
    }

    fn kv_bytes_per_token(&self) -> u64 {
        self.kv_bytes_per_token
    }
}

impl Sequence for OriginalSequence {
    fn n_past(&self) -> usize {
        self.n_past
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
        interrupt()?;
        let input = Tensor::new(tokens, &self.device)?.unsqueeze(0)?;
        let output = self.model.forward(&input, self.n_past)?;
        self.n_past += tokens.len();
        logits.clear();
        if n_logits > 0 {
            logits.extend(
                output
                    .flatten_all()?
                    .to_dtype(DType::F32)?
                    .to_vec1::<f32>()?,
            );
        }
        Ok(())
    }
}
