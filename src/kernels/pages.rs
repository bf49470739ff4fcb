//! Keys and values in pages of 64 positions.
//!
//! A page belongs to the positions 64 i to 64 i + 63 of a sequence, whatever steps they came in: a step's chunks
//! then change no bit of the attention. For one layer and one head of keys and values it holds
//!
//! - keys as (4, dim, 16): 16 positions side by side, so that a score needs no sum across a vector;
//! - values as (64, dim);
//! - with q8_0, after each of the two, f32 scales: (4, dim / 32, 16) for keys and (64, dim / 32) for values,
//!
//! where `dim` is the head's width rounded up to 16 (zeros beyond).

use half::f16;

use super::simd::Simd;

/// Positions of a page.
pub const PAGE: usize = 64;

/// Positions side by side.
pub(super) const LANES: usize = 16;

/// How keys and values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvFormat {
    /// Four bytes an element.
    F32,
    /// Two bytes an element; what is beyond half precision's range is stored as its largest value.
    F16,
    /// A byte an element and an f32 scale for 32 of them.
    Q8,
}

/// Sizes of one head's part of a page.
#[derive(Debug, Clone, Copy)]
pub struct PageLayout {
    /// How elements are stored.
    pub format: KvFormat,
    /// Width of a head.
    pub head_dim: usize,
}

impl PageLayout {
    /// Width as stored.
    pub(super) fn dim(&self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }

    fn groups(&self) -> usize {
        self.dim().div_ceil(32)
    }

    fn element(&self) -> usize {
        match self.format {
            KvFormat::F32 => 4,
            KvFormat::F16 => 2,
            KvFormat::Q8 => 1,
        }
    }

    /// Bytes of the keys, and of the values.
    pub(super) fn half_bytes(&self) -> usize {
        let scales = if self.format == KvFormat::Q8 {
            4 * self.groups()
        } else {
            0
        };
        PAGE * (self.dim() * self.element() + scales)
    }

    /// Bytes of one head's keys and values of a page: a multiple of 64.
    pub fn bytes(&self) -> usize {
        2 * self.half_bytes()
    }

    /// Makes what one head's part of a page holds from position `from` on zero.
    pub fn blank(&self, head: &mut [u8], from: usize) {
        let (dim, size) = (self.dim(), self.element());
        let (keys, values) = head.split_at_mut(self.half_bytes());
        let rows = [(dim, size), (self.groups(), 4)];
        let (elements, scales) = keys.split_at_mut(PAGE * dim * size);
        for (part, (width, size)) in [elements, scales].into_iter().zip(rows) {
            // (4, width, 16)
            for (i, lane) in part.chunks_exact_mut(size).enumerate() {
                if i / (width * LANES) * LANES + i % LANES >= from {
                    lane.fill(0);
                }
            }
        }
        let (elements, scales) = values.split_at_mut(PAGE * dim * size);
        for (part, (width, size)) in [elements, scales].into_iter().zip(rows) {
            // (64, width); there are no scales but with Q8
            if let Some(rest) = part.get_mut(from * width * size..) {
                rest.fill(0);
            }
        }
    }
}

/// Reading one format.
pub(super) trait Kv {
    const FORMAT: KvFormat;

    /// Elements have a scale for each group of 32 dimensions: products are summed within a group, and then scaled.
    const SCALED: bool = false;

    /// Keys of `S::ROWS` positions of block `b` from row `h * S::ROWS` on, at dimension `d`, without scale.
    unsafe fn key<S: Simd>(head: *const u8, dim: usize, b: usize, d: usize, h: usize) -> S::Float;

    /// `S::ROWS` dimensions from `d` on of the value at `position` of the page, without scale.
    unsafe fn value<S: Simd>(head: *const u8, dim: usize, position: usize, d: usize) -> S::Float;

    /// Scales of those keys, for dimensions 32 `group` on.
    #[inline(always)]
    unsafe fn key_scale<S: Simd>(
        _head: *const u8,
        _dim: usize,
        _b: usize,
        _group: usize,
        _h: usize,
    ) -> S::Float {
        // SAFETY: the caller's.
        unsafe { S::splat(1.0) }
    }

    /// Scale of that value, for dimensions 32 `group` on.
    #[inline(always)]
    unsafe fn value_scale(_head: *const u8, _dim: usize, _position: usize, _group: usize) -> f32 {
        1.0
    }
}

pub(super) struct F32;
pub(super) struct F16;
pub(super) struct Q8;
/// Q8 with its quants as f32: what a page is unpacked to for several queries.
pub(super) struct Q8Unpacked;

impl Kv for F32 {
    const FORMAT: KvFormat = KvFormat::F32;

