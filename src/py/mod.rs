//! The binding: signatures, conversions, and the GIL released around all work. No logic.
//!
//! `candlewick._native` is private; the public, documented classes are Python (`python/candlewick`).

mod constraint;
mod convert;
mod driver;
mod errors;
mod generator;
mod header;
mod hub;
mod machine;
mod processor;
mod progress;
mod session;
mod signals;
mod stream;
mod tokenizer;

use std::sync::OnceLock;

use pyo3::exceptions::PyImportError;
use pyo3::ffi;
use pyo3::prelude::*;

/// The extension module of the `candlewick` package.
#[pymodule(gil_used = false)]
mod _native {
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::generator::Generator;
    #[pymodule_export]
    use super::header::Header;
    #[pymodule_export]
    use super::hub::{cache_dir, fetch, hub_settings};
    #[pymodule_export]
    use super::machine::{available_memory, multiply_rate, read_bytes, read_rate, tiers};
    #[pymodule_export]
    use super::session::Session;
    #[pymodule_export]
    use super::stream::Stream;
    #[pymodule_export]
    use super::tokenizer::Tokenizer;

    /// Starts the threads that products run on, once for the process, and returns their number.
    #[pyfunction]
    fn start_threads(py: Python<'_>) -> PyResult<usize> {
        Ok(py.detach(|| super::errors::guard(crate::engine::start_threads))?)
    }

    /// Instruction sets of this CPU, and the best that is made use of.
    #[pyfunction]
    fn cpu() -> PyResult<(Vec<&'static str>, &'static str)> {
        Ok((
            crate::engine::cpu::features(),
            crate::kernels::Isa::choose()?.name(),
        ))
    }

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        super::refuse_other_interpreters()?;
        super::start_logging(module.py())?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}

/// Types, exceptions and the logger are static, and belong to the interpreter that came first.
fn refuse_other_interpreters() -> PyResult<()> {
    static FIRST: OnceLock<i64> = OnceLock::new();
    // SAFETY: this runs in an interpreter, with its GIL or attached to it.
    let this = unsafe { ffi::PyInterpreterState_GetID(ffi::PyInterpreterState_Get()) };
    if *FIRST.get_or_init(|| this) == this {
        return Ok(());
    }
    Err(PyImportError::new_err(
        "candlewick was imported by another interpreter of this process, and cannot serve two: use it there, or start a \
         process (multiprocessing, concurrent.futures.ProcessPoolExecutor)",
    ))
}

/// Our log records go to Python's `logging`, below the logger `candlewick`; other crates' go nowhere.
fn start_logging(py: Python<'_>) -> PyResult<()> {
    // Records are rare: asking Python each time means that a level set later is honoured.
    let logger = pyo3_log::Logger::new(py, pyo3_log::Caching::Nothing)?
        .filter(log::LevelFilter::Off)
        .filter_target("candlewick".to_owned(), log::LevelFilter::Debug);
    // A second import finds the first one's logger in place.
    let _ = logger.install();
    Ok(())
}
