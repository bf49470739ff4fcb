//! Keys and values in pages of 64 positions.
//!
//! A page belongs to the positions 64 i to 64 i + 63 of a sequence, whatever steps they came in: a step's chunks
//! then change no bit of the attention. For one layer and one head of keys and values it holds
//!
//! - keys as (4, dim, 16): 16 positions side by side, so that a score needs no sum across a vector;
//! - values as (64, dim);
//! - with q8_0, their half-precision scales: (4, dim / 32, 16) for keys and (64, dim / 32) for values,
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
    /// A byte an element and a half-precision scale for 32 of them.
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
    fn half_bytes(&self) -> usize {
        let scales = if self.format == KvFormat::Q8 {
            2 * self.groups()
        } else {
            0
        };
        PAGE * (self.dim() * self.element() + scales)
    }

    /// Bytes of one head's keys and values of a page: a multiple of 64.
    pub fn bytes(&self) -> usize {
        2 * self.half_bytes()
    }
}

/// Reading one format.
pub(super) trait Kv {
    const FORMAT: KvFormat;

    /// Keys of `S::ROWS` positions of block `b` from row `h * S::ROWS` on, at dimension `d`.
    unsafe fn key<S: Simd>(head: *const u8, dim: usize, b: usize, d: usize, h: usize) -> S::Float;

    /// `S::ROWS` dimensions from `d` on of the value at `position` of the page.
    unsafe fn value<S: Simd>(head: *const u8, dim: usize, position: usize, d: usize) -> S::Float;
}

pub(super) struct F32;
pub(super) struct F16;
pub(super) struct Q8;

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

impl Kv for Q8 {
    const FORMAT: KvFormat = KvFormat::Q8;

    #[inline(always)]
    unsafe fn key<S: Simd>(head: *const u8, dim: usize, b: usize, d: usize, h: usize) -> S::Float {
        let groups = dim.div_ceil(32);
        // SAFETY: within the head's part of the page, the caller's.
        unsafe {
            let q = S::load_i8(head.cast::<i8>().add((b * dim + d) * LANES + h * S::ROWS));
            let scales = head.add(PAGE * dim).cast::<u16>();
            S::mul(
                q,
                S::load_f16(scales.add((b * groups + d / 32) * LANES + h * S::ROWS)),
            )
        }
    }

    #[inline(always)]
    unsafe fn value<S: Simd>(head: *const u8, dim: usize, position: usize, d: usize) -> S::Float {
        let groups = dim.div_ceil(32);
        // SAFETY: as above.
        unsafe {
            let values = head.add(PAGE * (dim + 2 * groups));
            let q = S::load_i8(values.cast::<i8>().add(position * dim + d));
            let scale = *values
                .add(PAGE * dim)
                .cast::<u16>()
                .add(position * groups + d / 32);
            S::mul(q, S::splat(S::f16(scale)))
        }
    }
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
                let (to, scales) = (head.cast::<i8>(), head.add(PAGE * dim).cast::<u16>());
                for (g, x) in key.chunks(32).enumerate() {
                    let mut q = [0i8; 32];
                    *scales.add((b * groups + g) * LANES + lane) = quantize::<S>(x, &mut q);
                    for (i, q) in q.iter().take(x.len()).enumerate() {
                        *to.add(first + (32 * g + i) * LANES) = *q;
                    }
                }
                let values = head.add(PAGE * (dim + 2 * groups));
                let (to, scales) = (values.cast::<i8>(), values.add(PAGE * dim).cast::<u16>());
                for (g, x) in value.chunks(32).enumerate() {
                    let mut q = [0i8; 32];
                    *scales.add(position * groups + g) = quantize::<S>(x, &mut q);
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

/// As ggml's q8_0: the scale is rounded to half precision after the quants were made with it.
#[inline(always)]
unsafe fn quantize<S: Simd>(x: &[f32], q: &mut [i8; 32]) -> u16 {
    let max = x
        .iter()
        .fold(0.0f32, |max, x| if x.abs() > max { x.abs() } else { max });
    let scale = if max > 0.0 { 127.0 / max } else { 0.0 };
    for (q, x) in q.iter_mut().zip(x) {
        *q = x.mul_add(scale, 12_582_912.0).to_bits() as i8;
    }
    // SAFETY: the caller's.
    unsafe { S::to_f16(clamp(max / 127.0)) }
}
