//! How quantized weights lie in memory: 16 rows side by side.
//!
//! A tile is 16 rows of a matrix. Its blocks follow each other along the inputs, and within a block the same
//! piece of each of the 16 rows stands together: a byte, a half-precision number, or four bytes of quants. So a
//! 64-byte vector is 16 rows x 4 inputs and no product ever adds across a vector; a part of it serves narrower
//! vectors, and 16 consecutive ones are a tile of AMX. It is a permutation of the file's bytes: the same size,
//! and nothing is rounded. (Measured against the file's own order with AVX2: 12.5 tokens/s where rows one by one
//! reach 11.0, and prompts need no horizontal sums.)
//!
//! The bit layouts are ggml's (`ggml-common.h`, `dequantize_row_*` of `ggml-quants.c`).

use super::simd::Simd;
use crate::gguf::GgmlType;

/// Rows of a tile.
pub(super) const ROWS: usize = 16;

/// A piece of a block: `n` elements of `size` bytes from byte `from` of the file's block on.
#[derive(Clone, Copy)]
pub(super) struct Piece {
    pub from: usize,
    pub n: usize,
    pub size: usize,
    /// Bit 4g + j of the 32 moves to bit g of byte j: then a group's fifth bits stand under its low ones.
    pub spread: bool,
}

const fn piece(from: usize, n: usize, size: usize) -> Piece {
    Piece {
        from,
        n,
        size,
        spread: false,
    }
}

const fn fifth_bits(from: usize) -> Piece {
    Piece {
        from,
        n: 1,
        size: 4,
        spread: true,
    }
}

/// What stands beside the scale of a block.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Min {
    /// Nothing: a weight is `d * scale * (q - OFFSET)`.
    None,
    /// A second half-precision scale with integer factors: `- dmin * min`.
    Integer,
    /// A half-precision number that is added: `+ m`.
    Float,
}

/// The integer scales and mins of a block, `[j][row]`, one for each 16 or 32 inputs.
pub(super) struct Scales {
    pub scale: [[i8; ROWS]; 16],
    pub min: [[i8; ROWS]; 16],
}

/// A block of 16 rows of one type.
pub(super) trait Format {
    /// Inputs of a block: 256 or 32.
    const BLOCK: usize;
    /// The order of the file's pieces in the tile.
    const PIECES: &'static [Piece];
    /// Bytes of a block of 16 rows.
    const BYTES: usize = {
        let mut bytes = 0;
        let mut i = 0;
        while i < Self::PIECES.len() {
            bytes += Self::PIECES[i].n * Self::PIECES[i].size * ROWS;
            i += 1;
        }
        bytes
    };
    /// Byte where the half-precision scales of the rows begin; what [`Self::MIN`] calls for follows them.
    const D: usize;
    /// What is subtracted from a stored quant.
    const OFFSET: i32;
    /// The largest stored quant.
    const MAX: i32;
    /// Quants are signed bytes and `OFFSET` and `MAX` do not count.
    const WIDE: bool = false;
    /// Inputs under one integer scale: 16 or 32; 0 where there is none.
    const PER: usize;
    /// What stands beside the scale.
    const MIN: Min = Min::None;

    /// The integer scales at `block`.
    ///
    /// # Safety
    /// `block` has [`Self::BYTES`] readable bytes.
    #[inline(always)]
    unsafe fn scales(_block: *const u8) -> Scales {
        Scales {
            scale: [[1; ROWS]; 16],
            min: [[0; ROWS]; 16],
        }
    }

    /// Quants of group `g`, four inputs, of the eight of sub-block `SUB`, as stored.
    ///
    /// # Safety
    /// As for [`Simd`]; `part` is a block advanced by 4 bytes for each row before the vector's first.
    unsafe fn unpack<S: Simd, const SUB: usize>(part: *const u8, g: usize) -> S::Bytes;
}

const V: usize = 4 * ROWS;

