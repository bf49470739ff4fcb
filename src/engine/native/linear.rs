//! `x w^T + bias` of one matrix, or of several that lie beside each other.

use crate::error::Result;
use crate::gguf::{Gguf, TensorInfo};
use crate::kernels::{Activations, Compute, InputKind, Matrix};
use crate::model::LinearTensors;

pub(super) struct Linear {
    // Fused, or queries, keys and values for themselves: their outputs follow each other
    parts: Vec<Matrix>,
    // (outputs); empty where there is none
    bias: Vec<f32>,
    outputs: usize,
}

impl Linear {
    /// Copies the matrices of `parts` from the file, and lets go of what they took there.
    pub(super) fn load(gguf: &Gguf, parts: &[LinearTensors], compute: &Compute) -> Result<Self> {
        let mut linear = Self {
            parts: Vec::with_capacity(parts.len()),
            bias: Vec::new(),
            outputs: parts.iter().map(|part| part.weight.shape[0]).sum(),
        };
        let biased = parts.iter().any(|part| part.bias.is_some());
        for part in parts {
            let &TensorInfo { ty, ref shape, .. } = part.weight;
            let mut matrix = Matrix::allocate(ty, shape[0], shape[1])?;
            compute.pack(&mut matrix, gguf.bytes(part.weight))?;
            gguf.release(part.weight);
            linear.parts.push(matrix);
            match part.bias {
                Some(bias) => linear.bias.extend(super::weights::vector(gguf, bias)),
                None if biased => linear.bias.resize(linear.bias.len() + shape[0], 0.0),
                None => {}
            }
        }
        Ok(linear)
    }

    /// How the first part wants its inputs.
    pub(super) fn input(&self) -> InputKind {
        self.parts[0].input()
    }

    pub(super) fn inputs(&self) -> usize {
        self.parts[0].cols()
    }

    /// `x` is as [`Self::input`] says; `again` makes it of another kind, where parts differ. `out`: (n, outputs).
    pub(super) fn forward(
        &self,
        compute: &Compute,
        x: &mut Activations,
        out: &mut [f32],
        mut again: impl FnMut(InputKind, &mut Activations) -> Result<()>,
    ) -> Result<()> {
        let mut first = 0;
        let mut kind = self.input();
        for part in &self.parts {
            if part.input() != kind {
                kind = part.input();
                again(kind, x)?;
            }
            compute.matmul(part, x, out, first, self.outputs)?;
            first += part.rows();
        }
        if !self.bias.is_empty() {
            compute.add(out, &self.bias, self.outputs)?;
        }
        Ok(())
    }
}
