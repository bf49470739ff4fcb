//! The parser: header, metadata, tensor table, each checked against the file before it is believed.

use std::ops::Range;

use super::metadata::{Array, Metadata, Value};
use super::types::GgmlType;
use crate::error::{Error, Result};

const DEFAULT_ALIGNMENT: u64 = 32;
const MAX_ALIGNMENT: u64 = 1 << 20;
const MAX_DIMS: u32 = 4;
const MAX_NESTING: u32 = 4;
const MAX_NAME_BYTES: usize = 256;

/// One tensor of the file: `shape` is in row-major order (rows first), as in NumPy.
#[derive(Debug, Clone)]
pub struct TensorInfo {
    /// Such as `blk.0.attn_qkv.weight`.
    pub name: String,
    /// Row-major; every dimension is at least 1 and the product fits.
    pub shape: Vec<usize>,
    /// How the elements are stored.
    pub ty: GgmlType,
    // Which file of a split model, and where in it
    pub(super) part: usize,
    pub(super) range: Range<usize>,
}

impl TensorInfo {
    /// Bytes of the tensor in the file.
    pub fn n_bytes(&self) -> usize {
        self.range.len()
    }

    /// Number of elements.
    pub fn n_elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Parses the header of a whole file. Separate from [`super::Gguf::open`] so that tests and fuzzers can hand it bytes.
pub(super) fn parse(data: &[u8]) -> Result<(Metadata, Vec<TensorInfo>)> {
    let parsed = parse_start(data, data.len() as u64)?;
    Ok(parsed.expect("there is no more of it"))
}

/// Parses the header in the first bytes of a file of `len` bytes; `None` where it goes on after them.
pub(super) fn parse_start(data: &[u8], len: u64) -> Result<Option<(Metadata, Vec<TensorInfo>)>> {
    let mut r = Reader {
        data,
        at: 0,
        len: len.max(data.len() as u64),
        short: false,
    };
    match read(&mut r) {
        Err(_) if r.short => Ok(None),
        parsed => parsed.map(Some),
    }
}

fn read(r: &mut Reader) -> Result<(Metadata, Vec<TensorInfo>)> {
    let magic = r.take(4, "the magic number")?;
    if magic != b"GGUF" {
        let hint = match magic {
            b"GGML" | b"tjgg" | b"fmgg" | b"lmgg" => " (an old GGML file: convert it to GGUF)",
            [b'P', b'K', 3, 4] => " (a zip archive, perhaps PyTorch weights: a GGUF is wanted)",
            b"<!DO" | b"<htm" => " (an HTML page: the download went wrong)",
            b"vers" => " (a git-lfs pointer: fetch the real file with `git lfs pull`)",
            _ => "",
        };
        return Err(Error::ModelFormat(format!(
            "not a GGUF file: it begins with {:?}, expected \"GGUF\"{hint}",
            String::from_utf8_lossy(magic)
        )));
    }
    let version = r.u32("the version")?;
    match version {
        2 | 3 => {}
        v if v.swap_bytes() == 2 || v.swap_bytes() == 3 => {
            return Err(Error::Unsupported(
                "a big-endian GGUF; convert it to little-endian".into(),
            ));
        }
        v => {
            return Err(Error::Unsupported(format!(
                "GGUF version {v}, expected 2 or 3; convert the model again"
            )));
        }
    }
    let n_tensors = r.u64("the tensor count")?;
    let n_pairs = r.u64("the metadata count")?;
    // The smallest pair is 8 + 4 + 1 bytes and the smallest tensor entry 8 + 4 + 8 + 4 + 8.
    r.check_count(n_pairs, 13, "metadata pairs")?;
    r.check_count(n_tensors, 32, "tensors")?;

    let mut metadata = Metadata::default();
    for _ in 0..n_pairs {
        let key = r.string("a metadata key")?;
        let kind = r.u32(&key)?;
        let value = r.value(kind, &key)?;
        metadata.insert(key, value)?;
    }

    let mut tensors: Vec<(String, Vec<u64>, GgmlType, u64)> = Vec::new();
    for _ in 0..n_tensors {
        let name = r.string("a tensor name")?;
        if name.len() > MAX_NAME_BYTES {
            return Err(Error::ModelFormat(format!(
                "a tensor name of {} bytes, at most {MAX_NAME_BYTES}",
                name.len()
            )));
        }
        let n_dims = r.u32(&name)?;
        if n_dims == 0 || n_dims > MAX_DIMS {
            return Err(Error::ModelFormat(format!(
                "tensor `{name}` has {n_dims} dimensions, expected 1 to {MAX_DIMS}"
            )));
        }
        let dims = (0..n_dims)
            .map(|_| r.u64(&name))
            .collect::<Result<Vec<_>>>()?;
        let id = r.u32(&name)?;
        let ty = GgmlType::from_id(id).ok_or_else(|| {
            Error::Unsupported(format!(
                "tensor `{name}` has the unknown type number {id}: a newer candlewick may know it"
            ))
        })?;
        let offset = r.u64(&name)?;
        tensors.push((name, dims, ty, offset));
    }

    let alignment = match metadata.u32("general.alignment")? {
        None => DEFAULT_ALIGNMENT,
        Some(a) => u64::from(a),
    };
    if !(alignment.is_power_of_two() && (8..=MAX_ALIGNMENT).contains(&alignment)) {
        return Err(Error::ModelFormat(format!(
            "`general.alignment` is {alignment}, expected a power of two from 8 to {MAX_ALIGNMENT}"
        )));
    }
    let start = (r.at as u64).next_multiple_of(alignment);
    let tensors = tensors
        .into_iter()
        .map(|(name, dims, ty, offset)| place(name, dims, ty, offset, alignment, start, r.len))
        .collect::<Result<Vec<_>>>()?;
    check_distinct(&tensors)?;
    Ok((metadata, tensors))
}

/// Turns a tensor's entry into a checked range of the file.
fn place(
    name: String,
    dims: Vec<u64>,
    ty: GgmlType,
    offset: u64,
    alignment: u64,
    start: u64,
    file_len: u64,
) -> Result<TensorInfo> {
    let bad = |what: String| Error::ModelFormat(format!("tensor `{name}` {what}"));
    if dims.contains(&0) {
        return Err(bad(format!("has a zero in its shape {dims:?}")));
    }
    if !dims[0].is_multiple_of(ty.block_len()) {
        return Err(bad(format!(
            "has rows of {} elements, but {} needs a multiple of {}",
            dims[0],
            ty.name(),
            ty.block_len()
        )));
    }
    let n_bytes = dims
        .iter()
        .try_fold(1u64, |n, &d| n.checked_mul(d))
        .and_then(|n| (n / ty.block_len()).checked_mul(ty.block_bytes()))
        .ok_or_else(|| bad(format!("has an impossible shape {dims:?}")))?;
    if !offset.is_multiple_of(alignment) {
        return Err(bad(format!(
            "begins at offset {offset}, which is not a multiple of the alignment {alignment}"
        )));
    }
    let end = start
        .checked_add(offset)
        .and_then(|begin| begin.checked_add(n_bytes));
    match end {
        Some(end) if end <= file_len => {
            let begin = (start + offset) as usize;
            Ok(TensorInfo {
                shape: dims.iter().rev().map(|&d| d as usize).collect(),
                name,
                ty,
                part: 0,
                range: begin..end as usize,
            })
        }
        _ => Err(bad(format!(
            "wants {n_bytes} bytes at offset {offset}, but the file ends after {} bytes of tensor data: it is cut \
             short or damaged, download it again",
            file_len.saturating_sub(start)
        ))),
    }
}

/// No two tensors share a name or bytes.
fn check_distinct(tensors: &[TensorInfo]) -> Result<()> {
    let mut names: Vec<&str> = tensors.iter().map(|t| t.name.as_str()).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|p| p[0] == p[1]) {
        return Err(Error::ModelFormat(format!(
            "tensor `{}` appears twice",
            pair[0]
        )));
    }
    let mut ranges: Vec<&TensorInfo> = tensors.iter().collect();
    ranges.sort_unstable_by_key(|t| t.range.start);
    match ranges
        .windows(2)
        .find(|p| p[0].range.end > p[1].range.start)
    {
        Some(pair) => Err(Error::ModelFormat(format!(
            "tensors `{}` and `{}` overlap",
            pair[0].name, pair[1].name
        ))),
        None => Ok(()),
    }
}

