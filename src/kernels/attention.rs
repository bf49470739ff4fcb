//! Attention with an online softmax (arXiv:2205.14135) over pages of keys and values: no matrix of scores.
//!
//! For each query, page after page: scores `s[j] = sum over d, in order, of q[d] * k[j][d]`; `m' = max(m, max s)`;
//! `p[j] = exp(s[j] - m')`; `l = l * exp(m - m') + sum p`, in 16 lanes; `acc[d] = acc[d] * exp(m - m')`, and then
//! `acc[d] = fma(p[j], v[j][d], acc[d])` in the order of j. The result is `acc / l`. Pages lie at fixed positions,
//! so a prompt's chunks, and whether many queries or one are computed together, change no bit.
//!
//! With q8_0 pages a score is the sum over groups of 32 dimensions, `s = fma(scale, sum of q[d] * k[d], s)`, and a
//! value is weighted with `p * scale`.

use super::math::{exp, sum16};
use super::pages::{
    F16, F32, Kv, KvFormat, LANES, PAGE, PageLayout, Q8, Q8Unpacked, unpack, unpacked_len,
};
use super::simd::Simd;

/// Queries that are multiplied together.
const QUERIES: usize = 4;

/// The queries of some neighbouring heads of keys and values for some tokens.
pub(super) struct Attend {
    pub layout: PageLayout,
    /// Position of the first page of [`Scratch::heads`], a multiple of [`PAGE`].
    pub first: usize,
    /// Position of the first token; there are `n`.
    pub start: usize,
    pub n: usize,
    /// Keys each query sees, itself included.
    pub window: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Query heads that share the keys of one.
    pub group: usize,
    /// (n, stride) f32, from the first of the query heads on: rotated, and divided by sqrt(head_dim).
    pub queries: *const f32,
    /// (n, out_stride) f32, likewise.
    pub out: *mut f32,
    pub stride: usize,
    pub out_stride: usize,
}

/// Memory of one thread, kept from step to step.
#[derive(Default)]
pub(super) struct Scratch {
    /// The first head's part of each page, from that of position [`Attend::first`] on; the others lie behind it.
    pub heads: Vec<*const u8>,
    /// A token's vector after a norm, or a row of weights.
    pub row: Vec<f32>,
    /// A tile of weights that have no kernel of their own, (cols, 16).
    pub tile: Vec<f32>,
    // A page as f32, in the layout of F32
    page: Vec<f32>,
    // (kv_heads, rows, dim)
    acc: Vec<f32>,
    // (kv_heads, rows) maximum and sum so far
    max: Vec<f32>,
    sum: Vec<f32>,
}

// SAFETY: the pointers are written by the thread that has the scratch, before it uses them.
unsafe impl Send for Scratch {}

/// Computes `x`.
///
/// # Safety
/// As for [`Simd`]; the pointers cover what the numbers say, and nobody writes the pages or reads `out` meanwhile.
#[inline(always)]
pub(super) unsafe fn attend<S: Simd>(x: &Attend, scratch: &mut Scratch) {
    // SAFETY: the caller's.
    unsafe {
        match x.layout.format {
            KvFormat::F32 => run::<S, F32, F32>(x, scratch),
            KvFormat::F16 => run::<S, F16, F32>(x, scratch),
            KvFormat::Q8 => run::<S, Q8, Q8Unpacked>(x, scratch),
        }
    }
}

