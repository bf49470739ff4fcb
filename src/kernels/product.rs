//! The product of a tile of 16 rows with the activations of some tokens, written once for all tiers.
//!
//! For each block of the weights, in the order of the inputs:
//!
//! 1. the integer sum over the block, exactly: `isum = sum over j of scale[j] * sum of (q - offset) * a`;
//! 2. `acc = fma(d * d_a, f32(isum), acc)`, where `d` is the block's scale and `d_a` that of the activations;
//! 3. with integer mins, `acc = fma(-(dmin * d_a), f32(sum over j of min[j] * sum of a), acc)`;
//!    with a float min, `acc = fma(m * d_a, f32(sum of a), acc)`.
//!
//! `isum` stays below 2^31 for every type (133 million for Q6_K) and is rounded to f32 once. Nothing else is
//! rounded, and nothing depends on how many rows a vector has or how many tokens are computed together: the
//! bits are the same on every tier.

use std::mem::MaybeUninit;

use super::format::{Format, Min, ROWS, Scales};
use super::simd::Simd;

/// Tokens that share one unpacking of the weights: enough to make it cheap, few enough for the sums and
/// activations of a block to stay in a first-level cache of 32 kB. Measured with AVX512-VNNI (Zen 5): 2 % more products
/// than with 32, and 1 % fewer than with 128.
pub(super) const TOKENS: usize = 64;

/// Bytes between the weights in use and those fetched into the first and second-level cache.
const NEAR: usize = 4 << 10;
const FAR: usize = 16 << 10;

/// One tile of weights and the activations of up to [`TOKENS`] tokens.
#[derive(Clone, Copy)]
pub(super) struct Job {
    /// Blocks of 16 rows, `n_blocks` of them.
    pub weights: *const u8,
    pub n_blocks: usize,
    /// Quantized activations: (inputs / chunk, stride, chunk) i8, where a chunk is 64 or the whole block, from the
    /// first token of the job on. In this order the tokens of a sub-block stream past the weights that are in
    /// registers, and 16 tokens of a chunk are a tile of AMX.
    pub quants: *const i8,
    /// (blocks, stride) f32
    pub scales: *const f32,
    /// Sums of 16 and of 32 quants: (blocks, stride, block / 16) and (blocks, stride, block / 32) i16.
    pub sums16: *const i16,
    pub sums32: *const i16,
    /// Tokens that the activations have, and those to compute.
    pub stride: usize,
    pub n: usize,
    /// Where the first row of the first token goes, and floats from one token to the next.
    pub out: *mut f32,
    pub out_stride: usize,
}

/// Computes `job`, which has one token.
///
/// # Safety
/// As for [`Simd`], and the pointers of `job` cover what its numbers say.
#[inline(always)]
pub(super) unsafe fn one<S: Simd, F: Format>(job: &Job) {
    // SAFETY: the caller's.
    unsafe {
        let parts = ROWS / S::ROWS;
        let mut acc = [S::zero(); PARTS];
        for b in 0..job.n_blocks {
            let x = Block::new::<F>(job, b, 1);
            let mut isum = [S::int_zero(); PARTS];
            // Measured with AVX2, as shares of a plain read: 0.84 vector by vector and 0.93 otherwise for Q4_K and Q5_K,
            // whose quants are used in the order in which they lie, but 0.9 and 0.77 for Q6_K; with AVX512-VNNI, where
            // all rows are one vector, 0.82 and 0.95 for Q6_K.
            if F::PER == 16 && !S::PAIRS {
                for (h, isum) in isum.iter_mut().enumerate().take(parts) {
                    block::<S, F>(&x, h, isum);
                }
            } else {
                one_token::<S, F, 0, 1>(&x, &mut isum);
                if F::BLOCK == 256 {
                    one_token::<S, F, 2, 3>(&x, &mut isum);
                    one_token::<S, F, 4, 5>(&x, &mut isum);
                    one_token::<S, F, 6, 7>(&x, &mut isum);
                }
            }
            for (h, acc) in acc.iter_mut().enumerate().take(parts) {
                finish::<S, F>(&x, h, job, b * job.stride, &isum[h], acc);
            }
        }
        for (h, &acc) in acc.iter().enumerate().take(parts) {
            S::store(job.out.add(h * S::ROWS), acc);
        }
    }
}

