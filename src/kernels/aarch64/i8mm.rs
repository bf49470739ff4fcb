//! ARMv8.6 with matrices of bytes: `smmla` multiplies two rows with two tokens, eight inputs at a time.
//!
//! One token alone is `sdot`'s, since half of each product would be thrown away.

#![allow(
    unsafe_op_in_unsafe_fn,
    reason = "each function is the operation that `Dot` describes, under that trait's contract"
)]

use std::arch::aarch64::*;
use std::arch::asm;

use super::dotprod::Sdot;
use super::neon::{Dot, Neon};

pub(in crate::kernels) type I8mm = Neon<Smmla>;

#[derive(Clone, Copy)]
pub(in crate::kernels) struct Smmla;

impl Dot for Smmla {
    type Sum = int32x4_t;
    const TWO: bool = true;

    #[inline(always)]
    fn together(max: i32) -> usize {
        Sdot::together(max)
    }

    #[inline(always)]
    unsafe fn zero() -> int32x4_t {
        Sdot::zero()
    }

    #[inline(always)]
    unsafe fn dot(sum: int32x4_t, w: uint8x16_t, a: int8x16_t) -> int32x4_t {
        Sdot::dot(sum, w, a)
    }

    #[inline(always)]
    unsafe fn total(sum: int32x4_t) -> int32x4_t {
        Sdot::total(sum)
    }

    /// The weights are zipped to eight inputs of two rows once for all tokens: that leaves the loop over them.
    #[inline(always)]
    unsafe fn dot_two<const G: usize>(w: [uint8x16_t; G], a: [*const i8; 2]) -> [int32x4_t; 2] {
        // (row, token) of the first two rows, and of the others.
        let (mut low, mut high) = (vdupq_n_s32(0), vdupq_n_s32(0));
        for g in (0..G).step_by(4) {
            let x = vreinterpretq_s64_s8(vld1q_s8(a[0].add(4 * g)));
            let y = vreinterpretq_s64_s8(vld1q_s8(a[1].add(4 * g)));
            let tokens = [vzip1q_s64(x, y), vzip2q_s64(x, y)].map(|v| vreinterpretq_s8_s64(v));
            for (i, tokens) in tokens.into_iter().enumerate() {
                let first = vreinterpretq_u32_u8(w[g + 2 * i]);
                let second = vreinterpretq_u32_u8(w[g + 2 * i + 1]);
                low = smmla(low, vzip1q_u32(first, second), tokens);
                high = smmla(high, vzip2q_u32(first, second), tokens);
            }
        }
        [vuzp1q_s32(low, high), vuzp2q_s32(low, high)]
    }
}

/// `acc + w a^T`: two rows and two tokens of eight. (Rust's own intrinsic is not stable.)
#[inline]
#[target_feature(enable = "neon,i8mm")]
unsafe fn smmla(mut acc: int32x4_t, w: uint32x4_t, a: int8x16_t) -> int32x4_t {
    asm!(
        "smmla {acc:v}.4s, {w:v}.16b, {a:v}.16b",
        acc = inout(vreg) acc,
        w = in(vreg) w,
        a = in(vreg) a,
        options(pure, nomem, nostack, preserves_flags)
    );
    acc
}
