use half::f16;

use super::guard::Guarded;
use super::{Rng, U, assert_same_bits, scalar, tiers};
use crate::kernels::attention::{Attend, Scratch};
use crate::kernels::pages::{KvFormat, PAGE, PageLayout};
use crate::kernels::tier::Tier;

/// One head of keys and values, and the queries that share it.
struct Case {
    layout: PageLayout,
    group: usize,
    window: usize,
    /// Keys that are there before the first query.
    before: usize,
    /// Queries' positions.
    n: usize,
    keys: Vec<f32>,
    values: Vec<f32>,
    /// (n, stride)
    queries: Guarded<f32>,
    stride: usize,
}

impl Case {
    fn new(
        rng: &mut Rng,
        layout: PageLayout,
        group: usize,
        window: usize,
        before: usize,
        n: usize,
    ) -> Self {
        let (dim, total) = (layout.head_dim, before + n);
        // Wider than the group: another head's queries stand between.
        let stride = group * dim + 5;
        let scale = 4.0 / (dim as f32).sqrt();
        let queries = rng
            .floats(n * stride - 5)
            .iter()
            .map(|x| x * scale)
            .collect::<Vec<_>>();
        Self {
            layout,
            group,
            window,
            before,
            n,
            keys: rng.floats(total * dim).iter().map(|x| 3.0 * x).collect(),
            values: rng.floats(total * dim),
            queries: Guarded::new(&queries),
            stride,
        }
    }

    /// The pages; behind the last position stand keys and values of a longer sequence that was cut off.
    fn pages(&self, tier: &Tier) -> Vec<Guarded<u8>> {
        let (dim, total) = (self.layout.head_dim, self.before + self.n);
        let n_pages = total.div_ceil(PAGE);
        let mut pages: Vec<_> = (0..n_pages)
            .map(|_| Guarded::new(&vec![0u8; self.layout.bytes()]))
            .collect();
        let stale = vec![1e4; dim];
        for i in 0..n_pages * PAGE {
            let (key, value) = if i < total {
                (&self.keys[i * dim..][..dim], &self.values[i * dim..][..dim])
            } else {
                (&stale[..], &stale[..])
            };
            let page = pages[i / PAGE].as_mut_ptr();
            // SAFETY: the tier is available, and the page is one of the layout.
            unsafe { (tier.write_kv)(&self.layout, page, i % PAGE, key, value) };
        }
        pages
    }

    /// (n, group, dim), with so many queries at once.
    fn run(&self, tier: &Tier, pages: &[Guarded<u8>], chunks: &[usize]) -> Vec<f32> {
        let (dim, width) = (self.layout.head_dim, self.group * self.layout.head_dim);
        let mut out = Guarded::new(&vec![f32::NAN; self.n * width]);
        let mut scratch = Scratch::default();
        let mut from = 0;
        for chunk in chunks.iter().cycle() {
            let n = (*chunk).min(self.n - from);
            let start = self.before + from;
            let first = (start + 1).saturating_sub(self.window) / PAGE * PAGE;
            scratch.heads.clear();
            let seen = &pages[first / PAGE..(start + n).div_ceil(PAGE)];
            scratch.heads.extend(seen.iter().map(|page| page.as_ptr()));
            let job = Attend {
                layout: self.layout,
                first,
                start,
                n,
                window: self.window,
                kv_heads: 1,
                group: self.group,
                queries: self.queries[from * self.stride..].as_ptr(),
                out: out[from * width..].as_mut_ptr(),
                stride: self.stride,
                out_stride: self.group * dim,
            };
            // SAFETY: the tier is available, and the buffers hold what the numbers say: that is what the guards see.
            unsafe { (tier.attend)(&job, &mut scratch) };
            from += n;
            if from == self.n {
                break;
            }
        }
        out.to_vec()
    }

    /// A key or value as it is stored.
    fn stored(&self, x: &[f32]) -> Vec<f64> {
        match self.layout.format {
            KvFormat::F32 => x.iter().map(|&x| f64::from(x)).collect(),
            KvFormat::F16 => x.iter().map(|&x| f16::from_f32(x).to_f64()).collect(),
            KvFormat::Q8 => x
                .chunks(32)
                .flat_map(|x| {
                    let max = x.iter().fold(0.0f32, |max, x| max.max(x.abs()));
                    let d = f64::from(max / 127.0);
                    let scale = f64::from(127.0 / max);
                    x.iter()
                        .map(move |&x| (f64::from(x) * scale).round_ties_even() * d)
                        .collect::<Vec<_>>()
                })
                .collect(),
        }
    }

