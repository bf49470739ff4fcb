//! What happens to one token's vectors between the products: norms, activations, rotation.
//!
//! Plain code in blocks of 16, which the compiler turns into the vectors of each tier; sums are taken in 16
//! lanes and then in a fixed order, so the bits do not depend on the vectors.

use super::activations::Writer;
use super::math::{exp, sum16};

/// RMSNorm (arXiv:1910.07467): `x / sqrt(mean(x^2) + eps) * weight`, (d) each.
#[inline(always)]
pub(super) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let mut lanes = [0.0f32; 16];
    let chunks = x.chunks_exact(16);
    for (lane, x) in lanes.iter_mut().zip(chunks.remainder()) {
        *lane = x * x;
    }
    for x in chunks {
        for (lane, x) in lanes.iter_mut().zip(x) {
            *lane = x.mul_add(*x, *lane);
        }
    }
    let scale = 1.0 / (sum16(&lanes) / x.len() as f32 + eps).sqrt();
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * scale * weight;
    }
}

/// LayerNorm (arXiv:1607.06450): `(x - mean(x)) / sqrt(var(x) + eps) * weight + bias`, (d) each.
#[inline(always)]
pub(super) fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    let n = x.len() as f32;
    let mean = sum_of(x, |x| x) / n;
    let scale = 1.0 / (sum_of(x, |x| (x - mean) * (x - mean)) / n + eps).sqrt();
    for (((out, x), weight), bias) in out.iter_mut().zip(x).zip(weight).zip(bias) {
        *out = ((x - mean) * scale).mul_add(*weight, *bias);
    }
}

#[inline(always)]
fn sum_of(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; 16];
    for x in x.chunks(16) {
        for (lane, x) in lanes.iter_mut().zip(x) {
            *lane += f(*x);
        }
    }
    sum16(&lanes)
}

/// `x += y`
#[inline(always)]
pub(super) fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// `silu(gate) * up` of inputs `from..` of token `t`, stored as the next product wants it.
///
/// # Safety
/// That of [`Writer::write`].
#[inline(always)]
pub(super) unsafe fn silu_mul(gate: &[f32], up: &[f32], to: &Writer, t: usize, from: usize) {
    const CHUNK: usize = 256;
    let mut out = [0.0f32; CHUNK];
    for (i, (gate, up)) in gate.chunks(CHUNK).zip(up.chunks(CHUNK)).enumerate() {
        let out = &mut out[..gate.len()];
        for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
            *out = gate / (1.0 + exp(-gate)) * up;
        }
        // SAFETY: the caller's.
        unsafe { to.write(t, from + i * CHUNK, out) };
    }
}

/// `gelu(x)`, by its tanh approximation (arXiv:1606.08415), of inputs `from..` of token `t`.
///
/// # Safety
/// That of [`Writer::write`].
#[inline(always)]
pub(super) unsafe fn gelu(x: &[f32], to: &Writer, t: usize, from: usize) {
    // sqrt(2 / pi)
    const C: f32 = 0.797_884_6;
    const CHUNK: usize = 256;
    let mut out = [0.0f32; CHUNK];
    for (i, x) in x.chunks(CHUNK).enumerate() {
        let out = &mut out[..x.len()];
        for (out, &x) in out.iter_mut().zip(x) {
            // (1 + tanh u) / 2 = 1 / (1 + e^-2u)
            let u = C * (0.044_715 * x * x).mul_add(x, x);
            *out = x / (1.0 + exp(-2.0 * u));
        }
        // SAFETY: the caller's.
        unsafe { to.write(t, from + i * CHUNK, out) };
    }
}

/// Rotates the first `2 * cos.len()` of a head, halves against each other (the NEOX layout), and scales all of it.
#[inline(always)]
pub(super) fn rotate(head: &mut [f32], cos: &[f32], sin: &[f32], scale: f32) {
    let half = cos.len();
    let (first, rest) = head.split_at_mut(half);
    let (second, rest) = rest.split_at_mut(half);
    for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
        let (x, y) = (*a, *b);
        *a = (x * cos - y * sin) * scale;
        *b = (y * cos + x * sin) * scale;
    }
    for x in rest {
        *x *= scale;
    }
}
