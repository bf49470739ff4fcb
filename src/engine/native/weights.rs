//! The model's matrices in the kernels' layout, and the embedding in the file.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::footprint::weight_bytes;
use super::layer::Layer;
use super::linear::Linear;
use super::out_of_memory;
use crate::engine::OnLoaded;
use crate::error::{Error, Result};
use crate::gguf::{Gguf, TensorInfo, dequantize};
use crate::kernels::{Compute, Matrix, Norm};
use crate::memory;
use crate::model::{
    self, Config, LayerTensors, LinearTensors, ModelTensors, NormTensors, QkvTensors,
};

pub(super) struct Weights {
    gguf: Arc<Gguf>,
    pub layers: Vec<Layer>,
    pub output_norm: Norm,
    pub output: Linear,
    pub n_bytes: u64,
    pub slow_types: Vec<&'static str>,
}

impl Weights {
    pub(super) fn load(
        gguf: &Arc<Gguf>,
        config: &Config,
        compute: &Compute,
        on_loaded: OnLoaded,
    ) -> Result<Self> {
        let tensors = ModelTensors::locate(gguf, config)?;
        let n_bytes = weight_bytes(gguf);
        if let Some(available) = memory::available().filter(|&a| n_bytes > a) {
            return Err(out_of_memory(
                &format!("`{}` in the native engine", gguf.path.display()),
                n_bytes,
                available,
                "use a smaller quantization or free some memory",
            ));
        }
        let slow_types: BTreeSet<_> = matrices(&tensors)
            .filter(|t| !Matrix::supports(t.ty))
            .map(|t| t.ty.name())
            .collect();
        let slow_types = Vec::from_iter(slow_types);
        if !slow_types.is_empty() {
            log::warn!(
                "matrices of type {} are slow: they are dequantized whenever they are used",
                slow_types.join(", ")
            );
        }
        let mut layers = Vec::with_capacity(config.n_layers);
        for (i, tensors) in tensors.layers.iter().enumerate() {
            // Layers and output are taken to be as large as each other: it is told to people.
            on_loaded(n_bytes * i as u64 / (config.n_layers as u64 + 1), n_bytes)?;
            layers.push(layer(gguf, config, tensors, compute)?);
        }
        Ok(Self {
            layers,
            output_norm: norm(gguf, config, &tensors.output_norm),
            output: Linear::load(gguf, &[tensors.output], compute)?,
            gguf: gguf.clone(),
            n_bytes,
            slow_types,
        })
    }

    /// Rows of the embedding for `tokens`: (tokens, d_model) to `x`.
    pub(super) fn embed(&self, tokens: &[u32], x: &mut [f32]) -> Result<()> {
        let embedding = self
            .gguf
            .tensor("token_embd.weight")
            .expect("checked at load");
        let (n_vocab, d) = (embedding.shape[0], embedding.shape[1]);
        let bytes = self.gguf.bytes(embedding);
        let row_bytes = bytes.len() / n_vocab;
        for (&id, x) in tokens.iter().zip(x.chunks_exact_mut(d)) {
            let start = id as usize * row_bytes;
            let row = bytes.get(start..start + row_bytes).ok_or_else(|| {
                Error::InvalidRequest(format!(
                    "token id {id} is outside the vocabulary of {n_vocab} tokens"
                ))
            })?;
            dequantize(embedding.ty, row, x);
        }
        Ok(())
    }
}

/// Everything that is multiplied with.
fn matrices<'a>(tensors: &'a ModelTensors) -> impl Iterator<Item = &'a TensorInfo> {
    tensors
        .layers
        .iter()
        .flat_map(|l| {
            let rest = [l.attn_output, l.ffn_up, l.ffn_down];
            parts(&l.qkv).into_iter().chain(rest)
        })
        .chain([tensors.output])
        .map(|linear| linear.weight)
}

/// Queries, keys and values: one matrix or three.
fn parts<'a>(qkv: &QkvTensors<'a>) -> Vec<LinearTensors<'a>> {
    match *qkv {
        QkvTensors::Fused(qkv) => vec![qkv],
        QkvTensors::Split { q, k, v } => vec![q, k, v],
    }
}

fn layer(gguf: &Gguf, config: &Config, tensors: &LayerTensors, compute: &Compute) -> Result<Layer> {
    let linear = |tensors| Linear::load(gguf, &[tensors], compute);
    Ok(Layer {
        attn_norm: norm(gguf, config, &tensors.attn_norm),
        attn_qkv: Linear::load(gguf, &parts(&tensors.qkv), compute)?,
        attn_output: linear(tensors.attn_output)?,
        ffn_norm: tensors.ffn_norm.as_ref().map(|n| norm(gguf, config, n)),
        ffn_up: linear(tensors.ffn_up)?,
        ffn_down: linear(tensors.ffn_down)?,
    })
}

fn norm(gguf: &Gguf, config: &Config, tensors: &NormTensors) -> Norm {
    let (model::Norm::Rms { eps } | model::Norm::Layer { eps }) = config.norm;
    Norm {
        weight: vector(gguf, tensors.weight),
        bias: tensors.bias.map(|bias| vector(gguf, bias)),
        eps,
    }
}

pub(super) fn vector(gguf: &Gguf, tensor: &TensorInfo) -> Vec<f32> {
    let mut values = vec![0.0; tensor.n_elements()];
    dequantize(tensor.ty, gguf.bytes(tensor), &mut values);
    values
}
