use half::f16;

use super::guard::{Edge, Guarded};
use super::{Rng, U, assert_same_bits, scalar, tiers};
use crate::gguf::{GgmlType, dequantize};
use crate::kernels::format::ROWS;
use crate::kernels::matrix::Matrix;
use crate::kernels::product::{FloatJob, Job, TOKENS};
use crate::kernels::tier::{MOST_TOKENS, Tier};

pub const QUANTIZED: [GgmlType; 12] = [
    GgmlType::Q4_K,
    GgmlType::Q5_K,
    GgmlType::Q6_K,
    GgmlType::Q2_K,
    GgmlType::Q3_K,
    GgmlType::IQ4_XS,
    GgmlType::IQ4_NL,
    GgmlType::Q4_0,
    GgmlType::Q4_1,
    GgmlType::Q5_0,
    GgmlType::Q5_1,
    GgmlType::Q8_0,
];

pub const FLOAT: [GgmlType; 3] = [GgmlType::F32, GgmlType::F16, GgmlType::BF16];

/// Bytes of the file's block where its half-precision numbers are: `d`, and what stands beside it.
fn halves(ty: GgmlType) -> &'static [usize] {
    match ty {
        GgmlType::Q4_K | GgmlType::Q5_K | GgmlType::Q4_1 | GgmlType::Q5_1 => &[0, 2],
        GgmlType::Q6_K => &[208],
        GgmlType::Q2_K => &[80, 82],
        GgmlType::Q3_K => &[108],
        _ => &[0],
    }
}

/// The bytes of a block but for its halves.
#[derive(Clone, Copy, Debug)]
pub enum Fill {
    Random,
    Byte(u8),
}

/// Scales of a block.
#[derive(Clone, Copy, Debug)]
pub enum Scale {
    /// Zeros, negative, subnormal, large and ordinary ones.
    Any,
    /// `d` and what stands beside it.
    Are(f32, f32),
}

/// Blocks in the file's order.
pub fn blocks(rng: &mut Rng, ty: GgmlType, n: usize, fill: Fill, scale: Scale) -> Vec<u8> {
    let size = ty.block_bytes() as usize;
    let mut bytes = match fill {
        Fill::Random => rng.bytes(n * size),
        Fill::Byte(x) => vec![x; n * size],
    };
    for block in bytes.chunks_exact_mut(size) {
        for (i, &at) in halves(ty).iter().enumerate() {
            let half = match scale {
                Scale::Are(d, m) => f16::from_f32([d, m][i]).to_bits(),
                Scale::Any => match rng.below(8) {
                    // Zero, or minus zero.
                    0 => (rng.next() as u16) & 0x8000,
                    // Subnormal.
                    1 => (rng.next() as u16) & 0x83ff,
                    // Any finite number.
                    2 => match rng.next() as u16 {
                        x if x & 0x7c00 == 0x7c00 => x ^ 0x4000,
                        x => x,
                    },
                    _ => f16::from_f32(rng.float() * 0.01).to_bits(),
                },
            };
            block[at..at + 2].copy_from_slice(&half.to_le_bytes());
        }
    }
    bytes
}

/// Finite weights of a plain type in the file's order.
pub fn float_weights(rng: &mut Rng, ty: GgmlType, n: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..n {
        match ty {
            GgmlType::F32 => bytes.extend((rng.float() * 3.0).to_le_bytes()),
            GgmlType::F16 => {
                let x = match rng.next() as u16 {
                    x if x & 0x7c00 == 0x7c00 => x ^ 0x4000,
                    x => x,
                };
                bytes.extend(x.to_le_bytes());
            }
            _ => {
                // Exponents from -27 to 36.
                let x = (rng.next() as u16) & 0x9fff | (((100 + rng.below(64)) as u16) << 7);
                bytes.extend(x.to_le_bytes());
            }
        }
    }
    bytes
}

/// What a token's quants are.
#[derive(Clone, Copy, Debug)]
enum Quants {
    Random,
    /// All 127, all -127, and turns of both, token by token.
    Extreme,
}

/// Quantized inputs of `n` tokens, with sums that fit.
struct Inputs {
    n: usize,
    block: usize,
    quants: Guarded<i8>,
    scales: Guarded<f32>,
    sums16: Guarded<i16>,
    sums32: Guarded<i16>,
    /// (n, k), exactly.
    values: Vec<f64>,
}