/// A bounds-checked cursor.
struct Reader<'a> {
    data: &'a [u8],
    at: usize,
    // Bytes of the file, of which `data` may be the beginning
    len: u64,
    // Something lies behind `data`, but within the file
    short: bool,
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize, what: &str) -> Result<&'a [u8]> {
        let rest = &self.data[self.at..];
        if n > rest.len() {
            self.short = n as u64 <= self.left();
            return Err(Error::ModelFormat(format!(
                "the file ends inside {what} (byte {} of {}): it is cut short or damaged, download it again",
                self.at, self.len
            )));
        }
        self.at += n;
        Ok(&rest[..n])
    }

    fn left(&self) -> u64 {
        self.len - self.at as u64
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        Ok(self
            .take(N, what)?
            .try_into()
            .expect("take returns N bytes"))
    }

    fn u32(&mut self, what: &str) -> Result<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Result<u64> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// `count` items of at least `min_bytes` must fit in what is left, which bounds every allocation.
    fn check_count(&self, count: u64, min_bytes: u64, what: &str) -> Result<usize> {
        let left = self.left();
        if count.checked_mul(min_bytes).is_none_or(|n| n > left) {
            return Err(Error::ModelFormat(format!(
                "the header announces {count} {what}, but only {left} bytes follow: the file is cut short or damaged"
            )));
        }
        Ok(count as usize)
    }

    fn string(&mut self, what: &str) -> Result<String> {
        let len = self.u64(what)?;
        let len = self.check_count(len, 1, &format!("bytes in {what}"))?;
        let bytes = self.take(len, what)?;
        match std::str::from_utf8(bytes) {
            Ok(s) => Ok(s.to_owned()),
            Err(_) => Err(Error::ModelFormat(format!(
                "{what} is not valid UTF-8: {:?}",
                String::from_utf8_lossy(&bytes[..bytes.len().min(64)])
            ))),
        }
    }

    fn bool(&mut self, key: &str) -> Result<bool> {
        match self.array::<1>(key)?[0] {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Error::ModelFormat(format!(
                "`{key}` has the boolean {other}, expected 0 or 1"
            ))),
        }
    }

    fn value(&mut self, kind: u32, key: &str) -> Result<Value> {
        Ok(match kind {
            0 => Value::Int(self.array::<1>(key)?[0].into()),
            1 => Value::Int(i8::from_le_bytes(self.array(key)?).into()),
            2 => Value::Int(u16::from_le_bytes(self.array(key)?).into()),
            3 => Value::Int(i16::from_le_bytes(self.array(key)?).into()),
            4 => Value::Int(self.u32(key)?.into()),
            5 => Value::Int(i32::from_le_bytes(self.array(key)?).into()),
            6 => Value::Float(f32::from_le_bytes(self.array(key)?).into()),
            7 => Value::Bool(self.bool(key)?),
            8 => Value::Str(self.string(key)?),
            9 => Value::Array(self.values(key, 0)?),
            10 => Value::Int(self.u64(key)?.into()),
            11 => Value::Int(i64::from_le_bytes(self.array(key)?).into()),
            12 => Value::Float(f64::from_le_bytes(self.array(key)?)),
            other => return Err(unknown_kind(other, key)),
        })
    }

    fn values(&mut self, key: &str, depth: u32) -> Result<Array> {
        if depth > MAX_NESTING {
            return Err(Error::ModelFormat(format!(
                "`{key}` nests arrays more than {MAX_NESTING} deep"
            )));
        }
        let kind = self.u32(key)?;
        let count = self.u64(key)?;
        let min_bytes = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            9 => 12,
            other => return Err(unknown_kind(other, key)),
        };
        let count = self.check_count(count, min_bytes, &format!("elements in `{key}`"))?;
        Ok(match kind {
            6 => Array::Float(self.list(count, |r| r.array(key).map(f32::from_le_bytes))?),
            12 => Array::Float(self.list(count, |r| {
                r.array(key).map(|b| f64::from_le_bytes(b) as f32)
            })?),
            8 => Array::Str(self.list(count, |r| r.string(key))?),
            9 => Array::Nested(self.list(count, |r| r.values(key, depth + 1))?),
            _ => Array::Int(self.list(count, |r| match r.value(kind, key)? {
                Value::Int(n) => i64::try_from(n).map_err(|_| {
                    Error::ModelFormat(format!(
                        "`{key}` holds {n}, which no signed 64-bit integer can"
                    ))
                }),
                Value::Bool(b) => Ok(b.into()),
                other => Err(Error::ModelFormat(format!(
                    "`{key}` holds {}",
                    other.kind()
                ))),
            })?),
        })
    }

    fn list<T>(
        &mut self,
        count: usize,
        mut item: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        (0..count).map(|_| item(self)).collect()
    }
}

