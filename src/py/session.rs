//! `candlewick._native.Session`: a conversation's hold on its keys and values.

use std::sync::Arc;

use pyo3::prelude::*;

use crate::generate::Pin;

/// Holds on to what a conversation has read and written. Private: `candlewick.Chat` is the public class.
#[pyclass(frozen, module = "candlewick._native")]
pub struct Session(Arc<Pin>);

impl Session {
    pub(super) fn new(pin: Pin) -> Self {
        Self(Arc::new(pin))
    }

    pub(super) fn pin(&self) -> Arc<Pin> {
        self.0.clone()
    }
}

#[pymethods]
impl Session {
    /// Another conversation with the same past.
    fn fork(&self) -> Self {
        Self::new(self.0.fork())
    }
}