impl Inputs {
    fn new(
        rng: &mut Rng,
        block: usize,
        n: usize,
        k: usize,
        quants: Quants,
        scale: Option<f32>,
    ) -> Self {
        let chunk = block.min(64);
        let mut q = vec![0i8; n * k];
        let mut scales = vec![0.0; n * k / block];
        let (mut sums16, mut sums32) = (vec![0i16; n * k / 16], vec![0i16; n * k / 32]);
        let mut values = vec![0.0; n * k];
        for t in 0..n {
            for b in 0..k / block {
                let d = scale.unwrap_or_else(|| match rng.below(8) {
                    0 => 0.0,
                    1 => 1000.0 * rng.float().abs(),
                    _ => rng.float().abs(),
                });
                scales[b * n + t] = d;
                for j in 0..block {
                    let x = match (quants, t % 3) {
                        (Quants::Random, _) => rng.below(255) as i32 - 127,
                        (Quants::Extreme, 0) => 127,
                        (Quants::Extreme, 1) => -127,
                        (Quants::Extreme, _) => 127 - 254 * (j as i32 % 2),
                    } as i8;
                    let i = b * block + j;
                    q[(i / chunk * n + t) * chunk + i % chunk] = x;
                    sums16[(b * n + t) * (block / 16) + j / 16] += i16::from(x);
                    sums32[(b * n + t) * (block / 32) + j / 32] += i16::from(x);
                    values[t * k + i] = f64::from(d) * f64::from(x);
                }
            }
        }
        Self {
            n,
            block,
            quants: Guarded::new(&q),
            scales: Guarded::new(&scales),
            sums16: Guarded::new(&sums16),
            sums32: Guarded::new(&sums32),
            values,
        }
    }
}

/// A matrix in tiles.
struct Weights {
    ty: GgmlType,
    n_tiles: usize,
    cols: usize,
    n_blocks: usize,
    bytes: Guarded<u8>,
}

impl Weights {
    fn new(ty: GgmlType, rows: usize, cols: usize, file: &[u8], edge: Edge) -> Self {
        let mut matrix = Matrix::allocate(ty, rows, cols).unwrap();
        let packer = matrix.packer();
        for i in 0..matrix.n_tiles() {
            // SAFETY: the matrix is alive, and this is the only thread.
            unsafe { packer.pack(i, file) };
        }
        let mut bytes = Vec::new();
        for i in 0..matrix.n_tiles() {
            bytes.extend(matrix.tile(i));
        }
        Self {
            ty,
            n_tiles: matrix.n_tiles(),
            cols,
            n_blocks: matrix.n_blocks,
            bytes: Guarded::at(&bytes, edge),
        }
    }

    fn tile(&self, i: usize) -> *const u8 {
        self.bytes[i * self.bytes.len() / self.n_tiles..].as_ptr()
    }
}

/// (n, 16 tiles): `step` tokens together, or as many as the kernel takes.
fn multiply(tier: &Tier, w: &Weights, x: &Inputs, step: usize) -> Vec<f32> {
    let stride = w.n_tiles * ROWS;
    let mut out = Guarded::new(&vec![f32::NAN; x.n * stride]);
    let product = (tier.product)(w.ty).unwrap();
    let step = step.min(product.tokens);
    for tile in 0..w.n_tiles {
        for t in (0..x.n).step_by(step) {
            let n = step.min(x.n - t);
            let job = Job {
                weights: w.tile(tile),
                n_blocks: w.n_blocks,
                quants: x.quants[t * x.block.min(64)..].as_ptr(),
                scales: x.scales[t..].as_ptr(),
                sums16: x.sums16[t * (x.block / 16)..].as_ptr(),
                sums32: x.sums32[t * (x.block / 32)..].as_ptr(),
                stride: x.n,
                n,
                out: out[t * stride + tile * ROWS..].as_mut_ptr(),
                out_stride: stride,
            };
            // SAFETY: the tier is available, and the buffers hold what the numbers say: that is what the guards see.
            unsafe { (if step == 1 { product.one } else { product.many })(&job) };
        }
    }
    out.to_vec()
}

