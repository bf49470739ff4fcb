//! Attention with an online softmax (arXiv:2205.14135) over pages of keys and values: no matrix of scores.
//!
//! For each query, page after page: scores `s[j] = sum over d, in order, of q[d] * k[j][d]`; `m' = max(m, max s)`;
//! `p[j] = exp(s[j] - m')`; `l = l * exp(m - m') + sum p`, in 16 lanes; `acc[d] = acc[d] * exp(m - m')`, and then
//! `acc[d] = fma(p[j], v[j][d], acc[d])` in the order of j. The result is `acc / l`. Pages lie at fixed positions,
//! so a prompt's chunks, and whether many queries or one are computed together, change no bit.

use super::math::{exp, sum16};
use super::pages::{F16, F32, Kv, KvFormat, LANES, PAGE, PageLayout, Q8};
use super::simd::Simd;

/// Queries that are multiplied together.
const QUERIES: usize = 4;

/// The queries of one head of keys and values for some tokens.
pub(super) struct Attend {
    pub layout: PageLayout,
    /// Position of the first page of [`Scratch::heads`], a multiple of [`PAGE`].
    pub first: usize,
    /// Position of the first token; there are `n`.
    pub start: usize,
    pub n: usize,
    /// Keys each query sees, itself included.
    pub window: usize,
    /// Query heads that share these keys.
    pub group: usize,
    /// (n, stride) f32, from the first head of the group on: rotated, and divided by sqrt(head_dim).
    pub queries: *const f32,
    /// (n, out_stride) f32, likewise.
    pub out: *mut f32,
    pub stride: usize,
    pub out_stride: usize,
}

/// Memory of one thread, kept from step to step.
#[derive(Default)]
pub(super) struct Scratch {
    /// The head's part of each page, from that of position [`Attend::first`] on.
    pub heads: Vec<*const u8>,
    // A page as f32, in the layout of F32
    page: Vec<f32>,
    // (rows, dim)
    acc: Vec<f32>,
    // (rows) maximum and sum so far
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
            KvFormat::F32 => run::<S, F32>(x, scratch),
            KvFormat::F16 => run::<S, F16>(x, scratch),
            KvFormat::Q8 => run::<S, Q8>(x, scratch),
        }
    }
}

#[inline(always)]
unsafe fn run<S: Simd, K: Kv>(x: &Attend, scratch: &mut Scratch) {
    let (dim, rows) = (x.layout.dim(), x.n * x.group);
    scratch.acc.clear();
    scratch.acc.resize(rows * dim, 0.0);
    scratch.max.clear();
    scratch.max.resize(rows, f32::NEG_INFINITY);
    scratch.sum.clear();
    scratch.sum.resize(rows, 0.0);
    let unpack = rows > 1 && K::FORMAT != KvFormat::F32;
    if unpack {
        scratch.page.resize(2 * PAGE * dim, 0.0);
    }
    let Scratch {
        heads,
        page,
        acc,
        max,
        sum,
    } = scratch;
    for (i, &head) in heads.iter().enumerate() {
        let at = x.first + i * PAGE;
        // Of the page, what the last query sees.
        let filled = (x.start + x.n - at).min(PAGE);
        // SAFETY: the caller's, and `page` has the layout of a head's part in F32.
        unsafe {
            let next = heads.get(i + 1).copied().unwrap_or(head);
            if unpack {
                unpack_page::<S, K>(head, dim, filled, page);
            }
            let mut row = 0;
            while row < rows {
                let n = QUERIES.min(rows - row);
                let part = Part {
                    x,
                    at,
                    row,
                    dim,
                    next,
                };
                let (acc, max, sum) = (&mut acc[row * dim..], &mut max[row..], &mut sum[row..]);
                if unpack {
                    let head = page.as_ptr().cast();
                    if n == QUERIES {
                        rows_of_page::<S, F32, QUERIES, 1, 2>(&part, head, acc, max, sum);
                    } else {
                        for r in 0..n {
                            let part = Part {
                                row: row + r,
                                ..part
                            };
                            let acc = &mut acc[r * dim..];
                            rows_of_page::<S, F32, 1, 4, 4>(
                                &part,
                                head,
                                acc,
                                &mut max[r..],
                                &mut sum[r..],
                            );
                        }
                    }
                } else {
                    for r in 0..n {
                        let part = Part {
                            row: row + r,
                            ..part
                        };
                        let acc = &mut acc[r * dim..];
                        rows_of_page::<S, K, 1, 4, 4>(
                            &part,
                            head,
                            acc,
                            &mut max[r..],
                            &mut sum[r..],
                        );
                    }
                }
                row += n;
            }
        }
    }
    for row in 0..rows {
        let (t, g) = (row / x.group, row % x.group);
        // SAFETY: the caller's.
        let out = unsafe {
            let at = x.out.add(t * x.out_stride + g * x.layout.head_dim);
            std::slice::from_raw_parts_mut(at, x.layout.head_dim)
        };
        for (out, acc) in out.iter_mut().zip(&acc[row * dim..]) {
            *out = acc / sum[row];
        }
    }
}

