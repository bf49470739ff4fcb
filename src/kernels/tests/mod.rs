//! Every tier that this CPU has against the plain one, bit for bit, and the plain one against f64.
//!
//! Operands lie against forbidden pages ([`guard`]). A tier that the CPU lacks is named on stderr; where
//! `CANDLEWICK_TEST_TIERS` lists tiers (`avx512,avx512vnni`), those must be there.

mod attention;
mod compute;
mod guard;
mod ops;
mod product;

use std::io::Write;
use std::sync::Once;

use super::isa::Isa;
use super::tier::Tier;

/// The tiers to test, the plain one first.
fn tiers() -> Vec<(Isa, Tier)> {
    static SAID: Once = Once::new();
    let available = Isa::available();
    assert_eq!(available[0], Isa::Scalar);
    SAID.call_once(|| {
        let names = |there: bool| {
            let isas = Isa::ALL
                .iter()
                .filter(|isa| available.contains(isa) == there);
            isas.map(|isa| isa.name()).collect::<Vec<_>>().join(", ")
        };
        // Unlike `eprintln!`, not held back when the tests pass.
        let line = format!(
            "kernels tested: {}; NOT tested, not here: {}\n",
            names(true),
            names(false)
        );
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        let wanted = std::env::var("CANDLEWICK_TEST_TIERS").unwrap_or_default();
        for name in wanted.split(',').filter(|name| !name.is_empty()) {
            assert!(
                available.iter().any(|isa| isa.name() == name),
                "CANDLEWICK_TEST_TIERS wants {name}, which is not here"
            );
        }
    });
    available
        .into_iter()
        .map(|isa| (isa, Tier::of(isa)))
        .collect()
}

fn scalar() -> Tier {
    Tier::of(Isa::Scalar)
}

/// Half of f32's distance from 1 to the next number: the largest relative error of one rounding.
const U: f64 = 1.0 / (1u64 << 24) as f64;

#[track_caller]
fn assert_same_bits(got: &[f32], expected: &[f32], what: &dyn std::fmt::Display) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (a, b)) in got.iter().zip(expected).enumerate() {
        assert!(
            a.to_bits() == b.to_bits(),
            "{what}: number {i} is {a:e}, expected {b:e}"
        );
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014): the same numbers on every machine.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// -1 to 1.
    fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }
}
