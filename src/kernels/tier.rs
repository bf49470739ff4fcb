//! The algorithms compiled for each tier: a table of functions that holds the proof that the CPU has them.

use super::activations::Writer;
use super::attention::{self, Attend, Scratch};
use super::format::{Format, with_format};
use super::isa::Isa;
use super::ops;
use super::pages::{self, PageLayout};
use super::product::{self, FloatFormat, FloatJob, Job, TOKENS};
use crate::gguf::GgmlType;

type Product = unsafe fn(&Job);

/// The products of one type.
#[derive(Clone, Copy)]
pub(super) struct Products {
    /// For one token.
    pub one: Product,
    /// For up to `tokens`.
    pub many: Product,
    /// At most [`MOST_TOKENS`].
    pub tokens: usize,
}

/// No tier takes more tokens together.
pub(super) const MOST_TOKENS: usize = 256;

type FloatProduct = unsafe fn(&FloatJob);
type LayerNorm = unsafe fn(&[f32], &[f32], &[f32], f32, &mut [f32]);

/// The functions of one tier. Calling them is safe as far as the CPU goes: a table is only made for a tier that is
/// available.
#[derive(Clone, Copy)]
pub(super) struct Tier {
    pub product: fn(GgmlType) -> Option<Products>,
    pub float_product: fn(GgmlType) -> Option<FloatProduct>,
    pub attend: unsafe fn(&Attend, &mut Scratch),
    pub write_kv: unsafe fn(&PageLayout, *mut u8, usize, &[f32], &[f32]),
    pub rms_norm: unsafe fn(&[f32], &[f32], f32, &mut [f32]),
    pub layer_norm: LayerNorm,
    pub add: unsafe fn(&mut [f32], &[f32]),
    pub silu_mul: unsafe fn(&[f32], &[f32], &Writer, usize, usize),
    pub gelu: unsafe fn(&[f32], &Writer, usize, usize),
    pub rotate: unsafe fn(&mut [f32], &[f32], &[f32], f32),
    pub quantize: unsafe fn(&Writer, usize, usize, &[f32]),
}

