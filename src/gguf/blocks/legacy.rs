//! The oldest types: blocks of 32 weights on a line `d * q` or `d * q + m`.
//!
//! Of the two weights in a byte of `qs`, weight j of a block is the low half of byte j, weight j + 16 the high half.

use super::{f16_at, unpack};

/// 18 bytes: d f16, qs 16 bytes; `d * (q - 8)`.
pub(super) fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    for (w, q) in out.iter_mut().zip(unpack::<4, 16, 32>(&block[2..])) {
        *w = d * (f32::from(q) - 8.0);
    }
}

/// 20 bytes: d f16, m f16, qs 16 bytes; `d * q + m`.
pub(super) fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (f16_at(block, 0), f16_at(block, 2));
    for (w, q) in out.iter_mut().zip(unpack::<4, 16, 32>(&block[4..])) {
        *w = d * f32::from(q) + m;
    }
}

/// 22 bytes: d f16, qh 4 bytes (bit j is the fifth bit of weight j), qs 16 bytes; `d * (q - 16)`.
pub(super) fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    let high = unpack::<1, 1, 32>(&block[2..6]);
    let low = unpack::<4, 16, 32>(&block[6..]);
    for ((w, low), high) in out.iter_mut().zip(low).zip(high) {
        *w = d * (f32::from(low | (high << 4)) - 16.0);
    }
}

/// 24 bytes: d f16, m f16, qh 4 bytes (bit j is the fifth bit of weight j), qs 16 bytes; `d * q + m`.
pub(super) fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m) = (f16_at(block, 0), f16_at(block, 2));
    let high = unpack::<1, 1, 32>(&block[4..8]);
    let low = unpack::<4, 16, 32>(&block[8..]);
    for ((w, low), high) in out.iter_mut().zip(low).zip(high) {
        *w = d * f32::from(low | (high << 4)) + m;
    }
}

/// 34 bytes: d f16, q 32 x i8; `d * q`.
pub(super) fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    for (w, &q) in out.iter_mut().zip(&block[2..]) {
        *w = d * f32::from(q.cast_signed());
    }
}

/// 36 bytes: d f16, s f16, q 32 x i8; `d * q`. ggml quantizes activations to it and writes it to no file; s, which
/// is d times the sum of the q, says nothing more about the weights.
pub(super) fn q8_1(block: &[u8; 36], out: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    for (w, &q) in out.iter_mut().zip(&block[4..]) {
        *w = d * f32::from(q.cast_signed());
    }
}
