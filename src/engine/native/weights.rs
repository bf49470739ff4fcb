//! The model's matrices in the kernels' layout, and the embedding in the file.

use std::sync::Arc;

use super::out_of_memory;
use crate::engine::Interrupt;
use crate::error::{Error, Result};
use crate::gguf::{Gguf, TensorInfo, dequantize};
use crate::kernels::{Compute, Matrix};
use crate::memory;
use crate::model::{Config, LayerTensors, ModelTensors};

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
}

impl Weights {
    pub(super) fn load(
        gguf: &Arc<Gguf>,
        config: &Config,
        compute: &Compute,
        interrupt: Interrupt,
    ) -> Result<Self> {
        let tensors = ModelTensors::locate(gguf, config)?;
        let matrices = tensors
            .layers
            .iter()
            .flat_map(|l| [l.attn_qkv, l.attn_output, l.ffn_up, l.ffn_down])
            .chain([tensors.output]);
        let mut n_bytes = 0;
        for tensor in matrices {
            n_bytes +=
                Matrix::n_bytes(tensor.ty, tensor.shape[0], tensor.shape[1]).ok_or_else(|| {
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
            output_norm: vector(gguf, tensors.output_norm),
            output: matrix(gguf, tensors.output, compute)?,
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
        Ok(Self {
            attn_norm: vector(gguf, tensors.attn_norm),
            attn_qkv: matrix(gguf, tensors.attn_qkv, compute)?,
            attn_output: matrix(gguf, tensors.attn_output, compute)?,
            ffn_norm: vector(gguf, tensors.ffn_norm),
            ffn_up: matrix(gguf, tensors.ffn_up, compute)?,
            ffn_down: matrix(gguf, tensors.ffn_down, compute)?,
        })
    }
}

fn matrix(gguf: &Gguf, tensor: &TensorInfo, compute: &Compute) -> Result<Matrix> {
    let mut matrix = Matrix::allocate(tensor.ty, tensor.shape[0], tensor.shape[1])?;
    compute.pack(&mut matrix, gguf.bytes(tensor))?;
    // The copy is what is used from now on.
    gguf.release(tensor);
    Ok(matrix)
}

fn vector(gguf: &Gguf, tensor: &TensorInfo) -> Vec<f32> {
    let mut values = vec![0.0; tensor.n_elements()];
    dequantize(tensor.ty, gguf.bytes(tensor), &mut values);
    values
}
