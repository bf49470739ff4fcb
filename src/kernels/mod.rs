//! The hot loops of the `native` engine: products, attention, and what lies between.
//!
//! # The numerics contract
//!
//! Every tier, thread count, chunking and batch gives the same bits, and the tests compare for equality:
//!
//! - quantized weights meet inputs that are quantized per block ([`activations`]); the integer sum of a block is
//!   exact, and the floats of a row are accumulated in the order of the inputs, each by one fused operation
//!   ([`product`]);
//! - float weights meet float inputs, accumulated by fused operations in the order of the inputs;
//! - sums of squares and of softmax weights are taken in 16 lanes and then in a fixed order ([`ops`], [`attention`]);
//! - attention goes over pages at fixed positions, so that chunks do not show ([`pages`]);
//! - `exp` is our own ([`math`]), sines, cosines and logarithms come from the `libm` crate: no platform's library.
//!
//! There are no exceptions.
//!
//! # The house
//!
//! An algorithm is written once, over the vectors of [`simd`]; a tier is an implementation of that trait, and
//! [`tier`] compiles the algorithms with its instructions. `scalar` is the plain twin of all of them.

#![allow(
    clippy::needless_range_loop,
    reason = "indices say which lane, row or token is meant in several arrays at once"
)]

#[cfg(target_arch = "aarch64")]
mod aarch64;
mod activations;
mod attention;
mod compute;
mod format;
mod isa;
pub mod limits;
mod math;
mod matrix;
mod ops;
mod pages;
mod pool;
mod product;
mod scalar;
mod simd;
#[cfg(test)]
mod tests;
mod tier;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use activations::{Activations, InputKind};
pub use compute::{Compute, Heads, Norm, Pages};
pub use isa::Isa;
pub use matrix::{Matrix, Packer};
pub use pages::{KvFormat, PAGE, PageLayout};
