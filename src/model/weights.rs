//! Where each weight of the model lies in the file: every tensor found, its shape checked, none left over.

use std::cell::RefCell;
use std::collections::HashSet;

use super::config::{Architecture, Config, Norm};
use super::keys::Keys;
use crate::error::{Error, Result};
use crate::gguf::{Audit, GgmlType, Gguf, TensorInfo};

/// `x @ weight^T + bias`.
#[derive(Debug, Clone, Copy)]
pub struct LinearTensors<'a> {
    /// (outputs, inputs)
    pub weight: &'a TensorInfo,
    /// (outputs) F32, F16 or BF16
    pub bias: Option<&'a TensorInfo>,
}

/// A norm over the last dimension.
#[derive(Debug, Clone, Copy)]
pub struct NormTensors<'a> {
    /// (d_model) F32, F16 or BF16
    pub weight: &'a TensorInfo,
    /// (d_model), there where [`Config::norm`] is [`Norm::Layer`] and only there.
    pub bias: Option<&'a TensorInfo>,
}

/// The projection to queries, keys and values.
#[derive(Debug, Clone, Copy)]
pub enum QkvTensors<'a> {
    /// (d_qkv, d_model): queries, then keys, then values.
    Fused(LinearTensors<'a>),
    /// Three matrices.
    Split {
        /// (d_q, d_model)
        q: LinearTensors<'a>,
        /// (d_kv, d_model)
        k: LinearTensors<'a>,
        /// (d_kv, d_model)
        v: LinearTensors<'a>,
    },
}

/// The tensors of one block.
#[derive(Debug)]
pub struct LayerTensors<'a> {
    /// Before attention, and in a parallel block before both halves.
    pub attn_norm: NormTensors<'a>,
    /// To queries, keys and values.
    pub qkv: QkvTensors<'a>,
    /// (d_model, d_q)
    pub attn_output: LinearTensors<'a>,
    /// Before the feed-forward layer; none in a parallel block.
    pub ffn_norm: Option<NormTensors<'a>>,
    /// (d_ffn_up, d_model): with a gate, first the gate, then the values.
    pub ffn_up: LinearTensors<'a>,
    /// (d_model, d_ff)
    pub ffn_down: LinearTensors<'a>,
}

/// All tensors of the model.
#[derive(Debug)]
pub struct ModelTensors<'a> {
    /// (n_vocab, d_model)
    pub token_embd: &'a TensorInfo,
    /// The blocks, in order.
    pub layers: Vec<LayerTensors<'a>>,
    /// After the last block.
    pub output_norm: NormTensors<'a>,
    /// (n_vocab, d_model); the weight is `token_embd` where the output is tied.
    pub output: LinearTensors<'a>,
}

