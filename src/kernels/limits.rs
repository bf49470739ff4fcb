//! What a machine can do at most, to see how near the products come: a plain read of memory, and a tier's products
//! of bytes whose operands stay in registers.
//!
//! Both run on a pool as the products do, with as many threads. No engine needs any of this.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use memmap2::MmapMut;

use super::isa::Isa;
use super::pool::Pool;
use crate::error::{Error, Result};
use crate::memory;

/// Called every few hundredths of a second; an error ends the measurement.
pub type Interrupt<'a> = &'a mut dyn FnMut() -> Result<()>;

/// How long a rate is measured for: long enough that a moment's disturbance does not make it.
const MEASURE: Duration = Duration::from_millis(500);

/// Bytes that a thread reads at a time.
const PART: usize = 1 << 20;

/// Parts that are first touched between two looks at the interrupt.
const FILL: usize = 64;

/// Bytes to read for [`read_rate`]: far more than any cache holds, and at most a quarter of what is free.
pub fn read_bytes() -> usize {
    const ENOUGH: u64 = 1536 << 20;
    // Where the system does not tell, what every machine has.
    let most = memory::available().map_or(512 << 20, |free| free / 4);
    most.clamp(64 << 20, ENOUGH) as usize
}

/// Bytes a second that `n_threads` read from `n_bytes` of memory, in pages of 2 MB or in those of the usual size.
///
/// Huge pages are a wish: where the system has none to give, the pages are the usual ones.
///
/// # Errors
/// What `interrupt` gives, and what the system says when there is no memory.
pub fn read_rate(
    n_threads: usize,
    n_bytes: usize,
    huge: bool,
    interrupt: Interrupt,
) -> Result<f64> {
    let n_parts = n_bytes.div_ceil(PART).max(1);
    let mut map = MmapMut::map_anon(n_parts * PART).map_err(|e| {
        Error::Engine(format!(
            "memory for a read of {n_bytes} bytes: {e}: free some, or read fewer"
        ))
    })?;
    #[cfg(target_os = "linux")]
    {
        // Refused where the kernel is built without huge pages: then all are small.
        let _ = map.advise(if huge {
            memmap2::Advice::HugePage
        } else {
            memmap2::Advice::NoHugePage
        });
    }
    #[cfg(not(target_os = "linux"))]
    let _ = huge;
    let pool = Pool::new(n_threads);
    // Memory is given when it is first written.
    let to = map.as_mut_ptr() as usize;
    for first in (0..n_parts).step_by(FILL) {
        interrupt()?;
        pool.run(FILL.min(n_parts - first), &|_, i| {
            for at in (0..PART).step_by(4096) {
                // SAFETY: part `first + i` lies within the map and belongs to this item.
                unsafe { *((to + (first + i) * PART + at) as *mut u64) = at as u64 };
            }
        })?;
    }
    let bytes: &[u8] = &map;
    let sum = AtomicU64::new(0);
    let pass = || {
        pool.run(n_parts, &|_, i| {
            sum.fetch_xor(read(&bytes[i * PART..(i + 1) * PART]), Ordering::Relaxed);
        })
    };
    let rate = rate(n_parts * PART, interrupt, pass)?;
    black_box(sum);
    Ok(rate)
}

/// Amount a second of `work`, which does `amount` each time.
fn rate(amount: usize, interrupt: Interrupt, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    // The first time starts the threads and wakes the units.
    interrupt()?;
    work()?;
    let (mut n, start) = (0, Instant::now());
    while n < 2 || start.elapsed() < MEASURE {
        interrupt()?;
        work()?;
        n += 1;
    }
    Ok(n as f64 * amount as f64 / start.elapsed().as_secs_f64())
}

/// All words of `bytes`, joined so that no load is left out.
fn read(bytes: &[u8]) -> u64 {
    const LANES: usize = 16;
    let mut lanes = [0u64; LANES];
    for line in bytes.chunks_exact(8 * LANES) {
        prefetch(line.as_ptr());
        let (words, _) = line.as_chunks::<8>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane ^= u64::from_ne_bytes(*word);
        }
    }
    lanes.into_iter().fold(0, |a, b| a ^ b)
}

