//! AVX2 with the byte products of AVX-VNNI: four in one instruction, added as i32.

#![allow(
    unsafe_op_in_unsafe_fn,
    reason = "each function is the operation that `Simd` describes, under that trait's contract"
)]

use std::arch::x86_64::*;

use super::avx2::Avx2;
use super::fits;
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

    #[inline(always)]
    unsafe fn dot4(
        acc: __m256i,
        w: [__m256i; 4],
        max: i32,
        a: *const i8,
        scale: __m256i,
    ) -> __m256i {
        times(acc, dot(w, a), fits(16, max), scale)
    }

    #[inline(always)]
    unsafe fn dot8(
        acc: __m256i,
        w: [__m256i; 8],
        max: i32,
        a: *const i8,
        scale: __m256i,
    ) -> __m256i {
        let [w0, w1, w2, w3, w4, w5, w6, w7] = w;
        let (x, y) = (dot([w0, w1, w2, w3], a), dot([w4, w5, w6, w7], a.add(16)));
        if fits(16, max) && !fits(32, max) {
            times(times(acc, x, true, scale), y, true, scale)
        } else {
            times(acc, _mm256_add_epi32(x, y), fits(32, max), scale)
        }
    }

    #[inline(always)]
    unsafe fn dot8_wide(acc: __m256i, w: [__m256i; 8], a: *const i8, scale: __m256i) -> __m256i {
        Self::dot8(acc, w, 255, a, scale)
    }
}

#[inline(always)]
unsafe fn dot(w: [__m256i; 4], a: *const i8) -> __m256i {
    let mut sum = _mm256_setzero_si256();
    for (g, w) in w.into_iter().enumerate() {
        let a = _mm256_set1_epi32(a.add(4 * g).cast::<i32>().read_unaligned());
        sum = _mm256_dpbusd_avx_epi32(sum, w, a);
    }
    sum
}

/// `acc + sum * scale`. Where both fit i16, `pmaddwd` does it in one go: the high half of a scale is then multiplied
/// with the sign of the sum, so it must be zero.
#[inline(always)]
unsafe fn times(acc: __m256i, sum: __m256i, small: bool, scale: __m256i) -> __m256i {
    if small {
        let scale = _mm256_and_si256(scale, _mm256_set1_epi32(0xffff));
        _mm256_dpwssd_avx_epi32(acc, sum, scale)
    } else {
        _mm256_add_epi32(acc, _mm256_mullo_epi32(sum, scale))
    }
}
