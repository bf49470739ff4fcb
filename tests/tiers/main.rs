//! Law 2 over the whole engine and over CPUs: on every tier that this CPU has, the same ids and the same logits, bit
//! for bit, as were written down on x86-64 with plain code; on the best one with two threads too.
//!
//! The expectation is `tests/data/golden/tiers.txt`; where `CANDLEWICK_WRITE_GOLDEN` is set, it is written anew.
//! `CANDLEWICK_TEST_TIERS` lists tiers (`neon,dotprod`) that must be there.

mod files;

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candlewick::engine::{DeviceChoice, EngineKind, EngineOptions, KvType};
use candlewick::generate::{LoadOptions, Model, Prompt, Request};
use candlewick::kernels::Isa;
use candlewick::sample::SamplingParams;

fn load(path: &Path, isa: Isa, n_threads: usize, kv_type: KvType) -> Arc<Model> {
    // SAFETY: this program has one test, and no other thread runs while it loads a model.
    unsafe { std::env::set_var("CANDLEWICK_ISA", isa.name()) };
    let options = LoadOptions {
        path: path.to_owned(),
        tokenizer: None,
        mmap: true,
        engine: EngineOptions {
            kind: EngineKind::Native,
            device: DeviceChoice::Cpu,
            n_ctx: None,
            kv_type: Some(kv_type),
            n_threads: Some(n_threads),
        },
    };
    let model = Model::load(&options, &mut |_, _| Ok(())).unwrap();
    assert_eq!(
        (model.engine.isa(), model.engine.n_threads()),
        (isa.name(), n_threads)
    );
    model
}

fn ids(model: &Arc<Model>, prompt: &Prompt, temperature: f32) -> Vec<u32> {
    let request = Request {
        max_tokens: Some(48),
        sampling: SamplingParams {
            temperature,
            top_p: if temperature > 0.0 { 0.95 } else { 1.0 },
            ..Default::default()
        },
        ignore_eos: true,
        seed: Some(5),
        ..Default::default()
    };
    let mut stream = model.stream(prompt.clone(), request).unwrap();
    let mut ids = Vec::new();
    while let Some(token) = stream.next(&mut || Ok(())).unwrap() {
        ids.push(token.id);
    }
    ids
}

/// FNV-1a over the bits of the logits after one token and after all of a prompt, in steps of `chunk` tokens.
fn logits(model: &Model, prompt: &[u32], chunk: usize) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for n in [1, prompt.len()] {
        for x in model.logits(&prompt[..n], chunk).unwrap() {
            assert!(x.is_finite());
            for byte in x.to_bits().to_le_bytes() {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
    }
    hash
}

fn random_ids(n: usize) -> Vec<u32> {
    let mut rng = files::Rng(3);
    (0..n).map(|_| 3 + rng.below(300) as u32).collect()
}

/// What one model says, as it is written down.
fn report(name: &str, path: &Path, isa: Isa, n_threads: usize) -> String {
    let mut out = String::new();
    let text = name == "demo";
    let prompts = if text {
        vec![
            Prompt::Text("Write a haiku about ice hockey".into()),
            Prompt::Text("Write a haiku about fog".into()),
        ]
    } else {
        vec![Prompt::Ids(random_ids(100)), Prompt::Ids(vec![1, 70])]
    };
    let model = load(path, isa, n_threads, KvType::F16);
    for (i, prompt) in prompts.iter().enumerate() {
        for (how, temperature) in [("greedy", 0.0), ("sampled", 1.1)] {
            let ids = ids(&model, prompt, temperature);
            writeln!(out, "{name} {i} {how}: {ids:?}").unwrap();
        }
    }
    let prompt = random_ids(if text { 37 } else { 137 });
    for kv_type in [KvType::F16, KvType::F32, KvType::Q8_0] {
        let model = load(path, isa, n_threads, kv_type);
        let hash = logits(&model, &prompt, 128);
        writeln!(out, "{name} logits {}: {hash:016x}", kv_type.name()).unwrap();
    }
    // Law 2 for chunks, in passing.
    assert_eq!(logits(&model, &prompt, 128), logits(&model, &prompt, 7));
    out
}

#[test]
fn every_tier_gives_what_x86_gave() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let golden = root.join("tests/data/golden/tiers.txt");
    let tiers = Isa::available();
    for name in std::env::var("CANDLEWICK_TEST_TIERS")
        .unwrap_or_default()
        .split(',')
        .filter(|name| !name.is_empty())
    {
        assert!(
            tiers.iter().any(|isa| isa.name() == name),
            "CANDLEWICK_TEST_TIERS wants {name}, which is not here"
        );
    }
    let folder = std::env::temp_dir().join(format!("candlewick-tiers-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let models: [(&str, PathBuf); 3] = [
        ("demo", root.join("python/candlewick/demo.gguf")),
        ("Q4_K_M", folder.join("q4_k_m.gguf")),
        ("Q8_0", folder.join("q8_0.gguf")),
    ];
    files::q4_k_m(&models[1].1);
    files::q8_0(&models[2].1);
    let all = |isa, n_threads| -> String {
        models
            .iter()
            .map(|(name, path)| report(name, path, isa, n_threads))
            .collect()
    };
    if std::env::var_os("CANDLEWICK_WRITE_GOLDEN").is_some() {
        std::fs::write(&golden, all(Isa::Scalar, 1)).unwrap();
    }
    let expected = std::fs::read_to_string(&golden).unwrap();
    let best = *tiers.last().unwrap();
    for isa in tiers {
        for n_threads in if isa == best { 1..=2 } else { 1..=1 } {
            for (found, expected) in all(isa, n_threads).lines().zip(expected.lines()) {
                assert_eq!(found, expected, "{} on {n_threads} threads", isa.name());
            }
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