/// As the products do: a line soon needed and one that is needed later, for both lines of a step.
#[inline(always)]
fn prefetch(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        for at in [0, 64] {
            // SAFETY: a prefetch of any address is allowed, and changes nothing.
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(line.wrapping_add(2048 + at).cast());
                _mm_prefetch::<_MM_HINT_T1>(line.wrapping_add(8192 + at).cast());
            }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

/// Products of bytes, each with its addition, that `n_threads` do in a second with the instructions of `isa`, which
/// this CPU has; `None` for the scalar tier, whose instructions are the compiler's choice.
///
/// # Errors
/// What `interrupt` gives.
pub fn multiply_rate(isa: Isa, n_threads: usize, interrupt: Interrupt) -> Result<Option<f64>> {
    // Some milliseconds an item on any CPU.
    const STEPS: usize = 1 << 20;
    assert!(isa.is_available(), "{} is not available", isa.name());
    let Some((run, products)) = multiply(isa) else {
        return Ok(None);
    };
    let (pool, n_items) = (Pool::new(n_threads), 4 * n_threads);
    let pass = || {
        pool.run(n_items, &|_, _| {
            // SAFETY: the tier is available.
            unsafe { run(STEPS) }
        })
    };
    rate(n_items * STEPS * products, interrupt, pass).map(Some)
}

/// A loop of steps, and the products in one step.
type Multiply = (unsafe fn(usize), usize);

fn multiply(isa: Isa) -> Option<Multiply> {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => Some((x86::avx2, 8 * 32)),
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni => Some((x86::avxvnni, 12 * 32)),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => Some((x86::avx512, 8 * 64)),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni => Some((x86::avx512vnni, 12 * 64)),
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        Isa::Amx => Some((x86::amx, 4 * 16 * 16 * 64)),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => Some((aarch64::neon, 12 * 8)),
        #[cfg(target_arch = "aarch64")]
        Isa::DotProd => Some((aarch64::dotprod, 12 * 16)),
        #[cfg(target_arch = "aarch64")]
        Isa::I8mm => Some((aarch64::i8mm, 12 * 32)),
        _ => None,
    }
}

/// Operands that are neither zero nor all the same.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[repr(align(64))]
struct Operands([u8; 1024]);

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
static OPERANDS: Operands = {
    let mut bytes = [0; 1024];
    let mut i = 0;
    while i < bytes.len() {
        bytes[i] = (i * 37 % 61) as u8;
        i += 1;
    }
    Operands(bytes)
};

/// A line of assembly for each sum, whose number is where the gaps are.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! each {
    ($a:literal _ $b:literal: $($i:literal)*) => { concat!($($a, $i, $b, "\n"),*) };
    ($a:literal _ $b:literal _: $($i:literal)*) => { concat!($($a, $i, $b, $i, "\n"),*) };
}

/// `steps` times `$step`, with the instructions of `$features`, after the operands are loaded.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! products {
    ($name:ident, $features:literal, [$($load:literal)*], $step:expr, [$($end:literal)*], $($clobber:tt)*) => {
        #[target_feature(enable = $features)]
        pub(super) unsafe fn $name(steps: usize) {
            // SAFETY: the features are there, the caller's; the loads are within the operands, nothing is stored, and
            // every register that changes is named.
            unsafe {
                asm!(
                    $($load,)*
                    "2:",
                    $step,
                    $($end,)*
                    from = in(reg) super::OPERANDS.0.as_ptr(),
                    n = inout(reg) steps => _,
                    $(out($clobber) _,)*
                    options(readonly, nostack),
                );
            }
        }
    };
}

