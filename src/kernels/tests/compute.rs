use super::product::{FLOAT, Fill, QUANTIZED, Scale, blocks, float_weights};
use super::{Rng, assert_same_bits, tiers};
use crate::gguf::{GgmlType, dequantize};
use crate::kernels::activations::{Activations, InputKind};
use crate::kernels::compute::{Compute, Heads, Norm, Pages};
use crate::kernels::isa::Isa;
use crate::kernels::matrix::Matrix;
use crate::kernels::pages::{KvFormat, PAGE, PageLayout};
use crate::kernels::tier::MOST_TOKENS;

/// Runs `step` on each tier with 1, 2 and 3 threads, and compares with scalar on one, which is returned.
fn everywhere(what: &str, step: impl Fn(&Compute) -> Vec<f32>) -> Vec<f32> {
    let expected = step(&Compute::new(Isa::Scalar, 1));
    for (isa, _) in tiers() {
        for n_threads in [1, 2, 3] {
            let got = step(&Compute::new(isa, n_threads));
            let what = format!("{} {what} on {n_threads} threads", isa.name());
            assert_same_bits(&got, &expected, &what);
        }
    }
    expected
}

/// What a token gets alone is what it gets among others.
#[test]
fn products_on_threads() {
    let mut rng = Rng(11);
    for ty in QUANTIZED.into_iter().chain(FLOAT) {
        let quantized = QUANTIZED.contains(&ty);
        for rows in [1, 15, 17, 40] {
            let cols = if quantized { 512 } else { 19 };
            let file = if quantized {
                let n = rows * cols / ty.block_len() as usize;
                blocks(&mut rng, ty, n, Fill::Random, Scale::Are(0.013, -0.004))
            } else {
                float_weights(&mut rng, ty, rows * cols)
            };
            let x = rng.floats(33 * cols);
            let mut weights = vec![0.0; rows * cols];
            dequantize(ty, &file, &mut weights);
            let out = everywhere(&format!("{} {rows} x {cols}", ty.name()), |compute| {
                let mut w = Matrix::allocate(ty, rows, cols).unwrap();
                compute.pack(&mut w, &file).unwrap();
                let mut inputs = Activations::default();
                compute.prepare(&x, cols, w.input(), &mut inputs).unwrap();
                let mut out = vec![f32::NAN; 33 * rows];
                compute.matmul(&w, &inputs, &mut out, 0, rows).unwrap();
                let last = &x[32 * cols..];
                compute.prepare(last, cols, w.input(), &mut inputs).unwrap();
                let mut alone = vec![f32::NAN; rows];
                compute.matmul(&w, &inputs, &mut alone, 0, rows).unwrap();
                assert_same_bits(&alone, &out[32 * rows..], &"the last token alone");
                out
            });
            // Every number is where it should be: inputs below 1 are rounded by at most 1 / 254.
            for (out, x) in out.chunks_exact(rows).zip(x.chunks_exact(cols)) {
                for (got, w) in out.iter().zip(weights.chunks_exact(cols)) {
                    let terms = || w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x));
                    let size: f64 = w.iter().map(|w| f64::from(w.abs())).sum();
                    let error = (f64::from(*got) - terms().sum::<f64>()).abs();
                    assert!(error <= size / 250.0 + 0.1, "{} {error}", ty.name());
                }
            }
        }
    }
}

/// A tier that takes many tokens together has a full turn, a part of one that is no multiple of 16, and a last tile
/// whose rows are not all there.
#[test]
fn products_of_more_tokens_than_a_tier_takes_together() {
    let mut rng = Rng(14);
    let (n, rows, cols) = (MOST_TOKENS + 53, 20, 512);
    for ty in [GgmlType::Q4_K, GgmlType::Q6_K, GgmlType::Q8_0] {
        let file = blocks(
            &mut rng,
            ty,
            rows * cols / ty.block_len() as usize,
            Fill::Random,
            Scale::Are(0.013, -0.004),
        );
        let x = rng.floats(n * cols);
        everywhere(&format!("{} of {n} tokens", ty.name()), |compute| {
            let mut w = Matrix::allocate(ty, rows, cols).unwrap();
            compute.pack(&mut w, &file).unwrap();
            let mut inputs = Activations::default();
            compute.prepare(&x, cols, w.input(), &mut inputs).unwrap();
            let mut out = vec![f32::NAN; n * rows];
            compute.matmul(&w, &inputs, &mut out, 0, rows).unwrap();
            out
        });
    }
}

