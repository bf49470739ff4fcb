//! The steps of a forward pass on all threads: what an engine calls.
//!
//! Work is handed out in items that do not depend on how many threads there are, and no sum crosses an item.

use std::mem::MaybeUninit;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::activations::{Activations, InputKind, Writer};
use super::attention::{Attend, Scratch};
use super::format::ROWS;
use super::isa::Isa;
use super::matrix::Matrix;
use super::pages::{PAGE, PageLayout};
use super::pool::Pool;
use super::product::{FloatJob, Job, TOKENS};
use super::tier::{MOST_TOKENS, Tier};
use crate::error::Result;
use crate::gguf::GgmlType;

/// Bytes of weights that a thread takes at a time: enough that the hand-over does not show, few enough that
/// threads end together.
const WORK: usize = 512 << 10;

/// Tokens whose queries a thread takes at a time.
const QUERY_TOKENS: usize = 32;

/// Heads of keys and values that a single query goes through side by side: their parts of a page lie one behind the
/// other. Measured with benches/attention.rs (Zen 3, context 3500, share of a plain read): one head 0.80 for f16 and
/// 0.77 for q8_0, four 0.93 and 0.84, eight 0.94 and 0.90.
const HEADS: usize = 8;

/// A tier of kernels, the threads that run them, and their memory.
pub struct Compute {
    isa: Isa,
    tier: Tier,
    pool: Pool,
    scratch: Vec<Mutex<Scratch>>,
}

/// Weights of a norm.
#[derive(Debug, Clone)]
pub struct Norm {
    /// (d)
    pub weight: Vec<f32>,
    /// (d) of LayerNorm; RMSNorm has none.
    pub bias: Option<Vec<f32>>,
    /// Keeps the divisor above zero.
    pub eps: f32,
}

/// Shape of the heads of one attention step.
#[derive(Debug, Clone, Copy)]
pub struct Heads {
    /// Query heads.
    pub n_heads: usize,
    /// Heads of keys and values; divides `n_heads`.
    pub n_kv_heads: usize,
    /// How a page stores a head.
    pub layout: PageLayout,
    /// Keys each query sees, itself included; `usize::MAX` is all.
    pub window: usize,
}

impl Heads {
    fn dim(&self) -> usize {
        self.layout.head_dim
    }

    /// Bytes of a layer's part of a page.
    pub fn page_bytes(&self) -> usize {
        self.n_kv_heads * self.layout.bytes()
    }
}

/// Pages of one layer of one sequence: the layer's part of each, from that of position `first` on.
#[derive(Clone, Copy)]
pub struct Pages<'a> {
    parts: &'a [*mut u8],
    first: usize,
}

impl<'a> Pages<'a> {
    /// # Safety
    /// Each part has [`Heads::page_bytes`] bytes that stay valid as long as this does. Nobody else uses those that are
    /// written to, and nobody changes the others, meanwhile.
    /// `first` is a multiple of [`PAGE`].
    pub unsafe fn new(parts: &'a [*mut u8], first: usize) -> Self {
        debug_assert!(first.is_multiple_of(PAGE));
        Self { parts, first }
    }
}

/// A pointer that several threads may use, each for its own part.
#[derive(Clone, Copy)]
struct Shared<T>(*mut T);

// SAFETY: who touches what is said where it is used.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn get(&self) -> *mut T {
        self.0
    }
}

impl Compute {
    /// Kernels of `isa`, which this CPU has, on `n_threads` threads, the caller's among them.
    pub fn new(isa: Isa, n_threads: usize) -> Self {
        Self {
            isa,
            tier: Tier::of(isa),
            pool: Pool::new(n_threads),
            scratch: (0..n_threads).map(|_| Mutex::default()).collect(),
        }
    }

    /// The tier in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Threads that take part.
    pub fn n_threads(&self) -> usize {
        self.pool.n_threads()
    }

    /// Copies `rows`, a matrix's bytes in the file's order, into its tiles.
    pub fn pack(&self, matrix: &mut Matrix, rows: &[u8]) -> Result<()> {
        let (n_tiles, per) = (matrix.n_tiles(), WORK.div_ceil(matrix.tile_bytes.max(1)));
        let packer = matrix.packer();
        self.pool.run(n_tiles.div_ceil(per), &|_, i| {
            for tile in i * per..n_tiles.min((i + 1) * per) {
                // SAFETY: the matrix is borrowed mutably, and each tile belongs to one item.
                unsafe { packer.pack(tile, rows) };
            }
        })
    }