/// Pages are `K`, and unpacked to `U` where several queries use them.
#[inline(always)]
unsafe fn run<S: Simd, K: Kv, U: Kv>(x: &Attend, scratch: &mut Scratch) {
    let (dim, rows) = (x.layout.dim(), x.n * x.group);
    let all = x.kv_heads * rows;
    scratch.acc.clear();
    scratch.acc.resize(all * dim, 0.0);
    scratch.max.clear();
    scratch.max.resize(all, f32::NEG_INFINITY);
    scratch.sum.clear();
    scratch.sum.resize(all, 0.0);
    let several = rows > 1 && K::FORMAT != KvFormat::F32;
    if several {
        scratch.page.resize(unpacked_len(dim), 0.0);
    }
    let Scratch {
        heads,
        page,
        acc,
        max,
        sum,
        ..
    } = scratch;
    for (i, &first) in heads.iter().enumerate() {
        let at = x.first + i * PAGE;
        // Of the page, what the last query sees.
        let filled = (x.start + x.n - at).min(PAGE);
        for h in 0..x.kv_heads {
            let head = first.wrapping_add(h * x.layout.bytes());
            let next = if h + 1 < x.kv_heads {
                head.wrapping_add(x.layout.bytes())
            } else {
                heads.get(i + 1).copied().unwrap_or(head)
            };
            let part = Part {
                x,
                at,
                head: h,
                row: 0,
                dim,
                next,
            };
            let (acc, max, sum) = (
                &mut acc[h * rows * dim..],
                &mut max[h * rows..],
                &mut sum[h * rows..],
            );
            // SAFETY: the caller's, and `page` has the layout of a head's part in F32.
            unsafe {
                if several {
                    unpack::<S, K>(head, dim, filled, page.as_mut_ptr());
                    let page = page.as_ptr().cast();
                    let mut row = 0;
                    while row + QUERIES <= rows {
                        rows_of_page::<S, U, QUERIES, 1, 2>(
                            &Part { row, ..part },
                            page,
                            &mut acc[row * dim..],
                            &mut max[row..],
                            &mut sum[row..],
                        );
                        row += QUERIES;
                    }
                    one_by_one::<S, U>(&part, page, row..rows, acc, max, sum);
                } else {
                    one_by_one::<S, K>(&part, head, 0..rows, acc, max, sum);
                }
            }
        }
    }
    for i in 0..all {
        let (h, row) = (i / rows, i % rows);
        let (t, g) = (row / x.group, h * x.group + row % x.group);
        // SAFETY: the caller's.
        let out = unsafe {
            let at = x.out.add(t * x.out_stride + g * x.layout.head_dim);
            std::slice::from_raw_parts_mut(at, x.layout.head_dim)
        };
        for (out, acc) in out.iter_mut().zip(&acc[i * dim..]) {
            *out = acc / sum[i];
        }
    }
}

/// Single queries against a page.
#[inline(always)]
unsafe fn one_by_one<S: Simd, K: Kv>(
    part: &Part,
    head: *const u8,
    rows: std::ops::Range<usize>,
    acc: &mut [f32],
    max: &mut [f32],
    sum: &mut [f32],
) {
    for row in rows {
        // SAFETY: the caller's.
        unsafe {
            rows_of_page::<S, K, 1, 4, 4>(
                &Part { row, ..*part },
                head,
                &mut acc[row * part.dim..],
                &mut max[row..],
                &mut sum[row..],
            );
        }
    }
}

/// Some queries and one page.
#[derive(Clone, Copy)]
struct Part<'a> {
    x: &'a Attend,
    at: usize,
    head: usize,
    row: usize,
    dim: usize,
    next: *const u8,
}

