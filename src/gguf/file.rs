//! An open model: one file, or all parts of a split one, as one set of keys and tensors.

use std::ops::Deref;
use std::path::{Path, PathBuf};

use super::data::Data;
use super::digest::Digest;
use super::header::Header;
use super::reader::{TensorInfo, parse};
use super::split;
use crate::error::{Error, Result};

/// An open, validated GGUF file, or several that are one model.
#[derive(Debug)]
pub struct Gguf {
    /// Where it was opened; of a split model the first part.
    pub path: PathBuf,
    header: Header,
    parts: Vec<Data>,
    digest: Digest,
}

impl Gguf {
    /// Opens and validates `path`; `mmap` as in [`Data::open`]. Any part of a split model stands for all of them.
    pub fn open(path: &Path, mmap: bool) -> Result<Self> {
        let (data, header) = open_one(path, mmap)?;
        let paths = split::parts(path, &header.metadata).map_err(|e| in_file(e, path))?;
        if paths[0] != path {
            // Its name says that it is the first, so this goes no deeper.
            return Self::open(existing(&paths[0], paths.len())?, mmap);
        }
        let mut model = Self {
            path: path.to_path_buf(),
            header,
            parts: vec![data],
            digest: Digest::default(),
        };
        for path in &paths[1..] {
            let (data, header) = open_one(existing(path, paths.len())?, mmap)?;
            let joined = model.header.join(header, paths.len());
            joined.map_err(|e| in_file(e, path))?;
            model.parts.push(data);
        }
        Ok(model)
    }

    /// The bytes of a tensor of this model.
    pub fn bytes(&self, tensor: &TensorInfo) -> &[u8] {
        &self.parts[tensor.part][tensor.range.clone()]
    }

    /// Says that a tensor's bytes will not be read again soon: their memory is free for others.
    pub fn release(&self, tensor: &TensorInfo) {
        self.parts[tensor.part].release(tensor.range.clone());
    }

    /// Where a tensor of this model begins, in bytes from the start of its file.
    pub fn offset(&self, tensor: &TensorInfo) -> usize {
        tensor.range.start
    }

    /// Each file whole, in order: one, but for split models.
    pub fn files(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.parts.iter().map(|part| &**part)
    }

    /// The SHA-256 of all files, one after the other, in lower-case hex. Read once, at the first call.
    ///
    /// # Errors
    /// What `interrupt` gives.
    pub fn sha256(&self, interrupt: &mut dyn FnMut() -> Result<()>) -> Result<&str> {
        self.digest.of(&self.parts, interrupt)
    }
}

impl Deref for Gguf {
    type Target = Header;

    fn deref(&self) -> &Header {
        &self.header
    }
}

fn open_one(path: &Path, mmap: bool) -> Result<(Data, Header)> {
    let data = Data::open(path, mmap)?;
    let header = parse(&data)
        .and_then(|(metadata, tensors)| Header::new(metadata, tensors, data.len() as u64));
    Ok((data, header.map_err(|e| in_file(e, path))?))
}

pub(super) fn existing(path: &Path, count: usize) -> Result<&Path> {
    if path.exists() {
        return Ok(path);
    }
    Err(Error::ModelNotFound(format!(
        "`{}` is missing: the model is split into {count} files, which must lie in one folder",
        path.display()
    )))
}

/// Names the file in a format error.
pub(super) fn in_file(error: Error, path: &Path) -> Error {
    match error {
        Error::ModelFormat(m) => Error::ModelFormat(format!("`{}`: {m}", path.display())),
        Error::Unsupported(m) => Error::Unsupported(format!("`{}`: {m}", path.display())),
        other => other,
    }
}