    /// `x w^T`: (n, cols) x (rows, cols) to columns `first` to `first + rows` of `out`, (n, width).
    pub fn matmul(
        &self,
        w: &Matrix,
        x: &Activations,
        out: &mut [f32],
        first: usize,
        width: usize,
    ) -> Result<()> {
        assert!(x.kind == w.input() && x.k == w.cols);
        assert!(out.len() == x.n * width && first + w.rows <= width);
        let n_tiles = w.n_tiles();
        // Small matrices are still shared out evenly.
        let per = (WORK / w.tile_bytes.max(1)).clamp(1, n_tiles.div_ceil(8).max(1));
        let to = Shared(out.as_mut_ptr());
        let product = (self.tier.product)(w.ty);
        // What has no kernel is multiplied as f32, a tile at a time.
        let has_kernel = Matrix::supports(w.ty);
        let float_product =
            (self.tier.float_product)(if has_kernel { w.ty } else { GgmlType::F32 });
        let tokens = product.map_or(TOKENS, |product| product.tokens);
        self.pool.run(n_tiles.div_ceil(per), &|worker, i| {
            let mut scratch = (!has_kernel).then(|| self.scratch(worker));
            for tile in i * per..n_tiles.min((i + 1) * per) {
                let weights = match scratch.as_deref_mut() {
                    None => w.tile(tile).as_ptr(),
                    Some(Scratch { row, tile: to, .. }) => {
                        w.dequantize_tile(tile, row, to);
                        to.as_ptr().cast()
                    }
                };
                let rows = ROWS.min(w.rows - tile * ROWS);
                for t in (0..x.n).step_by(tokens) {
                    let n = tokens.min(x.n - t);
                    // SAFETY: column `first + tile * ROWS` of token `t` lies within `out`.
                    let place = unsafe { to.get().add(t * width + first + tile * ROWS) };
                    // The last tile's rows beyond the matrix have no place in `out`.
                    let mut last = MaybeUninit::<[f32; ROWS * MOST_TOKENS]>::uninit();
                    let (out, out_stride) = if rows == ROWS {
                        (place, width)
                    } else {
                        (last.as_mut_ptr().cast(), ROWS)
                    };
                    // SAFETY: the tier is available; the tile, the inputs of tokens t to t + n and the outputs of
                    // this tile are within their buffers, and no other item has the same outputs.
                    unsafe {
                        if let Some(product) = float_product {
                            product(&FloatJob {
                                weights,
                                cols: w.cols,
                                inputs: x.floats.as_ptr().add(t * x.k),
                                stride: x.k,
                                n,
                                out,
                                out_stride,
                            });
                        } else if let Some(product) = product {
                            let (block, chunk) = (x.kind.block(), x.kind.chunk());
                            let product = if n == 1 { product.one } else { product.many };
                            product(&Job {
                                weights,
                                n_blocks: w.n_blocks,
                                quants: x.quants.as_ptr().add(t * chunk),
                                scales: x.scales.as_ptr().add(t),
                                sums16: x.sums16.as_ptr().add(t * (block / 16)),
                                sums32: x.sums32.as_ptr().add(t * (block / 32)),
                                stride: x.n,
                                n,
                                out,
                                out_stride,
                            });
                        }
                        if rows < ROWS {
                            let last = last.as_ptr().cast::<f32>();
                            for i in 0..n {
                                let out = place.add(i * width);
                                out.copy_from_nonoverlapping(last.add(i * ROWS), rows);
                            }
                        }
                    }
                }
            }
        })
    }

    fn scratch(&self, worker: usize) -> MutexGuard<'_, Scratch> {
        self.scratch[worker]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `task` with a worker and each of `n` tokens, on all threads if there are several.
    fn each_token(&self, n: usize, task: &(dyn Fn(usize, usize) + Sync)) -> Result<()> {
        if n == 1 {
            task(0, 0);
            return Ok(());
        }
        self.pool.run(n, task)
    }

