//! A Python function over the logits of each step.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyList};

use super::errors::invalid;
use crate::error::Error;
use crate::generate;

/// What a processor raised: it goes to the caller of `next`, past the errors of the crate.
#[derive(Clone, Default)]
pub(super) struct Raised(Arc<Mutex<Option<PyErr>>>);

impl Raised {
    pub(super) fn take(&self) -> PyResult<()> {
        let raised = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        raised.map_or(Ok(()), Err)
    }

    fn set(&self, error: PyErr) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

/// Calls `function(new_ids, logits)` for each position: the ids since the last call, and a bytearray of float32 that
/// it changes.
///
/// The bytearray is Python's own and new each time, so that a view of it that is kept stays what it was. Two copies of
/// the logits are the price, some microseconds.
pub(super) fn processor(function: Py<PyAny>, raised: Raised) -> generate::Processor {
    let mut n_seen = 0;
    Box::new(move |ids, logits| {
        let called = Python::try_attach(|py| {
            let mut bytes = vec![0; size_of_val(logits)];
            for (bytes, logit) in bytes.as_chunks_mut().0.iter_mut().zip(logits.iter()) {
                *bytes = logit.to_ne_bytes();
            }
            let buffer = PyByteArray::new(py, &bytes);
            function.call1(py, (PyList::new(py, &ids[n_seen..])?, &buffer))?;
            let bytes = buffer.to_vec();
            if bytes.len() != size_of_val(logits) {
                return Err(invalid(
                    "logits_processor changed the size of the logits".into(),
                ));
            }
            for (logit, bytes) in logits.iter_mut().zip(bytes.as_chunks().0) {
                *logit = f32::from_ne_bytes(*bytes);
            }
            Ok(())
        });
        n_seen = ids.len();
        match called {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => {
                raised.set(error);
                Err(Error::Interrupted)
            }
            // The interpreter shuts down.
            None => Err(Error::Interrupted),
        }
    })
}
