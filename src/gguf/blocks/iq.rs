//! The IQ types: 4-bit ones with a table of 16 values, and the others with indices of points in a code book
//! ([`super::grids`]), 8 weights to a point or 4.

use super::{f16_at, grids, unpack};

/// What the 4-bit codes of IQ4_NL and IQ4_XS stand for; `kvalues_iq4nl` in ggml-common.h.
const IQ4_VALUES: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

/// How far the points of IQ1_S and IQ1_M are moved, up or down.
const IQ1_DELTA: f32 = 0.125;

/// 18 bytes: d f16, qs 16 bytes (weight j in the low half of byte j, weight j + 16 in the high half);
/// `d * value(q)`.
pub(super) fn iq4_nl(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    for (w, q) in out.iter_mut().zip(unpack::<4, 16, 32>(&block[2..])) {
        *w = d * f32::from(IQ4_VALUES[usize::from(q)]);
    }
}

/// 136 bytes: d f16, scales_h u16, scales_l 4 bytes, qs 128 bytes (each 16 of them as in [`iq4_nl`]);
/// `d * (scale - 32) * value(q)`.
///
/// Of the 8 scales of 6 bits, one for 32 weights, scales_l holds the low 4 bits, two in a byte, the even one in the low
/// half, and scales_h the upper 2, from the lowest bits on.
pub(super) fn iq4_xs(block: &[u8; 136], out: &mut [f32; 256]) {
    let d = f16_at(block, 0);
    let high = unpack::<2, 1, 8>(&block[2..4]);
    let low = unpack::<4, 1, 8>(&block[4..8]);
    let q = unpack::<4, 16, 256>(&block[8..]);
    for (i, (out, q)) in out.chunks_exact_mut(32).zip(q.chunks_exact(32)).enumerate() {
        let d = d * (f32::from(low[i] | (high[i] << 4)) - 32.0);
        for (w, &q) in out.iter_mut().zip(q) {
            *w = d * f32::from(IQ4_VALUES[usize::from(q)]);
        }
    }
}

/// 66 bytes: d f16, then for each 32 weights 4 bytes of indices and a u32 with the signs of 4 x 8 weights, 7 bits each
/// ([`even_signs`]), and the scale in its top 4 bits; `d * (scale + 0.5) / 4 * point`.
pub(super) fn iq2_xxs(block: &[u8; 66], out: &mut [f32; 256]) {
    let d = f16_at(block, 0);
    let groups = out.chunks_exact_mut(32).zip(block[2..].chunks_exact(8));
    for (out, group) in groups {
        let tail = u32_at(group, 4);
        let d = d * (0.5 + (tail >> 28) as f32) * 0.25;
        for (i, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let point = grids::IQ2_XXS[usize::from(group[i])];
            signed(out, d, point, even_signs(tail >> (7 * i)));
        }
    }
}

/// 74 bytes: d f16, qs 32 x u16 (a 9-bit index, then 7 bits of signs: [`even_signs`]), scales 8 bytes (one of 4 bits
/// for 16 weights, the even one in the low half); `d * (scale + 0.5) / 4 * point`.
pub(super) fn iq2_xs(block: &[u8; 74], out: &mut [f32; 256]) {
    let d = f16_at(block, 0);
    let scales = unpack::<4, 1, 16>(&block[66..]);
    for (i, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let d = d * (0.5 + f32::from(scales[i / 2])) * 0.25;
        let q = u16_at(block, 2 + 2 * i);
        let point = grids::IQ2_XS[usize::from(q & 511)];
        signed(out, d, point, even_signs(u32::from(q >> 9)));
    }
}

/// 82 bytes: d f16, qs 32 bytes (the low 8 bits of the indices), signs 32 bytes (one bit for each weight), qh 8 bytes
/// (the upper 2 bits of the indices, from the lowest bits on), scales 8 bytes (one of 4 bits for 16 weights, the
/// even one in the low half); `d * (scale + 0.5) / 4 * point`.
pub(super) fn iq2_s(block: &[u8; 82], out: &mut [f32; 256]) {
    let d = f16_at(block, 0);
    let high = unpack::<2, 1, 32>(&block[66..74]);
    let scales = unpack::<4, 1, 16>(&block[74..]);
    for (i, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let d = d * (0.5 + f32::from(scales[i / 2])) * 0.25;
        let point = grids::IQ2_S[index(block[2 + i], high[i])];
        signed(out, d, point, block[34 + i]);
    }
}

