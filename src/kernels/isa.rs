//! Instruction sets: which ones this CPU has, and which one the kernels use.

use crate::error::{Error, Result};

/// A tier of kernels. Every tier gives the same bits; they differ in speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Plain code, on every CPU.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C (2013 on).
    Avx2,
    /// AVX2 and the byte products of AVX-VNNI.
    AvxVnni,
    /// AVX-512 F, BW, VL and DQ.
    Avx512,
    /// AVX-512 and its byte products.
    Avx512Vnni,
    /// The above and matrices of bytes.
    Amx,
    /// Every 64-bit ARM.
    Neon,
    /// ARMv8.2 with the dot product of bytes.
    DotProd,
    /// ARMv8.6 with matrices of bytes.
    I8mm,
}

impl Isa {
    /// All tiers, from the slowest on, of all architectures.
    pub const ALL: [Self; 9] = [
        Self::Scalar,
        Self::Avx2,
        Self::AvxVnni,
        Self::Avx512,
        Self::Avx512Vnni,
        Self::Amx,
        Self::Neon,
        Self::DotProd,
        Self::I8mm,
    ];

    /// As in `CANDLEWICK_ISA`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avxvnni",
            Self::Avx512 => "avx512",
            Self::Avx512Vnni => "avx512vnni",
            Self::Amx => "amx",
            Self::Neon => "neon",
            Self::DotProd => "dotprod",
            Self::I8mm => "i8mm",
        }
    }

    /// Whether this CPU and system have it.
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            let avx2 = has!("avx2") && has!("fma") && has!("f16c");
            let avx512 =
                avx2 && has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512dq");
            match self {
                Self::Scalar => true,
                Self::Avx2 => avx2,
                Self::AvxVnni => avx2 && has!("avxvnni"),
                Self::Avx512 => avx512,
                Self::Avx512Vnni => avx512 && has!("avx512vnni"),
                #[cfg(target_os = "linux")]
                Self::Amx => {
                    avx512 && has!("avx512vnni") && crate::kernels::x86::amx::is_available()
                }
                _ => false,
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            use std::arch::is_aarch64_feature_detected as has;
            match self {
                Self::Scalar | Self::Neon => true,
                Self::DotProd => has!("dotprod"),
                Self::I8mm => has!("dotprod") && has!("i8mm"),
                _ => false,
            }
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        {
            self == Self::Scalar
        }
    }

    /// The tiers that this CPU has, from the slowest on.
    pub fn available() -> Vec<Self> {
        Self::ALL
            .into_iter()
            .filter(|isa| isa.is_available())
            .collect()
    }

    /// The best tier that this CPU has, or the one that the environment variable `CANDLEWICK_ISA` names.
    ///
    /// # Errors
    /// `InvalidRequest` that lists the tiers this CPU has, for an unknown name and for one it lacks.
    pub fn choose() -> Result<Self> {
        let available = Self::available();
        match std::env::var_os("CANDLEWICK_ISA").filter(|name| !name.is_empty()) {
            None => Ok(*available.last().expect("scalar is always there")),
            Some(name) => available
                .iter()
                .copied()
                .find(|isa| name == isa.name())
                .ok_or_else(|| {
                    let known = Self::ALL.iter().any(|isa| name == isa.name());
                    Error::InvalidRequest(format!(
                        "CANDLEWICK_ISA is {name:?}, {}: this one has {}",
                        if known {
                            "which this CPU lacks"
                        } else {
                            "which is no tier"
                        },
                        available
                            .iter()
                            .map(|isa| isa.name())
                            .collect::<Vec<_>>()
                            .join(", ")
                    ))
                }),
        }
    }
}
