//! Where each weight of the model lies in the file: every tensor found, its shape checked, none left over.

use std::collections::HashSet;

use super::config::Config;
use crate::error::{Error, Result};
use crate::gguf::{GgmlType, Gguf, TensorInfo};

/// The tensors of one block. Matrices are (outputs, inputs).
#[derive(Debug)]
pub struct LayerTensors<'a> {
    /// (d_model) RMSNorm before attention.
    pub attn_norm: &'a TensorInfo,
    /// (d_qkv, d_model): queries, then keys, then values.
    pub attn_qkv: &'a TensorInfo,
    /// (d_model, n_heads * head_dim)
    pub attn_output: &'a TensorInfo,
    /// (d_model) RMSNorm before the feed-forward layer.
    pub ffn_norm: &'a TensorInfo,
    /// (2 * d_ff, d_model): the gate, then the values.
    pub ffn_up: &'a TensorInfo,
    /// (d_model, d_ff)
    pub ffn_down: &'a TensorInfo,
}

/// All tensors of the model.
#[derive(Debug)]
pub struct ModelTensors<'a> {
    /// (n_vocab, d_model)
    pub token_embd: &'a TensorInfo,
    /// The blocks, in order.
    pub layers: Vec<LayerTensors<'a>>,
    /// (d_model)
    pub output_norm: &'a TensorInfo,
    /// (n_vocab, d_model); `token_embd` where the output is tied.
    pub output: &'a TensorInfo,
}

impl<'a> ModelTensors<'a> {
    /// Finds every tensor that `config` calls for.
    ///
    /// # Errors
    /// `ModelFormat` for a missing tensor or a wrong shape; `Unsupported` for a tensor that nothing here uses.
    pub fn locate(gguf: &'a Gguf, config: &Config) -> Result<Self> {
        let mut seen = HashSet::new();
        let mut find = |name: String, shape: &[usize]| -> Result<&'a TensorInfo> {
            let tensor = gguf.tensor(&name).ok_or_else(|| {
                Error::ModelFormat(match name.strip_suffix("attn_qkv.weight") {
                    Some(block) if gguf.tensor(&format!("{block}attn_q.weight")).is_some() => {
                        format!("tensor `{name}` is missing: split query, key and value matrices are not supported yet")
                    }
                    _ => format!("tensor `{name}` is missing"),
                })
            })?;
            if tensor.shape != shape {
                return Err(Error::ModelFormat(format!(
                    "tensor `{name}` has shape {:?}, expected {shape:?}",
                    tensor.shape
                )));
            }
            seen.insert(name);
            Ok(tensor)
        };
        let (d, ff) = (config.d_model, config.d_ff);
        let token_embd = find("token_embd.weight".into(), &[config.n_vocab, d])?;
        let layers = (0..config.n_layers)
            .map(|i| {
                let mut block =
                    |name: &str, shape: &[usize]| find(format!("blk.{i}.{name}.weight"), shape);
                Ok(LayerTensors {
                    attn_norm: plain(block("attn_norm", &[d])?)?,
                    attn_qkv: block("attn_qkv", &[config.d_qkv(), d])?,
                    attn_output: block("attn_output", &[d, config.n_heads * config.head_dim])?,
                    ffn_norm: plain(block("ffn_norm", &[d])?)?,
                    ffn_up: block("ffn_up", &[2 * ff, d])?,
                    ffn_down: block("ffn_down", &[d, ff])?,
                })
            })
            .collect::<Result<_>>()?;
        let output_norm = plain(find("output_norm.weight".into(), &[d])?)?;
        let output = if config.tied_output {
            token_embd
        } else {
            find("output.weight".into(), &[config.n_vocab, d])?
        };
        if let Some(extra) = gguf.tensors().iter().find(|t| !seen.contains(&t.name)) {
            return Err(Error::Unsupported(format!(
                "tensor `{}` is not part of the model that the metadata describes ({} layers), and may change the \
                 result: a newer candlewick may know it",
                extra.name, config.n_layers
            )));
        }
        Ok(Self {
            token_embd,
            layers,
            output_norm,
            output,
        })
    }
}

/// Norms are stored plainly in every file; a quantized one is a sign of damage.
fn plain(tensor: &TensorInfo) -> Result<&TensorInfo> {
    match tensor.ty {
        GgmlType::F32 | GgmlType::F16 | GgmlType::BF16 => Ok(tensor),
        other => Err(Error::ModelFormat(format!(
            "tensor `{}` has type {}, expected F32, F16 or BF16",
            tensor.name,
            other.name()
        ))),
    }
}
