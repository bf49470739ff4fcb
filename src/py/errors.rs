//! `Error` -> the exceptions of `candlewick.errors`; a panic, which would be a bug, -> `candlewick.Error`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

use crate::error::{Error, Result};

mod exceptions {
    pyo3::import_exception!(candlewick, Error);
    pyo3::import_exception!(candlewick, ModelNotFoundError);
    pyo3::import_exception!(candlewick, ModelFormatError);
    pyo3::import_exception!(candlewick, UnsupportedModelError);
    pyo3::import_exception!(candlewick, InvalidRequestError);
    pyo3::import_exception!(candlewick, ContextLengthError);
    pyo3::import_exception!(candlewick, SessionError);
    pyo3::import_exception!(candlewick, DownloadError);
    pyo3::import_exception!(candlewick, OutOfMemoryError);
}

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::ModelNotFound(_) => exceptions::ModelNotFoundError::new_err(text),
            Error::ModelFormat(_) => exceptions::ModelFormatError::new_err(text),
            Error::Unsupported(_) => exceptions::UnsupportedModelError::new_err(text),
            Error::InvalidRequest(_) => exceptions::InvalidRequestError::new_err(text),
            Error::ContextLength { .. } => exceptions::ContextLengthError::new_err(text),
            Error::Session(_) => exceptions::SessionError::new_err(text),
            Error::OutOfMemory { .. } => exceptions::OutOfMemoryError::new_err(text),
            Error::Download { .. } | Error::DiskFull { .. } => {
                exceptions::DownloadError::new_err(text)
            }
            // With a number and a name, OSError becomes PermissionError and its like by itself.
            Error::Io {
                path,
                errno: Some(errno),
                message,
            } => PyOSError::new_err((errno, message, path)),
            Error::Io { .. } => PyOSError::new_err(text),
            Error::Interrupted | Error::Engine(_) => exceptions::Error::new_err(text),
        }
    }
}

/// A bad argument, as `InvalidRequestError`.
pub(super) fn invalid(text: String) -> PyErr {
    Error::InvalidRequest(text).into()
}

/// Runs `work` so that a panic below becomes an ordinary exception and not `PanicException`, which escapes `except Exception`.
pub(super) fn guard<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let what = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        Err(Error::Engine(format!(
            "internal error, please report it: {what}"
        )))
    })
}
