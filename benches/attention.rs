//! Attention of one token over a long context, by format of keys and values, beside a plain read of memory.
//!
//! ```sh
//! cargo bench --bench attention -- [CONTEXT [ROUNDS]]      (default: 3500 7)
//! ```
//!
//! Shapes of Phi-3-mini: 32 heads of 96, 32 layers. `cold` goes through all layers, as decoding does; `hot` takes
//! the same 64 positions of one layer again and again, which the cache holds: what the arithmetic alone would reach.

#![allow(clippy::print_stdout, reason = "a program that prints a table")]

use std::time::Instant;

use candlewick::error::Error;
use candlewick::kernels::{Compute, Heads, Isa, KvFormat, PAGE, PageLayout, Pages, limits};
use memmap2::{Advice, MmapMut};

const N_LAYERS: usize = 32;
const N_HEADS: usize = 32;
const HEAD_DIM: usize = 96;

fn main() -> Result<(), Error> {
    let arguments: Vec<usize> = std::env::args().filter_map(|a| a.parse().ok()).collect();
    let context = arguments.first().copied().unwrap_or(3500);
    let rounds = arguments.get(1).copied().unwrap_or(7);
    let n_threads = std::thread::available_parallelism().map_or(1, usize::from);
    let isa = Isa::choose()?;
    let compute = Compute::new(isa, n_threads);
    println!("{}, {n_threads} threads, context {context}", isa.name());
    for (name, format) in [
        ("f32", KvFormat::F32),
        ("f16", KvFormat::F16),
        ("q8_0", KvFormat::Q8),
    ] {
        let heads = Heads {
            n_heads: N_HEADS,
            n_kv_heads: N_HEADS,
            layout: PageLayout {
                format,
                head_dim: HEAD_DIM,
            },
            window: usize::MAX,
        };
        let mut pages = pages(&heads, context)?;
        let (mut cold, mut hot, mut read) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            let n_bytes = context * heads.page_bytes() / PAGE * N_LAYERS;
            let huge = limits::read_rate(n_threads, n_bytes, true, &mut || Ok(()))? / 1e9;
            cold.push(rate(&compute, &heads, &mut pages, context, N_LAYERS)?);
            hot.push(rate(&compute, &heads, &mut pages[..1], context, 1)?);
            read.push(huge);
        }
        println!(
            "{name:<5} cold {:5.1} GB/s, hot {:5.1} GB/s, plain read {:5.1} GB/s",
            median(&mut cold),
            median(&mut hot),
            median(&mut read)
        );
    }
    Ok(())
}

/// All layers of as many positions as the context has, filled with bytes that make ordinary numbers of all formats.
fn pages(heads: &Heads, context: usize) -> Result<Vec<MmapMut>, Error> {
    (0..context.div_ceil(PAGE))
        .map(|_| {
            let mut page = MmapMut::map_anon(N_LAYERS * heads.page_bytes())
                .map_err(|e| Error::Engine(e.to_string()))?;
            let _ = page.advise(Advice::HugePage);
            page.fill(0x3c);
            Ok(page)
        })
        .collect()
}

/// Thousand millions of bytes of keys and values a second.
fn rate(
    compute: &Compute,
    heads: &Heads,
    pages: &mut [MmapMut],
    context: usize,
    n_layers: usize,
) -> Result<f64, Error> {
    let qkv = vec![0.01f32; 3 * N_HEADS * HEAD_DIM];
    let mut out = vec![0.0f32; N_HEADS * HEAD_DIM];
    let n_pages = pages.len();
    let n_bytes = context * heads.page_bytes() / PAGE * n_layers;
    let times = ((200 << 20) / n_bytes).max(1);
    let started = Instant::now();
    for _ in 0..times {
        for layer in 0..n_layers {
            let at = layer * heads.page_bytes();
            let parts: Vec<*mut u8> = (0..context.div_ceil(PAGE))
                .map(|i| pages[i % n_pages][at..].as_mut_ptr())
                .collect();
            // SAFETY: a layer's part of each page lies within it; nobody writes them, so one may come twice.
            let pages = unsafe { Pages::new(&parts, 0) };
            compute.attend(&qkv, heads, context - 1, pages, &mut out)?;
        }
    }
    Ok((n_bytes * times) as f64 / started.elapsed().as_secs_f64() / 1e9)
}

fn median(x: &mut [f64]) -> f64 {
    x.sort_by(f64::total_cmp);
    x[x.len() / 2]
}
