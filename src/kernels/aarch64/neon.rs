//! Every 64-bit ARM: four rows in a vector. The tiers above differ from it in the products of bytes alone.

#![allow(
    unsafe_op_in_unsafe_fn,
    reason = "each function is the operation that `Simd` or `Dot` describes, under that trait's contract"
)]

use std::arch::aarch64::*;
use std::arch::asm;
use std::marker::PhantomData;

use crate::kernels::simd::Simd;

/// The products of bytes, which every tier has instructions of its own for.
///
/// # Safety
/// That of [`Simd`].
pub(in crate::kernels) trait Dot: Copy {
    /// (4) sums.
    type Sum: Copy;
    /// Whether [`Self::dot_two`] is better than two of the others.
    const TWO: bool = false;

    /// Groups that a sum has room for: 1, 2, 4 or 8. Weights are signed and at most `max`, 128 or less, in absolute value.
    fn together(max: i32) -> usize;
    /// Zeros.
    unsafe fn zero() -> Self::Sum;
    /// `sum + w * a`, exactly.
    unsafe fn dot(sum: Self::Sum, w: uint8x16_t, a: int8x16_t) -> Self::Sum;
    /// The four sums as numbers.
    unsafe fn total(sum: Self::Sum) -> int32x4_t;

    /// As [`Simd::dot_two`].
    #[inline(always)]
    unsafe fn dot_two<const G: usize>(w: [uint8x16_t; G], a: [*const i8; 2]) -> [Self::Sum; 2] {
        a.map(|a| {
            let mut sum = Self::zero();
            for (g, &w) in w.iter().enumerate() {
                sum = Self::dot(sum, w, broadcast(a.add(4 * g)));
            }
            sum
        })
    }
}

#[derive(Clone, Copy)]
pub(in crate::kernels) struct Neon<D = Long>(PhantomData<D>);

impl<D: Dot> Simd for Neon<D> {
    const ROWS: usize = 4;
    const WIDE_BIAS: i32 = 0;
    const TWO: bool = D::TWO;
    type Bytes = uint8x16_t;
    type Int = int32x4_t;
    type Float = float32x4_t;
    type Inputs = int8x16_t;
    type Sum = D::Sum;
    type Scale = int32x4_t;
    /// The first of each pair in the low half, the second in the high one.
    type Pair = int16x8_t;

    #[inline(always)]
    unsafe fn prefetch(near: *const u8, far: *const u8) {
        asm!(
            "prfm pldl1keep, [{near}]",
            "prfm pldl2keep, [{far}]",
            near = in(reg) near,
            far = in(reg) far,
            options(nomem, nostack, preserves_flags)
        );
    }

    #[inline(always)]
    unsafe fn load(p: *const u8) -> uint8x16_t {
        vld1q_u8(p)
    }

    #[inline(always)]
    unsafe fn field(v: uint8x16_t, from: i32, to: i32, mask: u8) -> uint8x16_t {
        let moved = vshlq_u8(v, vdupq_n_s8((to - from) as i8));
        vandq_u8(moved, vdupq_n_u8(mask))
    }

    #[inline(always)]
    unsafe fn or(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
        vorrq_u8(a, b)
    }

    #[inline(always)]
    unsafe fn lookup(v: uint8x16_t, table: &[i8; 16]) -> uint8x16_t {
        vqtbl1q_u8(vld1q_u8(table.as_ptr().cast()), v)
    }

    #[inline(always)]
    unsafe fn bias(v: uint8x16_t) -> uint8x16_t {
        v
    }

    #[inline(always)]
    unsafe fn int_zero() -> int32x4_t {
        vdupq_n_s32(0)
    }

    #[inline(always)]
    unsafe fn scale(p: *const i8) -> int32x4_t {
        four_i32(p)
    }

    #[inline(always)]
    unsafe fn inputs(a: *const i8) -> int8x16_t {
        broadcast(a)
    }

    #[inline(always)]
    fn together(max: i32) -> usize {
        D::together(max)
    }

    #[inline(always)]
    unsafe fn sum_zero() -> D::Sum {
        D::zero()
    }

    #[inline(always)]
    unsafe fn dot(sum: D::Sum, w: uint8x16_t, a: int8x16_t) -> D::Sum {
        D::dot(sum, w, a)
    }

    #[inline(always)]
    unsafe fn dot_two<const G: usize>(w: [uint8x16_t; G], a: [*const i8; 2]) -> [D::Sum; 2] {
        D::dot_two(w, a)
    }

