//! One transformer block: attention and feed-forward layer, one after the other or side by side.

use super::linear::Linear;
use super::{Buffers, Shared, Span};
use crate::error::Result;
use crate::kernels::Norm;
use crate::model::FeedForward;

pub(super) struct Layer {
    pub attn_norm: Norm,
    pub attn_qkv: Linear,
    pub attn_output: Linear,
    /// None where the feed-forward layer reads what the attention reads.
    pub ffn_norm: Option<Norm>,
    pub ffn_up: Linear,
    pub ffn_down: Linear,
}

impl Layer {
    /// b.x and b.y: (n, d_model), the residual stream of all spans one after the other and, if not in the first layer,
    /// what is still to be added to it. `rope`: cosines and sines, (n, rope_dim / 2) each.
    pub(super) fn forward(
        &self,
        s: &Shared,
        b: &mut Buffers,
        index: usize,
        spans: &mut [Span],
        (cos, sin): (&[f32], &[f32]),
    ) -> Result<()> {
        let compute = &s.compute;
        let y = (index > 0).then_some(b.y.as_slice());
        let norm = &self.attn_norm;
        compute.norm(&mut b.x, y, norm, self.attn_qkv.input(), &mut b.inputs)?;
        let x = &mut b.x;
        self.attn_qkv
            .forward(compute, &mut b.inputs, &mut b.qkv, |kind, inputs| {
                compute.norm(x, None, norm, kind, inputs)
            })?;
        if self.ffn_norm.is_none() {
            let kind = self.ffn_up.input();
            compute.norm(&mut b.x, None, norm, kind, &mut b.inputs)?;
            self.up(s, b)?;
        }
        let half = cos.len() * s.config.d_qkv() / b.qkv.len();
        let mut first = 0;
        for span in spans {
            let (start, n) = (span.cache.n_past(), span.tokens.len());
            let rows = |d: usize| first * d..(first + n) * d;
            let mut pages = span.cache.layer(index);
            let qkv = &mut b.qkv[rows(s.config.d_qkv())];
            let rope = (&cos[rows(half)], &sin[rows(half)]);
            compute.rotate_and_store(qkv, &s.heads, start, rope, pages.pages())?;
            let out = &mut b.attended[rows(s.config.n_heads * s.config.head_dim)];
            compute.attend(qkv, &s.heads, start, pages.pages(), out)?;
            first += n;
        }
        let output = &self.attn_output;
        compute.prepare(&b.attended, output.inputs(), output.input(), &mut b.inputs)?;
        output.forward(compute, &mut b.inputs, &mut b.y, one_part)?;
        match &self.ffn_norm {
            Some(norm) => {
                let kind = self.ffn_up.input();
                compute.norm(&mut b.x, Some(&b.y), norm, kind, &mut b.inputs)?;
                self.up(s, b)?;
            }
            None => compute.add(&mut b.x, &b.y, s.config.d_model)?,
        }
        let gated = s.config.ffn == FeedForward::GatedSilu;
        let kind = self.ffn_down.input();
        compute.activate(&b.gate_up, s.config.d_ff, gated, kind, &mut b.inputs)?;
        self.ffn_down
            .forward(compute, &mut b.inputs, &mut b.y, one_part)
    }

    fn up(&self, s: &Shared, b: &mut Buffers) -> Result<()> {
        self.ffn_up
            .forward(&s.compute, &mut b.inputs, &mut b.gate_up, one_part)
    }
}

/// A single matrix never asks for its inputs in another form.
pub(super) fn one_part(
    _: crate::kernels::InputKind,
    _: &mut crate::kernels::Activations,
) -> Result<()> {
    Ok(())
}