/// `R` queries against a page, `B` blocks of positions and `T` vectors of dimensions at a time.
#[inline(always)]
unsafe fn rows_of_page<S: Simd, K: Kv, const R: usize, const B: usize, const T: usize>(
    part: &Part,
    head: *const u8,
    acc: &mut [f32],
    max: &mut [f32],
    sum: &mut [f32],
) {
    let &Part { x, at, row, .. } = part;
    // Keys that each query sees, as positions of the page.
    let mut visible = [(0, 0); R];
    let (mut from, mut to) = (PAGE, 0);
    for (r, visible) in visible.iter_mut().enumerate() {
        let position = x.start + (row + r) / x.group;
        let first = (position + 1).saturating_sub(x.window).saturating_sub(at);
        let end = (position + 1).saturating_sub(at).min(PAGE);
        *visible = (first, end);
        if first < end {
            (from, to) = (from.min(first), to.max(end));
        }
    }
    if from >= to {
        return;
    }
    let (from, to) = (from / LANES, to.div_ceil(LANES));
    let mut scores = [[0.0f32; PAGE]; R];
    // SAFETY: the caller's.
    unsafe {
        let mut q = [x.queries; R];
        for (r, q) in q.iter_mut().enumerate() {
            let (t, g) = (
                (row + r) / x.group,
                part.head * x.group + (row + r) % x.group,
            );
            *q = x.queries.add(t * x.stride + g * x.layout.head_dim);
        }
        let mut b = from;
        while b + B <= to {
            key_products::<S, K, R, B>(part, head, &q, b, &mut scores);
            b += B;
        }
        while b < to {
            key_products::<S, K, R, 1>(part, head, &q, b, &mut scores);
            b += 1;
        }
    }
    let mut fades = [1.0f32; R];
    for r in 0..R {
        fades[r] = softmax_step(&mut scores[r], visible[r], &mut max[r], &mut sum[r]);
    }
    // SAFETY: the caller's.
    unsafe {
        let range = (from * LANES, to * LANES);
        let values = Values {
            part,
            head,
            weights: &scores,
            fades: &fades,
            range,
        };
        let d = values.add::<S, K, T>(0, acc);
        // Where a vector is wide, four of them leave a part of many heads over.
        let d = values.add::<S, K, 2>(d, acc);
        values.add::<S, K, 1>(d, acc);
    }
}

/// Scores of `R` queries for the 16 `B` positions of blocks `b` on.
#[inline(always)]
unsafe fn key_products<S: Simd, K: Kv, const R: usize, const B: usize>(
    part: &Part,
    head: *const u8,
    q: &[*const f32; R],
    b: usize,
    scores: &mut [[f32; PAGE]; R],
) {
    // SAFETY: the caller's.
    unsafe {
        let head_dim = part.x.layout.head_dim;
        let mut acc = [[[S::zero(); 4]; B]; R];
        let group = if K::SCALED { 32 } else { head_dim };
        // The next page's keys are not where the hardware would look for them.
        let ahead = part.x.layout.half_bytes() / head_dim;
        for first in (0..head_dim).step_by(group) {
            let mut sums = if K::SCALED {
                [[[S::zero(); 4]; B]; R]
            } else {
                acc
            };
            for d in first..head_dim.min(first + group) {
                if R == 1 && B > 1 {
                    let line = part.next.wrapping_add(d * ahead);
                    S::prefetch(line, line.wrapping_add(64));
                }
                for i in 0..B {
                    for h in 0..LANES / S::ROWS {
                        let key = K::key::<S>(head, part.dim, b + i, d, h);
                        for r in 0..R {
                            sums[r][i][h] = S::fma(S::splat(*q[r].add(d)), key, sums[r][i][h]);
                        }
                    }
                }
            }
            for i in 0..B {
                for h in 0..LANES / S::ROWS {
                    let scale = K::key_scale::<S>(head, part.dim, b + i, first / 32, h);
                    for r in 0..R {
                        let sum = sums[r][i][h];
                        acc[r][i][h] = if K::SCALED {
                            S::fma(scale, sum, acc[r][i][h])
                        } else {
                            sum
                        };
                    }
                }
            }
        }
        for r in 0..R {
            for i in 0..B {
                for h in 0..LANES / S::ROWS {
                    S::store(
                        scores[r].as_mut_ptr().add((b + i) * LANES + h * S::ROWS),
                        acc[r][i][h],
                    );
                }
            }
        }
    }
}