    #[inline(always)]
    unsafe fn scaled(acc: int32x4_t, sum: D::Sum, _bound: i32, scale: int32x4_t) -> int32x4_t {
        vmlaq_s32(acc, D::total(sum), scale)
    }

    #[inline(always)]
    unsafe fn pair(x: *const i8, y: *const i8) -> int16x8_t {
        vmovl_s8(vcreate_s8(four_bytes(x) | four_bytes(y) << 32))
    }

    #[inline(always)]
    unsafe fn dot_pair(acc: int32x4_t, p: int16x8_t, s: *const i16) -> int32x4_t {
        let acc = vmlal_n_s16(acc, vget_low_s16(p), *s);
        vmlal_high_n_s16(acc, p, *s.add(1))
    }

    #[inline(always)]
    unsafe fn sub_times(acc: int32x4_t, n: i32, x: int32x4_t) -> int32x4_t {
        vmlsq_n_s32(acc, x, n)
    }

    #[inline(always)]
    unsafe fn int_splat(x: i32) -> int32x4_t {
        vdupq_n_s32(x)
    }

    #[inline(always)]
    unsafe fn zero() -> float32x4_t {
        vdupq_n_f32(0.0)
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> float32x4_t {
        vdupq_n_f32(x)
    }

    #[inline(always)]
    unsafe fn load_f32(p: *const f32) -> float32x4_t {
        vld1q_f32(p)
    }

    /// The instruction is in every NEON; Rust has the intrinsic only from 1.94 on.
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> float32x4_t {
        let v: float32x4_t;
        asm!(
            "fcvtl {v:v}.4s, {half:v}.4h",
            v = lateout(vreg) v,
            half = in(vreg) vld1_u16(p),
            options(pure, nomem, nostack, preserves_flags)
        );
        v
    }

    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> float32x4_t {
        vcvtq_f32_s32(four_i32(p))
    }

    /// Rounds as the control register says, which is to nearest, ties to even, in every program.
    #[inline(always)]
    unsafe fn to_f16(x: f32) -> u16 {
        let half: f32;
        asm!(
            "fcvt {half:h}, {x:s}",
            half = lateout(vreg) half,
            x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags)
        );
        half.to_bits() as u16
    }

    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> float32x4_t {
        vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(p)))
    }

    #[inline(always)]
    unsafe fn store(p: *mut f32, v: float32x4_t) {
        vst1q_f32(p, v)
    }

    #[inline(always)]
    unsafe fn to_float(v: int32x4_t) -> float32x4_t {
        vcvtq_f32_s32(v)
    }

    #[inline(always)]
    unsafe fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        vmulq_f32(a, b)
    }

    #[inline(always)]
    unsafe fn fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        vfmaq_f32(c, a, b)
    }

    #[inline(always)]
    unsafe fn fnma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        vfmsq_f32(c, a, b)
    }
}

#[inline(always)]
unsafe fn four_bytes(p: *const i8) -> u64 {
    u64::from(p.cast::<u32>().read_unaligned())
}

#[inline(always)]
unsafe fn four_i32(p: *const i8) -> int32x4_t {
    vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8(four_bytes(p)))))
}

/// Products as i16, of which as many are added as fit: inputs 0 to 3 of the first two rows, and of the others.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Long;

impl Dot for Long {
    type Sum = [int16x8_t; 2];

    #[inline(always)]
    fn together(max: i32) -> usize {
        let mut groups = 8;
        while groups * 127 * max > i32::from(i16::MAX) {
            groups /= 2;
        }
        groups as usize
    }

    #[inline(always)]
    unsafe fn zero() -> Self::Sum {
        [vdupq_n_s16(0); 2]
    }

    #[inline(always)]
    unsafe fn dot([x, y]: Self::Sum, w: uint8x16_t, a: int8x16_t) -> Self::Sum {
        let w = vreinterpretq_s8_u8(w);
        [
            vmlal_s8(x, vget_low_s8(w), vget_low_s8(a)),
            vmlal_high_s8(y, w, a),
        ]
    }

    #[inline(always)]
    unsafe fn total([x, y]: Self::Sum) -> int32x4_t {
        vpaddq_s32(vpaddlq_s16(x), vpaddlq_s16(y))
    }
}

#[inline(always)]
unsafe fn broadcast(p: *const i8) -> int8x16_t {
    vreinterpretq_s8_s32(vdupq_n_s32(p.cast::<i32>().read_unaligned()))
}
