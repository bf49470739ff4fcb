//! x86-64 tiers.

pub(super) mod avx2;
