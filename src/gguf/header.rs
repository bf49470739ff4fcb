//! What a file says before its weights: enough to know what it is and how much memory it takes.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::data;
use super::file::{existing, in_file};
use super::metadata::Metadata;
use super::reader::{TensorInfo, parse_start};
use super::split;
use crate::error::{Error, Result};

/// Read at first; four times as much where that does not suffice.
const FIRST_BYTES: u64 = 1 << 20;

/// The header of a GGUF file, or of all parts of a split one. The weights need not be here.
#[derive(Debug)]
pub struct Header {
    /// The key-value pairs; of a split model those of the first part.
    pub metadata: Metadata,
    tensors: Vec<TensorInfo>,
    index: HashMap<String, usize>,
    n_parts: usize,
    n_bytes: u64,
}

impl Header {
    /// The header in the first bytes of a file of `len` bytes; `None` where it goes on after them.
    ///
    /// # Errors
    /// As [`super::Gguf::open`].
    pub fn parse(start: &[u8], len: u64) -> Result<Option<Self>> {
        let parsed = parse_start(start, len)?;
        parsed
            .map(|(metadata, tensors)| Self::new(metadata, tensors, len))
            .transpose()
    }

    /// The header of the model at `path`, of which no more is read or mapped. Any part of a split model stands for all
    /// of them.
    ///
    /// # Errors
    /// As [`super::Gguf::open`].
    pub fn open(path: &Path) -> Result<(PathBuf, Self)> {
        let mut whole = Self::read(path)?;
        let paths = split::parts(path, &whole.metadata).map_err(|e| in_file(e, path))?;
        if paths[0] != path {
            return Self::open(existing(&paths[0], paths.len())?);
        }
        for path in &paths[1..] {
            let part = Self::read(existing(path, paths.len())?)?;
            let joined = whole.join(part, paths.len());
            joined.map_err(|e| in_file(e, path))?;
        }
        Ok((path.to_path_buf(), whole))
    }

    fn read(path: &Path) -> Result<Self> {
        let (file, len) = data::open(path)?;
        let mut start = Vec::new();
        let mut wanted = FIRST_BYTES;
        loop {
            let more = wanted - start.len() as u64;
            let read = (&file).take(more).read_to_end(&mut start);
            read.map_err(|e| Error::io(path, &e))?;
            // At the end of the file, there is nothing behind what is here.
            let len = if (start.len() as u64) < wanted {
                start.len() as u64
            } else {
                len
            };
            if let Some(header) = Self::parse(&start, len).map_err(|e| in_file(e, path))? {
                return Ok(header);
            }
            wanted *= 4;
        }
    }

    pub(super) fn new(metadata: Metadata, tensors: Vec<TensorInfo>, len: u64) -> Result<Self> {
        let mut header = Self {
            metadata,
            tensors: Vec::new(),
            index: HashMap::new(),
            n_parts: 0,
            n_bytes: 0,
        };
        header.add(tensors, len)?;
        Ok(header)
    }

    /// Adds the next part of a split model of `count` parts.
    pub fn join(&mut self, part: Self, count: usize) -> Result<()> {
        split::check_part(&self.metadata, &part.metadata, self.n_parts, count)?;
        self.add(part.tensors, part.n_bytes)?;
        if self.n_parts == count {
            split::check_total(&self.metadata, self.tensors.len())?;
        }
        Ok(())
    }

    fn add(&mut self, tensors: Vec<TensorInfo>, len: u64) -> Result<()> {
        for mut tensor in tensors {
            tensor.part = self.n_parts;
            let name = tensor.name.clone();
            if self.index.insert(name, self.tensors.len()).is_some() {
                return Err(Error::ModelFormat(format!(
                    "tensor `{}` is in an earlier part too",
                    tensor.name
                )));
            }
            self.tensors.push(tensor);
        }
        self.n_parts += 1;
        self.n_bytes += len;
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

    /// Bytes of all files together.
    pub fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// The quantization as people name it: the type of most of the weights' bytes, such as `"Q4_K"`.
    pub fn quantization(&self) -> &'static str {
        let mut totals = std::collections::BTreeMap::new();
        for tensor in &self.tensors {
            *totals.entry(tensor.ty.name()).or_insert(0) += tensor.n_bytes();
        }
        totals
            .into_iter()
            .max_by_key(|&(_, n)| n)
            .map_or("none", |(name, _)| name)
    }
}