/// Computes `job`, which has up to [`TOKENS`] tokens.
///
/// # Safety
/// As for [`one`].
#[inline(always)]
pub(super) unsafe fn many<S: Simd, F: Format>(job: &Job) {
    debug_assert!(job.n <= TOKENS);
    // Only what the tokens and vectors of this job need is ever written and read: clearing all of it for each tile took
    // one part in twenty of a prompt's time.
    let mut acc = [const { MaybeUninit::<S::Float>::uninit() }; PARTS * TOKENS];
    let mut isum = [const { MaybeUninit::<S::Int>::uninit() }; TOKENS];
    let acc = acc.as_mut_ptr().cast::<S::Float>();
    let isum = isum.as_mut_ptr().cast::<S::Int>();
    // SAFETY: the caller's, and the arrays have room for every token of every vector.
    unsafe {
        let parts = ROWS / S::ROWS;
        for i in 0..parts * job.n {
            acc.add(i).write(S::zero());
        }
        for b in 0..job.n_blocks {
            let x = Block::new::<F>(job, b, job.n);
            for h in 0..parts {
                block::<S, F>(&x, h, isum);
                finish::<S, F>(&x, h, job, b * job.stride, isum, acc.add(h * job.n));
            }
        }
        for h in 0..parts {
            for t in 0..job.n {
                let out = job.out.add(t * job.out_stride + h * S::ROWS);
                S::store(out, *acc.add(h * job.n + t));
            }
        }
    }
}

/// Vectors of the 16 rows at most: the narrowest have four rows.
const PARTS: usize = 4;

/// One block of the rows, and the activations that it meets.
pub(super) struct Block {
    pub weights: *const u8,
    pub quants: *const i8,
    pub stride: usize,
    pub scales: Scales,
    pub n: usize,
}

impl Block {
    /// Block `b` of the rows of `job`, and its first `n` tokens.
    #[inline(always)]
    pub(super) unsafe fn new<F: Format>(job: &Job, b: usize, n: usize) -> Self {
        // SAFETY: the caller's: there are more than `b` blocks.
        unsafe {
            let weights = job.weights.add(b * F::BYTES);
            Self {
                weights,
                quants: job.quants.add(b * job.stride * F::BLOCK),
                stride: job.stride,
                scales: F::scales(weights),
                n,
            }
        }
    }

    /// The integer scales of vector `h` for group `g` of sub-block `sub`.
    #[inline(always)]
    unsafe fn scale<S: Simd, F: Format>(&self, h: usize, sub: usize, g: usize) -> S::Scale {
        let j = if F::PER == 16 { 2 * sub + g / 4 } else { sub };
        // SAFETY: the caller's; a vector's rows are among the 16.
        unsafe { S::scale(self.scales.scale[j].as_ptr().add(h * S::ROWS)) }
    }
}

/// Fetches part `i` of `n` of what comes after the block.
#[inline(always)]
pub(super) unsafe fn prefetch<S: Simd, F: Format>(block: *const u8, i: usize, n: usize) {
    let lines = F::BYTES.div_ceil(64);
    for line in lines * i / n..lines * (i + 1) / n {
        let p = block.wrapping_add(line * 64);
        // SAFETY: the caller's; any address may be fetched.
        unsafe { S::prefetch(p.wrapping_add(NEAR), p.wrapping_add(FAR)) };
    }
}

/// The largest weight that [`Simd::dot`] or [`Simd::dot_wide`] meets.
#[inline(always)]
fn max_weight<S: Simd, F: Format>() -> i32 {
    match (F::WIDE, S::WIDE_BIAS) {
        (false, _) => F::MAX,
        (true, 0) => 128,
        (true, _) => 255,
    }
}

/// Groups under one scale whose products are summed before it is applied, and what no such sum exceeds.
#[inline(always)]
fn run<S: Simd, F: Format>() -> (usize, i32) {
    let max = max_weight::<S, F>();
    let n = S::together(max).min(if F::PER == 16 { 4 } else { 8 });
    (n, 4 * n as i32 * 127 * max)
}

#[inline(always)]
unsafe fn dot<S: Simd, F: Format>(sum: S::Sum, w: S::Bytes, a: S::Inputs) -> S::Sum {
    // SAFETY: the caller's.
    unsafe {
        if F::WIDE {
            S::dot_wide(sum, w, a)
        } else {
            S::dot(sum, w, a)
        }
    }
}