#[inline(always)]
unsafe fn read<const N: usize>(p: *const u8) -> [[u8; ROWS]; N] {
    // SAFETY: the caller has N * 16 readable bytes at `p`.
    unsafe { p.cast::<[[u8; ROWS]; N]>().read_unaligned() }
}

#[inline(always)]
fn map2(a: &[u8; ROWS], b: &[u8; ROWS], f: impl Fn(u8, u8) -> u8) -> [i8; ROWS] {
    let mut out = [0; ROWS];
    for i in 0..ROWS {
        out[i] = f(a[i], b[i]) as i8;
    }
    out
}

/// Eight 6-bit scales and eight 6-bit mins in 12 bytes: Q4_K and Q5_K.
#[inline(always)]
unsafe fn scales_6bit(p: *const u8) -> Scales {
    // SAFETY: 12 x 16 bytes, part of the block.
    let b = unsafe { read::<12>(p) };
    let mut s = Scales {
        scale: [[0; ROWS]; 16],
        min: [[0; ROWS]; 16],
    };
    for j in 0..4 {
        s.scale[j] = map2(&b[j], &b[j], |x, _| x & 63);
        s.min[j] = map2(&b[j + 4], &b[j + 4], |x, _| x & 63);
        s.scale[j + 4] = map2(&b[j + 8], &b[j], |x, y| (x & 15) | ((y >> 6) << 4));
        s.min[j + 4] = map2(&b[j + 8], &b[j + 4], |x, y| (x >> 4) | ((y >> 6) << 4));
    }
    s
}

/// `d`, `dmin`, scales, quants: sub-blocks 2p and 2p + 1 are the low and high halves of the same bytes.
pub(super) struct Q4K;

impl Format for Q4K {
    const BLOCK: usize = 256;
    const PIECES: &'static [Piece] = &[piece(0, 2, 2), piece(4, 12, 1), piece(16, 32, 4)];
    const D: usize = 0;
    const OFFSET: i32 = 0;
    const MAX: i32 = 15;
    const PER: usize = 32;
    const MIN: Min = Min::Integer;

    #[inline(always)]
    unsafe fn scales(block: *const u8) -> Scales {
        // SAFETY: the caller's.
        unsafe { scales_6bit(block.add(4 * ROWS)) }
    }

    #[inline(always)]
    unsafe fn unpack<S: Simd, const SUB: usize>(part: *const u8, g: usize) -> S::Bytes {
        // SAFETY: the caller's.
        unsafe {
            let q = part.add(16 * ROWS + SUB / 2 * 8 * V);
            S::field(S::load(q.add(g * V)), 4 * (SUB as i32 % 2), 0, 15)
        }
    }
}

/// Q4_K with a fifth bit of each quant.
pub(super) struct Q5K;

impl Format for Q5K {
    const BLOCK: usize = 256;
    const PIECES: &'static [Piece] = &[
        piece(0, 2, 2),
        piece(4, 12, 1),
        piece(16, 8, 4),
        piece(48, 32, 4),
    ];
    const D: usize = 0;
    const OFFSET: i32 = 0;
    const MAX: i32 = 31;
    const PER: usize = 32;
    const MIN: Min = Min::Integer;

    #[inline(always)]
    unsafe fn scales(block: *const u8) -> Scales {
        // SAFETY: the caller's.
        unsafe { scales_6bit(block.add(4 * ROWS)) }
    }

    #[inline(always)]
    unsafe fn unpack<S: Simd, const SUB: usize>(part: *const u8, g: usize) -> S::Bytes {
        // SAFETY: the caller's.
        unsafe {
            let high = part.add(16 * ROWS);
            let q = part.add(48 * ROWS + SUB / 2 * 8 * V);
            let low = S::field(S::load(q.add(g * V)), 4 * (SUB as i32 % 2), 0, 15);
            S::or(low, S::field(S::load(high.add(g * V)), SUB as i32, 4, 16))
        }
    }
}

/// Low halves, two high bits, 16 signed scales, `d`: a half of 128 inputs has the low halves of its sub-blocks
/// 0 and 1 and the high halves of 2 and 3 in the same bytes.
pub(super) struct Q6K;

