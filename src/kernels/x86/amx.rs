//! AMX: products of many tokens with a tile of 16 rows on the matrix unit, for blocks of 256.
//!
//! The unit multiplies 16 tokens x 64 inputs of bytes with 64 inputs x 16 rows and adds as i32; 16 vectors of our
//! layout are such a matrix of weights. So that one sum spans a block, the integer scales go into the weights:
//! `v = scale * q` has at most 14 bits, and `v = low + 256 * high` with an unsigned and a signed byte. The sum of a
//! block is then `sum of low * a + 256 * sum of high * a`: 2 x 4 products, exact, and the rest is as on all tiers.
//!
//! The configuration of the tiles is loaded where a job begins and released where it ends: between jobs a thread
//! has no state that the system would have to save.

#![allow(
    unsafe_op_in_unsafe_fn,
    reason = "the contract of each function is that of `tile`"
)]

use std::arch::asm;
use std::arch::x86_64::*;
use std::sync::OnceLock;

use super::avx512::Avx512;
use super::avx512vnni::Avx512Vnni;
use crate::kernels::format::Format;
use crate::kernels::product::{self, Block, Job};
use crate::kernels::simd::Simd;

/// Tokens that share one unpacking of the weights: it costs as much as the products of about 40.
pub(in crate::kernels) const TOKENS: usize = 256;

/// Tokens that are computed together.
const GROUP: usize = 32;

/// Whether the CPU has it and the system lets this process use it: Linux wants to be asked, once and before the
/// threads start that shall have it.
pub(in crate::kernels) fn is_available() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        const AMX_TILE: u32 = 1 << 24;
        const AMX_INT8: u32 = 1 << 25;
        /// Configuration and contents of the tiles.
        const XCR0: u32 = 3 << 17;
        const SYS_ARCH_PRCTL: i64 = 158;
        const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
        const XFEATURE_XTILEDATA: i64 = 18;
        if !std::arch::is_x86_feature_detected!("avx512f") {
            return false;
        }
        // It is safe in newer versions of Rust.
        #[allow(unused_unsafe)]
        // SAFETY: a CPU with AVX-512 has leaf 7.
        let edx = unsafe { __cpuid_count(7, 0) }.edx;
        if edx & (AMX_TILE | AMX_INT8) != AMX_TILE | AMX_INT8 {
            return false;
        }
        let (xcr0, answer): (u32, i64);
        // SAFETY: AVX-512 is only detected where the system has enabled `xgetbv`.
        unsafe {
            asm!("xgetbv", in("ecx") 0, out("eax") xcr0, out("edx") _, options(nomem, nostack));
        }
        if xcr0 & XCR0 != XCR0 {
            return false;
        }
        // SAFETY: the call only sets a permission of this process; kernels that do not know it say so.
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") SYS_ARCH_PRCTL => answer,
                in("rdi") ARCH_REQ_XCOMP_PERM,
                in("rsi") XFEATURE_XTILEDATA,
                out("rcx") _,
                out("r11") _,
                options(nostack),
            );
        }
        answer == 0
    })
}

/// What `ldtilecfg` reads.
#[repr(align(64))]
pub(in crate::kernels) struct Config(pub [u8; 64]);

/// Eight tiles of 16 rows of 64 bytes.
pub(in crate::kernels) static CONFIG: Config = {
    const PALETTE: usize = 0;
    // (16) u16 and (16) u8
    const ROW_BYTES: usize = 16;
    const ROWS: usize = 48;
    let mut config = [0; 64];
    config[PALETTE] = 1;
    let mut i = 0;
    while i < 8 {
        config[ROW_BYTES + 2 * i] = 64;
        config[ROWS + i] = 16;
        i += 1;
    }
    Config(config)
};

/// A block of weights times their scales, low and high bytes: (inputs / 4, rows, 4).
#[repr(C)]
struct Planes([[__m512i; 64]; 2]);

/// Sums of a group: low and high of 16 tokens, then of the next 16; (tokens, rows).
#[repr(C)]
struct Sums([[[__m512i; 16]; 2]; GROUP / 16]);

/// Computes `job`, up to [`TOKENS`] tokens: whole sixteens on the matrix unit.
///
/// # Safety
/// As for [`product::many`] with [`Avx512Vnni`]; and [`is_available`] has said yes.
#[inline(always)]
pub(in crate::kernels) unsafe fn tile<F: Format>(job: &Job) {
    const { assert!(F::BLOCK == 256) };
    let n = job.n / 16 * 16;
    if n > 0 {
        asm!("ldtilecfg [{}]", in(reg) &raw const CONFIG.0, options(nostack, readonly));
        sixteens::<F>(job, n);
        asm!("tilerelease", options(nostack, nomem));
    }
    if n < job.n {
        product::many::<Avx512Vnni, F>(&Job {
            quants: job.quants.add(n * 64),
            scales: job.scales.add(n),
            sums16: job.sums16.add(n * 16),
            sums32: job.sums32.add(n * 8),
            n: job.n - n,
            out: job.out.add(n * job.out_stride),
            ..*job
        });
    }
}