/// Adds the products of 64 inputs of one token: sub-blocks `A` and `B`, which often share bytes.
#[inline(always)]
unsafe fn one_token<S: Simd, F: Format, const A: usize, const B: usize>(
    x: &Block,
    isum: &mut [S::Int; PARTS],
) {
    // SAFETY: the caller's.
    unsafe {
        let n_subs = if F::BLOCK == 32 { 1 } else { 2 };
        prefetch::<S, F>(x.weights, A / 2, F::BLOCK.div_ceil(64));
        // Other pairs share bytes too. Were the compiler to see that, it would keep them in more registers than there are.
        let weights = std::hint::black_box(x.weights);
        let a = x.quants.add(A * 32 * x.stride);
        let parts = ROWS / S::ROWS;
        let (n, bound) = run::<S, F>();
        let mut from = 0;
        while from < 8 {
            let mut sums = [[S::sum_zero(); PARTS]; 2];
            for g in from..from + n {
                let inputs = [
                    S::inputs(a.add(4 * g)),
                    S::inputs(a.add(32 * (n_subs - 1) + 4 * g)),
                ];
                for h in 0..parts {
                    let part = weights.add(4 * h * S::ROWS);
                    sums[0][h] = dot::<S, F>(sums[0][h], F::unpack::<S, A>(part, g), inputs[0]);
                    if n_subs == 2 {
                        sums[1][h] = dot::<S, F>(sums[1][h], F::unpack::<S, B>(part, g), inputs[1]);
                    }
                }
            }
            for (h, isum) in isum.iter_mut().enumerate().take(parts) {
                *isum = S::scaled(*isum, sums[0][h], bound, x.scale::<S, F>(h, A, from));
                if n_subs == 2 {
                    *isum = S::scaled(*isum, sums[1][h], bound, x.scale::<S, F>(h, B, from));
                }
            }
            from += n;
        }
    }
}

/// The integer sums of a block with the rows of vector `h`: `isum` is (x.n).
#[inline(always)]
unsafe fn block<S: Simd, F: Format>(x: &Block, h: usize, isum: *mut S::Int) {
    // SAFETY: the caller's.
    unsafe {
        if F::BLOCK == 32 {
            sub_blocks::<S, F, 0, 1>(x, h, isum);
        } else if S::PAIRS {
            sub_blocks::<S, F, 0, 2>(x, h, isum);
            sub_blocks::<S, F, 2, 2>(x, h, isum);
            sub_blocks::<S, F, 4, 2>(x, h, isum);
            sub_blocks::<S, F, 6, 2>(x, h, isum);
        } else {
            sub_blocks::<S, F, 0, 1>(x, h, isum);
            sub_blocks::<S, F, 1, 1>(x, h, isum);
            sub_blocks::<S, F, 2, 1>(x, h, isum);
            sub_blocks::<S, F, 3, 1>(x, h, isum);
            sub_blocks::<S, F, 4, 1>(x, h, isum);
            sub_blocks::<S, F, 5, 1>(x, h, isum);
            sub_blocks::<S, F, 6, 1>(x, h, isum);
            sub_blocks::<S, F, 7, 1>(x, h, isum);
        }
    }
}