    /// `x += y`, (n, d) each, where d is y's length if that is less than x's: a bias for every token.
    pub fn add(&self, x: &mut [f32], y: &[f32], d: usize) -> Result<()> {
        let n = x.len() / d;
        let x = Shared(x.as_mut_ptr());
        self.each_token(n, &|_, t| {
            let y = if y.len() == d {
                y
            } else {
                &y[t * d..(t + 1) * d]
            };
            // SAFETY: the tier is available, and row t of x belongs to this call.
            unsafe {
                let x = std::slice::from_raw_parts_mut(x.get().add(t * d), d);
                (self.tier.add)(x, y);
            }
        })
    }

    /// `x += y` where there is a `y`, and then the norm of x as the next product wants it; (n, d) each.
    pub fn norm(
        &self,
        x: &mut [f32],
        y: Option<&[f32]>,
        norm: &Norm,
        kind: InputKind,
        to: &mut Activations,
    ) -> Result<()> {
        let d = norm.weight.len();
        let n = x.len() / d;
        to.reset(kind, n, d);
        let (x, writer) = (Shared(x.as_mut_ptr()), to.writer());
        self.each_token(n, &|worker, t| {
            // SAFETY: row t of x, and its place in `to`, belong to this call.
            let x = unsafe { std::slice::from_raw_parts_mut(x.get().add(t * d), d) };
            let mut scratch = self.scratch(worker);
            let normed = &mut scratch.row;
            normed.resize(d, 0.0);
            // SAFETY: the tier is available, and as above.
            unsafe {
                if let Some(y) = y {
                    (self.tier.add)(x, &y[t * d..(t + 1) * d]);
                }
                match &norm.bias {
                    None => (self.tier.rms_norm)(x, &norm.weight, norm.eps, normed),
                    Some(bias) => (self.tier.layer_norm)(x, &norm.weight, bias, norm.eps, normed),
                }
                (self.tier.quantize)(&writer, t, 0, normed);
            }
        })
    }

    /// (n, k) f32 as the next product wants it.
    pub fn prepare(
        &self,
        x: &[f32],
        k: usize,
        kind: InputKind,
        to: &mut Activations,
    ) -> Result<()> {
        let n = x.len() / k;
        to.reset(kind, n, k);
        let writer = to.writer();
        self.each_token(n, &|_, t| {
            // SAFETY: the tier is available; the token's place in `to` belongs to this call.
            unsafe { (self.tier.quantize)(&writer, t, 0, &x[t * k..(t + 1) * k]) }
        })
    }

    /// `silu(gate) * up` of (n, 2 ff), the gate and then the values, or `gelu` of (n, ff); as the next product wants it.
    pub fn activate(
        &self,
        x: &[f32],
        ff: usize,
        gated: bool,
        kind: InputKind,
        to: &mut Activations,
    ) -> Result<()> {
        // Whole blocks of every kind.
        const PART: usize = 1024;
        let width = if gated { 2 * ff } else { ff };
        let n = x.len() / width;
        to.reset(kind, n, ff);
        let writer: Writer = to.writer();
        let parts = ff.div_ceil(PART);
        self.pool.run(n * parts, &|_, i| {
            let (t, from) = (i / parts, i % parts * PART);
            let end = ff.min(from + PART);
            let (gate, up) = x[t * width..(t + 1) * width].split_at(ff);
            // SAFETY: the tier is available; these inputs' place in `to` belongs to this item.
            unsafe {
                if gated {
                    (self.tier.silu_mul)(&gate[from..end], &up[from..end], &writer, t, from);
                } else {
                    (self.tier.gelu)(&gate[from..end], &writer, t, from);
                }
            }
        })
    }