// There are enough sums that none waits for its last. Where the product of bytes has no sum of its own (AVX2, and
// AVX-512 before VNNI), the addition is the cheapest there is, so that no kernel can do better.

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::asm;

    #[cfg(target_os = "linux")]
    use crate::kernels::x86::amx::CONFIG;

    products!(
        avx2, "avx2",
        ["vmovdqa ymm14, [{from}]" "vmovdqa ymm15, [{from} + 64]"],
        each!("vpmaddubsw ymm12, ymm14, ymm15\nvpaddw ymm" _ ", ymm12, ymm" _: 0 1 2 3 4 5 6 7),
        ["dec {n}" "jnz 2b" "vzeroupper"],
        "ymm0" "ymm1" "ymm2" "ymm3" "ymm4" "ymm5" "ymm6" "ymm7"
        "ymm8" "ymm9" "ymm10" "ymm11" "ymm12" "ymm13" "ymm14" "ymm15"
    );
    products!(
        avxvnni, "avx2",
        ["vmovdqa ymm14, [{from}]" "vmovdqa ymm15, [{from} + 64]"],
        each!("{{vex}} vpdpbusd ymm" _ ", ymm14, ymm15": 0 1 2 3 4 5 6 7 8 9 10 11),
        ["dec {n}" "jnz 2b" "vzeroupper"],
        "ymm0" "ymm1" "ymm2" "ymm3" "ymm4" "ymm5" "ymm6" "ymm7"
        "ymm8" "ymm9" "ymm10" "ymm11" "ymm12" "ymm13" "ymm14" "ymm15"
    );
    products!(
        avx512, "avx512f",
        ["vmovdqa64 zmm14, [{from}]" "vmovdqa64 zmm15, [{from} + 64]"],
        each!("vpmaddubsw zmm12, zmm14, zmm15\nvpaddw zmm" _ ", zmm12, zmm" _: 0 1 2 3 4 5 6 7),
        ["dec {n}" "jnz 2b" "vzeroupper"],
        "zmm0" "zmm1" "zmm2" "zmm3" "zmm4" "zmm5" "zmm6" "zmm7"
        "zmm8" "zmm9" "zmm10" "zmm11" "zmm12" "zmm13" "zmm14" "zmm15"
    );
    products!(
        avx512vnni, "avx512f",
        ["vmovdqa64 zmm14, [{from}]" "vmovdqa64 zmm15, [{from} + 64]"],
        each!("vpdpbusd zmm" _ ", zmm14, zmm15": 0 1 2 3 4 5 6 7 8 9 10 11),
        ["dec {n}" "jnz 2b" "vzeroupper"],
        "zmm0" "zmm1" "zmm2" "zmm3" "zmm4" "zmm5" "zmm6" "zmm7"
        "zmm8" "zmm9" "zmm10" "zmm11" "zmm12" "zmm13" "zmm14" "zmm15"
    );

    /// Four sums of 16 x 16, from two tiles of weights and two of inputs.
    #[cfg(target_os = "linux")]
    pub(super) unsafe fn amx(steps: usize) {
        // SAFETY: the CPU has tiles and the process the permission to use them, the caller's; loads are within the
        // operands, nothing is stored, the compiler itself uses no tiles, and they are given back.
        unsafe {
            asm!(
                "ldtilecfg [{config}]",
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "tileloadd tmm4, [{from} + {stride}]",
                "tileloadd tmm5, [{from} + {stride}]",
                "tileloadd tmm6, [{from} + {stride}]",
                "tileloadd tmm7, [{from} + {stride}]",
                "2:",
                "tdpbusd tmm0, tmm4, tmm6",
                "tdpbusd tmm1, tmm4, tmm7",
                "tdpbusd tmm2, tmm5, tmm6",
                "tdpbusd tmm3, tmm5, tmm7",
                "dec {n}",
                "jnz 2b",
                "tilerelease",
                config = in(reg) &raw const CONFIG.0,
                from = in(reg) super::OPERANDS.0.as_ptr(),
                stride = in(reg) 64usize,
                n = inout(reg) steps => _,
                options(readonly, nostack),
            );
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use std::arch::asm;

    products!(
        neon, "neon",
        ["ldr q24, [{from}]" "ldr q25, [{from}, 64]"],
        each!("smlal v" _ ".8h, v24.8b, v25.8b": 0 1 2 3 4 5 6 7 16 17 18 19),
        ["subs {n}, {n}, 1" "b.ne 2b"],
        "v0" "v1" "v2" "v3" "v4" "v5" "v6" "v7" "v16" "v17" "v18" "v19" "v24" "v25"
    );
    products!(
        dotprod, "dotprod",
        ["ldr q24, [{from}]" "ldr q25, [{from}, 64]"],
        each!("sdot v" _ ".4s, v24.16b, v25.16b": 0 1 2 3 4 5 6 7 16 17 18 19),
        ["subs {n}, {n}, 1" "b.ne 2b"],
        "v0" "v1" "v2" "v3" "v4" "v5" "v6" "v7" "v16" "v17" "v18" "v19" "v24" "v25"
    );
    products!(
        i8mm, "i8mm",
        ["ldr q24, [{from}]" "ldr q25, [{from}, 64]"],
        each!("smmla v" _ ".4s, v24.16b, v25.16b": 0 1 2 3 4 5 6 7 16 17 18 19),
        ["subs {n}, {n}, 1" "b.ne 2b"],
        "v0" "v1" "v2" "v3" "v4" "v5" "v6" "v7" "v16" "v17" "v18" "v19" "v24" "v25"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_measured_and_can_be_interrupted() {
        let go: Interrupt = &mut || Ok(());
        for huge in [false, true] {
            assert!(read_rate(2, (3 << 20) + 1, huge, go).unwrap() > 0.0);
        }
        for isa in Isa::available() {
            let rate = multiply_rate(isa, 2, go).unwrap();
            assert!(
                rate.map_or(isa == Isa::Scalar, |rate| rate > 0.0),
                "{isa:?}"
            );
        }
        let stop: Interrupt = &mut || Err(Error::Interrupted);
        assert!(matches!(
            read_rate(1, 1 << 20, true, stop),
            Err(Error::Interrupted)
        ));
        let isa = *Isa::available().last().unwrap();
        if isa != Isa::Scalar {
            assert!(matches!(
                multiply_rate(isa, 1, stop),
                Err(Error::Interrupted)
            ));
        }
    }

    #[test]
    fn every_word_is_read() {
        let mut bytes = vec![0u8; PART];
        for i in 0..PART / 8 {
            bytes[i * 8..][..8].copy_from_slice(&(i as u64).to_ne_bytes());
        }
        assert_eq!(read(&bytes), 0);
        bytes[PART - 3] ^= 1;
        assert_ne!(read(&bytes), 0);
    }

    /// `cargo test --release limits -- --ignored --nocapture`
    #[test]
    #[ignore = "prints rates, and judges none"]
    #[allow(clippy::print_stdout)]
    fn show() {
        let go: Interrupt = &mut || Ok(());
        for n_threads in [1, 2] {
            for huge in [false, true] {
                let rate = read_rate(n_threads, read_bytes(), huge, go).unwrap();
                println!(
                    "{n_threads} threads, huge pages {huge}: {:.1} GB/s",
                    rate / 1e9
                );
            }
            for isa in Isa::available() {
                if let Some(rate) = multiply_rate(isa, n_threads, go).unwrap() {
                    println!(
                        "{n_threads} threads, {}: {:.0} GMAC/s",
                        isa.name(),
                        rate / 1e9
                    );
                }
            }
        }
    }
}