    /// Against softmax in f64. With `u` = 2^-24:
    ///
    /// - a score is a chain of `dim` fused operations, and for q8_0 each key was rounded: (dim + 1) u S for
    ///   `S = max over keys of sum |q k|`; a weight is `exp(s - m)`, where the difference is rounded (at most 2 S) and
    ///   exp is within 2 units: a relative error of at most delta = ((dim + 3) S + 4) u, doubled for its powers;
    /// - each page multiplies what was there by such a weight: pages * 2 delta and a rounding;
    /// - the weighted sum of values is a chain of at most `keys` fused operations with values that for q8_0 were
    ///   rounded; the sum of weights takes 8 + pages roundings, the division one.
    ///
    /// Numerator and denominator both have the weights' error; what is in the denominator has one sign.
    fn check(&self, got: &[f32], chunk: &str) {
        let (dim, total) = (self.layout.head_dim, self.before + self.n);
        let n_pages = total.div_ceil(PAGE);
        let rows = |x: &[f32]| {
            x.chunks_exact(dim)
                .map(|x| self.stored(x))
                .collect::<Vec<_>>()
        };
        let (keys, values) = (rows(&self.keys), rows(&self.values));
        for t in 0..self.n {
            let position = self.before + t;
            let range = (position + 1).saturating_sub(self.window)..position + 1;
            for g in 0..self.group {
                let query = &self.queries[t * self.stride + g * dim..][..dim];
                let dot = |key: &[f64], f: fn(f64) -> f64| -> f64 {
                    query
                        .iter()
                        .zip(key)
                        .map(|(q, k)| f(f64::from(*q) * k))
                        .sum()
                };
                let scores: Vec<f64> = keys[range.clone()].iter().map(|k| dot(k, |x| x)).collect();
                let sizes = keys[range.clone()].iter().map(|k| dot(k, f64::abs));
                let size = sizes.fold(0.0, f64::max);
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
                let sum: f64 = weights.iter().sum();
                let delta = 2.0 * ((dim as f64 + 3.0) * size + 4.0) * U;
                let roundings = (2 * n_pages + scores.len() + 16) as f64 * U;
                for d in 0..dim {
                    let terms = || {
                        weights
                            .iter()
                            .zip(&values[range.clone()])
                            .map(|(w, v)| w * v[d] / sum)
                    };
                    let (exact, size): (f64, f64) = (terms().sum(), terms().map(f64::abs).sum());
                    let bound = (2.0 * (1 + n_pages) as f64 * delta + roundings) * size;
                    let got = f64::from(got[(t * self.group + g) * dim + d]);
                    assert!(
                        (got - exact).abs() <= bound,
                        "{chunk}: query {t} {g} dimension {d}: {got:e}, exactly {exact:e}, bound {bound:e}"
                    );
                }
            }
        }
    }
}

#[test]
fn attention_has_the_bits_of_scalar_in_any_chunks() {
    const ALL: usize = usize::MAX;
    let mut rng = Rng(10);
    for format in [KvFormat::F32, KvFormat::F16, KvFormat::Q8] {
        for (head_dim, group, window, before, n) in [
            (8, 1, ALL, 0, 70),
            (16, 2, ALL, 3, 37),
            (24, 3, 5, 61, 8),
            (32, 1, 64, 100, 40),
            (40, 1, ALL, 63, 3),
            (48, 4, ALL, 17, 20),
            (64, 2, 1, 62, 5),
            (72, 1, 70, 64, 66),
            (80, 3, 33, 40, 30),
            (96, 1, 100, 127, 6),
            (104, 2, ALL, 64, 2),
            (112, 1, ALL, 0, 1),
            (120, 2, 65, 128, 9),
            (128, 4, ALL, 79, 1),
        ] {
            let layout = PageLayout { format, head_dim };
            let case = Case::new(&mut rng, layout, group, window, before, n);
            let shape =
                format!("{format:?} {head_dim} group {group} window {window} {before} + {n}");
            let expected = case.run(&scalar(), &case.pages(&scalar()), &[n]);
            case.check(&expected, &shape);
            for (isa, tier) in tiers() {
                let pages = case.pages(&tier);
                for chunks in [&[n][..], &[1], &[7, 1, 32, 2]] {
                    let what = format!("{} {shape} by {chunks:?}", isa.name());
                    assert_same_bits(&case.run(&tier, &pages, chunks), &expected, &what);
                }
            }
        }
    }
}