#[inline(always)]
unsafe fn sixteens<F: Format>(job: &Job, n: usize) {
    debug_assert!(n <= TOKENS);
    let mut acc = [[Avx512Vnni::zero(); GROUP]; TOKENS / GROUP];
    let mut planes = Planes([[_mm512_setzero_si512(); 64]; 2]);
    let mut sums = Sums([[[_mm512_setzero_si512(); 16]; 2]; GROUP / 16]);
    for b in 0..job.n_blocks {
        let first = b * job.stride;
        let mut x = Block::new::<F>(job, b, GROUP);
        unpack::<F, 0>(&x, &mut planes);
        unpack::<F, 1>(&x, &mut planes);
        unpack::<F, 2>(&x, &mut planes);
        unpack::<F, 3>(&x, &mut planes);
        unpack::<F, 4>(&x, &mut planes);
        unpack::<F, 5>(&x, &mut planes);
        unpack::<F, 6>(&x, &mut planes);
        unpack::<F, 7>(&x, &mut planes);
        for (i, acc) in acc.iter_mut().enumerate().take(n.div_ceil(GROUP)) {
            let t = i * GROUP;
            x.n = GROUP.min(n - t);
            let a = x.quants.add(t * 64);
            if x.n == GROUP {
                multiply_32(a, job.stride * 64, &planes, &mut sums);
            } else {
                multiply_16(a, job.stride * 64, &planes, &mut sums);
            }
            let mut isum = [_mm512_setzero_si512(); GROUP];
            for (t, isum) in isum.iter_mut().enumerate() {
                let [low, high] = &sums.0[t / 16];
                let high = _mm512_slli_epi32::<8>(high[t % 16]);
                *isum = _mm512_add_epi32(low[t % 16], high);
            }
            let (isum, acc) = (isum.as_ptr(), acc.as_mut_ptr());
            product::finish::<Avx512Vnni, F>(&x, 0, job, first + t, isum, acc);
        }
    }
    for t in 0..n {
        let acc = acc[t / GROUP][t % GROUP];
        Avx512Vnni::store(job.out.add(t * job.out_stride), acc);
    }
}

/// Low and high bytes of sub-block `SUB`.
#[inline(always)]
unsafe fn unpack<F: Format, const SUB: usize>(x: &Block, planes: &mut Planes) {
    product::prefetch::<Avx512Vnni, F>(x.weights, SUB, 8);
    let low_byte = _mm512_set1_epi16(0xff);
    for g in 0..8 {
        let w = F::unpack::<Avx512Vnni, SUB>(x.weights, g);
        let scale = if F::PER == 16 { 2 * SUB + g / 4 } else { SUB };
        let scale = Avx512::scale(x.scales.scale[scale].as_ptr());
        // Bytes 0 and 2 of each row, and 1 and 3.
        let even = _mm512_mullo_epi16(_mm512_and_si512(w, low_byte), scale);
        let odd = _mm512_mullo_epi16(_mm512_srli_epi16::<8>(w), scale);
        let low = _mm512_or_si512(
            _mm512_and_si512(even, low_byte),
            _mm512_slli_epi16::<8>(odd),
        );
        let high = _mm512_or_si512(
            _mm512_srli_epi16::<8>(even),
            _mm512_andnot_si512(low_byte, odd),
        );
        planes.0[0][SUB * 8 + g] = low;
        planes.0[1][SUB * 8 + g] = high;
    }
}

/// Sums of 32 tokens over a block; `a` is (4, step / 64, 64).
#[inline(always)]
unsafe fn multiply_32(a: *const i8, step: usize, planes: &Planes, sums: &mut Sums) {
    macro_rules! quarter {
        ($i:literal) => {
            concat!(
                "tileloadd tmm4, [{a} + {row}*1]\n",
                "tileloadd tmm6, [{w} + {row}*1 + 1024*",
                $i,
                "]\n",
                "tdpbsud tmm0, tmm4, tmm6\n",
                "tileloadd tmm7, [{w} + {row}*1 + 4096 + 1024*",
                $i,
                "]\n",
                "tdpbssd tmm1, tmm4, tmm7\n",
                "tileloadd tmm5, [{a} + {row}*1 + 1024]\n",
                "tdpbsud tmm2, tmm5, tmm6\n",
                "tdpbssd tmm3, tmm5, tmm7\n",
                "add {a}, {step}\n"
            )
        };
    }
    asm!(
        "tilezero tmm0",
        "tilezero tmm1",
        "tilezero tmm2",
        "tilezero tmm3",
        quarter!(0),
        quarter!(1),
        quarter!(2),
        quarter!(3),
        "tilestored [{sums} + {row}*1], tmm0",
        "tilestored [{sums} + {row}*1 + 1024], tmm1",
        "tilestored [{sums} + {row}*1 + 2048], tmm2",
        "tilestored [{sums} + {row}*1 + 3072], tmm3",
        a = inout(reg) a => _,
        step = in(reg) step,
        w = in(reg) &raw const *planes,
        sums = in(reg) &raw mut *sums,
        row = in(reg) 64usize,
        out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
        out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
        options(nostack),
    );
}

/// Sums of 16 tokens.
#[inline(always)]
unsafe fn multiply_16(a: *const i8, step: usize, planes: &Planes, sums: &mut Sums) {
    macro_rules! quarter {
        ($i:literal) => {
            concat!(
                "tileloadd tmm4, [{a} + {row}*1]\n",
                "tileloadd tmm6, [{w} + {row}*1 + 1024*",
                $i,
                "]\n",
                "tdpbsud tmm0, tmm4, tmm6\n",
                "tileloadd tmm7, [{w} + {row}*1 + 4096 + 1024*",
                $i,
                "]\n",
                "tdpbssd tmm1, tmm4, tmm7\n",
                "add {a}, {step}\n"
            )
        };
    }
    asm!(
        "tilezero tmm0",
        "tilezero tmm1",
        quarter!(0),
        quarter!(1),
        quarter!(2),
        quarter!(3),
        "tilestored [{sums} + {row}*1], tmm0",
        "tilestored [{sums} + {row}*1 + 1024], tmm1",
        a = inout(reg) a => _,
        step = in(reg) step,
        w = in(reg) &raw const *planes,
        sums = in(reg) &raw mut *sums,
        row = in(reg) 64usize,
        out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
        options(nostack),
    );
}