fn multiply_floats(tier: &Tier, w: &Weights, x: &Guarded<f32>, n: usize) -> Vec<f32> {
    let stride = w.n_tiles * ROWS;
    let mut out = Guarded::new(&vec![f32::NAN; n * stride]);
    for tile in 0..w.n_tiles {
        for t in (0..n).step_by(TOKENS) {
            let job = FloatJob {
                weights: w.tile(tile),
                cols: w.cols,
                inputs: x[t * w.cols..].as_ptr(),
                stride: w.cols,
                n: TOKENS.min(n - t),
                out: out[t * stride + tile * ROWS..].as_mut_ptr(),
                out_stride: stride,
            };
            // SAFETY: as above.
            unsafe { (tier.float_product)(w.ty).unwrap()(&job) };
        }
    }
    out.to_vec()
}

const N_TOKENS: [usize; 8] = [1, 2, 5, 31, 32, 33, 50, 70];

#[test]
fn quantized_products_have_the_bits_of_scalar() {
    let mut rng = Rng(1);
    for ty in QUANTIZED {
        let block = ty.block_len() as usize;
        for (rows, n_blocks) in [(16, 1), (40, if block == 32 { 5 } else { 3 })] {
            for fill in [Fill::Random, Fill::Byte(0), Fill::Byte(0xff)] {
                let file = blocks(&mut rng, ty, rows * n_blocks, fill, Scale::Any);
                let edge = [Edge::End, Edge::Start][rng.below(4) / 3];
                let w = Weights::new(ty, rows, n_blocks * block, &file, edge);
                let tokens = match fill {
                    Fill::Random => &N_TOKENS[..],
                    Fill::Byte(_) => &[1, 5],
                };
                for &n in tokens {
                    let quants = match fill {
                        Fill::Random => Quants::Random,
                        Fill::Byte(_) => Quants::Extreme,
                    };
                    let x = Inputs::new(&mut rng, block, n, w.cols, quants, None);
                    let expected = multiply(&scalar(), &w, &x, 1);
                    for (isa, tier) in tiers() {
                        for step in [1, 7, TOKENS, MOST_TOKENS] {
                            let what = format!(
                                "{} {} {rows} x {}, {n} tokens by {step}, {fill:?}",
                                isa.name(),
                                ty.name(),
                                w.cols
                            );
                            let got = multiply(&tier, &w, &x, step);
                            assert_same_bits(&got, &expected, &what);
                        }
                    }
                }
            }
        }
    }
}

