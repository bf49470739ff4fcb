//! The K-quants: blocks of 256 weights in sub-blocks of 16 or 32, whose scales are quantized themselves.
//!
//! Where several fields share a byte, a run of 32 weights takes the lowest bits of 32 consecutive bytes, the next
//! run the bits above them, and so on (Q6_K's `ql`: runs of 64).

use super::{f16_at, unpack};

/// 84 bytes: scales 16 bytes (one for 16 weights: scale in the low half, minimum in the high half), qs 64 bytes of
/// 2-bit fields, d f16, dmin f16; `d * scale * q - dmin * minimum`.
pub(super) fn q2_k(block: &[u8; 84], out: &mut [f32; 256]) {
    let (d, dmin) = (f16_at(block, 80), f16_at(block, 82));
    let q = unpack::<2, 32, 256>(&block[16..80]);
    let sub_blocks = out.chunks_exact_mut(16).zip(q.chunks_exact(16));
    for ((out, q), &s) in sub_blocks.zip(&block[..16]) {
        affine(out, q, d * f32::from(s & 15), dmin * f32::from(s >> 4));
    }
}

/// 110 bytes: hmask 32 bytes (the third bit of each q), qs 64 bytes of 2-bit fields, scales 12 bytes, d f16;
/// `d * (scale - 32) * (q - 4)`.
///
/// Of the 16 scales of 6 bits, one for 16 weights, bytes 0 to 7 hold the low 4 bits (scale j in the low half of byte
/// j, scale j + 8 in the high half) and bytes 8 to 11 the upper 2 (scale j + 4k in bits 2k of byte 8 + j).
pub(super) fn q3_k(block: &[u8; 110], out: &mut [f32; 256]) {
    let d = f16_at(block, 108);
    let high = unpack::<1, 32, 256>(&block[..32]);
    let low = unpack::<2, 32, 256>(&block[32..96]);
    let scale_low = unpack::<4, 8, 16>(&block[96..104]);
    let scale_high = unpack::<2, 4, 16>(&block[104..108]);
    for (i, out) in out.chunks_exact_mut(16).enumerate() {
        let d = d * (f32::from(scale_low[i] | (scale_high[i] << 4)) - 32.0);
        for ((w, low), high) in out.iter_mut().zip(&low[16 * i..]).zip(&high[16 * i..]) {
            *w = d * (f32::from(low | (high << 2)) - 4.0);
        }
    }
}

/// 144 bytes: d f16, dmin f16, scales 12 bytes ([`scales_and_minima`]), qs 128 bytes of 4-bit fields;
/// `d * scale * q - dmin * minimum`.
pub(super) fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
    let q = unpack::<4, 32, 256>(&block[16..]);
    let sub_blocks = out.chunks_exact_mut(32).zip(q.chunks_exact(32));
    for ((out, q), (scale, min)) in sub_blocks.zip(scales_and_minima(&block[4..16])) {
        affine(out, q, d * f32::from(scale), dmin * f32::from(min));
    }
}

/// 176 bytes: d f16, dmin f16, scales 12 bytes ([`scales_and_minima`]), qh 32 bytes (the fifth bit of each q), qs 128
/// bytes of 4-bit fields; `d * scale * q - dmin * minimum`.
pub(super) fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
    let mut q = unpack::<4, 32, 256>(&block[48..]);
    for (q, high) in q.iter_mut().zip(unpack::<1, 32, 256>(&block[16..48])) {
        *q |= high << 4;
    }
    let sub_blocks = out.chunks_exact_mut(32).zip(q.chunks_exact(32));
    for ((out, q), (scale, min)) in sub_blocks.zip(scales_and_minima(&block[4..16])) {
        affine(out, q, d * f32::from(scale), dmin * f32::from(min));
    }
}

/// 210 bytes: ql 128 bytes of 4-bit fields, qh 64 bytes of 2-bit fields (the upper bits of each q), scales 16 x i8
/// (one for 16 weights), d f16; `d * scale * (q - 32)`.
pub(super) fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let d = f16_at(block, 208);
    let low = unpack::<4, 64, 256>(&block[..128]);
    let high = unpack::<2, 32, 256>(&block[128..192]);
    for (i, out) in out.chunks_exact_mut(16).enumerate() {
        let d = d * f32::from(block[192 + i].cast_signed());
        for ((w, low), high) in out.iter_mut().zip(&low[16 * i..]).zip(&high[16 * i..]) {
            *w = d * (f32::from(low | (high << 4)) - 32.0);
        }
    }
}

/// 292 bytes: d f32, q 256 x i8, then the sums of 16 q each, 16 x i16, for the dot products only; `d * q`. ggml
/// quantizes activations to it.
pub(super) fn q8_k(block: &[u8; 292], out: &mut [f32; 256]) {
    let d = f32::from_le_bytes([block[0], block[1], block[2], block[3]]);
    for (w, &q) in out.iter_mut().zip(&block[4..260]) {
        *w = d * f32::from(q.cast_signed());
    }
}

fn affine(out: &mut [f32], q: &[u8], d: f32, min: f32) {
    for (w, &q) in out.iter_mut().zip(q) {
        *w = d * f32::from(q) - min;
    }
}

/// The 8 scales and 8 minima of Q4_K and Q5_K, 6 bits each, one pair for 32 weights.
///
/// Scale j < 4 is the low 6 bits of byte j, minimum j < 4 those of byte j + 4. Of the pair j + 4, the low 4 bits are
/// the low (scale) and the high half (minimum) of byte j + 8, and the upper 2 bits the top bits of bytes j and j + 4.
fn scales_and_minima(bytes: &[u8]) -> [(u8, u8); 8] {
    let mut pairs = [(0, 0); 8];
    for j in 0..4 {
        let (scale, min, low) = (bytes[j], bytes[j + 4], bytes[j + 8]);
        pairs[j] = (scale & 63, min & 63);
        pairs[j + 4] = (
            (low & 15) | ((scale >> 6) << 4),
            (low >> 4) | ((min >> 6) << 4),
        );
    }
    pairs
}