/// 98 bytes: d f16, qs 64 bytes of indices of points with 4 coordinates, then for each 32 weights a u32 with signs and
/// scale as in [`iq2_xxs`]; `d * (scale + 0.5) / 2 * point`.
pub(super) fn iq3_xxs(block: &[u8; 98], out: &mut [f32; 256]) {
    let d = f16_at(block, 0);
    for (i, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let tail = u32_at(block, 66 + i / 4 * 4);
        let d = d * (0.5 + (tail >> 28) as f32) * 0.5;
        let [left, right] = [0, 1].map(|k| grids::IQ3_XXS[usize::from(block[2 + 2 * i + k])]);
        let signs = even_signs(tail >> (7 * (i % 4)));
        signed(out, d, joined(left, right), signs);
    }
}

/// 110 bytes: d f16, qs 64 bytes (the low 8 bits of the indices of points with 4 coordinates), qh 8 bytes (the ninth
/// bits, from the lowest bit on), signs 32 bytes (one bit for each weight), scales 4 bytes (one of 4 bits for 32
/// weights, the even one in the low half); `d * (2 * scale + 1) * point`.
pub(super) fn iq3_s(block: &[u8; 110], out: &mut [f32; 256]) {
    let d = f16_at(block, 0);
    let high = unpack::<1, 1, 64>(&block[66..74]);
    let scales = unpack::<4, 1, 8>(&block[106..]);
    for (i, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let d = d * f32::from(2 * scales[i / 4] + 1);
        let [left, right] = [2 * i, 2 * i + 1].map(|k| grids::IQ3_S[index(block[2 + k], high[k])]);
        signed(out, d, joined(left, right), block[74 + i]);
    }
}

/// 50 bytes: d f16, qs 32 bytes (the low 8 bits of the indices), qh 8 x u16, one for 32 weights: 4 x 3 upper bits of
/// the indices, 3 bits of scale, and in the top bit the sign of the delta; `d * (2 * scale + 1) * (point + delta)`.
pub(super) fn iq1_s(block: &[u8; 50], out: &mut [f32; 256]) {
    let d = f16_at(block, 0);
    for (i, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let qh = u16_at(block, 34 + i / 4 * 2);
        let d = d * f32::from(2 * ((qh >> 12) & 7) + 1);
        let high = ((qh >> (3 * (i % 4))) & 7) as u8;
        moved(out, d, index(block[2 + i], high), qh >> 15 == 1);
    }
}

/// 56 bytes: qs 32 bytes (the low 8 bits of the indices), qh 16 bytes (for each 8 weights, the even ones in the low
/// half, 3 upper bits of the index and the sign of the delta), scales 4 x u16: each 4 x 3 bits of scale, one for 16
/// weights, and in the top 4 bits a quarter of the f16 d, its low quarter first;
/// `d * (2 * scale + 1) * (point + delta)`.
pub(super) fn iq1_m(block: &[u8; 56], out: &mut [f32; 256]) {
    let scales = [48, 50, 52, 54].map(|at| u16_at(block, at));
    let [a, b, c, e] = scales.map(|s| s >> 12);
    let d = super::f16_to_f32(a | (b << 4) | (c << 8) | (e << 12));
    let high = unpack::<4, 1, 32>(&block[32..48]);
    for (i, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let scale = (scales[i / 8] >> (3 * (i / 2 % 4))) & 7;
        let d = d * f32::from(2 * scale + 1);
        moved(out, d, index(block[i], high[i] & 7), high[i] & 8 != 0);
    }
}

fn u16_at(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([block[at], block[at + 1]])
}

fn u32_at(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

fn index(low: u8, high: u8) -> usize {
    usize::from(low) | (usize::from(high) << 8)
}

/// The signs of 8 weights from the lowest 7 bits: the eighth makes the number of minus signs even.
fn even_signs(bits: u32) -> u8 {
    let seven = (bits & 127) as u8;
    seven | ((seven.count_ones() as u8 & 1) << 7)
}

fn joined(left: [i8; 4], right: [i8; 4]) -> [i8; 8] {
    let mut point = [0; 8];
    point[..4].copy_from_slice(&left);
    point[4..].copy_from_slice(&right);
    point
}

/// `d * point`, negated where a bit of `signs` is set.
fn signed(out: &mut [f32; 8], d: f32, point: [i8; 8], signs: u8) {
    for (i, (w, x)) in out.iter_mut().zip(point).enumerate() {
        let magnitude = d * f32::from(x);
        *w = if (signs >> i) & 1 == 1 {
            -magnitude
        } else {
            magnitude
        };
    }
}

/// `d * (point + delta)`, the delta negative if `down`.
fn moved(out: &mut [f32; 8], d: f32, index: usize, down: bool) {
    let delta = if down { -IQ1_DELTA } else { IQ1_DELTA };
    for (w, x) in out.iter_mut().zip(grids::IQ1[index]) {
        *w = d * (f32::from(x) + delta);
    }
}
