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
    type Sum = int32x4_t;

    #[inline(always)]
    fn together(_max: i32) -> usize {
        8
    }

    #[inline(always)]
    unsafe fn zero() -> int32x4_t {
        vdupq_n_s32(0)
    }

    #[inline(always)]
    unsafe fn dot(sum: int32x4_t, w: uint8x16_t, a: int8x16_t) -> int32x4_t {
        sdot(sum, w, a)
    }

    #[inline(always)]
    unsafe fn total(sum: int32x4_t) -> int32x4_t {
        sum
    }
}

/// `acc + w * a`, four products for each row. (Rust's own intrinsic is not stable.)
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn sdot(mut acc: int32x4_t, w: uint8x16_t, a: int8x16_t) -> int32x4_t {
    asm!(
        "sdot {acc:v}.4s, {w:v}.16b, {a:v}.16b",
        acc = inout(vreg) acc,
        w = in(vreg) w,
        a = in(vreg) a,
        options(pure, nomem, nostack, preserves_flags)
    );
    acc
}
