//! AVX2 with the byte products of AVX-VNNI: four in one instruction, added as i32.

#![allow(
    unsafe_op_in_unsafe_fn,
    reason = "each function is the operation that `Simd` describes, under that trait's contract"
)]

use std::arch::x86_64::*;

use super::avx2::Avx2;
use super::together;
use crate::kernels::simd::Simd;

#[derive(Clone, Copy)]
pub(in crate::kernels) struct AvxVnni;

impl Simd for AvxVnni {
    all_but_byte_products!(Avx2);

    const WIDE_BIAS: i32 = 128;
    type Scale = __m256i;

    #[inline(always)]
    unsafe fn bias(v: __m256i) -> __m256i {
        _mm256_xor_si256(v, _mm256_set1_epi8(i8::MIN))
    }

    #[inline(always)]
    unsafe fn scale(p: *const i8) -> __m256i {
        _mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast()))
    }

    /// All, unless fewer let [`Self::scaled`] be one instruction.
    #[inline(always)]
    fn together(max: i32) -> usize {
        if together(4, max) == 4 { 4 } else { 8 }
    }

    #[inline(always)]
    unsafe fn dot(sum: __m256i, w: __m256i, a: __m256i) -> __m256i {
        _mm256_dpbusd_avx_epi32(sum, w, a)
    }

    /// Where sums and scales fit i16 one instruction does it: the high half of a scale is then multiplied with the
    /// sign of the sum, so it must be zero.
    #[inline(always)]
    unsafe fn scaled(acc: __m256i, sum: __m256i, bound: i32, scale: __m256i) -> __m256i {
        if bound <= i32::from(i16::MAX) {
            let scale = _mm256_and_si256(scale, _mm256_set1_epi32(0xffff));
            _mm256_dpwssd_avx_epi32(acc, sum, scale)
        } else {
            _mm256_add_epi32(acc, _mm256_mullo_epi32(sum, scale))
        }
    }
}
