//! Progress of downloads and loads, told to a Python function while the GIL is released.

use std::time::{Duration, Instant};

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use crate::error::{Error, Result};

/// Python hears of progress at most this often, and of each file's end.
const SPEAK_EVERY: Duration = Duration::from_millis(100);

/// Calls a Python function, if there is one, with (bytes that are there, bytes in all, what they are of).
pub(super) struct Speaker<'a> {
    callable: Option<&'a Py<PyAny>>,
    spoke: Option<Instant>,
    last: (u64, String),
    raised: Option<PyErr>,
}

impl<'a> Speaker<'a> {
    pub(super) fn new(py: Python<'_>, callable: Option<&'a Py<PyAny>>) -> PyResult<Self> {
        if callable.is_some_and(|callable| !callable.bind(py).is_callable()) {
            return Err(PyTypeError::new_err("progress must be a callable or None"));
        }
        Ok(Self {
            callable,
            spoke: None,
            last: (0, String::new()),
            raised: None,
        })
    }

    /// Tells it, if something has changed since it was told a moment ago.
    pub(super) fn speak(&mut self, done: u64, total: u64, what: &str) -> Result<()> {
        let Some(callable) = self.callable else {
            return Ok(());
        };
        let ended = total > 0 && done == total;
        let told = self.last.0 == done && self.last.1 == what;
        let soon = self.spoke.is_some_and(|at| at.elapsed() < SPEAK_EVERY);
        if soon && (told || !ended) {
            return Ok(());
        }
        self.spoke = Some(Instant::now());
        self.last = (done, what.to_owned());
        // None while the interpreter shuts down: nobody is left to tell.
        let called = Python::try_attach(|py| callable.call1(py, (done, total, what)).map(drop));
        if let Some(Err(raised)) = called {
            self.raised = Some(raised);
            return Err(Error::Interrupted);
        }
        Ok(())
    }

    /// What the function raised, if it did.
    pub(super) fn into_result(self) -> PyResult<()> {
        self.raised.map_or(Ok(()), Err)
    }
}
