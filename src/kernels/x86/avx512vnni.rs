//! AVX-512 with byte products: four in one instruction, added as i32.

#![allow(
    unsafe_op_in_unsafe_fn,
    reason = "each function is the operation that `Simd` describes, under that trait's contract"
)]

use std::arch::x86_64::*;

use super::avx512::Avx512;
use super::fits;
use crate::kernels::simd::Simd;

#[derive(Clone, Copy)]
pub(in crate::kernels) struct Avx512Vnni;

impl Simd for Avx512Vnni {
    all_but_byte_products!(Avx512);

    const WIDE_BIAS: i32 = 128;
    type Scale = __m512i;

    #[inline(always)]
    unsafe fn bias(v: __m512i) -> __m512i {
        _mm512_xor_si512(v, _mm512_set1_epi8(i8::MIN))
    }

    #[inline(always)]
    unsafe fn scale(p: *const i8) -> __m512i {
        _mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast()))
    }

    #[inline(always)]
    unsafe fn dot4(
        acc: __m512i,
        w: [__m512i; 4],
        max: i32,
        a: *const i8,
        scale: __m512i,
    ) -> __m512i {
        times(acc, dot(w, a), fits(16, max), scale)
    }

    #[inline(always)]
    unsafe fn dot8(
        acc: __m512i,
        w: [__m512i; 8],
        max: i32,
        a: *const i8,
        scale: __m512i,
    ) -> __m512i {
        let [w0, w1, w2, w3, w4, w5, w6, w7] = w;
        let (x, y) = (dot([w0, w1, w2, w3], a), dot([w4, w5, w6, w7], a.add(16)));
        if fits(16, max) && !fits(32, max) {
            times(times(acc, x, true, scale), y, true, scale)
        } else {
            times(acc, _mm512_add_epi32(x, y), fits(32, max), scale)
        }
    }

    #[inline(always)]
    unsafe fn dot8_wide(acc: __m512i, w: [__m512i; 8], a: *const i8, scale: __m512i) -> __m512i {
        Self::dot8(acc, w, 255, a, scale)
    }
}

#[inline(always)]
unsafe fn dot(w: [__m512i; 4], a: *const i8) -> __m512i {
    let mut sum = _mm512_setzero_si512();
    for (g, w) in w.into_iter().enumerate() {
        let a = _mm512_set1_epi32(a.add(4 * g).cast::<i32>().read_unaligned());
        sum = _mm512_dpbusd_epi32(sum, w, a);
    }
    sum
}

/// `acc + sum * scale`. Where both fit i16 one instruction does it: the high half of a scale is then multiplied
/// with the sign of the sum, so it must be zero.
#[inline(always)]
unsafe fn times(acc: __m512i, sum: __m512i, small: bool, scale: __m512i) -> __m512i {
    if small {
        let scale = _mm512_and_si512(scale, _mm512_set1_epi32(0xffff));
        _mm512_dpwssd_epi32(acc, sum, scale)
    } else {
        _mm512_add_epi32(acc, _mm512_mullo_epi32(sum, scale))
    }
}
