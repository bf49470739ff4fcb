//! Law 2 over batches: what a sequence gets does not depend on what else is in the pass, bit for bit.

#[path = "tiers/files.rs"]
mod files;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candlewick::engine::{DeviceChoice, EngineKind, EngineOptions, KvType, Part, Sequence};
use candlewick::error::Error;
use candlewick::generate::{LoadOptions, Model};

fn load(path: &Path, kind: EngineKind, kv_type: Option<KvType>) -> Arc<Model> {
    let options = LoadOptions {
        path: path.to_owned(),
        tokenizer: None,
        mmap: true,
        engine: EngineOptions {
            kind,
            device: DeviceChoice::Cpu,
            n_ctx: None,
            kv_type,
            n_threads: Some(2),
        },
    };
    Model::load(&options, &mut |_, _| Ok(())).unwrap()
}

/// A sequence with all it will be given, and the logits it got.
struct Story {
    sequence: Box<dyn Sequence>,
    ids: Vec<u32>,
    at: usize,
    got: Vec<Vec<f32>>,
}

fn stories(model: &Model, rng: &mut files::Rng, lengths: &[usize]) -> Vec<Story> {
    let n_vocab = model.config.n_vocab;
    lengths
        .iter()
        .map(|&n| Story {
            sequence: model.engine.sequence().unwrap(),
            ids: (0..n).map(|_| rng.below(n_vocab) as u32).collect(),
            at: 0,
            got: Vec::new(),
        })
        .collect()
}

/// The next `n` tokens of some stories in one pass, with the logits of the last of each.
fn step(model: &Model, stories: &mut [Story], wanted: &[(usize, usize)]) {
    let mut logits = vec![Vec::new(); stories.len()];
    let mut parts = Vec::new();
    for ((i, story), logits) in stories.iter_mut().enumerate().zip(&mut logits) {
        if let Some(&(_, n)) = wanted.iter().find(|(story, _)| *story == i) {
            parts.push(Part {
                sequence: story.sequence.as_mut(),
                tokens: &story.ids[story.at..story.at + n],
                n_logits: n.min(2),
                logits,
                failed: None,
            });
        }
    }
    model.engine.forward(&mut parts, &mut || Ok(())).unwrap();
    assert!(parts.iter().all(|part| part.failed.is_none()));
    for &(i, n) in wanted {
        stories[i].at += n;
        stories[i].got.push(std::mem::take(&mut logits[i]));
    }
}

fn same_alone_and_together(path: &Path, kind: EngineKind, kv_type: Option<KvType>, seed: u64) {
    let model = load(path, kind, kv_type);
    let mut rng = files::Rng(seed);
    let lengths: Vec<usize> = (0..5).map(|_| 60 + rng.below(80)).collect();
    let mut together = stories(&model, &mut files::Rng(seed), &lengths);
    let mut plans = vec![Vec::new(); lengths.len()];
    loop {
        // Some of those that are left, each with a token or a few: they join and leave between steps.
        let mut wanted = Vec::new();
        for (i, story) in together.iter().enumerate() {
            let left = story.ids.len() - story.at;
            if left > 0 && rng.below(4) > 0 {
                let n = if rng.below(2) == 0 {
                    1
                } else {
                    1 + rng.below(30)
                };
                wanted.push((i, n.min(left)));
                plans[i].push(n.min(left));
            }
        }
        if together.iter().all(|story| story.at == story.ids.len()) {
            break;
        }
        if !wanted.is_empty() {
            step(&model, &mut together, &wanted);
        }
    }
    let mut alone = stories(&model, &mut files::Rng(seed), &lengths);
    for (i, plan) in plans.iter().enumerate() {
        for &n in plan {
            step(&model, &mut alone, &[(i, n)]);
        }
        for (k, (a, b)) in alone[i].got.iter().zip(&together[i].got).enumerate() {
            let same = a
                .iter()
                .map(|x| x.to_bits())
                .eq(b.iter().map(|x| x.to_bits()));
            assert!(
                same,
                "{} sequence {i}, step {k} of {plan:?}",
                path.display()
            );
        }
    }
}

fn models(name: &str) -> Vec<PathBuf> {
    let folder =
        std::env::temp_dir().join(format!("candlewick-batch-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let paths = vec![folder.join("q4_k_m.gguf"), folder.join("q8_0.gguf")];
    files::q4_k_m(&paths[0]);
    files::q8_0(&paths[1]);
    paths
}

#[test]
fn a_pass_gives_each_sequence_what_it_gets_alone() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden");
    let mut paths = models("same");
    // Some of its sequences begin again with the long factors in the middle of a pass.
    paths.push(golden.join("longrope-f16.gguf"));
    paths.push(golden.join("window-f16.gguf"));
    for path in paths {
        for kv_type in [KvType::F16, KvType::F32, KvType::Q8_0] {
            for seed in 0..3 {
                same_alone_and_together(&path, EngineKind::Native, Some(kv_type), seed);
            }
        }
    }
}

#[test]
fn engines_without_batches_run_one_after_the_other() {
    for path in models("candle") {
        same_alone_and_together(&path, EngineKind::Candle, None, 1);
    }
}

#[test]
fn a_part_that_fails_leaves_the_others() {
    let path = &models("failed")[0];
    let model = load(path, EngineKind::Native, None);
    let mut all = stories(&model, &mut files::Rng(1), &[10, 10]);
    let n_vocab = model.config.n_vocab;
    let too_many = vec![3u32; model.engine.n_ctx() + 1];
    let mut logits = [Vec::new(), Vec::new()];
    let [a, b] = &mut all[..] else { unreachable!() };
    let [first, second] = &mut logits;
    let mut parts = [
        Part {
            sequence: a.sequence.as_mut(),
            tokens: &too_many,
            n_logits: 1,
            logits: first,
            failed: None,
        },
        Part {
            sequence: b.sequence.as_mut(),
            tokens: &b.ids,
            n_logits: 1,
            logits: second,
            failed: None,
        },
    ];
    model.engine.forward(&mut parts, &mut || Ok(())).unwrap();
    assert!(matches!(parts[0].failed, Some(Error::Engine(_))));
    assert!(parts[1].failed.is_none());
    assert_eq!(second.len(), n_vocab);
    assert_eq!(*second, model.logits(&b.ids, 10).unwrap());
}