impl Format for Q6K {
    const BLOCK: usize = 256;
    const PIECES: &'static [Piece] = &[
        piece(0, 32, 4),
        piece(128, 16, 4),
        piece(192, 16, 1),
        piece(208, 1, 2),
    ];
    const D: usize = 208 * ROWS;
    const OFFSET: i32 = 32;
    const MAX: i32 = 63;
    const PER: usize = 16;

    #[inline(always)]
    unsafe fn scales(block: *const u8) -> Scales {
        Scales {
            // SAFETY: 16 x 16 bytes, part of the block.
            scale: unsafe {
                block
                    .add(192 * ROWS)
                    .cast::<[[i8; ROWS]; 16]>()
                    .read_unaligned()
            },
            min: [[0; ROWS]; 16],
        }
    }

    #[inline(always)]
    unsafe fn unpack<S: Simd, const SUB: usize>(part: *const u8, g: usize) -> S::Bytes {
        // SAFETY: the caller's.
        unsafe {
            let q = part.add((SUB / 4 * 2 + SUB % 2) * 8 * V);
            let high = part.add(128 * ROWS + SUB / 4 * 8 * V);
            let low = S::field(S::load(q.add(g * V)), 4 * (SUB as i32 / 2 % 2), 0, 15);
            let two = S::field(S::load(high.add(g * V)), 2 * (SUB as i32 % 4), 4, 48);
            S::or(low, two)
        }
    }
}

/// Four-bit scales and mins, two-bit quants, `d`, `dmin`.
pub(super) struct Q2K;

impl Format for Q2K {
    const BLOCK: usize = 256;
    const PIECES: &'static [Piece] = &[piece(0, 16, 1), piece(16, 16, 4), piece(80, 2, 2)];
    const D: usize = 80 * ROWS;
    const OFFSET: i32 = 0;
    const MAX: i32 = 3;
    const PER: usize = 16;
    const MIN: Min = Min::Integer;

    #[inline(always)]
    unsafe fn scales(block: *const u8) -> Scales {
        // SAFETY: 16 x 16 bytes, part of the block.
        let b = unsafe { read::<16>(block) };
        let mut s = Scales {
            scale: [[0; ROWS]; 16],
            min: [[0; ROWS]; 16],
        };
        for j in 0..16 {
            s.scale[j] = map2(&b[j], &b[j], |x, _| x & 15);
            s.min[j] = map2(&b[j], &b[j], |x, _| x >> 4);
        }
        s
    }

    #[inline(always)]
    unsafe fn unpack<S: Simd, const SUB: usize>(part: *const u8, g: usize) -> S::Bytes {
        // SAFETY: the caller's.
        unsafe {
            let q = part.add(16 * ROWS + SUB / 4 * 8 * V);
            S::field(S::load(q.add(g * V)), 2 * (SUB as i32 % 4), 0, 3)
        }
    }
}

/// The third bit, two-bit quants, 16 six-bit scales in 12 bytes, `d`.
pub(super) struct Q3K;

