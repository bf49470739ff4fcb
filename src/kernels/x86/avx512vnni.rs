//! AVX-512 with byte products: four in one instruction, added as i32.

#![allow(
    unsafe_op_in_unsafe_fn,
    reason = "each function is the operation that `Simd` describes, under that trait's contract"
)]

use std::arch::x86_64::*;

use super::avx512::Avx512;
use crate::kernels::simd::Simd;

#[derive(Clone, Copy)]
pub(in crate::kernels) struct Avx512Vnni;

impl Simd for Avx512Vnni {
    all_but_byte_products!(Avx512);

    const WIDE_BIAS: i32 = 128;
    const PAIRS: bool = true;
    type Scale = __m512i;

    #[inline(always)]
    unsafe fn bias(v: __m512i) -> __m512i {
        _mm512_xor_si512(v, _mm512_set1_epi8(i8::MIN))
    }

    #[inline(always)]
    unsafe fn scale(p: *const i8) -> __m512i {
        _mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast()))
    }

    /// All that share a scale: one multiplication of 32 bits is worth more than two of 16 (Zen 5: 5 % for Q4_K).
    #[inline(always)]
    fn together(_max: i32) -> usize {
        8
    }

    #[inline(always)]
    unsafe fn dot(sum: __m512i, w: __m512i, a: __m512i) -> __m512i {
        _mm512_dpbusd_epi32(sum, w, a)
    }

    /// Where sums and scales fit i16 one instruction does it: the high half of a scale is then multiplied with the
    /// sign of the sum, so it must be zero.
    #[inline(always)]
    unsafe fn scaled(acc: __m512i, sum: __m512i, bound: i32, scale: __m512i) -> __m512i {
        if bound <= i32::from(i16::MAX) {
            let scale = _mm512_and_si512(scale, _mm512_set1_epi32(0xffff));
            _mm512_dpwssd_epi32(acc, sum, scale)
        } else {
            _mm512_add_epi32(acc, _mm512_mullo_epi32(sum, scale))
        }
    }
}
