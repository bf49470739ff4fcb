//! Decoding several sequences in one pass over the weights: what each more of them costs.
//!
//! ```sh
//! cargo bench --bench batch -- MODEL.gguf [ROUNDS]      (default: 5)
//! ```
//!
//! Steps of 1 to 16 sequences take turns; each sequence holds 64 tokens and more.

#![allow(clippy::print_stdout, reason = "a program that prints a table")]

use std::path::PathBuf;
use std::time::Instant;

use candlewick::engine::{DeviceChoice, EngineKind, EngineOptions, Part, Sequence};
use candlewick::error::Error;
use candlewick::generate::{LoadOptions, Model};

const SIZES: [usize; 6] = [1, 2, 4, 6, 8, 16];
const STEPS: usize = 4;

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().filter(|a| a != "--bench").collect();
    let Some(path) = arguments.get(1) else {
        println!("cargo bench --bench batch -- MODEL.gguf [ROUNDS]");
        return Ok(());
    };
    let rounds = arguments.get(2).and_then(|a| a.parse().ok()).unwrap_or(5);
    let options = LoadOptions {
        path: PathBuf::from(path),
        tokenizer: None,
        mmap: true,
        engine: EngineOptions {
            kind: EngineKind::Native,
            device: DeviceChoice::Cpu,
            n_ctx: None,
            kv_type: None,
            n_threads: None,
        },
    };
    let model = Model::load(&options, &mut |_, _| Ok(()))?;
    let mut sequences = Vec::new();
    let mut logits = vec![Vec::new(); SIZES[SIZES.len() - 1]];
    for logits in &mut logits {
        let mut sequence = model.engine.sequence()?;
        let ids: Vec<u32> = (0..64).map(|i| 100 + i * 7).collect();
        sequence.forward(&ids, 1, logits, &mut || Ok(()))?;
        sequences.push(sequence);
    }
    println!(
        "{}, {} threads",
        model.engine.isa(),
        model.engine.n_threads()
    );
    let mut rates = [const { Vec::new() }; SIZES.len()];
    for _ in 0..rounds {
        for (&n, rates) in SIZES.iter().zip(&mut rates) {
            let started = Instant::now();
            for _ in 0..STEPS {
                step(&model, &mut sequences[..n], &mut logits)?;
            }
            rates.push((n * STEPS) as f64 / started.elapsed().as_secs_f64());
        }
    }
    let one = median(&mut rates[0]);
    for (n, rates) in SIZES.iter().zip(&mut rates) {
        let rate = median(rates);
        let (low, high) = (rates[0], rates[rates.len() - 1]);
        println!(
            "{n:>2} sequences: {rate:6.1} tokens/s ({low:.1}-{high:.1}), {:.2} x one",
            rate / one
        );
    }
    Ok(())
}

fn step(
    model: &Model,
    sequences: &mut [Box<dyn Sequence>],
    logits: &mut [Vec<f32>],
) -> Result<(), Error> {
    let mut parts: Vec<Part> = sequences
        .iter_mut()
        .zip(logits)
        .map(|(sequence, logits)| Part {
            sequence: sequence.as_mut(),
            tokens: &[1000],
            n_logits: 1,
            logits,
            failed: None,
        })
        .collect();
    model.engine.forward(&mut parts, &mut || Ok(()))
}

fn median(x: &mut [f64]) -> f64 {
    x.sort_by(f64::total_cmp);
    x[x.len() / 2]
}
