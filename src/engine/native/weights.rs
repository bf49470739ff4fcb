//! The model's matrices in the kernels' layout, and the embedding in the file.

use std::sync::Arc;

use super::out_of_memory;
use crate::engine::Interrupt;
use crate::error::{Error, Result};
use crate::gguf::{Gguf, TensorInfo, dequantize};
use crate::kernels::{Compute, Matrix};
use crate::memory;
use crate::model::{Config, LayerTensors, LinearTensors, ModelTensors, Norm, QkvTensors};

pub(super) struct Layer {
    pub attn_norm: Vec<f32>,
    pub attn_qkv: Matrix,
    pub attn_output: Matrix,
    pub ffn_norm: Vec<f32>,
    pub ffn_up: Matrix,
    pub ffn_down: Matrix,
}

pub(super) struct Weights {
    gguf: Arc<Gguf>,
    pub layers: Vec<Layer>,
    pub output_norm: Vec<f32>,
    pub output: Matrix,
    pub n_bytes: u64,
    /// Of every RMSNorm.
    pub eps: f32,
}

/// Refuses, by name, a model that this engine does not run, and gives the epsilon of RMSNorm of the others.
pub(super) fn refuse_others(config: &Config, tensors: &ModelTensors) -> Result<f32> {
    let unsupported = |what: String| {
        Err(Error::Unsupported(format!(
            "the native engine does not know {what}; use engine=\"candle\""
        )))
    };
    let Norm::Rms { eps } = config.norm else {
        return unsupported(format!("`{}` models", config.architecture.name()));
    };
    let linears = tensors.layers.iter().flat_map(|l| {
        let qkv: Vec<LinearTensors> = match l.qkv {
            QkvTensors::Fused(qkv) => vec![qkv],
            QkvTensors::Split { q, k, v } => vec![q, k, v],
        };
        qkv.into_iter().chain([l.attn_output, l.ffn_up, l.ffn_down])
    });
    if let Some(bias) = linears.chain([tensors.output]).find_map(|l| l.bias) {
        return unsupported(format!("biases, such as `{}`", bias.name));
    }
    for layer in &tensors.layers {
        if let QkvTensors::Split { q, k, v } = layer.qkv
            && (q.weight.ty != k.weight.ty || q.weight.ty != v.weight.ty)
        {
            return unsupported(format!(
                "split queries, keys and values of different types, such as `{}`",
                q.weight.name
            ));
        }
    }
    Ok(eps)
}

impl Weights {
    pub(super) fn load(
        gguf: &Arc<Gguf>,
        config: &Config,
        compute: &Compute,
        interrupt: Interrupt,
    ) -> Result<Self> {
        let tensors = ModelTensors::locate(gguf, config)?;
        let eps = refuse_others(config, &tensors)?;
        let matrices = tensors
            .layers
            .iter()
            .flat_map(|l| {
                let rest =
                    [l.attn_output, l.ffn_up, l.ffn_down].map(|l| (l.weight, l.weight.shape[0]));
                [(qkv_parts(&l.qkv)[0], config.d_qkv())]
                    .into_iter()
                    .chain(rest)
            })
            .chain([(tensors.output.weight, config.n_vocab)]);
        let mut n_bytes = 0;
        for (tensor, rows) in matrices {
            n_bytes += Matrix::n_bytes(tensor.ty, rows, tensor.shape[1]).ok_or_else(|| {
                Error::Unsupported(format!(
                    "tensor `{}` has type {}",
                    tensor.name,
                    tensor.ty.name()
                ))
            })? as u64;
        }
        if let Some(available) = memory::available().filter(|&a| n_bytes > a) {
            return Err(out_of_memory(
                &format!("`{}` in the native engine", gguf.path.display()),
                n_bytes,
                available,
                "use a smaller quantization or free some memory",
            ));
        }
        let mut layers = Vec::with_capacity(config.n_layers);
        for tensors in &tensors.layers {
            interrupt()?;
            layers.push(Layer::load(gguf, tensors, compute)?);
        }
        interrupt()?;
        Ok(Self {
            layers,
            output_norm: vector(gguf, tensors.output_norm.weight),
            output: matrix(gguf, &[tensors.output.weight], compute)?,
            eps,
            gguf: gguf.clone(),
            n_bytes,
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

impl Layer {
    fn load(gguf: &Gguf, tensors: &LayerTensors, compute: &Compute) -> Result<Self> {
        let matrix = |parts: &[&TensorInfo]| matrix(gguf, parts, compute);
        let ffn_norm = tensors.ffn_norm.as_ref().unwrap_or(&tensors.attn_norm);
        Ok(Self {
            attn_norm: vector(gguf, tensors.attn_norm.weight),
            attn_qkv: matrix(&qkv_parts(&tensors.qkv))?,
            attn_output: matrix(&[tensors.attn_output.weight])?,
            ffn_norm: vector(gguf, ffn_norm.weight),
            ffn_up: matrix(&[tensors.ffn_up.weight])?,
            ffn_down: matrix(&[tensors.ffn_down.weight])?,
        })
    }
}

/// Queries, keys and values: one matrix, or three of one type.
fn qkv_parts<'a>(qkv: &QkvTensors<'a>) -> Vec<&'a TensorInfo> {
    match qkv {
        QkvTensors::Fused(qkv) => vec![qkv.weight],
        QkvTensors::Split { q, k, v } => vec![q.weight, k.weight, v.weight],
    }
}

/// One matrix of the rows of `parts`, which have the same type.
fn matrix(gguf: &Gguf, parts: &[&TensorInfo], compute: &Compute) -> Result<Matrix> {
    let rows = parts.iter().map(|part| part.shape[0]).sum();
    let mut matrix = Matrix::allocate(parts[0].ty, rows, parts[0].shape[1])?;
    if let [one] = parts {
        compute.pack(&mut matrix, gguf.bytes(one))?;
    } else {
        let bytes: Vec<&[u8]> = parts.iter().map(|part| gguf.bytes(part)).collect();
        compute.pack(&mut matrix, &bytes.concat())?;
    }
    // The copy is what is used from now on.
    for part in parts {
        gguf.release(part);
    }
    Ok(matrix)
}

fn vector(gguf: &Gguf, tensor: &TensorInfo) -> Vec<f32> {
    let mut values = vec![0.0; tensor.n_elements()];
    dequantize(tensor.ty, gguf.bytes(tensor), &mut values);
    values
}
