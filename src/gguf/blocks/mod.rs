//! What the blocks of each tensor type stand for: the bytes of a file to f32, one weight at a time.
//!
//! This is the reference that faster code is tested against, and what reads a tensor that no kernel covers. The
//! layouts are those of ggml-common.h. The results agree in every bit with those of `quants.py` in the `gguf` Python
//! package (0.19.0); for the types which that does not dequantize (Q8_1, Q8_K, Q1_0, the integers and F64), they are
//! those of ggml's C code or a conversion. A NaN stays a NaN, but not necessarily the same one.
//!
//! Scales and weights have so few bits that all products but Q8_K's are exact: only the last operation can round. So
//! other orders and fused multiply-adds give the same bits.
//!
//! In the layouts, numbers are little-endian and there is no padding.

mod grids;
mod iq;
mod k_quants;
mod legacy;
mod microscaling;
mod ternary;

use super::types::GgmlType;

/// Writes the weights in `bytes`, which holds whole blocks of type `ty`, to `out`.
///
/// The two lengths must fit together: `out.len() / ty.block_len()` blocks of `ty.block_bytes()` bytes. Where they do
/// not, debug builds panic, and others stop with the shorter one. No content of `bytes` is an error.
pub fn dequantize(ty: GgmlType, bytes: &[u8], out: &mut [f32]) {
    let (n_bytes, n_weights) = (bytes.len() as u64, out.len() as u64);
    debug_assert!(
        n_bytes.is_multiple_of(ty.block_bytes())
            && n_bytes / ty.block_bytes() * ty.block_len() == n_weights,
        "{n_bytes} bytes of {} for {n_weights} weights",
        ty.name()
    );
    match ty {
        GgmlType::F32 => plain(bytes, out, f32::from_le_bytes),
        GgmlType::F16 => plain(bytes, out, |b| f16_to_f32(u16::from_le_bytes(b))),
        GgmlType::BF16 => plain(bytes, out, |b| {
            f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)
        }),
        GgmlType::F64 => plain(bytes, out, |b| f64::from_le_bytes(b) as f32),
        GgmlType::I8 => plain(bytes, out, |b| f32::from(i8::from_le_bytes(b))),
        GgmlType::I16 => plain(bytes, out, |b| f32::from(i16::from_le_bytes(b))),
        GgmlType::I32 => plain(bytes, out, |b| i32::from_le_bytes(b) as f32),
        GgmlType::I64 => plain(bytes, out, |b| i64::from_le_bytes(b) as f32),
        GgmlType::Q4_0 => each(bytes, out, legacy::q4_0),
        GgmlType::Q4_1 => each(bytes, out, legacy::q4_1),
        GgmlType::Q5_0 => each(bytes, out, legacy::q5_0),
        GgmlType::Q5_1 => each(bytes, out, legacy::q5_1),
        GgmlType::Q8_0 => each(bytes, out, legacy::q8_0),
        GgmlType::Q8_1 => each(bytes, out, legacy::q8_1),
        GgmlType::Q2_K => each(bytes, out, k_quants::q2_k),
        GgmlType::Q3_K => each(bytes, out, k_quants::q3_k),
        GgmlType::Q4_K => each(bytes, out, k_quants::q4_k),
        GgmlType::Q5_K => each(bytes, out, k_quants::q5_k),
        GgmlType::Q6_K => each(bytes, out, k_quants::q6_k),
        GgmlType::Q8_K => each(bytes, out, k_quants::q8_k),
        GgmlType::IQ1_S => each(bytes, out, iq::iq1_s),
        GgmlType::IQ1_M => each(bytes, out, iq::iq1_m),
        GgmlType::IQ2_XXS => each(bytes, out, iq::iq2_xxs),
        GgmlType::IQ2_XS => each(bytes, out, iq::iq2_xs),
        GgmlType::IQ2_S => each(bytes, out, iq::iq2_s),
        GgmlType::IQ3_XXS => each(bytes, out, iq::iq3_xxs),
        GgmlType::IQ3_S => each(bytes, out, iq::iq3_s),
        GgmlType::IQ4_NL => each(bytes, out, iq::iq4_nl),
        GgmlType::IQ4_XS => each(bytes, out, iq::iq4_xs),
        GgmlType::TQ1_0 => each(bytes, out, ternary::tq1_0),
        GgmlType::TQ2_0 => each(bytes, out, ternary::tq2_0),
        GgmlType::Q1_0 => each(bytes, out, ternary::q1_0),
        GgmlType::MXFP4 => each(bytes, out, microscaling::mxfp4),
        GgmlType::NVFP4 => each(bytes, out, microscaling::nvfp4),
    }
}

/// The f32 of equal value to an f16 given by its bits. Software on every CPU, so NaNs too are the same everywhere.
pub fn f16_to_f32(bits: u16) -> f32 {
    half::f16::from_bits(bits).to_f32_const()
}

/// The f16 at byte `at` of a block.
fn f16_at(block: &[u8], at: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// Converts each element of `BYTES` bytes.
fn plain<const BYTES: usize>(bytes: &[u8], out: &mut [f32], value: impl Fn([u8; BYTES]) -> f32) {
    for (bytes, w) in bytes.as_chunks().0.iter().zip(out) {
        *w = value(*bytes);
    }
}

/// Calls `dequantize` for each block of `BYTES` bytes and `LEN` weights.
fn each<const BYTES: usize, const LEN: usize>(
    bytes: &[u8],
    out: &mut [f32],
    dequantize: impl Fn(&[u8; BYTES], &mut [f32; LEN]),
) {
    for (block, out) in bytes.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        dequantize(block, out);
    }
}