#[test]
fn norms_and_activations_on_threads() {
    let mut rng = Rng(12);
    let (n, d) = (5, 1280);
    let (x, y, weight) = (rng.floats(n * d), rng.floats(n * d), rng.floats(d));
    let gates = rng.floats(n * 2 * d);
    let as_floats = |x: &Activations| {
        let quants = x.quants.iter().map(|&q| f32::from(q));
        let sums = x.sums16.iter().chain(&x.sums32).map(|&s| f32::from(s));
        let all = x.floats.iter().chain(&x.scales).copied();
        all.chain(quants).chain(sums).collect::<Vec<_>>()
    };
    for kind in [InputKind::Float, InputKind::Block32, InputKind::Block256] {
        for bias in [None, Some(gates[..d].to_vec())] {
            let norm = Norm {
                weight: weight.clone(),
                bias,
                eps: 1e-5,
            };
            everywhere(
                &format!("norm {kind:?} {}", norm.bias.is_some()),
                |compute| {
                    let (mut x, mut to) = (x.clone(), Activations::default());
                    compute
                        .norm(&mut x, Some(&y), &norm, kind, &mut to)
                        .unwrap();
                    x.extend(as_floats(&to));
                    x
                },
            );
        }
        for gated in [true, false] {
            everywhere(&format!("activate {kind:?} {gated}"), |compute| {
                let mut to = Activations::default();
                let gates = if gated { &gates } else { &x };
                compute.activate(gates, d, gated, kind, &mut to).unwrap();
                as_floats(&to)
            });
        }
    }
}

#[test]
fn attention_on_threads() {
    let mut rng = Rng(13);
    // Five heads: with few threads a single query takes two at once, and one is left.
    let (n_heads, n_kv_heads, head_dim, rope) = (15, 5, 24, 10);
    let width = (n_heads + 2 * n_kv_heads) * head_dim;
    // 33 and 70: a chunk of queries is 32.
    let steps = [33, 1, 70, 1];
    let total: usize = steps.iter().sum();
    let (qkv, cos, sin) = (
        rng.floats(total * width),
        rng.floats(total * rope),
        rng.floats(total * rope),
    );
    for format in [KvFormat::F32, KvFormat::F16, KvFormat::Q8] {
        for window in [usize::MAX, 40] {
            let layout = PageLayout { format, head_dim };
            let heads = Heads {
                n_heads,
                n_kv_heads,
                layout,
                window,
            };
            everywhere(
                &format!("attention {format:?}, window {window}"),
                |compute| {
                    let mut memory = vec![vec![0u8; heads.page_bytes()]; total.div_ceil(PAGE)];
                    let parts: Vec<_> = memory.iter_mut().map(|page| page.as_mut_ptr()).collect();
                    let (mut all, mut start) = (Vec::new(), 0);
                    for n in steps {
                        // Pages that no query sees any more are let go.
                        let first = (start + 1usize).saturating_sub(window) / PAGE * PAGE;
                        // SAFETY: the pages live as long as this, and this is the only user.
                        let pages = unsafe { Pages::new(&parts[first / PAGE..], first) };
                        let mut qkv = qkv[start * width..(start + n) * width].to_vec();
                        let angles = (
                            &cos[start * rope..(start + n) * rope],
                            &sin[start * rope..(start + n) * rope],
                        );
                        compute
                            .rotate_and_store(&mut qkv, &heads, start, angles, pages)
                            .unwrap();
                        let mut out = vec![f32::NAN; n * n_heads * head_dim];
                        compute
                            .attend(&qkv, &heads, start, pages, &mut out)
                            .unwrap();
                        all.extend(out);
                        start += n;
                    }
                    all
                },
            );
        }
    }
}

#[test]
fn every_type_with_kernels_is_tested() {
    for id in 0..64 {
        if let Some(ty) = GgmlType::from_id(id) {
            let tested = QUANTIZED.contains(&ty) || FLOAT.contains(&ty);
            assert_eq!(Matrix::supports(ty), tested, "{}", ty.name());
        }
    }
}
