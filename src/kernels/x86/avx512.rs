//! AVX-512 (F, BW, VL and DQ): the 16 rows of a tile in one vector.

#![allow(
    unsafe_op_in_unsafe_fn,
    reason = "each function is the operation that `Simd` describes, under that trait's contract"
)]

use std::arch::x86_64::*;

use super::avx2::Avx2;
use super::together;
use crate::kernels::simd::Simd;

#[derive(Clone, Copy)]
pub(in crate::kernels) struct Avx512;

impl Simd for Avx512 {
    const ROWS: usize = 16;
    const WIDE_BIAS: i32 = 0;
    const PAIRS: bool = true;
    type Bytes = __m512i;
    type Int = __m512i;
    type Float = __m512;
    type Inputs = __m512i;
    type Sum = __m512i;
    type Scale = __m512i;
    type Pair = __m512i;

    #[inline(always)]
    unsafe fn prefetch(near: *const u8, far: *const u8) {
        Avx2::prefetch(near, far);
    }

    #[inline(always)]
    unsafe fn load(p: *const u8) -> __m512i {
        _mm512_loadu_si512(p.cast())
    }

    #[inline(always)]
    unsafe fn field(v: __m512i, from: i32, to: i32, mask: u8) -> __m512i {
        let moved = if from > to {
            _mm512_srl_epi16(v, _mm_cvtsi32_si128(from - to))
        } else if from < to {
            _mm512_sll_epi16(v, _mm_cvtsi32_si128(to - from))
        } else {
            v
        };
        _mm512_and_si512(moved, _mm512_set1_epi8(mask as i8))
    }

    #[inline(always)]
    unsafe fn or(a: __m512i, b: __m512i) -> __m512i {
        _mm512_or_si512(a, b)
    }

    #[inline(always)]
    unsafe fn lookup(v: __m512i, table: &[i8; 16]) -> __m512i {
        let table = _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast()));
        _mm512_shuffle_epi8(table, v)
    }

    #[inline(always)]
    unsafe fn bias(v: __m512i) -> __m512i {
        v
    }

    #[inline(always)]
    unsafe fn int_zero() -> __m512i {
        _mm512_setzero_si512()
    }

    /// The scale twice, as `pmaddwd` wants it.
    #[inline(always)]
    unsafe fn scale(p: *const i8) -> __m512i {
        let s = _mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast()));
        _mm512_or_si512(
            _mm512_and_si512(s, _mm512_set1_epi32(0xffff)),
            _mm512_slli_epi32::<16>(s),
        )
    }

    #[inline(always)]
    unsafe fn inputs(a: *const i8) -> __m512i {
        broadcast(a)
    }

    /// Each product of [`Self::dot`] is two of bytes, added as i16.
    #[inline(always)]
    fn together(max: i32) -> usize {
        together(2, max)
    }

    #[inline(always)]
    unsafe fn sum_zero() -> __m512i {
        _mm512_setzero_si512()
    }

    #[inline(always)]
    unsafe fn dot(sum: __m512i, w: __m512i, a: __m512i) -> __m512i {
        _mm512_add_epi16(sum, _mm512_maddubs_epi16(w, a))
    }

    /// |w| * (a with the sign of w).
    #[inline(always)]
    unsafe fn dot_wide(sum: __m512i, w: __m512i, a: __m512i) -> __m512i {
        let a = _mm512_mask_sub_epi8(a, _mm512_movepi8_mask(w), _mm512_setzero_si512(), a);
        Self::dot(sum, _mm512_abs_epi8(w), a)
    }

    #[inline(always)]
    unsafe fn scaled(acc: __m512i, sum: __m512i, _bound: i32, scale: __m512i) -> __m512i {
        _mm512_add_epi32(acc, _mm512_madd_epi16(sum, scale))
    }

    #[inline(always)]
    unsafe fn pair(x: *const i8, y: *const i8) -> __m512i {
        let (x, y) = (_mm_loadu_si128(x.cast()), _mm_loadu_si128(y.cast()));
        let both = _mm256_set_m128i(_mm_unpackhi_epi8(x, y), _mm_unpacklo_epi8(x, y));
        _mm512_cvtepi8_epi16(both)
    }

    #[inline(always)]
    unsafe fn dot_pair(acc: __m512i, p: __m512i, s: *const i16) -> __m512i {
        _mm512_add_epi32(acc, _mm512_madd_epi16(p, broadcast(s.cast())))
    }

    #[inline(always)]
    unsafe fn sub_times(acc: __m512i, n: i32, x: __m512i) -> __m512i {
        _mm512_sub_epi32(acc, _mm512_mullo_epi32(x, _mm512_set1_epi32(n)))
    }

    #[inline(always)]
    unsafe fn int_splat(x: i32) -> __m512i {
        _mm512_set1_epi32(x)
    }

    #[inline(always)]
    unsafe fn zero() -> __m512 {
        _mm512_setzero_ps()
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        _mm512_set1_ps(x)
    }

    #[inline(always)]
    unsafe fn load_f32(p: *const f32) -> __m512 {
        _mm512_loadu_ps(p)
    }

    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> __m512 {
        _mm512_cvtph_ps(_mm256_loadu_si256(p.cast()))
    }

    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> __m512 {
        _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast())))
    }

    #[inline(always)]
    unsafe fn to_f16(x: f32) -> u16 {
        Avx2::to_f16(x)
    }

    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> __m512 {
        let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
    }

    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m512) {
        _mm512_storeu_ps(p, v)
    }

    #[inline(always)]
    unsafe fn to_float(v: __m512i) -> __m512 {
        _mm512_cvtepi32_ps(v)
    }

    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        _mm512_mul_ps(a, b)
    }

    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        _mm512_fmadd_ps(a, b, c)
    }

    #[inline(always)]
    unsafe fn fnma(a: __m512, b: __m512, c: __m512) -> __m512 {
        _mm512_fnmadd_ps(a, b, c)
    }
}

#[inline(always)]
unsafe fn broadcast(p: *const i8) -> __m512i {
    _mm512_set1_epi32(p.cast::<i32>().read_unaligned())
}
