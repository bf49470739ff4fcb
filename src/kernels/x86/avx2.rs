//! AVX2 with FMA and F16C: eight rows in a vector.

#![allow(
    unsafe_op_in_unsafe_fn,
    reason = "each function is the operation that `Simd` describes, under that trait's contract"
)]

use std::arch::x86_64::*;

use super::together;
use crate::kernels::simd::Simd;

#[derive(Clone, Copy)]
pub(in crate::kernels) struct Avx2;

impl Simd for Avx2 {
    const ROWS: usize = 8;
    const WIDE_BIAS: i32 = 0;
    type Bytes = __m256i;
    type Int = __m256i;
    type Float = __m256;
    type Inputs = __m256i;
    type Sum = __m256i;
    type Scale = __m256i;
    type Pair = __m256i;

    #[inline(always)]
    unsafe fn prefetch(near: *const u8, far: *const u8) {
        _mm_prefetch::<_MM_HINT_T0>(near.cast());
        _mm_prefetch::<_MM_HINT_T1>(far.cast());
    }

    #[inline(always)]
    unsafe fn load(p: *const u8) -> __m256i {
        _mm256_loadu_si256(p.cast())
    }

    #[inline(always)]
    unsafe fn field(v: __m256i, from: i32, to: i32, mask: u8) -> __m256i {
        let moved = if from > to {
            _mm256_srl_epi16(v, _mm_cvtsi32_si128(from - to))
        } else if from < to {
            _mm256_sll_epi16(v, _mm_cvtsi32_si128(to - from))
        } else {
            v
        };
        _mm256_and_si256(moved, _mm256_set1_epi8(mask as i8))
    }

    #[inline(always)]
    unsafe fn or(a: __m256i, b: __m256i) -> __m256i {
        _mm256_or_si256(a, b)
    }

    #[inline(always)]
    unsafe fn lookup(v: __m256i, table: &[i8; 16]) -> __m256i {
        let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
        _mm256_shuffle_epi8(table, v)
    }

    #[inline(always)]
    unsafe fn bias(v: __m256i) -> __m256i {
        v
    }

    #[inline(always)]
    unsafe fn int_zero() -> __m256i {
        _mm256_setzero_si256()
    }

    /// The scale twice, as `pmaddwd` wants it.
    #[inline(always)]
    unsafe fn scale(p: *const i8) -> __m256i {
        let s = _mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast()));
        _mm256_or_si256(
            _mm256_and_si256(s, _mm256_set1_epi32(0xffff)),
            _mm256_slli_epi32::<16>(s),
        )
    }

    #[inline(always)]
    unsafe fn inputs(a: *const i8) -> __m256i {
        broadcast(a)
    }

    /// Each product of [`Self::dot`] is two of bytes, added as i16.
    #[inline(always)]
    fn together(max: i32) -> usize {
        together(2, max)
    }

    #[inline(always)]
    unsafe fn sum_zero() -> __m256i {
        _mm256_setzero_si256()
    }

    #[inline(always)]
    unsafe fn dot(sum: __m256i, w: __m256i, a: __m256i) -> __m256i {
        _mm256_add_epi16(sum, _mm256_maddubs_epi16(w, a))
    }

    /// |w| * (a with the sign of w).
    #[inline(always)]
    unsafe fn dot_wide(sum: __m256i, w: __m256i, a: __m256i) -> __m256i {
        let a = _mm256_sign_epi8(a, w);
        Self::dot(sum, _mm256_abs_epi8(w), a)
    }

    #[inline(always)]
    unsafe fn scaled(acc: __m256i, sum: __m256i, _bound: i32, scale: __m256i) -> __m256i {
        _mm256_add_epi32(acc, _mm256_madd_epi16(sum, scale))
    }

    #[inline(always)]
    unsafe fn pair(x: *const i8, y: *const i8) -> __m256i {
        let both = _mm_unpacklo_epi8(_mm_loadl_epi64(x.cast()), _mm_loadl_epi64(y.cast()));
        _mm256_cvtepi8_epi16(both)
    }

    #[inline(always)]
    unsafe fn dot_pair(acc: __m256i, p: __m256i, s: *const i16) -> __m256i {
        _mm256_add_epi32(acc, _mm256_madd_epi16(p, broadcast(s.cast())))
    }

    #[inline(always)]
    unsafe fn sub_times(acc: __m256i, n: i32, x: __m256i) -> __m256i {
        _mm256_sub_epi32(acc, _mm256_mullo_epi32(x, _mm256_set1_epi32(n)))
    }

    #[inline(always)]
    unsafe fn int_splat(x: i32) -> __m256i {
        _mm256_set1_epi32(x)
    }

    #[inline(always)]
    unsafe fn zero() -> __m256 {
        _mm256_setzero_ps()
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m256 {
        _mm256_set1_ps(x)
    }

    #[inline(always)]
    unsafe fn load_f32(p: *const f32) -> __m256 {
        _mm256_loadu_ps(p)
    }

    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> __m256 {
        _mm256_cvtph_ps(_mm_loadu_si128(p.cast()))
    }

    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> __m256 {
        _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast())))
    }

    #[inline(always)]
    unsafe fn to_f16(x: f32) -> u16 {
        _mm_cvtsi128_si32(_mm_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm_set_ss(x))) as u16
    }

    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> __m256 {
        let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
    }

    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m256) {
        _mm256_storeu_ps(p, v)
    }

    #[inline(always)]
    unsafe fn to_float(v: __m256i) -> __m256 {
        _mm256_cvtepi32_ps(v)
    }

    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        _mm256_mul_ps(a, b)
    }

    #[inline(always)]
    unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
        _mm256_fmadd_ps(a, b, c)
    }

    #[inline(always)]
    unsafe fn fnma(a: __m256, b: __m256, c: __m256) -> __m256 {
        _mm256_fnmadd_ps(a, b, c)
    }
}

#[inline(always)]
unsafe fn broadcast(p: *const i8) -> __m256i {
    _mm256_set1_epi32(p.cast::<i32>().read_unaligned())
}