impl<'a> ModelTensors<'a> {
    /// Finds every tensor that `config` calls for.
    ///
    /// # Errors
    /// `ModelFormat` for a missing tensor or a wrong shape; `Unsupported` for a tensor that nothing here uses.
    pub fn locate(gguf: &'a Gguf, config: &Config) -> Result<Self> {
        let finder = Finder {
            gguf,
            config,
            seen: RefCell::default(),
        };
        let d = config.d_model;
        let vocab = [config.n_vocab, d];
        let token_embd = weights(finder.tensor("token_embd.weight", &vocab)?)?;
        let layers = (0..config.n_layers)
            .map(|i| finder.layer(i))
            .collect::<Result<_>>()?;
        let output_norm = finder.norm("output_norm")?;
        let output = if config.tied_output {
            LinearTensors {
                weight: token_embd,
                bias: finder.bias("output", config.n_vocab)?,
            }
        } else {
            finder.linear("output", vocab)?
        };
        if config.rope.long.is_some() {
            // Read with the configuration.
            for length in ["long", "short"] {
                let name = format!("rope_factors_{length}.weight");
                finder.tensor(&name, &[config.rope.dim / 2])?;
            }
        }
        let seen = finder.seen.into_inner();
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

/// What the model takes from the file: the keys under its architecture's name, and the tensors.
///
/// # Errors
/// Those of [`Config::from_gguf`] and [`ModelTensors::locate`].
pub fn audit(gguf: &Gguf, config: &Config) -> Result<Audit> {
    let mut audit = Keys::new(&gguf.metadata, config.architecture).audit()?;
    // An error for every tensor that is not used.
    ModelTensors::locate(gguf, config)?;
    for tensor in gguf.tensors() {
        audit.use_tensor(&tensor.name);
    }
    Ok(audit)
}

struct Finder<'a, 'c> {
    gguf: &'a Gguf,
    config: &'c Config,
    seen: RefCell<HashSet<String>>,
}

impl<'a> Finder<'a, '_> {
    fn layer(&self, i: usize) -> Result<LayerTensors<'a>> {
        let c = self.config;
        let name = |part: &str| format!("blk.{i}.{part}");
        let has = |part: &str| {
            self.gguf
                .tensor(&format!("blk.{i}.{part}.weight"))
                .is_some()
        };
        let split = !has("attn_qkv") && has("attn_q");
        Ok(LayerTensors {
            attn_norm: self.norm(&name("attn_norm"))?,
            qkv: if split {
                QkvTensors::Split {
                    q: self.linear(&name("attn_q"), [c.d_q(), c.d_model])?,
                    k: self.linear(&name("attn_k"), [c.d_kv(), c.d_model])?,
                    v: self.linear(&name("attn_v"), [c.d_kv(), c.d_model])?,
                }
            } else {
                QkvTensors::Fused(self.linear(&name("attn_qkv"), [c.d_qkv(), c.d_model])?)
            },
            attn_output: self.linear(&name("attn_output"), [c.d_model, c.d_q()])?,
            ffn_norm: if c.parallel_block {
                None
            } else {
                Some(self.norm(&name("ffn_norm"))?)
            },
            ffn_up: self.linear(&name("ffn_up"), [c.d_ffn_up(), c.d_model])?,
            ffn_down: self.linear(&name("ffn_down"), [c.d_model, c.d_ff])?,
        })
    }

    fn linear(&self, name: &str, shape: [usize; 2]) -> Result<LinearTensors<'a>> {
        Ok(LinearTensors {
            weight: weights(self.tensor(&format!("{name}.weight"), &shape)?)?,
            bias: self.bias(name, shape[0])?,
        })
    }

    /// Every matrix of Phi-2 has one; in a Phi-3 it is used where the file has it.
    fn bias(&self, name: &str, n: usize) -> Result<Option<&'a TensorInfo>> {
        let name = format!("{name}.bias");
        let wanted = self.config.architecture == Architecture::Phi2;
        if !wanted && self.gguf.tensor(&name).is_none() {
            return Ok(None);
        }
        Ok(Some(plain(self.tensor(&name, &[n])?)?))
    }

    fn norm(&self, name: &str) -> Result<NormTensors<'a>> {
        let shape = [self.config.d_model];
        Ok(NormTensors {
            weight: plain(self.tensor(&format!("{name}.weight"), &shape)?)?,
            bias: match self.config.norm {
                Norm::Rms { .. } => None,
                Norm::Layer { .. } => Some(plain(self.tensor(&format!("{name}.bias"), &shape)?)?),
            },
        })
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<&'a TensorInfo> {
        let tensor = self
            .gguf
            .tensor(name)
            .ok_or_else(|| Error::ModelFormat(format!("tensor `{name}` is missing")))?;
        if tensor.shape != shape {
            return Err(Error::ModelFormat(format!(
                "tensor `{name}` has shape {:?}, expected {shape:?}",
                tensor.shape
            )));
        }
        self.seen.borrow_mut().insert(name.to_owned());
        Ok(tensor)
    }
}

/// No quantization stores weights as integers without a scale: they are indices of something, or damage.
fn weights(tensor: &TensorInfo) -> Result<&TensorInfo> {
    match tensor.ty {
        GgmlType::I8 | GgmlType::I16 | GgmlType::I32 | GgmlType::I64 => {
            Err(Error::ModelFormat(format!(
                "tensor `{}` has type {}, expected weights: floats or a quantized type",
                tensor.name,
                tensor.ty.name()
            )))
        }
        _ => Ok(tensor),
    }
}

/// Norms and biases are stored plainly in every file; a quantized one is a sign of damage.
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