impl Format for Q3K {
    const BLOCK: usize = 256;
    const PIECES: &'static [Piece] = &[
        piece(0, 8, 4),
        piece(32, 16, 4),
        piece(96, 12, 1),
        piece(108, 1, 2),
    ];
    const D: usize = 108 * ROWS;
    const OFFSET: i32 = 4;
    const MAX: i32 = 7;
    const PER: usize = 16;

    #[inline(always)]
    unsafe fn scales(block: *const u8) -> Scales {
        // SAFETY: 12 x 16 bytes, part of the block.
        let b = unsafe { read::<12>(block.add(96 * ROWS)) };
        let mut s = Scales {
            scale: [[0; ROWS]; 16],
            min: [[0; ROWS]; 16],
        };
        for j in 0..4 {
            let high = &b[8 + j];
            let join = |low: u8, high: u8| (low | (high << 4)).wrapping_sub(32);
            s.scale[j] = map2(&b[j], high, |x, h| join(x & 15, h & 3));
            s.scale[4 + j] = map2(&b[4 + j], high, |x, h| join(x & 15, (h >> 2) & 3));
            s.scale[8 + j] = map2(&b[j], high, |x, h| join(x >> 4, (h >> 4) & 3));
            s.scale[12 + j] = map2(&b[4 + j], high, |x, h| join(x >> 4, h >> 6));
        }
        s
    }

    #[inline(always)]
    unsafe fn unpack<S: Simd, const SUB: usize>(part: *const u8, g: usize) -> S::Bytes {
        // SAFETY: the caller's.
        unsafe {
            let q = part.add(32 * ROWS + SUB / 4 * 8 * V);
            let low = S::field(S::load(q.add(g * V)), 2 * (SUB as i32 % 4), 0, 3);
            S::or(low, S::field(S::load(part.add(g * V)), SUB as i32, 2, 4))
        }
    }
}

/// Values that the 4-bit codes of IQ4_NL and IQ4_XS stand for (`kvalues_iq4nl`).
const IQ4: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

/// The first 16 of 32 inputs in the low halves of 16 bytes, the others in the high halves.
#[inline(always)]
unsafe fn halves<S: Simd>(q: *const u8, g: usize) -> S::Bytes {
    // SAFETY: the caller's.
    unsafe { S::field(S::load(q.add(g % 4 * V)), 4 * (g as i32 / 4), 0, 15) }
}

/// `d`, two high bits of the scales, four low ones, codes.
pub(super) struct Iq4Xs;

impl Format for Iq4Xs {
    const BLOCK: usize = 256;
    const PIECES: &'static [Piece] = &[
        piece(0, 1, 2),
        piece(2, 2, 1),
        piece(4, 4, 1),
        piece(8, 32, 4),
    ];
    const D: usize = 0;
    const OFFSET: i32 = 0;
    const MAX: i32 = 0;
    const WIDE: bool = true;
    const PER: usize = 32;

    #[inline(always)]
    unsafe fn scales(block: *const u8) -> Scales {
        // SAFETY: 6 x 16 bytes, part of the block.
        let b = unsafe { read::<6>(block.add(2 * ROWS)) };
        let mut s = Scales {
            scale: [[0; ROWS]; 16],
            min: [[0; ROWS]; 16],
        };
        for j in 0..8 {
            let (low, high) = (&b[2 + j / 2], &b[j / 4]);
            s.scale[j] = map2(low, high, |l, h| {
                (((l >> (4 * (j % 2))) & 15) | (((h >> (2 * (j % 4))) & 3) << 4)).wrapping_sub(32)
            });
        }
        s
    }

    #[inline(always)]
    unsafe fn unpack<S: Simd, const SUB: usize>(part: *const u8, g: usize) -> S::Bytes {
        // SAFETY: the caller's.
        unsafe {
            let code = halves::<S>(part.add(8 * ROWS + SUB * 4 * V), g);
            S::bias(S::lookup(code, &IQ4))
        }
    }
}

/// `d` and codes, blocks of 32.
pub(super) struct Iq4Nl;

impl Format for Iq4Nl {
    const BLOCK: usize = 32;
    const PIECES: &'static [Piece] = &[piece(0, 1, 2), piece(2, 4, 4)];
    const D: usize = 0;
    const OFFSET: i32 = 0;
    const MAX: i32 = 0;
    const WIDE: bool = true;
    const PER: usize = 0;

    #[inline(always)]
    unsafe fn unpack<S: Simd, const SUB: usize>(part: *const u8, g: usize) -> S::Bytes {
        // SAFETY: the caller's.
        unsafe { S::bias(S::lookup(halves::<S>(part.add(2 * ROWS), g), &IQ4)) }
    }
}