#[inline(always)]
unsafe fn unpack_page<S: Simd, K: Kv>(
    head: *const u8,
    dim: usize,
    filled: usize,
    page: &mut [f32],
) {
    let keys = page.as_mut_ptr();
    // SAFETY: `page` has room for PAGE keys and values of `dim`.
    unsafe {
        let values = keys.add(PAGE * dim);
        for b in 0..filled.div_ceil(LANES) {
            for d in 0..dim {
                for h in 0..LANES / S::ROWS {
                    let to = keys.add((b * dim + d) * LANES + h * S::ROWS);
                    S::store(to, K::key::<S>(head, dim, b, d, h));
                }
            }
        }
        for position in 0..filled {
            let mut d = 0;
            while d < dim {
                S::store(
                    values.add(position * dim + d),
                    K::value::<S>(head, dim, position, d),
                );
                d += S::ROWS;
            }
        }
        // Blocks are read whole.
        let end = filled.next_multiple_of(LANES);
        values
            .add(filled * dim)
            .write_bytes(0, (end - filled) * dim);
    }
}

/// Some queries and one page.
#[derive(Clone, Copy)]
struct Part<'a> {
    x: &'a Attend,
    at: usize,
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
    let &Part {
        x, at, row, dim, ..
    } = part;
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
            let (t, g) = ((row + r) / x.group, (row + r) % x.group);
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
        let mut d = 0;
        while d + T * S::ROWS <= dim {
            value_sums::<S, K, R, T>(
                part,
                head,
                &scores,
                &fades,
                (from * LANES, to * LANES),
                d,
                acc,
            );
            d += T * S::ROWS;
        }
        while d < dim {
            value_sums::<S, K, R, 1>(
                part,
                head,
                &scores,
                &fades,
                (from * LANES, to * LANES),
                d,
                acc,
            );
            d += S::ROWS;
        }
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
        let mut acc = [[[S::zero(); 4]; B]; R];
        for d in 0..part.x.layout.head_dim {
            if B > 1 {
                // The next page's keys: they are not where the hardware would look.
                let line = part
                    .next
                    .wrapping_add((b / B * part.x.layout.head_dim + d) * 128);
                S::prefetch(line, line.wrapping_add(64));
            }
            for i in 0..B {
                for h in 0..LANES / S::ROWS {
                    let key = K::key::<S>(head, part.dim, b + i, d, h);
                    for r in 0..R {
                        acc[r][i][h] = S::fma(S::splat(*q[r].add(d)), key, acc[r][i][h]);
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
        for position in range.0..range.1 {
            for i in 0..T {
                let value = K::value::<S>(head, dim, position, d + i * S::ROWS);
                for r in 0..R {
                    sums[r][i] = S::fma(S::splat(weights[r][position]), value, sums[r][i]);
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
