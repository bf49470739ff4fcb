//! The vector operations that the integer products are written in, one implementation for each tier.
//!
//! A vector holds `ROWS` rows of the 16 that a tile interleaves (see [`super::format`]): as bytes, four
//! consecutive weights of each row; as numbers, one per row. No operation adds across rows, so how many rows
//! a vector has changes no bit of any result.

/// The operations of one tier.
///
/// # Safety
/// Every function may use the instructions of its tier: callers have seen that the CPU has them, and call from
/// a function compiled with the tier's features, into which all of this is inlined.
pub(super) trait Simd: Copy {
    /// Rows in a vector: 4, 8 or 16.
    const ROWS: usize;
    /// Signed weights are stored with this added, so that they are unsigned; 0 where the product takes them as they are.
    const WIDE_BIAS: i32;
    /// Whether the weights of two sub-blocks of 32 inputs fit into registers, with what else a product needs.
    const PAIRS: bool = false;
    /// Whether [`Self::dot_two`] is better than two of the others; not with [`Self::PAIRS`].
    const TWO: bool = false;
    /// (ROWS, 4) bytes.
    type Bytes: Copy;
    /// (ROWS) i32.
    type Int: Copy;
    /// (ROWS) f32.
    type Float: Copy;
    /// (ROWS, 4) inputs.
    type Inputs: Copy;
    /// (ROWS) sums of the products of a few groups, before the integer scale.
    type Sum: Copy;
    /// (ROWS) integer scales, in the form that [`Self::scaled`] multiplies with.
    type Scale: Copy;
    /// (ROWS, 2) i16.
    type Pair: Copy;

    /// Fetches the cache line at `near` into the first-level cache, and the one at `far` into the second.
    unsafe fn prefetch(near: *const u8, far: *const u8);

    /// ROWS x 4 bytes at `p`, of any alignment.
    unsafe fn load(p: *const u8) -> Self::Bytes;
    /// Bits `mask` of each byte after moving bit `from` to bit `to`. `mask` holds only bits that came from the same byte.
    unsafe fn field(v: Self::Bytes, from: i32, to: i32, mask: u8) -> Self::Bytes;
    /// Bitwise or.
    unsafe fn or(a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// `table[v]`, where each byte of `v` is below 16.
    unsafe fn lookup(v: Self::Bytes, table: &[i8; 16]) -> Self::Bytes;
    /// Adds [`Self::WIDE_BIAS`] to signed bytes.
    unsafe fn bias(v: Self::Bytes) -> Self::Bytes;

    /// Zeros.
    unsafe fn int_zero() -> Self::Int;
    /// The scales of the rows from `p` on.
    unsafe fn scale(p: *const i8) -> Self::Scale;
    /// The four inputs at `a`, of -127 to 127, for every row.
    unsafe fn inputs(a: *const i8) -> Self::Inputs;
    /// Groups that a [`Self::Sum`] has room for where weights are at most `max`: 1, 2, 4 or 8.
    fn together(max: i32) -> usize;
    /// Zeros.
    unsafe fn sum_zero() -> Self::Sum;
    /// `sum + w * a`, exactly. Weights are unsigned.
    unsafe fn dot(sum: Self::Sum, w: Self::Bytes, a: Self::Inputs) -> Self::Sum;
    /// The same for weights that went through [`Self::bias`]: the result has `WIDE_BIAS * sum of a` too much.
    #[inline(always)]
    unsafe fn dot_wide(sum: Self::Sum, w: Self::Bytes, a: Self::Inputs) -> Self::Sum {
        // SAFETY: the caller's.
        unsafe { Self::dot(sum, w, a) }
    }
    /// Sums of eight groups (four, if `G` is 4) for two tokens at once, where [`Self::TWO`] says that it pays.
    #[inline(always)]
    unsafe fn dot_two<const G: usize>(w: [Self::Bytes; G], a: [*const i8; 2]) -> [Self::Sum; 2] {
        // SAFETY: the caller's.
        unsafe {
            a.map(|a| {
                let mut sum = Self::sum_zero();
                for (g, &w) in w.iter().enumerate() {
                    sum = Self::dot(sum, w, Self::inputs(a.add(4 * g)));
                }
                sum
            })
        }
    }
    /// `acc + scale * sum`, exactly. No row's sum exceeds `bound` in absolute value.
    unsafe fn scaled(acc: Self::Int, sum: Self::Sum, bound: i32, scale: Self::Scale) -> Self::Int;
    /// `(x[i], y[i])` of the rows from there on.
    unsafe fn pair(x: *const i8, y: *const i8) -> Self::Pair;
    /// `acc + p.0 * s[0] + p.1 * s[1]`, exactly.
    unsafe fn dot_pair(acc: Self::Int, p: Self::Pair, s: *const i16) -> Self::Int;
    /// `acc - n * x`, exactly.
    unsafe fn sub_times(acc: Self::Int, n: i32, x: Self::Int) -> Self::Int;
    /// The same number in every row.
    unsafe fn int_splat(x: i32) -> Self::Int;

    /// Zeros.
    unsafe fn zero() -> Self::Float;
    /// The same number in every row.
    unsafe fn splat(x: f32) -> Self::Float;
    /// ROWS f32 at `p`.
    unsafe fn load_f32(p: *const f32) -> Self::Float;
    /// ROWS half-precision numbers at `p`.
    unsafe fn load_f16(p: *const u16) -> Self::Float;
    /// ROWS signed bytes at `p`.
    unsafe fn load_i8(p: *const i8) -> Self::Float;
    /// The nearest half-precision number, ties to even.
    unsafe fn to_f16(x: f32) -> u16;
    /// ROWS bfloat16 numbers at `p`.
    unsafe fn load_bf16(p: *const u16) -> Self::Float;
    /// Writes ROWS f32 to `p`.
    unsafe fn store(p: *mut f32, v: Self::Float);
    /// The nearest f32, ties to even.
    unsafe fn to_float(v: Self::Int) -> Self::Float;
    /// `a * b`
    unsafe fn mul(a: Self::Float, b: Self::Float) -> Self::Float;
    /// `a * b + c`, rounded once.
    unsafe fn fma(a: Self::Float, b: Self::Float, c: Self::Float) -> Self::Float;
    /// `-a * b + c`, rounded once.
    unsafe fn fnma(a: Self::Float, b: Self::Float, c: Self::Float) -> Self::Float;
}