macro_rules! legacy {
    ($(#[$doc:meta])* $name:ident, $pieces:expr, $offset:expr, $max:expr, $min:expr, $high:expr, $quants:expr) => {
        $(#[$doc])*
        pub(super) struct $name;

        impl Format for $name {
            const BLOCK: usize = 32;
            const PIECES: &'static [Piece] = &$pieces;
            const D: usize = 0;
            const OFFSET: i32 = $offset;
            const MAX: i32 = $max;
            const PER: usize = 0;
            const MIN: Min = $min;

            #[inline(always)]
            unsafe fn unpack<S: Simd, const SUB: usize>(part: *const u8, g: usize) -> S::Bytes {
                // SAFETY: the caller's.
                unsafe {
                    let low = halves::<S>(part.add($quants * ROWS), g);
                    match $high {
                        None => low,
                        Some(high) => {
                            let high = S::load(part.add(high * ROWS));
                            S::or(low, S::field(high, g as i32, 4, 16))
                        }
                    }
                }
            }
        }
    };
}

legacy!(
    /// `d` and 4-bit quants, blocks of 32.
    Q40, [piece(0, 1, 2), piece(2, 4, 4)], 8, 15, Min::None, None::<usize>, 2
);
legacy!(
    /// `d`, `m` and 4-bit quants, blocks of 32.
    Q41, [piece(0, 2, 2), piece(4, 4, 4)], 0, 15, Min::Float, None::<usize>, 4
);
legacy!(
    /// `d`, the fifth bits and 4-bit quants, blocks of 32.
    Q50, [piece(0, 1, 2), fifth_bits(2), piece(6, 4, 4)], 16, 31, Min::None, Some(2_usize), 6
);
legacy!(
    /// `d`, `m`, the fifth bits and 4-bit quants, blocks of 32.
    Q51, [piece(0, 2, 2), fifth_bits(4), piece(8, 4, 4)], 0, 31, Min::Float, Some(4_usize), 8
);

/// `d` and signed bytes, blocks of 32.
pub(super) struct Q80;

impl Format for Q80 {
    const BLOCK: usize = 32;
    const PIECES: &'static [Piece] = &[piece(0, 1, 2), piece(2, 8, 4)];
    const D: usize = 0;
    const OFFSET: i32 = 0;
    const MAX: i32 = 0;
    const WIDE: bool = true;
    const PER: usize = 0;

    #[inline(always)]
    unsafe fn unpack<S: Simd, const SUB: usize>(part: *const u8, g: usize) -> S::Bytes {
        // SAFETY: the caller's.
        unsafe { S::bias(S::load(part.add(2 * ROWS + g * V))) }
    }
}

/// Calls `$do!(F)` with the format of a quantized type; `None` for the others.
macro_rules! with_format {
    ($ty:expr, $do:ident) => {{
        use $crate::gguf::GgmlType as T;
        use $crate::kernels::format as f;
        match $ty {
            T::Q4_K => Some($do!(f::Q4K)),
            T::Q5_K => Some($do!(f::Q5K)),
            T::Q6_K => Some($do!(f::Q6K)),
            T::Q2_K => Some($do!(f::Q2K)),
            T::Q3_K => Some($do!(f::Q3K)),
            T::IQ4_XS => Some($do!(f::Iq4Xs)),
            T::IQ4_NL => Some($do!(f::Iq4Nl)),
            T::Q4_0 => Some($do!(f::Q40)),
            T::Q4_1 => Some($do!(f::Q41)),
            T::Q5_0 => Some($do!(f::Q50)),
            T::Q5_1 => Some($do!(f::Q51)),
            T::Q8_0 => Some($do!(f::Q80)),
            _ => None,
        }
    }};
}
pub(super) use with_format;

/// Inputs of a block, bytes of a block of 16 rows, and the pieces, for the quantized types with kernels.
pub(super) fn layout(ty: GgmlType) -> Option<(usize, usize, &'static [Piece])> {
    macro_rules! layout {
        ($f:ty) => {
            (<$f>::BLOCK, <$f>::BYTES, <$f>::PIECES)
        };
    }
    with_format!(ty, layout)
}