/// Adds the products of the 32 inputs of each of `N` sub-blocks from `FIRST` on with the rows of vector `h`; the first of
/// a block sets `isum`.
#[inline(always)]
unsafe fn sub_blocks<S: Simd, F: Format, const FIRST: usize, const N: usize>(
    x: &Block,
    h: usize,
    isum: *mut S::Int,
) {
    // SAFETY: the caller's.
    unsafe {
        // A block is gone through once for each vector. Fetches are spread over all of it: memory is never idle.
        let passes = F::BLOCK / 32 / N;
        let (pass, passes) = (h * passes + FIRST / N, ROWS / S::ROWS * passes);
        let chunk = F::BLOCK.min(64);
        let a = x
            .quants
            .add(FIRST * 32 / chunk * x.stride * chunk + FIRST * 32 % chunk);
        // Unpacked once, and in registers for all tokens.
        let part = x.weights.add(4 * h * S::ROWS);
        let mut w = [[S::load(part); 8]; N];
        for g in 0..8 {
            prefetch::<S, F>(x.weights, 8 * pass + g, 8 * passes);
            for (i, w) in w.iter_mut().enumerate() {
                w[g] = match i {
                    0 => F::unpack::<S, FIRST>(part, g),
                    _ => unpack_next::<S, F, FIRST>(part, g),
                };
            }
        }
        let (n, bound) = run::<S, F>();
        let mut t = 0;
        while S::TWO && t + 2 <= x.n {
            let a = [a.add(t * chunk), a.add((t + 1) * chunk)];
            two_tokens::<S, F, FIRST>(x, h, w[0], a, isum.add(t));
            t += 2;
        }
        for t in t..x.n {
            let a = a.add(t * chunk);
            let isum = isum.add(t);
            let mut acc = if FIRST == 0 { S::int_zero() } else { *isum };
            for (i, w) in w.iter().enumerate() {
                let mut from = 0;
                while from < 8 {
                    let mut sum = S::sum_zero();
                    for g in from..from + n {
                        sum = dot::<S, F>(sum, w[g], S::inputs(a.add(32 * i + 4 * g)));
                    }
                    acc = S::scaled(acc, sum, bound, x.scale::<S, F>(h, FIRST + i, from));
                    from += n;
                }
            }
            isum.write(acc);
        }
    }
}

/// [`Format::unpack`] of the sub-block after `SUB`, an even one.
#[inline(always)]
unsafe fn unpack_next<S: Simd, F: Format, const SUB: usize>(part: *const u8, g: usize) -> S::Bytes {
    // SAFETY: the caller's.
    unsafe {
        match SUB {
            0 => F::unpack::<S, 1>(part, g),
            2 => F::unpack::<S, 3>(part, g),
            4 => F::unpack::<S, 5>(part, g),
            _ => F::unpack::<S, 7>(part, g),
        }
    }
}

/// Adds the products of two tokens by [`Simd::dot_two`]; the first sub-block of a block sets `isum`.
#[inline(always)]
unsafe fn two_tokens<S: Simd, F: Format, const SUB: usize>(
    x: &Block,
    h: usize,
    w: [S::Bytes; 8],
    a: [*const i8; 2],
    isum: *mut S::Int,
) {
    // SAFETY: the caller's.
    unsafe {
        let bound = 32 * 127 * max_weight::<S, F>();
        let mut acc = [S::int_zero(); 2];
        if SUB > 0 {
            acc = [*isum, *isum.add(1)];
        }
        let mut add = |sums: [S::Sum; 2], g| {
            let scale = x.scale::<S, F>(h, SUB, g);
            for (acc, sum) in acc.iter_mut().zip(sums) {
                *acc = S::scaled(*acc, sum, bound, scale);
            }
        };
        if F::PER == 16 {
            let [w0, w1, w2, w3, w4, w5, w6, w7] = w;
            add(S::dot_two([w0, w1, w2, w3], a), 0);
            add(S::dot_two([w4, w5, w6, w7], a.map(|a| a.add(16))), 4);
        } else {
            add(S::dot_two(w, a), 0);
        }
        isum.write(acc[0]);
        isum.add(1).write(acc[1]);
    }
}

/// Takes the offset off the sums of a block, `isum`, and adds them as floats to `acc`, (x.n) each. `first` is where the
/// block's first token stands in the scales of `job`.
#[inline(always)]
pub(super) unsafe fn finish<S: Simd, F: Format>(
    x: &Block,
    h: usize,
    job: &Job,
    first: usize,
    isum: *const S::Int,
    acc: *mut S::Float,
) {
    // SAFETY: the caller's.
    unsafe {
        let row = h * S::ROWS;
        let offset = if F::WIDE { S::WIDE_BIAS } else { F::OFFSET };
        let n_sums = if F::PER == 16 { 16 } else { F::BLOCK / 32 };
        let sums = if F::PER == 16 { job.sums16 } else { job.sums32 };
        let d = x.weights.add(F::D).cast::<u16>();
        let scale = S::load_f16(d.add(row));
        let min = if F::MIN == Min::None {
            S::zero()
        } else {
            S::load_f16(d.add(ROWS + row))
        };
        let factors = if F::MIN == Min::Integer {
            &x.scales.min
        } else {
            &x.scales.scale
        };
        let mut pairs = [S::pair(factors[0].as_ptr(), factors[0].as_ptr()); 8];
        for (j, pair) in pairs.iter_mut().enumerate().take(n_sums / 2) {
            *pair = S::pair(
                factors[2 * j].as_ptr().add(row),
                factors[2 * j + 1].as_ptr().add(row),
            );
        }
        let weighted = |sums: *const i16| {
            let mut sum = S::int_zero();
            for (j, &pair) in pairs.iter().enumerate().take(n_sums / 2) {
                sum = S::dot_pair(sum, pair, sums.add(2 * j));
            }
            sum
        };
        for t in 0..x.n {
            let sums = sums.add((first + t) * n_sums);
            let d_a = S::splat(*job.scales.add(first + t));
            let mut isum = *isum.add(t);
            if offset != 0 {
                isum = if F::PER == 0 {
                    S::sub_times(isum, offset, S::int_splat(i32::from(*sums)))
                } else {
                    S::sub_times(isum, offset, weighted(sums))
                };
            }
            let to = acc.add(t);
            let acc = S::fma(S::mul(scale, d_a), S::to_float(isum), *to);
            *to = match F::MIN {
                Min::None => acc,
                Min::Integer => S::fnma(S::mul(min, d_a), S::to_float(weighted(sums)), acc),
                Min::Float => S::fma(S::mul(min, d_a), S::splat(f32::from(*sums)), acc),
            };
        }
    }
}

