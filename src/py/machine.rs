//! What this machine can do at most, measured with the GIL released.

use pyo3::prelude::*;

use super::errors::guard;
use super::signals::Signals;
use crate::error::Result;
use crate::kernels::{Isa, limits};
use crate::memory;

/// Bytes that this process can still have, or `None` where the system does not tell.
#[pyfunction]
pub fn available_memory() -> Option<u64> {
    memory::available()
}

/// The tiers of kernels that this CPU has, from the slowest on.
#[pyfunction]
pub fn tiers() -> Vec<&'static str> {
    Isa::available().into_iter().map(Isa::name).collect()
}

/// Bytes that `read_rate` should read here: more than the caches hold, and not too much for the memory that is free.
#[pyfunction]
pub fn read_bytes() -> usize {
    limits::read_bytes()
}

/// Bytes a second of a plain read by `n_threads`.
#[pyfunction]
pub fn read_rate(py: Python<'_>, n_threads: usize, n_bytes: usize, huge: bool) -> PyResult<f64> {
    measure(py, |interrupt| {
        limits::read_rate(n_threads, n_bytes, huge, interrupt)
    })
}

/// Products of bytes a second by `n_threads`, with the tier in use; `None` for the scalar one.
#[pyfunction]
pub fn multiply_rate(py: Python<'_>, n_threads: usize) -> PyResult<Option<f64>> {
    let isa = Isa::choose()?;
    measure(py, |interrupt| {
        limits::multiply_rate(isa, n_threads, interrupt)
    })
}

fn measure<T: Send>(
    py: Python<'_>,
    work: impl Send + FnOnce(limits::Interrupt) -> Result<T>,
) -> PyResult<T> {
    let mut signals = Signals::new(py, None)?;
    let result = py.detach(|| guard(|| work(&mut || signals.check())));
    signals.into_result()?;
    Ok(result?)
}