    #[inline(always)]
    unsafe fn key<S: Simd>(head: *const u8, dim: usize, b: usize, d: usize, h: usize) -> S::Float {
        // SAFETY: within the head's part of the page, the caller's.
        unsafe { S::load_f32(head.cast::<f32>().add((b * dim + d) * LANES + h * S::ROWS)) }
    }

    #[inline(always)]
    unsafe fn value<S: Simd>(head: *const u8, dim: usize, position: usize, d: usize) -> S::Float {
        // SAFETY: as above.
        unsafe { S::load_f32(head.cast::<f32>().add((PAGE + position) * dim + d)) }
    }
}

impl Kv for F16 {
    const FORMAT: KvFormat = KvFormat::F16;

    #[inline(always)]
    unsafe fn key<S: Simd>(head: *const u8, dim: usize, b: usize, d: usize, h: usize) -> S::Float {
        // SAFETY: within the head's part of the page, the caller's.
        unsafe { S::load_f16(head.cast::<u16>().add((b * dim + d) * LANES + h * S::ROWS)) }
    }

    #[inline(always)]
    unsafe fn value<S: Simd>(head: *const u8, dim: usize, position: usize, d: usize) -> S::Float {
        // SAFETY: as above.
        unsafe { S::load_f16(head.cast::<u16>().add((PAGE + position) * dim + d)) }
    }
}

/// Scales of a page whose elements have `size` bytes: behind the keys, and behind the values.
macro_rules! scales {
    ($size:expr) => {
        const SCALED: bool = true;

        #[inline(always)]
        unsafe fn key_scale<S: Simd>(
            head: *const u8,
            dim: usize,
            b: usize,
            group: usize,
            h: usize,
        ) -> S::Float {
            let groups = dim.div_ceil(32);
            // SAFETY: within the head's part of the page, the caller's.
            unsafe {
                let scales = head.add(PAGE * dim * $size).cast::<f32>();
                S::load_f32(scales.add((b * groups + group) * LANES + h * S::ROWS))
            }
        }

        #[inline(always)]
        unsafe fn value_scale(head: *const u8, dim: usize, position: usize, group: usize) -> f32 {
            let groups = dim.div_ceil(32);
            // SAFETY: as above.
            unsafe {
                let scales = head
                    .add(PAGE * (2 * dim * $size + 4 * groups))
                    .cast::<f32>();
                scales.add(position * groups + group).read_unaligned()
            }
        }
    };
}

impl Kv for Q8 {
    const FORMAT: KvFormat = KvFormat::Q8;
    scales!(1);

    #[inline(always)]
    unsafe fn key<S: Simd>(head: *const u8, dim: usize, b: usize, d: usize, h: usize) -> S::Float {
        // SAFETY: within the head's part of the page, the caller's.
        unsafe { S::load_i8(head.cast::<i8>().add((b * dim + d) * LANES + h * S::ROWS)) }
    }

    #[inline(always)]
    unsafe fn value<S: Simd>(head: *const u8, dim: usize, position: usize, d: usize) -> S::Float {
        // SAFETY: as above.
        unsafe {
            let values = head.add(PAGE * (dim + 4 * dim.div_ceil(32)));
            S::load_i8(values.cast::<i8>().add(position * dim + d))
        }
    }
}

impl Kv for Q8Unpacked {
    const FORMAT: KvFormat = KvFormat::Q8;
    scales!(4);

    #[inline(always)]
    unsafe fn key<S: Simd>(head: *const u8, dim: usize, b: usize, d: usize, h: usize) -> S::Float {
        // SAFETY: within the unpacked page, the caller's.
        unsafe { S::load_f32(head.cast::<f32>().add((b * dim + d) * LANES + h * S::ROWS)) }
    }

    #[inline(always)]
    unsafe fn value<S: Simd>(head: *const u8, dim: usize, position: usize, d: usize) -> S::Float {
        let groups = dim.div_ceil(32);
        // SAFETY: as above.
        unsafe {
            S::load_f32(
                head.cast::<f32>()
                    .add(PAGE * (dim + groups) + position * dim + d),
            )
        }
    }
}

