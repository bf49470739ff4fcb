//! Weights in 4-bit floating point (E2M1), the scales in 8-bit.
//!
//! Twice the values of E2M1 are integers, so the table holds those and the scales are halved, which f32 can do exactly
//! for all of them.

use super::unpack;

/// Twice the value of each E2M1 code: sign, two bits of exponent, one of mantissa. The code of -0 gives +0.
const TWICE_E2M1: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// 17 bytes: scale E8M0, qs 16 bytes (weight j in the low half of byte j, weight j + 16 in the high half);
/// `scale * e2m1(q)`. The largest scales overflow to infinity.
pub(super) fn mxfp4(block: &[u8; 17], out: &mut [f32; 32]) {
    let d = half_e8m0(block[0]);
    for (w, q) in out.iter_mut().zip(unpack::<4, 16, 32>(&block[1..])) {
        *w = d * f32::from(TWICE_E2M1[usize::from(q)]);
    }
}

/// 36 bytes: scales 4 x UE4M3 (one for 16 weights), qs 4 x 8 bytes (of 16 weights, weight j in the low half of byte
/// j, weight j + 8 in the high half); `scale * e2m1(q)`. The other scale that NVFP4 has, one f32 for a whole tensor,
/// is not in the blocks: in a GGUF it is a tensor of its own, called `.scale`.
pub(super) fn nvfp4(block: &[u8; 36], out: &mut [f32; 64]) {
    let q = unpack::<4, 8, 64>(&block[4..]);
    let sub_blocks = out.chunks_exact_mut(16).zip(q.chunks_exact(16));
    for ((out, q), &scale) in sub_blocks.zip(&block[..4]) {
        let d = half_ue4m3(scale);
        for (w, &q) in out.iter_mut().zip(q) {
            *w = d * f32::from(TWICE_E2M1[usize::from(q)]);
        }
    }
}

/// Half of an E8M0 number: 2^(byte - 128). As in ggml, 255 is not NaN but goes on counting.
fn half_e8m0(byte: u8) -> f32 {
    match byte {
        // Subnormal in f32.
        0 | 1 => f32::from_bits(0x0020_0000 << byte),
        _ => f32::from_bits(u32::from(byte - 1) << 23),
    }
}

/// Half of an unsigned E4M3 number: 4 bits of exponent (bias 7), 3 of mantissa. As in ggml, the top bit is ignored,
/// and 0x7f, which would be NaN, is 0; 0xff is not.
fn half_ue4m3(byte: u8) -> f32 {
    let (exponent, mantissa) = ((byte >> 3) & 15, byte & 7);
    match exponent {
        _ if byte == 0x7f => 0.0,
        0 => f32::from(mantissa) / 1024.0,
        // (8 + mantissa) / 8 * 2^(exponent - 7) / 2
        _ => f32::from(8 + mantissa) * f32::from_bits((127 - 11 + u32::from(exponent)) << 23),
    }
}
