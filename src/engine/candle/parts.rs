//! What layers are made of: matrices with or without a bias, and the two norms.

use candle_core::quantized::QMatMul;
use candle_core::{Device, Module, Result, Tensor};
use candle_nn::ops::{layer_norm, rms_norm};

use crate::engine::weights;
use crate::error;
use crate::gguf::Gguf;
use crate::model::{self, Config, LinearTensors, NormTensors};

/// `x @ weight^T + bias`.
pub(super) struct Linear {
    weight: QMatMul,
    bias: Option<Tensor>,
}

impl Linear {
    pub(super) fn load(
        gguf: &Gguf,
        tensors: &LinearTensors,
        device: &Device,
    ) -> error::Result<Self> {
        Ok(Self {
            weight: weights::matrix(gguf, tensors.weight, device)?,
            bias: tensors
                .bias
                .map(|bias| weights::vector(gguf, bias, device))
                .transpose()?,
        })
    }

    // x: (n, inputs) -> (n, outputs)
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.weight.forward(x)?;
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }
}

/// A norm over the last dimension.
pub(super) struct Norm {
    kind: model::Norm,
    weight: Tensor,
    // Of LayerNorm; RMSNorm has none
    bias: Option<Tensor>,
}

impl Norm {
    pub(super) fn load(
        gguf: &Gguf,
        config: &Config,
        tensors: &NormTensors,
        device: &Device,
    ) -> error::Result<Self> {
        let vector = |tensor| weights::vector(gguf, tensor, device);
        Ok(Self {
            kind: config.norm,
            weight: vector(tensors.weight)?,
            bias: tensors.bias.map(vector).transpose()?,
        })
    }

    // x: (n, d_model), contiguous
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match (self.kind, &self.bias) {
            (model::Norm::Layer { eps }, Some(bias)) => layer_norm(x, &self.weight, bias, eps),
            (model::Norm::Layer { eps } | model::Norm::Rms { eps }, _) => {
                rms_norm(x, &self.weight, eps)
            }
        }
    }
}