/// Turns scores into weights, zero where a key is not visible; returns what the sums so far are multiplied with.
#[inline(always)]
fn softmax_step(
    scores: &mut [f32; PAGE],
    visible: (usize, usize),
    max: &mut f32,
    sum: &mut f32,
) -> f32 {
    let (from, to) = visible;
    if from >= to {
        scores.fill(0.0);
        return 1.0;
    }
    scores[..from].fill(f32::NEG_INFINITY);
    scores[to..].fill(f32::NEG_INFINITY);
    let mut lanes = [f32::NEG_INFINITY; 16];
    for s in scores.chunks_exact(16) {
        for (lane, &s) in lanes.iter_mut().zip(s) {
            *lane = if s > *lane { s } else { *lane };
        }
    }
    let new = lanes.into_iter().fold(*max, f32::max);
    let fade = if *max == f32::NEG_INFINITY {
        0.0
    } else {
        exp(*max - new)
    };
    let mut lanes = [0.0f32; 16];
    for s in scores.chunks_exact_mut(16) {
        for s in s.iter_mut() {
            *s = exp(*s - new);
        }
    }
    scores[..from].fill(0.0);
    scores[to..].fill(0.0);
    for s in scores.chunks_exact(16) {
        for (lane, s) in lanes.iter_mut().zip(s) {
            *lane += s;
        }
    }
    *max = new;
    *sum = *sum * fade + sum16(&lanes);
    fade
}

/// The values of positions `range` of a page, and what they are weighted with.
struct Values<'a, const R: usize> {
    part: &'a Part<'a>,
    head: *const u8,
    weights: &'a [[f32; PAGE]; R],
    fades: &'a [f32; R],
    range: (usize, usize),
}

impl<const R: usize> Values<'_, R> {
    /// Adds them to `acc`, `T` vectors of dimensions at a time from `d` on; returns where fewer than that are left.
    #[inline(always)]
    unsafe fn add<S: Simd, K: Kv, const T: usize>(&self, mut d: usize, acc: &mut [f32]) -> usize {
        while d + T * S::ROWS <= self.part.dim {
            // SAFETY: the caller's.
            unsafe {
                value_sums::<S, K, R, T>(
                    self.part,
                    self.head,
                    self.weights,
                    self.fades,
                    self.range,
                    d,
                    acc,
                );
            }
            d += T * S::ROWS;
        }
        d
    }
}

/// Adds the weighted values of positions `range` to `T` vectors of dimensions from `d` on.
#[inline(always)]
unsafe fn value_sums<S: Simd, K: Kv, const R: usize, const T: usize>(
    part: &Part,
    head: *const u8,
    weights: &[[f32; PAGE]; R],
    fades: &[f32; R],
    range: (usize, usize),
    d: usize,
    acc: &mut [f32],
) {
    let dim = part.dim;
    // SAFETY: the caller's; `acc` has R rows of `dim`.
    unsafe {
        let at = acc.as_mut_ptr().add(d);
        let mut sums = [[S::zero(); T]; R];
        for r in 0..R {
            for i in 0..T {
                sums[r][i] = S::mul(
                    S::load_f32(at.add(r * dim + i * S::ROWS)),
                    S::splat(fades[r]),
                );
            }
        }
        // The values behind the keys of the next page, a part of them for each vector of dimensions.
        let half = part.x.layout.half_bytes();
        let ahead = half * T * S::ROWS / (dim * PAGE);
        let mut line = part.next.wrapping_add(half + d * half / dim);
        for position in range.0..range.1 {
            if R == 1 {
                S::prefetch(line, line.wrapping_add(64));
                line = line.wrapping_add(ahead);
            }
            let mut scaled = [S::zero(); R];
            for i in 0..T {
                // T vectors begin at a multiple of their width, so a group begins with a vector.
                if i * S::ROWS % 32 == 0 {
                    for r in 0..R {
                        let weight = weights[r][position];
                        scaled[r] = S::splat(if K::SCALED {
                            weight * K::value_scale(head, dim, position, (d + i * S::ROWS) / 32)
                        } else {
                            weight
                        });
                    }
                }
                let value = K::value::<S>(head, dim, position, d + i * S::ROWS);
                for r in 0..R {
                    sums[r][i] = S::fma(scaled[r], value, sums[r][i]);
                }
            }
        }
        for r in 0..R {
            for i in 0..T {
                S::store(at.add(r * dim + i * S::ROWS), sums[r][i]);
            }
        }
    }
}