/// Unpacks `N` fields of `BITS` bits. In each `RUN` bytes, the first `RUN` fields are the lowest bits of the bytes, the
/// next `RUN` fields the bits above them, and so on.
fn unpack<const BITS: usize, const RUN: usize, const N: usize>(bytes: &[u8]) -> [u8; N] {
    const { assert!(RUN > 0 && 8 % BITS == 0 && (N * BITS).is_multiple_of(8 * RUN)) };
    debug_assert_eq!(8 * bytes.len(), N * BITS);
    let mut fields = [0; N];
    let runs = fields.chunks_exact_mut(RUN * 8 / BITS);
    for (fields, bytes) in runs.zip(bytes.chunks_exact(RUN)) {
        for (i, fields) in fields.chunks_exact_mut(RUN).enumerate() {
            for (field, byte) in fields.iter_mut().zip(bytes) {
                *field = (byte >> (BITS * i)) & ((1 << BITS) - 1);
            }
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::gguf::Gguf;

    // Written by tests/data/make_blocks_golden.py, which says what is in it.
    fn golden() -> Gguf {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/golden/blocks.gguf");
        Gguf::open(Path::new(path), true).expect("the golden file is well formed")
    }

    fn every_type() -> impl Iterator<Item = GgmlType> {
        (0..1000).filter_map(GgmlType::from_id)
    }

    fn bytes<'a>(file: &'a Gguf, name: &str) -> &'a [u8] {
        let tensor = file.tensor(name);
        file.bytes(tensor.unwrap_or_else(|| panic!("the golden file lacks `{name}`")))
    }

    fn bits(file: &Gguf, name: &str) -> Vec<u32> {
        let words = bytes(file, name).as_chunks().0;
        words.iter().map(|&b| u32::from_le_bytes(b)).collect()
    }

    #[test]
    fn every_type_is_dequantized_to_the_golden_bits() {
        let file = golden();
        for ty in every_type() {
            let blocks = bytes(&file, ty.name());
            assert_eq!(file.tensor(ty.name()).map(|t| t.ty), Some(ty));
            let expected = bits(&file, &format!("{}.f32", ty.name()));
            let mut out = vec![f32::NAN; expected.len()];
            dequantize(ty, blocks, &mut out);
            for (i, (w, expected)) in out.iter().zip(expected).enumerate() {
                assert_eq!(
                    w.to_bits(),
                    expected,
                    "{}: weight {i} is {w:e}, expected {:e}",
                    ty.name(),
                    f32::from_bits(expected)
                );
            }
        }
    }

    #[test]
    fn code_books_are_the_golden_ones() {
        fn flat<const D: usize>(book: &[[i8; D]]) -> Vec<u8> {
            book.iter().flatten().map(|x| x.cast_unsigned()).collect()
        }
        let file = golden();
        for (name, book) in [
            ("IQ1_S", flat(&grids::IQ1)),
            ("IQ2_XXS", flat(&grids::IQ2_XXS)),
            ("IQ2_XS", flat(&grids::IQ2_XS)),
            ("IQ2_S", flat(&grids::IQ2_S)),
            ("IQ3_XXS", flat(&grids::IQ3_XXS)),
            ("IQ3_S", flat(&grids::IQ3_S)),
        ] {
            assert!(book == bytes(&file, &format!("grid.{name}")), "{name}");
        }
    }

    #[test]
    fn every_8_bit_scale_is_the_golden_one() {
        let file = golden();
        let mut out = [0.0; 64];
        for byte in 0..=255 {
            // Codes of 1 stand for half the scale.
            let mut block = [0x11; 36];
            block[..4].fill(byte);
            dequantize(GgmlType::NVFP4, &block, &mut out);
            let expected = bits(&file, "scales.NVFP4")[usize::from(byte)];
            assert_eq!(out.map(f32::to_bits), [expected; 64], "{byte}");

            dequantize(GgmlType::MXFP4, &block[3..20], &mut out[..32]);
            let expected = bits(&file, "scales.MXFP4")[usize::from(byte)];
            assert!(out[..32].iter().all(|w| w.to_bits() == expected), "{byte}");
        }
    }

    #[test]
    fn f16_is_converted_exactly() {
        for bits in 0..=u16::MAX {
            let (exponent, mantissa) = (i32::from(bits >> 10) & 31, f64::from(bits & 1023));
            let magnitude = match exponent {
                0 => mantissa * 2f64.powi(-24),
                31 if mantissa == 0.0 => f64::INFINITY,
                31 => f64::NAN,
                _ => (1024.0 + mantissa) * 2f64.powi(exponent - 25),
            };
            let value = f16_to_f32(bits);
            assert_eq!(value.is_sign_negative(), bits >> 15 == 1, "{bits:#06x}");
            assert_eq!(value.is_nan(), magnitude.is_nan(), "{bits:#06x}");
            if !magnitude.is_nan() {
                assert_eq!(f64::from(value.abs()), magnitude, "{bits:#06x}");
            }
        }
    }

    #[test]
    fn no_content_panics_and_no_blocks_are_no_weights() {
        for ty in every_type() {
            dequantize(ty, &[], &mut []);
            let mut out = vec![0.0; ty.block_len() as usize];
            for byte in 0..=255 {
                dequantize(ty, &vec![byte; ty.block_bytes() as usize], &mut out);
            }
        }
    }
}