/// Writes the first `filled` positions of a head's part as f32: F16 as [`F32`], Q8 as [`Q8Unpacked`]. What is left
/// of the last block of 16 becomes zero.
///
/// # Safety
/// As for [`Simd`]; `page` has room for [`unpacked_len`] f32.
#[inline(always)]
pub(super) unsafe fn unpack<S: Simd, K: Kv>(
    head: *const u8,
    dim: usize,
    filled: usize,
    page: *mut f32,
) {
    let groups = if K::SCALED { dim.div_ceil(32) } else { 0 };
    // SAFETY: the caller's.
    unsafe {
        let values = page.add(PAGE * (dim + groups));
        for b in 0..filled.div_ceil(LANES) {
            for h in 0..LANES / S::ROWS {
                for d in 0..dim {
                    S::store(
                        page.add((b * dim + d) * LANES + h * S::ROWS),
                        K::key::<S>(head, dim, b, d, h),
                    );
                }
                for group in 0..groups {
                    let to = page.add(PAGE * dim + (b * groups + group) * LANES + h * S::ROWS);
                    S::store(to, K::key_scale::<S>(head, dim, b, group, h));
                }
            }
        }
        for position in 0..filled {
            for d in (0..dim).step_by(S::ROWS) {
                S::store(
                    values.add(position * dim + d),
                    K::value::<S>(head, dim, position, d),
                );
            }
            for group in 0..groups {
                let to = values.add(PAGE * dim + position * groups + group);
                *to = K::value_scale(head, dim, position, group);
            }
        }
        let rest = filled.next_multiple_of(LANES) - filled;
        values.add(filled * dim).write_bytes(0, rest * dim);
        values
            .add(PAGE * dim + filled * groups)
            .write_bytes(0, rest * groups);
    }
}

/// f32 that a head's part of a page takes when it is unpacked.
pub(super) fn unpacked_len(dim: usize) -> usize {
    2 * PAGE * (dim + dim.div_ceil(32))
}

/// Stores the key and value of one head at `position` of a page; (head_dim) each.
///
/// # Safety
/// As for [`Simd`]; `head` is that head's part of a page of `layout`, which nobody else uses meanwhile.
#[inline(always)]
pub(super) unsafe fn write<S: Simd>(
    layout: &PageLayout,
    head: *mut u8,
    position: usize,
    key: &[f32],
    value: &[f32],
) {
    let (dim, b, lane) = (layout.dim(), position / LANES, position % LANES);
    let first = b * dim * LANES + lane;
    // SAFETY: every place lies within the head's part of the page, for position < PAGE.
    unsafe {
        match layout.format {
            KvFormat::F32 => {
                let to = head.cast::<f32>();
                for (d, x) in key.iter().enumerate() {
                    *to.add(first + d * LANES) = *x;
                }
                let to = to.add((PAGE + position) * dim);
                to.copy_from_nonoverlapping(value.as_ptr(), value.len());
            }
            KvFormat::F16 => {
                let to = head.cast::<u16>();
                for (d, x) in key.iter().enumerate() {
                    *to.add(first + d * LANES) = S::to_f16(clamp(*x));
                }
                let to = to.add((PAGE + position) * dim);
                for (d, x) in value.iter().enumerate() {
                    *to.add(d) = S::to_f16(clamp(*x));
                }
            }
            KvFormat::Q8 => {
                let groups = dim.div_ceil(32);
                let (to, scales) = (head.cast::<i8>(), head.add(PAGE * dim).cast::<f32>());
                for (g, x) in key.chunks(32).enumerate() {
                    let mut q = [0i8; 32];
                    let scale = quantize(x, &mut q);
                    scales
                        .add((b * groups + g) * LANES + lane)
                        .write_unaligned(scale);
                    for (i, q) in q.iter().take(x.len()).enumerate() {
                        *to.add(first + (32 * g + i) * LANES) = *q;
                    }
                }
                let values = head.add(PAGE * (dim + 4 * groups));
                let (to, scales) = (values.cast::<i8>(), values.add(PAGE * dim).cast::<f32>());
                for (g, x) in value.chunks(32).enumerate() {
                    let mut q = [0i8; 32];
                    scales
                        .add(position * groups + g)
                        .write_unaligned(quantize(x, &mut q));
                    to.add(position * dim + 32 * g)
                        .copy_from_nonoverlapping(q.as_ptr(), x.len());
                }
            }
        }
    }
}

#[inline(always)]
fn clamp(x: f32) -> f32 {
    let max = f16::MAX.to_f32_const();
    x.clamp(-max, max)
}

/// As the inputs of products are quantized; returns the scale.
#[inline(always)]
fn quantize(x: &[f32], q: &mut [i8; 32]) -> f32 {
    let max = x
        .iter()
        .fold(0.0f32, |max, x| if x.abs() > max { x.abs() } else { max });
    let scale = if max > 0.0 { 127.0 / max } else { 0.0 };
    for (q, x) in q.iter_mut().zip(x) {
        *q = x.mul_add(scale, 12_582_912.0).to_bits() as i8;
    }
    max / 127.0
}
