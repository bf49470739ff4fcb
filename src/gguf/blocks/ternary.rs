//! Weights of three values or two: blocks with one scale d, `-d`, `0` and `d`.

use super::{f16_at, unpack};

/// 54 bytes: qs 48 bytes of 5 base-3 digits, qh 4 bytes of 4, d f16; `d * (digit - 1)`.
///
/// A byte b is a fraction b / 256; its first digit is the integral part of three times that, the next one that of
/// what remains, and so on. Bytes 0 to 31 hold the first digit of weights 0 to 31, the second of 32 to 63 and so on to
/// 159, bytes 32 to 47 weights 160 to 239 in the same way, and qh weights 240 to 255.
pub(super) fn tq1_0(block: &[u8; 54], out: &mut [f32; 256]) {
    let d = f16_at(block, 52);
    let (first, rest) = out.split_at_mut(160);
    let (second, third) = rest.split_at_mut(80);
    trits(&block[..32], d, first);
    trits(&block[32..48], d, second);
    trits(&block[48..52], d, third);
}

/// As many digits of each byte as `out` has room for.
fn trits(bytes: &[u8], d: f32, out: &mut [f32]) {
    let mut power: u8 = 1;
    for out in out.chunks_exact_mut(bytes.len()) {
        for (w, byte) in out.iter_mut().zip(bytes) {
            let digit = (u16::from(byte.wrapping_mul(power)) * 3) >> 8;
            *w = d * (f32::from(digit) - 1.0);
        }
        power = power.wrapping_mul(3);
    }
}

/// 66 bytes: qs 64 bytes of 2-bit fields (32 weights take the lowest bits of 32 bytes, the next 32 the bits above
/// them, ...), d f16; `d * (q - 1)`, so that the unused fourth value is `2 * d`.
pub(super) fn tq2_0(block: &[u8; 66], out: &mut [f32; 256]) {
    let d = f16_at(block, 64);
    for (w, q) in out.iter_mut().zip(unpack::<2, 32, 256>(&block[..64])) {
        *w = d * (f32::from(q) - 1.0);
    }
}

/// 18 bytes: d f16, 16 bytes of bits, weight j in bit j % 8 of byte j / 8; `d` if it is set, else `-d`.
pub(super) fn q1_0(block: &[u8; 18], out: &mut [f32; 128]) {
    let d = f16_at(block, 0);
    for (w, bit) in out.iter_mut().zip(unpack::<1, 1, 128>(&block[2..])) {
        *w = if bit == 1 { d } else { -d };
    }
}
