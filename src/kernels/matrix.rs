//! A weight matrix in memory, in tiles of 16 rows, and its copy from the file.
//!
//! Types without kernels of their own stay as the file has them, and are dequantized tile by tile when they are
//! used: slower, but no larger.

use memmap2::MmapMut;

use super::activations::InputKind;
use super::format::{self, Piece, ROWS};
use crate::error::{Error, Result};
use crate::gguf::{GgmlType, dequantize};

/// Weights of (rows, cols), read-only once packed.
#[derive(Debug)]
pub struct Matrix {
    pub(super) ty: GgmlType,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) n_blocks: usize,
    pub(super) tile_bytes: usize,
    bytes: MmapMut,
}

/// Inputs of a block, and bytes of a block of 16 rows.
fn block(ty: GgmlType) -> (usize, usize) {
    (ty.block_len() as usize, ROWS * ty.block_bytes() as usize)
}

fn is_float(ty: GgmlType) -> bool {
    matches!(ty, GgmlType::F32 | GgmlType::F16 | GgmlType::BF16)
}

impl Matrix {
    /// Whether there are kernels for `ty`.
    pub fn supports(ty: GgmlType) -> bool {
        format::layout(ty).is_some() || is_float(ty)
    }

    /// Bytes that a matrix takes: those of the file, but with whole tiles.
    pub fn n_bytes(ty: GgmlType, rows: usize, cols: usize) -> usize {
        let (block, bytes) = block(ty);
        rows.div_ceil(ROWS) * (cols / block) * bytes
    }

    /// Room for a matrix, in huge pages where the system gives them: with 4 kB pages the same products reach
    /// about a tenth less.
    ///
    /// # Errors
    /// What the system says when there is no memory.
    pub fn allocate(ty: GgmlType, rows: usize, cols: usize) -> Result<Self> {
        let (block, bytes) = block(ty);
        debug_assert!(cols.is_multiple_of(block));
        let tile_bytes = cols / block * bytes;
        let map = MmapMut::map_anon((rows.div_ceil(ROWS) * tile_bytes).max(1))
            .map_err(|e| Error::Engine(format!("memory for a matrix of {rows} x {cols}: {e}")))?;
        #[cfg(target_os = "linux")]
        if map.len() >= 1 << 20 {
            // Refused where the kernel is built without them: then the pages are small.
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        Ok(Self {
            ty,
            rows,
            cols,
            n_blocks: cols / block,
            tile_bytes,
            bytes: map,
        })
    }

    /// What the products of this matrix take.
    pub fn input(&self) -> InputKind {
        match format::layout(self.ty) {
            Some((256, ..)) => InputKind::Block256,
            Some((32, ..)) => InputKind::Block32,
            _ => InputKind::Float,
        }
    }

    /// Rows: outputs of the product.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns: inputs of the product.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Tiles of 16 rows.
    pub fn n_tiles(&self) -> usize {
        self.rows.div_ceil(ROWS)
    }

    pub(super) fn tile(&self, i: usize) -> &[u8] {
        &self.bytes[i * self.tile_bytes..(i + 1) * self.tile_bytes]
    }

    /// Writes tile `i` as (cols, 16) f32 to `to`; `row` is scratch.
    pub(super) fn dequantize_tile(&self, i: usize, row: &mut Vec<f32>, to: &mut Vec<f32>) {
        row.resize(self.cols, 0.0);
        to.resize(self.cols * ROWS, 0.0);
        let row_bytes = self.tile_bytes / ROWS;
        for (r, bytes) in self.tile(i).chunks_exact(row_bytes).enumerate() {
            dequantize(self.ty, bytes, row);
            for (to, x) in to.chunks_exact_mut(ROWS).zip(row.iter()) {
                to[r] = *x;
            }
        }
    }

    /// Where tiles are written, from several threads at once.
    pub fn packer(&mut self) -> Packer {
        Packer {
            to: self.bytes.as_mut_ptr(),
            n_tiles: self.n_tiles(),
            ty: self.ty,
            rows: self.rows,
            n_blocks: self.n_blocks,
            tile_bytes: self.tile_bytes,
        }
    }
}

/// Copies rows of the file into tiles.
#[derive(Clone, Copy)]
pub struct Packer {
    to: *mut u8,
    n_tiles: usize,
    ty: GgmlType,
    rows: usize,
    n_blocks: usize,
    tile_bytes: usize,
}

// SAFETY: a pointer to memory that outlives the packing; who writes what is the contract of `Packer::pack`.
unsafe impl Send for Packer {}
// SAFETY: as above.
unsafe impl Sync for Packer {}

impl Packer {
    /// Fills tile `i` from `rows`, the matrix's bytes in the file's order. Rows past the end are zeros.
    ///
    /// # Safety
    /// The matrix is alive, and no other thread writes tile `i` or reads the matrix meanwhile.
    pub unsafe fn pack(&self, i: usize, rows: &[u8]) {
        assert!(i < self.n_tiles);
        // SAFETY: tile `i` lies within the matrix.
        let tile = unsafe {
            std::slice::from_raw_parts_mut(self.to.add(i * self.tile_bytes), self.tile_bytes)
        };
        let row_bytes = self.tile_bytes / ROWS;
        let (first, n) = (i * ROWS, ROWS.min(self.rows - i * ROWS));
        for r in 0..n {
            let row = &rows[(first + r) * row_bytes..(first + r + 1) * row_bytes];
            match format::layout(self.ty) {
                Some((_, bytes, pieces)) => {
                    for (block, to) in row
                        .chunks_exact(row_bytes / self.n_blocks)
                        .zip(tile.chunks_exact_mut(bytes))
                    {
                        pack_block(block, to, pieces, r);
                    }
                }
                None if self.ty == GgmlType::F32 => scatter::<4>(row, tile, r),
                None if is_float(self.ty) => scatter::<2>(row, tile, r),
                None => tile[r * row_bytes..(r + 1) * row_bytes].copy_from_slice(row),
            }
        }
    }
}

/// Writes the pieces of one row's block to their places among the 16 rows'.
fn pack_block(block: &[u8], to: &mut [u8], pieces: &[Piece], r: usize) {
    let mut at = 0;
    for piece in pieces {
        let n_bytes = piece.n * piece.size;
        let (from, to) = (
            &block[piece.from..piece.from + n_bytes],
            &mut to[at..at + ROWS * n_bytes],
        );
        match piece.size {
            4 if piece.spread => {
                let bits = u32::from_le_bytes([from[0], from[1], from[2], from[3]]);
                to[4 * r..4 * r + 4].copy_from_slice(&spread(bits).to_le_bytes());
            }
            4 => scatter::<4>(from, to, r),
            2 => scatter::<2>(from, to, r),
            _ => scatter::<1>(from, to, r),
        }
        at += ROWS * n_bytes;
    }
}

/// Elements of `N` bytes to every 16th place from `r` on.
fn scatter<const N: usize>(from: &[u8], to: &mut [u8], r: usize) {
    let (from, _) = from.as_chunks::<N>();
    let (to, _) = to.as_chunks_mut::<N>();
    for (from, to) in from.iter().zip(to.chunks_exact_mut(ROWS)) {
        to[r] = *from;
    }
}

/// Bit 4g + j to bit 8j + g.
fn spread(bits: u32) -> u32 {
    (0..32).fold(0, |out, i| out | ((bits >> i) & 1) << (8 * (i % 4) + i / 4))
}