/// One tile of float weights, (cols, 16), and the inputs of some tokens, (n, stride) f32.
#[derive(Clone, Copy)]
pub(super) struct FloatJob {
    pub weights: *const u8,
    pub cols: usize,
    pub inputs: *const f32,
    pub stride: usize,
    pub n: usize,
    /// As in [`Job`].
    pub out: *mut f32,
    pub out_stride: usize,
}

/// A type of float weights.
pub(super) trait FloatFormat {
    const SIZE: usize;
    /// `S::ROWS` weights at `p`.
    unsafe fn load<S: Simd>(p: *const u8) -> S::Float;
}

pub(super) struct F32;
pub(super) struct F16;
pub(super) struct Bf16;

impl FloatFormat for F32 {
    const SIZE: usize = 4;

    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const u8) -> S::Float {
        // SAFETY: the caller's.
        unsafe { S::load_f32(p.cast()) }
    }
}

impl FloatFormat for F16 {
    const SIZE: usize = 2;

    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const u8) -> S::Float {
        // SAFETY: the caller's.
        unsafe { S::load_f16(p.cast()) }
    }
}

impl FloatFormat for Bf16 {
    const SIZE: usize = 2;

    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const u8) -> S::Float {
        // SAFETY: the caller's.
        unsafe { S::load_bf16(p.cast()) }
    }
}

/// Computes `job`, four tokens at a time: `acc = fma(w, x, acc)` in the order of the inputs.
///
/// # Safety
/// As for [`tile`].
#[inline(always)]
pub(super) unsafe fn float_tile<S: Simd, W: FloatFormat>(job: &FloatJob) {
    // SAFETY: the caller's.
    unsafe {
        let mut t = 0;
        while t + 4 <= job.n {
            float_tokens::<S, W, 4>(job, t);
            t += 4;
        }
        while t < job.n {
            float_tokens::<S, W, 1>(job, t);
            t += 1;
        }
    }
}

#[inline(always)]
unsafe fn float_tokens<S: Simd, W: FloatFormat, const T: usize>(job: &FloatJob, t: usize) {
    // SAFETY: the caller's.
    unsafe {
        let parts = ROWS / S::ROWS;
        let x = job.inputs.add(t * job.stride);
        let mut acc = [[S::zero(); T]; 4];
        for k in 0..job.cols {
            let w = job.weights.add(k * ROWS * W::SIZE);
            if T == 1 && k % 2 == 0 {
                S::prefetch(w.wrapping_add(NEAR), w.wrapping_add(FAR));
            }
            for (h, acc) in acc.iter_mut().enumerate().take(parts) {
                let w = W::load::<S>(w.add(h * S::ROWS * W::SIZE));
                for (i, acc) in acc.iter_mut().enumerate() {
                    *acc = S::fma(w, S::splat(*x.add(i * job.stride + k)), *acc);
                }
            }
        }
        for (h, acc) in acc.iter().enumerate().take(parts) {
            for (i, &acc) in acc.iter().enumerate() {
                S::store(job.out.add((t + i) * job.out_stride + h * S::ROWS), acc);
            }
        }
    }
}
