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
    /// Whether `dot4_two` and its kind are better than two of the others.
    const TWO: bool = false;
    /// (ROWS, 4) bytes.
    type Bytes: Copy;
    /// (ROWS) i32.
    type Int: Copy;
    /// (ROWS) f32.
    type Float: Copy;
    /// (ROWS) integer scales, in the form that [`Self::dot`] multiplies with.
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
    /// `acc + scale * sum of w[g] * a[g]` over four groups of four, exactly. Weights are unsigned and at most `max`;
    /// `a` is 16 values of -127 to 127.
    unsafe fn dot4(
        acc: Self::Int,
        w: [Self::Bytes; 4],
        max: i32,
        a: *const i8,
        scale: Self::Scale,
    ) -> Self::Int;
    /// The same over eight groups.
    unsafe fn dot8(
        acc: Self::Int,
        w: [Self::Bytes; 8],
        max: i32,
        a: *const i8,
        scale: Self::Scale,
    ) -> Self::Int;
    /// The same for weights that went through [`Self::bias`]: the result has `WIDE_BIAS * scale * sum of a` too much.
    unsafe fn dot8_wide(
        acc: Self::Int,
        w: [Self::Bytes; 8],
        a: *const i8,
        scale: Self::Scale,
    ) -> Self::Int;
    /// [`Self::dot4`] for two tokens, each with its own `a`.
    #[inline(always)]
    unsafe fn dot4_two(
        [x, y]: [Self::Int; 2],
        w: [Self::Bytes; 4],
        max: i32,
        a: [*const i8; 2],
        scale: Self::Scale,
    ) -> [Self::Int; 2] {
        // SAFETY: the caller's.
        unsafe {
            [
                Self::dot4(x, w, max, a[0], scale),
                Self::dot4(y, w, max, a[1], scale),
            ]
        }
    }
    /// [`Self::dot8`], likewise.
    #[inline(always)]
    unsafe fn dot8_two(
        [x, y]: [Self::Int; 2],
        w: [Self::Bytes; 8],
        max: i32,
        a: [*const i8; 2],
        scale: Self::Scale,
    ) -> [Self::Int; 2] {
        // SAFETY: the caller's.
        unsafe {
            [
                Self::dot8(x, w, max, a[0], scale),
                Self::dot8(y, w, max, a[1], scale),
            ]
        }
    }
    /// [`Self::dot8_wide`], likewise.
    #[inline(always)]
    unsafe fn dot8_wide_two(
        [x, y]: [Self::Int; 2],
        w: [Self::Bytes; 8],
        a: [*const i8; 2],
        scale: Self::Scale,
    ) -> [Self::Int; 2] {
        // SAFETY: the caller's.
        unsafe {
            [
                Self::dot8_wide(x, w, a[0], scale),
                Self::dot8_wide(y, w, a[1], scale),
            ]
        }
    }
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