/// With scales of 1 and one block, nothing is rounded but the integer sum, once: also where the sums are as large
/// as they can be, 133 million for Q6_K.
#[test]
fn integer_sums_are_exact() {
    let mut rng = Rng(2);
    for ty in QUANTIZED {
        let block = ty.block_len() as usize;
        for scale in [Scale::Are(1.0, 0.0), Scale::Are(0.0, 1.0)] {
            for fill in [
                Fill::Random,
                Fill::Byte(0),
                Fill::Byte(0x7f),
                Fill::Byte(0x80),
                Fill::Byte(0xff),
            ] {
                let mut file = blocks(&mut rng, ty, ROWS, fill, scale);
                if ty == GgmlType::Q6_K && matches!(fill, Fill::Byte(0 | 0xff)) {
                    for block in file.chunks_exact_mut(210) {
                        block[192..208].fill(0x80);
                    }
                }
                let mut weights = vec![0.0; ROWS * block];
                dequantize(ty, &file, &mut weights);
                let w = Weights::new(ty, ROWS, block, &file, Edge::End);
                for quants in [Quants::Random, Quants::Extreme] {
                    // More than a matrix unit's 16.
                    let x = Inputs::new(&mut rng, block, 18, block, quants, Some(1.0));
                    let mut expected = Vec::new();
                    for t in 0..x.n {
                        for row in weights.chunks_exact(block) {
                            let values = &x.values[t * block..];
                            let sum: f64 =
                                row.iter().zip(values).map(|(w, x)| f64::from(*w) * x).sum();
                            expected.push(sum as f32);
                        }
                    }
                    if ty == GgmlType::Q6_K
                        && matches!(
                            (scale, fill, quants),
                            (Scale::Are(1.0, _), Fill::Byte(0), Quants::Extreme)
                        )
                    {
                        assert_eq!(expected[0], 133_169_152.0);
                    }
                    for (isa, tier) in tiers() {
                        for step in [1, MOST_TOKENS] {
                            for (got, expected) in
                                multiply(&tier, &w, &x, step).iter().zip(&expected)
                            {
                                // Zeros may differ in sign.
                                assert!(
                                    got == expected,
                                    "{} {} {fill:?} {scale:?} {quants:?} by {step}: {got} for {expected}",
                                    isa.name(),
                                    ty.name()
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The reference is the dequantized block times the dequantized input, in f64. With `w = s - m` (what is scaled by
/// `d`, and what by `dmin`), `S = sum |x| (|s| + |m|)` and `u` = 2^-24:
///
/// - a weight of the reference itself has up to 3 roundings in f32: 3 u S;
/// - the kernel rounds `d * d_a` and the integer sum, 2 u of each term, and each of its at most 2 fused operations a
///   block rounds a sum that stays below S: (2 + 2 blocks) u S.
///
/// No product of scales is subnormal here. Squares of `u` are covered by one more u S.
#[test]
fn scalar_is_near_f64() {
    let mut rng = Rng(3);
    for ty in QUANTIZED {
        let block = ty.block_len() as usize;
        for n_blocks in [1, 4] {
            let cols = block * n_blocks;
            let file = blocks(&mut rng, ty, ROWS * n_blocks, Fill::Random, Scale::Any);
            let w = Weights::new(ty, ROWS, cols, &file, Edge::End);
            let x = Inputs::new(&mut rng, block, 3, cols, Quants::Random, None);
            let dequantized = |zero: Option<usize>| {
                let mut file = file.clone();
                if let Some(&at) = zero.and_then(|i| halves(ty).get(i)) {
                    for block in file.chunks_exact_mut(ty.block_bytes() as usize) {
                        block[at..at + 2].fill(0);
                    }
                }
                let mut weights = vec![0.0; ROWS * cols];
                dequantize(ty, &file, &mut weights);
                weights
            };
            let weights = dequantized(None);
            let parts = [dequantized(Some(0)), dequantized(Some(1))];
            let got = multiply(&scalar(), &w, &x, TOKENS);
            for t in 0..x.n {
                for row in 0..ROWS {
                    let (mut sum, mut size) = (0.0, 0.0);
                    for k in 0..cols {
                        let value = x.values[t * cols + k];
                        let at = row * cols + k;
                        sum += f64::from(weights[at]) * value;
                        let parts: f32 = parts.iter().map(|part| part[at].abs()).sum();
                        size += f64::from(parts) * value.abs();
                    }
                    let got = f64::from(got[t * ROWS + row]);
                    let bound = (6.0 + 2.0 * n_blocks as f64) * U * size;
                    assert!(
                        (got - sum).abs() <= bound,
                        "{} row {row} token {t}: {got:e}, exactly {sum:e}, bound {bound:e}",
                        ty.name()
                    );
                }
            }
        }
    }
}

/// Float products: bits as scalar, and each of the `cols` fused operations rounds once, so the error is at most
/// `cols u S` with `S = sum |w x|` (and one more for the squares of u).
#[test]
fn float_products() {
    let mut rng = Rng(4);
    for ty in FLOAT {
        for (rows, cols) in [(16, 1), (40, 33), (16, 130)] {
            let file = float_weights(&mut rng, ty, rows * cols);
            let w = Weights::new(ty, rows, cols, &file, Edge::End);
            let mut weights = vec![0.0; rows * cols];
            dequantize(ty, &file, &mut weights);
            for n in N_TOKENS {
                let x = Guarded::new(&rng.floats(n * cols));
                let expected = multiply_floats(&scalar(), &w, &x, n);
                for (isa, tier) in tiers() {
                    let what = format!("{} {} {rows} x {cols}, {n} tokens", isa.name(), ty.name());
                    assert_same_bits(&multiply_floats(&tier, &w, &x, n), &expected, &what);
                }
                for t in 0..n {
                    for row in 0..rows {
                        let terms = || {
                            let (w, x) = (&weights[row * cols..][..cols], &x[t * cols..]);
                            w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x))
                        };
                        let size: f64 = terms().map(f64::abs).sum();
                        let error =
                            f64::from(expected[t * w.n_tiles * ROWS + row]) - terms().sum::<f64>();
                        assert!(
                            error.abs() <= (cols + 1) as f64 * U * size,
                            "{} {error:e}",
                            ty.name()
                        );
                    }
                }
            }
        }
    }
}
