//! `candlewick._native.Header`: what a model's file says before its weights, and the memory that follows from it.

use std::path::{Path, PathBuf};

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::errors::guard;
use super::hub::{Ask, asking};
use crate::engine::{self, KvType};
use crate::error::Result;
use crate::gguf;
use crate::hub::{self, Found};
use crate::model::Dimensions;

/// A header. Private: `candlewick.Estimate` is the public class.
#[pyclass(frozen, module = "candlewick._native")]
pub struct Header {
    model: Dimensions,
    // Where the file is; none while it is at the hub
    path: Option<PathBuf>,
    // Path in the repository
    file: Option<String>,
    name: Option<String>,
    quantization: &'static str,
    file_bytes: u64,
    weight_bytes: u64,
    // Models of the same repository with their sizes
    others: Vec<(String, Option<u64>)>,
}

impl Header {
    fn new(header: &gguf::Header) -> Result<Self> {
        Ok(Self {
            model: Dimensions::read(&header.metadata)?,
            path: None,
            file: None,
            name: header.metadata.str("general.name")?.map(str::to_owned),
            quantization: header.quantization(),
            file_bytes: header.n_bytes(),
            weight_bytes: engine::weight_bytes(header),
            others: Vec::new(),
        })
    }

    fn open(path: &Path) -> Result<Self> {
        let (path, header) = gguf::Header::open(path)?;
        Ok(Self {
            path: Some(path),
            ..Self::new(&header)?
        })
    }
}

#[pymethods]
impl Header {
    /// The header of a file that is here.
    #[staticmethod]
    fn read(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        Ok(py.detach(|| guard(|| Self::open(&path)))?)
    }

    /// The header of a model of a repository, which is not fetched.
    #[staticmethod]
    #[pyo3(signature = (repo, *, filename, revision, cache_dir, local_files_only, token))]
    fn ask(
        py: Python<'_>,
        repo: &Bound<'_, PyAny>,
        filename: Option<&Bound<'_, PyAny>>,
        revision: Option<&Bound<'_, PyAny>>,
        cache_dir: Option<PathBuf>,
        local_files_only: Option<bool>,
        token: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let ask = Ask::new(
            (repo, filename, revision),
            cache_dir,
            local_files_only,
            token,
        )?;
        asking(py, None, |watch| {
            match hub::look(&ask.wanted, &ask.settings, watch)? {
                Found::Here(paths) => Self::open(&paths[0]),
                Found::There {
                    file,
                    header,
                    models,
                } => Ok(Self {
                    file: Some(file),
                    others: models,
                    ..Self::new(&header)?
                }),
            }
        })
    }

    /// Bytes of keys and values of one text of `n_ctx` tokens.
    fn context_bytes(&self, n_ctx: usize, kv_type: &str) -> PyResult<u64> {
        let kv_type = KvType::parse(kv_type)?.unwrap_or(KvType::F16);
        Ok(engine::context_bytes(&self.model, kv_type, n_ctx))
    }

    /// What keys and values may take where `available` bytes are; `None` where the weights do not fit.
    fn context_room(&self, available: u64) -> Option<u64> {
        let left = available.checked_sub(self.weight_bytes)?;
        Some(engine::context_room(left))
    }

    #[getter]
    fn facts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let facts = PyDict::new(py);
        facts.set_item("name", &self.name)?;
        facts.set_item("path", &self.path)?;
        facts.set_item("filename", &self.file)?;
        facts.set_item("architecture", self.model.architecture.name())?;
        facts.set_item("quantization", self.quantization)?;
        facts.set_item("file_bytes", self.file_bytes)?;
        facts.set_item("weight_bytes", self.weight_bytes)?;
        facts.set_item("model_n_ctx", self.model.n_ctx)?;
        facts.set_item("sliding_window", self.model.sliding_window)?;
        Ok(facts)
    }

    #[getter]
    fn others(&self) -> Vec<(String, Option<u64>)> {
        self.others.clone()
    }
}
