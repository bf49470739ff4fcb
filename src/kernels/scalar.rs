//! The plain twin of every kernel: what the others are tested against, and what runs on a CPU with none of them.

#![allow(
    unsafe_op_in_unsafe_fn,
    reason = "each function is the operation that `Simd` describes, under that trait's contract"
)]

use half::{bf16, f16};

use super::simd::Simd;

const N: usize = 16;

#[derive(Clone, Copy)]
pub(super) struct Scalar;

impl Simd for Scalar {
    const ROWS: usize = N;
    const WIDE_BIAS: i32 = 0;
    type Bytes = [u8; 4 * N];
    type Int = [i32; N];
    type Float = [f32; N];
    type Inputs = [i8; 4];
    type Sum = [i32; N];
    type Scale = [i32; N];
    type Pair = [[i32; 2]; N];

    #[inline(always)]
    unsafe fn prefetch(_near: *const u8, _far: *const u8) {}

    #[inline(always)]
    unsafe fn load(p: *const u8) -> Self::Bytes {
        p.cast::<Self::Bytes>().read_unaligned()
    }

    #[inline(always)]
    unsafe fn field(v: Self::Bytes, from: i32, to: i32, mask: u8) -> Self::Bytes {
        v.map(|x| {
            (if from > to {
                x >> (from - to)
            } else {
                x << (to - from)
            }) & mask
        })
    }

    #[inline(always)]
    unsafe fn or(a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        std::array::from_fn(|i| a[i] | b[i])
    }

    #[inline(always)]
    unsafe fn lookup(v: Self::Bytes, table: &[i8; 16]) -> Self::Bytes {
        v.map(|x| table[usize::from(x & 15)] as u8)
    }

    #[inline(always)]
    unsafe fn bias(v: Self::Bytes) -> Self::Bytes {
        v
    }

    #[inline(always)]
    unsafe fn int_zero() -> Self::Int {
        [0; N]
    }

    #[inline(always)]
    unsafe fn scale(p: *const i8) -> Self::Scale {
        p.cast::<[i8; N]>().read().map(i32::from)
    }

    #[inline(always)]
    unsafe fn inputs(a: *const i8) -> Self::Inputs {
        a.cast::<[i8; 4]>().read_unaligned()
    }

    #[inline(always)]
    fn together(_max: i32) -> usize {
        8
    }

    #[inline(always)]
    unsafe fn sum_zero() -> Self::Sum {
        [0; N]
    }

    #[inline(always)]
    unsafe fn dot(sum: Self::Sum, w: Self::Bytes, a: Self::Inputs) -> Self::Sum {
        dot(sum, w, a, i32::from)
    }

    #[inline(always)]
    unsafe fn dot_wide(sum: Self::Sum, w: Self::Bytes, a: Self::Inputs) -> Self::Sum {
        dot(sum, w, a, |w| i32::from(w as i8))
    }

    #[inline(always)]
    unsafe fn scaled(acc: Self::Int, sum: Self::Sum, _bound: i32, scale: Self::Scale) -> Self::Int {
        std::array::from_fn(|row| acc[row] + scale[row] * sum[row])
    }

    #[inline(always)]
    unsafe fn pair(x: *const i8, y: *const i8) -> Self::Pair {
        std::array::from_fn(|i| [i32::from(*x.add(i)), i32::from(*y.add(i))])
    }

    #[inline(always)]
    unsafe fn dot_pair(acc: Self::Int, p: Self::Pair, s: *const i16) -> Self::Int {
        let s = [i32::from(*s), i32::from(*s.add(1))];
        std::array::from_fn(|i| acc[i] + p[i][0] * s[0] + p[i][1] * s[1])
    }

    #[inline(always)]
    unsafe fn sub_times(acc: Self::Int, n: i32, x: Self::Int) -> Self::Int {
        std::array::from_fn(|i| acc[i] - n * x[i])
    }

    #[inline(always)]
    unsafe fn int_splat(x: i32) -> Self::Int {
        [x; N]
    }

    #[inline(always)]
    unsafe fn zero() -> Self::Float {
        [0.0; N]
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::Float {
        [x; N]
    }

    #[inline(always)]
    unsafe fn load_f32(p: *const f32) -> Self::Float {
        p.cast::<[f32; N]>().read_unaligned()
    }

    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self::Float {
        p.cast::<[u16; N]>()
            .read_unaligned()
            .map(|x| f16::from_bits(x).to_f32_const())
    }

    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> Self::Float {
        p.cast::<[i8; N]>().read_unaligned().map(f32::from)
    }

    #[inline(always)]
    unsafe fn to_f16(x: f32) -> u16 {
        f16::from_f32_const(x).to_bits()
    }

    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self::Float {
        p.cast::<[u16; N]>()
            .read_unaligned()
            .map(|x| bf16::from_bits(x).to_f32_const())
    }

    #[inline(always)]
    unsafe fn store(p: *mut f32, v: Self::Float) {
        p.cast::<[f32; N]>().write_unaligned(v)
    }

    #[inline(always)]
    unsafe fn to_float(v: Self::Int) -> Self::Float {
        v.map(|x| x as f32)
    }

    #[inline(always)]
    unsafe fn mul(a: Self::Float, b: Self::Float) -> Self::Float {
        std::array::from_fn(|i| a[i] * b[i])
    }

    #[inline(always)]
    unsafe fn fma(a: Self::Float, b: Self::Float, c: Self::Float) -> Self::Float {
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }

    #[inline(always)]
    unsafe fn fnma(a: Self::Float, b: Self::Float, c: Self::Float) -> Self::Float {
        std::array::from_fn(|i| (-a[i]).mul_add(b[i], c[i]))
    }
}

#[inline(always)]
fn dot(sum: [i32; N], w: [u8; 4 * N], a: [i8; 4], value: impl Fn(u8) -> i32) -> [i32; N] {
    std::array::from_fn(|row| {
        let products = (0..4).map(|j| value(w[4 * row + j]) * i32::from(a[j]));
        sum[row] + products.sum::<i32>()
    })
}
