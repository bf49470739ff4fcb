//! An open model: one file, or all parts of a split one, as one set of keys and tensors.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::data::Data;
use super::digest::Digest;
use super::metadata::Metadata;
use super::reader::{TensorInfo, parse};
use super::split;
use crate::error::{Error, Result};

/// An open, validated GGUF file, or several that are one model.
#[derive(Debug)]
pub struct Gguf {
    /// Where it was opened; of a split model the first part.
    pub path: PathBuf,
    /// The key-value pairs; of a split model those of the first part.
    pub metadata: Metadata,
    tensors: Vec<TensorInfo>,
    index: HashMap<String, usize>,
    parts: Vec<Data>,
    digest: Digest,
}

impl Gguf {
    /// Opens and validates `path`; `mmap` as in [`Data::open`]. Any part of a split model stands for all of them.
    pub fn open(path: &Path, mmap: bool) -> Result<Self> {
        let (data, metadata, tensors) = open_one(path, mmap)?;
        let paths = split::parts(path, &metadata).map_err(|e| in_file(e, path))?;
        if paths[0] != path {
            // Its name says that it is the first, so this goes no deeper.
            return Self::open(existing(&paths[0], paths.len())?, mmap);
        }
        let mut model = Self {
            path: path.to_path_buf(),
            metadata,
            tensors: Vec::new(),
            index: HashMap::new(),
            parts: Vec::new(),
            digest: Digest::default(),
        };
        model.add(data, tensors, path)?;
        for (no, path) in paths.iter().enumerate().skip(1) {
            let (data, metadata, tensors) = open_one(existing(path, paths.len())?, mmap)?;
            split::check_part(&model.metadata, &metadata, no, paths.len())
                .map_err(|e| in_file(e, path))?;
            model.add(data, tensors, path)?;
        }
        if paths.len() > 1 {
            split::check_total(&model.metadata, model.tensors.len())
                .map_err(|e| in_file(e, path))?;
        }
        Ok(model)
    }

    fn add(&mut self, data: Data, tensors: Vec<TensorInfo>, path: &Path) -> Result<()> {
        for mut tensor in tensors {
            tensor.part = self.parts.len();
            let name = tensor.name.clone();
            if self.index.insert(name, self.tensors.len()).is_some() {
                return Err(Error::ModelFormat(format!(
                    "`{}`: tensor `{}` is in an earlier part too",
                    path.display(),
                    tensor.name
                )));
            }
            self.tensors.push(tensor);
        }
        self.parts.push(data);
        Ok(())
    }

    /// All tensors, in the file's order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.index.get(name).map(|&i| &self.tensors[i])
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

    /// Bytes of all files together.
    pub fn n_bytes(&self) -> u64 {
        self.files().map(|file| file.len() as u64).sum()
    }
}

fn open_one(path: &Path, mmap: bool) -> Result<(Data, Metadata, Vec<TensorInfo>)> {
    let data = Data::open(path, mmap)?;
    let (metadata, tensors) = parse(&data).map_err(|e| in_file(e, path))?;
    Ok((data, metadata, tensors))
}

fn existing(path: &Path, count: usize) -> Result<&Path> {
    if path.exists() {
        return Ok(path);
    }
    Err(Error::ModelNotFound(format!(
        "`{}` is missing: the model is split into {count} files, which must lie in one folder",
        path.display()
    )))
}

/// Names the file in a format error.
fn in_file(error: Error, path: &Path) -> Error {
    match error {
        Error::ModelFormat(m) => Error::ModelFormat(format!("`{}`: {m}", path.display())),
        Error::Unsupported(m) => Error::Unsupported(format!("`{}`: {m}", path.display())),
        other => other,
    }
}
