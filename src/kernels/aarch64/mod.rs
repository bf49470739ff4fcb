//! 64-bit ARM tiers.

pub(super) mod dotprod;
pub(super) mod i8mm;
pub(super) mod neon;