fn unknown_kind(kind: u32, key: &str) -> Error {
    Error::ModelFormat(format!(
        "`{key}` has the unknown value type {kind}, expected 0 to 12"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A little writer, so that each test reads as the bytes it is about.
    #[derive(Default)]
    struct Bytes(Vec<u8>);

    impl Bytes {
        fn header(n_tensors: u64, n_pairs: u64) -> Self {
            Self(b"GGUF".to_vec()).u32(3).u64(n_tensors).u64(n_pairs)
        }
        fn u32(mut self, x: u32) -> Self {
            self.0.extend(x.to_le_bytes());
            self
        }
        fn u64(mut self, x: u64) -> Self {
            self.0.extend(x.to_le_bytes());
            self
        }
        fn str(mut self, s: &str) -> Self {
            self = self.u64(s.len() as u64);
            self.0.extend(s.as_bytes());
            self
        }
        fn tensor(self, name: &str, dims: &[u64], ty: u32, offset: u64) -> Self {
            let start = self.str(name).u32(dims.len() as u32);
            dims.iter()
                .fold(start, |b, &d| b.u64(d))
                .u32(ty)
                .u64(offset)
        }
        fn pad(mut self, extra: usize) -> Self {
            let len = self.0.len().next_multiple_of(32) + extra;
            self.0.resize(len, 0);
            self
        }
        fn error(&self) -> String {
            match parse(&self.0) {
                Ok(_) => "no error".into(),
                Err(e) => e.to_string(),
            }
        }
    }

    #[test]
    fn a_small_file_is_read() {
        let b = Bytes::header(1, 2)
            .str("general.architecture")
            .u32(8)
            .str("phi3")
            .str("a.b")
            .u32(4)
            .u32(7)
            .tensor("t", &[32, 2], 8, 0)
            .pad(68);
        let (metadata, tensors) = parse(&b.0).expect("well formed");
        assert_eq!(
            metadata.str("general.architecture").expect("a string"),
            Some("phi3")
        );
        assert_eq!(metadata.u32("a.b").expect("an integer"), Some(7));
        assert_eq!(tensors[0].shape, [2, 32]);
        assert_eq!(tensors[0].n_bytes(), 68);
    }

    #[test]
    fn each_lie_in_the_table_is_named() {
        let one = |dims: &[u64], ty, offset| {
            Bytes::header(1, 0)
                .tensor("t", dims, ty, offset)
                .pad(64)
                .error()
        };
        for (found, expected) in [
            (Bytes(b"GGU".to_vec()).error(), "ends inside the magic"),
            (Bytes(b"PK\x03\x04....".to_vec()).error(), "zip archive"),
            (Bytes(b"GGUF".to_vec()).u32(1).error(), "GGUF version 1"),
            (Bytes(b"GGUF".to_vec()).u32(3 << 24).error(), "big-endian"),
            (Bytes::header(u64::MAX, 0).error(), "tensors, but only"),
            (
                Bytes::header(0, 1 << 62).error(),
                "metadata pairs, but only",
            ),
            (
                Bytes::header(0, 1).u64(1 << 63).u64(0).error(),
                "bytes in a metadata key",
            ),
            (
                Bytes::header(0, 1).str("k").u32(13).error(),
                "unknown value type 13",
            ),
            (
                Bytes::header(0, 1)
                    .str("k")
                    .u32(9)
                    .u32(8)
                    .u64(1 << 60)
                    .error(),
                "elements in `k`",
            ),
            (one(&[0], 0, 0), "a zero in its shape"),
            (one(&[4; 5], 0, 0), "5 dimensions"),
            (one(&[1 << 54, 3072], 0, 0), "impossible shape"),
            (one(&[33], 8, 0), "multiple of 32"),
            (one(&[4], 0, 16), "not a multiple of the alignment"),
            (one(&[4], 99, 0), "unknown type number 99"),
            (one(&[64], 0, 0), "cut short"),
            (one(&[4], 0, u64::MAX - 31), "cut short"),
            (
                Bytes::header(2, 0)
                    .tensor("a", &[8], 0, 0)
                    .tensor("b", &[8], 0, 0)
                    .pad(64)
                    .error(),
                "`a` and `b` overlap",
            ),
            (
                Bytes::header(2, 0)
                    .tensor("a", &[8], 0, 0)
                    .tensor("a", &[8], 0, 32)
                    .pad(64)
                    .error(),
                "appears twice",
            ),
        ] {
            assert!(
                found.contains(expected),
                "{found:?} does not mention {expected:?}"
            );
        }
    }

    #[test]
    fn alignment_is_checked() {
        for alignment in [0, 1, 4, 24, 1 << 21] {
            let b = Bytes::header(0, 1)
                .str("general.alignment")
                .u32(4)
                .u32(alignment)
                .pad(0);
            assert!(
                b.error().contains("power of two"),
                "{alignment}: {}",
                b.error()
            );
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let mut b = Bytes::header(0, 1).str("k").u32(9);
        for _ in 0..100_000 {
            b = b.u32(9).u64(1);
        }
        assert!(b.error().contains("nests arrays"));
    }
}