/// The table of one tier, from its vectors and its target features.
macro_rules! tier {
    ($name:ident, $simd:ty $(, $features:literal)?) => {
        mod $name {
            use super::*;

            $(#[target_feature(enable = $features)])?
            unsafe fn one<F: Format>(job: &Job) {
                // SAFETY: the caller's; the features are this function's.
                unsafe { product::one::<$simd, F>(job) }
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn many<F: Format>(job: &Job) {
                // SAFETY: as above.
                unsafe { product::many::<$simd, F>(job) }
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn float_tile<W: FloatFormat>(job: &FloatJob) {
                // SAFETY: as above.
                unsafe { product::float_tile::<$simd, W>(job) }
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn attend(x: &Attend, scratch: &mut Scratch) {
                // SAFETY: as above.
                unsafe { attention::attend::<$simd>(x, scratch) }
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn write_kv(layout: &PageLayout, head: *mut u8, position: usize, key: &[f32], value: &[f32]) {
                // SAFETY: as above.
                unsafe { pages::write::<$simd>(layout, head, position, key, value) }
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
                ops::rms_norm(x, weight, eps, out);
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
                ops::layer_norm(x, weight, bias, eps, out);
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn gelu(x: &[f32], to: &Writer, t: usize, from: usize) {
                // SAFETY: as above.
                unsafe { ops::gelu(x, to, t, from) }
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn add(x: &mut [f32], y: &[f32]) {
                ops::add(x, y);
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn silu_mul(gate: &[f32], up: &[f32], to: &Writer, t: usize, from: usize) {
                // SAFETY: as above.
                unsafe { ops::silu_mul(gate, up, to, t, from) }
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn rotate(head: &mut [f32], cos: &[f32], sin: &[f32], scale: f32) {
                ops::rotate(head, cos, sin, scale);
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn quantize(to: &Writer, t: usize, from: usize, x: &[f32]) {
                // SAFETY: as above.
                unsafe { to.write(t, from, x) }
            }

            fn product(ty: GgmlType) -> Option<Products> {
                macro_rules! kernels {
                    ($f:ty) => {
                        Products {
                            one: one::<$f>,
                            many: many::<$f>,
                            tokens: TOKENS,
                        }
                    };
                }
                with_format!(ty, kernels)
            }

            fn float_product(ty: GgmlType) -> Option<FloatProduct> {
                match ty {
                    GgmlType::F32 => Some(float_tile::<product::F32>),
                    GgmlType::F16 => Some(float_tile::<product::F16>),
                    GgmlType::BF16 => Some(float_tile::<product::Bf16>),
                    _ => None,
                }
            }

            pub(super) const TIER: Tier = Tier {
                product,
                float_product,
                attend,
                write_kv,
                rms_norm,
                layer_norm,
                gelu,
                add,
                silu_mul,
                rotate,
                quantize,
            };
        }
    };
}

tier!(scalar, crate::kernels::scalar::Scalar);
#[cfg(target_arch = "x86_64")]
tier!(avx2, crate::kernels::x86::avx2::Avx2, "avx2,fma,f16c");
#[cfg(target_arch = "x86_64")]
tier!(
    avxvnni,
    crate::kernels::x86::avxvnni::AvxVnni,
    "avx2,fma,f16c,avxvnni"
);
#[cfg(target_arch = "x86_64")]
tier!(
    avx512,
    crate::kernels::x86::avx512::Avx512,
    "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c"
);
#[cfg(target_arch = "x86_64")]
tier!(
    avx512vnni,
    crate::kernels::x86::avx512vnni::Avx512Vnni,
    "avx512vnni,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c"
);
#[cfg(target_arch = "aarch64")]
tier!(neon, crate::kernels::aarch64::neon::Neon, "neon");
#[cfg(target_arch = "aarch64")]
tier!(
    dotprod,
    crate::kernels::aarch64::dotprod::DotProd,
    "neon,dotprod"
);
#[cfg(target_arch = "aarch64")]
tier!(
    i8mm,
    crate::kernels::aarch64::i8mm::I8mm,
    "neon,dotprod,i8mm"
);

/// AVX512-VNNI, but many tokens with blocks of 256 on the matrix unit.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx {
    use super::*;
    use crate::kernels::format;
    use crate::kernels::x86::amx as tiles;

    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
    unsafe fn tile<F: Format>(job: &Job) {
        // SAFETY: the caller's; the features are this function's.
        unsafe { tiles::tile::<F>(job) }
    }

    fn product(ty: GgmlType) -> Option<Products> {
        let products = (avx512vnni::TIER.product)(ty)?;
        let many: Product = match ty {
            GgmlType::Q4_K => tile::<format::Q4K>,
            GgmlType::Q5_K => tile::<format::Q5K>,
            GgmlType::Q6_K => tile::<format::Q6K>,
            GgmlType::Q2_K => tile::<format::Q2K>,
            GgmlType::Q3_K => tile::<format::Q3K>,
            GgmlType::IQ4_XS => tile::<format::Iq4Xs>,
            _ => return Some(products),
        };
        Some(Products {
            many,
            tokens: const {
                assert!(tiles::TOKENS <= MOST_TOKENS);
                tiles::TOKENS
            },
            ..products
        })
    }

    pub(super) const TIER: Tier = Tier {
        product,
        ..avx512vnni::TIER
    };
}

impl Tier {
    /// The functions of `isa`, which must be available.
    pub fn of(isa: Isa) -> Self {
        assert!(isa.is_available(), "{} is not available", isa.name());
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::TIER,
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => avxvnni::TIER,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => avx512::TIER,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => avx512vnni::TIER,
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Isa::Amx => amx::TIER,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => neon::TIER,
            #[cfg(target_arch = "aarch64")]
            Isa::DotProd => dotprod::TIER,
            #[cfg(target_arch = "aarch64")]
            Isa::I8mm => i8mm::TIER,
            _ => scalar::TIER,
        }
    }
}
