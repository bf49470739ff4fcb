//! What a grammar costs a token: `cargo bench --bench grammar -- VOCABULARY.gguf`.
//!
//! Tokens are drawn at random from those that are allowed, which leads to places that a model would not visit, and the
//! text ends within its budget. Beside the time of a token stands that of the call which begins a text, the first time
//! and when the grammar is kept.

#![allow(clippy::print_stdout, reason = "a program that prints a table")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use candlewick::generate::token_table;
use candlewick::gguf::Gguf;
use candlewick::sample::{Constraint, Grammars};
use candlewick::text::Tokenizer;

const TEXTS: u32 = 40;
const TOKENS: usize = 200;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(path) = std::env::args().skip(1).find(|a| a.ends_with(".gguf")) else {
        return Ok(()); // `cargo test` runs it without a file
    };
    let gguf = Gguf::open(Path::new(&path), true)?;
    let tokenizer = Tokenizer::from_gguf(&gguf.metadata)?;
    let n = tokenizer.vocab_size();
    let begun = Instant::now();
    let grammars = Arc::new(Grammars::new(token_table(&tokenizer))?);
    println!("vocabulary of {n}: sorted in {:?}", begun.elapsed());
    let person = r#"{"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer","minimum":0},
        "tags":{"type":"array","items":{"type":"string","maxLength":20}},"born":{"type":"string","format":"date"}},
        "required":["name","age","tags","born"],"additionalProperties":false}"#;
    for (name, constraint) in [
        ("schema of a person", Constraint::Schema(person.into())),
        ("any JSON", Constraint::Schema("true".into())),
        ("words", Constraint::Regex("[a-z]+( [a-z]+){99}".into())),
        ("numbers", Constraint::Regex("([0-9]{3,5}, )*[0-9]+".into())),
        (
            "sums",
            Constraint::Lark(
                "start: e\ne: t ((\"+\"|\"-\") t)*\nt: /[0-9]+/ | \"(\" e \")\"".into(),
            ),
        ),
    ] {
        let mut times: Vec<Duration> = Vec::new();
        let mut calls = Vec::new();
        let mut random = 1u64;
        for _ in 0..TEXTS {
            let begun = Instant::now();
            let mut matcher = grammars.matcher(&constraint, true)?;
            calls.push(begun.elapsed());
            for left in (0..TOKENS).rev() {
                let mut logits = vec![0.0f32; n];
                let begun = Instant::now();
                matcher.mask(&mut logits);
                let masked = begun.elapsed();
                let allowed: Vec<u32> = (0..n as u32)
                    .filter(|&id| logits[id as usize] == 0.0)
                    .collect();
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let mut id = allowed[(random >> 33) as usize % allowed.len()];
                let begun = Instant::now();
                if !matcher.fits(id, left) {
                    id = matcher.toward_end(left + 1).unwrap_or(id);
                }
                matcher.push(id)?;
                times.push(masked + begun.elapsed());
                if matcher.is_done() {
                    break;
                }
            }
        }
        let first = calls[0];
        calls.sort();
        times.sort();
        let mean = times.iter().sum::<Duration>() / times.len() as u32;
        println!(
            "{name}: a token median {:?}, mean {mean:?}, 99 of 100 below {:?}, at most {:?}; a call {first:?}, then {:?}",
            times[times.len() / 2],
            times[times.len() * 99 / 100],
            times[times.len() - 1],
            calls[calls.len() / 2],
        );
    }
    Ok(())
}
