//! x86-64 tiers.

/// Operations that a tier has in common with `$base`: all but the products of bytes.
macro_rules! all_but_byte_products {
    ($base:ty) => {
        const ROWS: usize = <$base>::ROWS;
        type Bytes = <$base as Simd>::Bytes;
        type Int = <$base as Simd>::Int;
        type Float = <$base as Simd>::Float;
        type Inputs = <$base as Simd>::Inputs;
        type Sum = <$base as Simd>::Sum;
        type Pair = <$base as Simd>::Pair;

        all_but_byte_products! { $base,
            prefetch(near: *const u8, far: *const u8) -> ();
            load(p: *const u8) -> Self::Bytes;
            field(v: Self::Bytes, from: i32, to: i32, mask: u8) -> Self::Bytes;
            or(a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
            lookup(v: Self::Bytes, table: &[i8; 16]) -> Self::Bytes;
            int_zero() -> Self::Int;
            inputs(a: *const i8) -> Self::Inputs;
            sum_zero() -> Self::Sum;
            pair(x: *const i8, y: *const i8) -> Self::Pair;
            dot_pair(acc: Self::Int, p: Self::Pair, s: *const i16) -> Self::Int;
            sub_times(acc: Self::Int, n: i32, x: Self::Int) -> Self::Int;
            int_splat(x: i32) -> Self::Int;
            zero() -> Self::Float;
            splat(x: f32) -> Self::Float;
            load_f32(p: *const f32) -> Self::Float;
            load_f16(p: *const u16) -> Self::Float;
            load_i8(p: *const i8) -> Self::Float;
            to_f16(x: f32) -> u16;
            load_bf16(p: *const u16) -> Self::Float;
            store(p: *mut f32, v: Self::Float) -> ();
            to_float(v: Self::Int) -> Self::Float;
            mul(a: Self::Float, b: Self::Float) -> Self::Float;
            fma(a: Self::Float, b: Self::Float, c: Self::Float) -> Self::Float;
            fnma(a: Self::Float, b: Self::Float, c: Self::Float) -> Self::Float;
        }
    };
    ($base:ty, $($name:ident($($x:ident: $type:ty),*) -> $out:ty;)*) => {
        $(
            #[inline(always)]
            unsafe fn $name($($x: $type),*) -> $out {
                <$base>::$name($($x),*)
            }
        )*
    };
}

#[cfg(target_os = "linux")]
pub(super) mod amx;
pub(super) mod avx2;
pub(super) mod avx512;
pub(super) mod avx512vnni;
pub(super) mod avxvnni;

/// Groups, 1, 2, 4 or 8, of which `n` products each of a weight of at most `max` and an activation can be added as i16.
const fn together(n: i32, max: i32) -> usize {
    let mut groups = 8;
    while groups > 1 && groups * n * 127 * max > i16::MAX as i32 {
        groups /= 2;
    }
    groups as usize
}
