//! ARMv8.2 with the dot product of bytes: `sdot` adds the products of four bytes to each i32.

#![allow(
    unsafe_op_in_unsafe_fn,
    reason = "each function is the operation that `Dot` describes, under that trait's contract"
)]

use std::arch::aarch64::*;
use std::arch::asm;

use super::neon::{Dot, Neon};

pub(in crate::kernels) type DotProd = Neon<Sdot>;

#[derive(Clone, Copy)]
pub(in crate::kernels) struct Sdot;

impl Dot for Sdot {
    /// Two chains, so that cores which do not forward the sum need not wait for it.
    #[inline(always)]
    unsafe fn dot<const G: usize>(w: [uint8x16_t; G], _max: i32, a: *const i8) -> int32x4_t {
        let mut first = vdupq_n_s32(0);
        let mut second = vdupq_n_s32(0);
        for g in (0..G).step_by(4) {
            let a = vld1q_s8(a.add(4 * g));
            first = sdot::<0>(first, w[g], a);
            second = sdot::<1>(second, w[g + 1], a);
            first = sdot::<2>(first, w[g + 2], a);
            second = sdot::<3>(second, w[g + 3], a);
        }
        vaddq_s32(first, second)
    }
}

/// `acc + w * a`, where every row meets the four inputs of group `GROUP` of `a`. (Rust's own intrinsic is not stable.)
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn sdot<const GROUP: i32>(mut acc: int32x4_t, w: uint8x16_t, a: int8x16_t) -> int32x4_t {
    asm!(
        "sdot {acc:v}.4s, {w:v}.16b, {a:v}.4b[{group}]",
        acc = inout(vreg) acc,
        w = in(vreg) w,
        a = in(vreg) a,
        group = const GROUP,
        options(pure, nomem, nostack, preserves_flags)
    );
    acc
}
