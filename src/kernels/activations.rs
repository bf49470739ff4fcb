//! The inputs of a product: f32 as they are, or quantized per block.
//!
//! A block of 256 or 32 inputs x becomes `d = max |x| / 127` and `q = round(x * (127 / max |x|))`, ties to even:
//! the scheme of ggml's Q8_K and Q8_0 but with d in f32. Sums of 16 and 32 quants go with them, for the
//! weights' offsets and mins.

/// Which form of the inputs a matrix multiplies with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputKind {
    /// f32, for weights that are floats.
    Float,
    /// Blocks of 32.
    Block32,
    /// Blocks of 256.
    Block256,
}

impl InputKind {
    /// Inputs under one scale.
    pub(super) fn block(self) -> usize {
        match self {
            Self::Float => 1,
            Self::Block32 => 32,
            Self::Block256 => 256,
        }
    }

    /// Quants of a token that stand together: a cache line where the block has several.
    pub(super) fn chunk(self) -> usize {
        self.block().min(64)
    }
}

/// Inputs of up to `n` tokens, (n, k), in one form. The memory is kept from step to step.
#[derive(Debug)]
pub struct Activations {
    pub(super) kind: InputKind,
    pub(super) n: usize,
    pub(super) k: usize,
    // Float: (n, k)
    pub(super) floats: Vec<f32>,
    // (k / chunk, n, chunk)
    pub(super) quants: Vec<i8>,
    // (k / block, n)
    pub(super) scales: Vec<f32>,
    // (k / block, n, block / 16) and (k / block, n, block / 32)
    pub(super) sums16: Vec<i16>,
    pub(super) sums32: Vec<i16>,
}

impl Default for Activations {
    fn default() -> Self {
        Self {
            kind: InputKind::Float,
            n: 0,
            k: 0,
            floats: Vec::new(),
            quants: Vec::new(),
            scales: Vec::new(),
            sums16: Vec::new(),
            sums32: Vec::new(),
        }
    }
}

impl Activations {
    /// Makes room for (n, k); `k` is a multiple of the kind's block. What was there is lost.
    pub fn reset(&mut self, kind: InputKind, n: usize, k: usize) {
        debug_assert!(k.is_multiple_of(kind.block()));
        (self.kind, self.n, self.k) = (kind, n, k);
        let n_elements = n * k;
        if kind == InputKind::Float {
            self.floats.resize(n_elements, 0.0);
            return;
        }
        self.quants.resize(n_elements, 0);
        self.scales.resize(n_elements / kind.block(), 0.0);
        self.sums16.resize(n_elements / 16, 0);
        self.sums32.resize(n_elements / 32, 0);
    }

    /// Where rows are written, from several threads at once.
    pub(super) fn writer(&mut self) -> Writer {
        Writer {
            kind: self.kind,
            n: self.n,
            k: self.k,
            floats: self.floats.as_mut_ptr(),
            quants: self.quants.as_mut_ptr(),
            scales: self.scales.as_mut_ptr(),
            sums16: self.sums16.as_mut_ptr(),
            sums32: self.sums32.as_mut_ptr(),
        }
    }
}

/// Pointers into [`Activations`]: threads write different tokens, or different blocks of one.
#[derive(Clone, Copy)]
pub(super) struct Writer {
    pub(super) kind: InputKind,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) floats: *mut f32,
    pub(super) quants: *mut i8,
    pub(super) scales: *mut f32,
    pub(super) sums16: *mut i16,
    pub(super) sums32: *mut i16,
}

// SAFETY: plain pointers; who writes what is the caller's contract of `Writer::row`.
unsafe impl Send for Writer {}
// SAFETY: as above.
unsafe impl Sync for Writer {}

impl Writer {
    /// Stores inputs `from..from + x.len()` of token `t`, whole blocks.
    ///
    /// # Safety
    /// `t < n`, `from + x.len() <= k`, and no other thread writes the same blocks.
    #[inline(always)]
    pub(super) unsafe fn write(&self, t: usize, from: usize, x: &[f32]) {
        debug_assert!(t < self.n && from + x.len() <= self.k);
        // SAFETY: the caller's.
        unsafe {
            match self.kind {
                InputKind::Float => {
                    let to = self.floats.add(t * self.k + from);
                    std::ptr::copy_nonoverlapping(x.as_ptr(), to, x.len());
                }
                InputKind::Block32 => self.quantize::<32>(t, from, x),
                InputKind::Block256 => self.quantize::<256>(t, from, x),
            }
        }
    }

    #[inline(always)]
    unsafe fn quantize<const BLOCK: usize>(&self, t: usize, from: usize, x: &[f32]) {
        // 1.5 * 2^23: adding it leaves the nearest integer, ties to even, in the low bits.
        const MAGIC: f32 = 12_582_912.0;
        for (i, x) in x.chunks_exact(BLOCK).enumerate() {
            let b = from / BLOCK + i;
            let mut max = [0.0f32; 16];
            for x in x.chunks_exact(16) {
                for (max, x) in max.iter_mut().zip(x) {
                    let x = x.abs();
                    *max = if x > *max { x } else { *max };
                }
            }
            let max = max.into_iter().fold(0.0f32, f32::max);
            let scale = if max > 0.0 { 127.0 / max } else { 0.0 };
            // SAFETY: the block lies within the buffers, the caller's.
            unsafe {
                *self.scales.add(b * self.n + t) = max / 127.0;
                for (s, x) in x.chunks_exact(32).enumerate() {
                    let (chunk, at) = (self.kind.chunk(), b * BLOCK + 32 * s);
                    let q = self
                        .quants
                        .add((at / chunk * self.n + t) * chunk + at % chunk);
                    // In an array of their own, so that the compiler sees that they do not overlap x and uses vectors.
                    let mut values = [0i8; 32];
                    for (value, x) in values.iter_mut().zip(x) {
                        *value = x.mul_add(scale, MAGIC).to_bits() as i8;
                    }
                    q.cast::<[i8; 32]>().write_unaligned(values);
                    let mut sums = [0i32; 2];
                    for (sum, values) in sums.iter_mut().zip(values.chunks_exact(16)) {
                        *sum = values.iter().map(|&value| i32::from(value)).sum();
                    }
                    let at = (b * self.n + t) * (BLOCK / 16) + 2 * s;
                    *self.sums16.add(at) = sums[0] as i16;
                    *self.sums16.add(at + 1) = sums[1] as i16;
                    let at = (b * self.n + t) * (BLOCK / 32) + s;
                    *self.sums32.add(at) = (sums[0] + sums[1]) as i16;
                }
            }
        }
    }
}