    /// Rotates queries and keys of `qkv`, (n, (n_heads + 2 n_kv_heads) head_dim), divides the queries by
    /// sqrt(head_dim), and stores keys and values at positions `start` on. `cos` and `sin` are (n, rope_dim / 2).
    pub fn rotate_and_store(
        &self,
        qkv: &mut [f32],
        heads: &Heads,
        start: usize,
        (cos, sin): (&[f32], &[f32]),
        pages: Pages,
    ) -> Result<()> {
        let dim = heads.dim();
        let width = (heads.n_heads + 2 * heads.n_kv_heads) * dim;
        let n = qkv.len() / width;
        assert!(
            pages.first <= start && (start + n - pages.first).div_ceil(PAGE) <= pages.parts.len()
        );
        let half = cos.len() / n;
        let scale = 1.0 / (dim as f32).sqrt();
        let (qkv, parts) = (
            Shared(qkv.as_mut_ptr()),
            Shared(pages.parts.as_ptr().cast_mut()),
        );
        self.each_token(n, &|_, t| {
            // SAFETY: row t, and position start + t of the pages, belong to this call.
            let row = unsafe { std::slice::from_raw_parts_mut(qkv.get().add(t * width), width) };
            let (cos, sin) = (
                &cos[t * half..(t + 1) * half],
                &sin[t * half..(t + 1) * half],
            );
            let (queries, rest) = row.split_at_mut(heads.n_heads * dim);
            let (keys, values) = rest.split_at_mut(heads.n_kv_heads * dim);
            let at = start + t - pages.first;
            // SAFETY: the tier is available; the page is one of `parts`, and a head's part lies within it.
            unsafe {
                for head in queries.chunks_exact_mut(dim) {
                    (self.tier.rotate)(head, cos, sin, scale);
                }
                let page = *parts.get().add(at / PAGE);
                for (h, (key, value)) in keys
                    .chunks_exact_mut(dim)
                    .zip(values.chunks_exact(dim))
                    .enumerate()
                {
                    (self.tier.rotate)(key, cos, sin, 1.0);
                    let head = page.add(h * heads.layout.bytes());
                    (self.tier.write_kv)(&heads.layout, head, at % PAGE, key, value);
                }
            }
        })
    }

    /// Attention of the queries of `qkv`, of positions `start` on, over the pages: (n, n_heads head_dim) to `out`.
    pub fn attend(
        &self,
        qkv: &[f32],
        heads: &Heads,
        start: usize,
        pages: Pages,
        out: &mut [f32],
    ) -> Result<()> {
        let dim = heads.dim();
        let width = (heads.n_heads + 2 * heads.n_kv_heads) * dim;
        let n = qkv.len() / width;
        assert!(pages.first <= start && out.len() == n * heads.n_heads * dim);
        let group = heads.n_heads / heads.n_kv_heads;
        let groups = n.div_ceil(QUERY_TOKENS);
        let (to, parts) = (
            Shared(out.as_mut_ptr()),
            Shared(pages.parts.as_ptr().cast_mut()),
        );
        // A single query goes through the pages of several heads side by side, which lie one behind the other.
        let side_by_side = if n == 1 {
            (heads.n_kv_heads / (2 * self.n_threads())).clamp(1, HEADS)
        } else {
            1
        };
        let items = heads.n_kv_heads.div_ceil(side_by_side);
        self.pool.run(items * groups, &|worker, i| {
            let (head, from) = (i / groups * side_by_side, i % groups * QUERY_TOKENS);
            let kv_heads = side_by_side.min(heads.n_kv_heads - head);
            let n = QUERY_TOKENS.min(n - from);
            let position = start + from;
            // The first page that the first of these queries sees.
            let first = (position + 1).saturating_sub(heads.window).max(pages.first) / PAGE * PAGE;
            let skip = (first - pages.first) / PAGE;
            let count = (position + n - first).div_ceil(PAGE);
            let mut scratch = self.scratch(worker);
            scratch.heads.clear();
            // SAFETY: `count` pages from `skip` on are among `parts`; the queries and outputs of this head and these
            // tokens are within their buffers, and no other item has the same outputs.
            unsafe {
                for page in 0..count {
                    let part = *parts.get().add(skip + page);
                    let head: *const u8 = part.add(head * heads.layout.bytes());
                    scratch.heads.push(head);
                }
                let job = Attend {
                    layout: heads.layout,
                    first,
                    start: position,
                    n,
                    window: heads.window,
                    kv_heads,
                    group,
                    queries: qkv.as_ptr().add(from * width + head * group * dim),
                    out: to.get().add((from * heads.n_heads + head * group) * dim),
                    stride: width,
                    out_stride: heads.n_heads * dim,
                };
                (self.tier.attend)(&job, &mut scratch);
            }
        })
    }
}
