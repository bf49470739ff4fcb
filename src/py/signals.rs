//! Ctrl-C, `cancel()` and their like, looked for while the GIL is released.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use crate::error::{Error, Result};

/// Python's signal handlers run at most this late.
const LOOK_EVERY: Duration = Duration::from_millis(30);

/// Watches for a reason to stop.
pub(super) struct Signals<'a> {
    cancelled: Option<&'a AtomicBool>,
    // Python runs signal handlers in its main thread alone; others need not take the GIL to look
    main_thread: bool,
    looked: Instant,
    raised: Option<PyErr>,
}

impl<'a> Signals<'a> {
    pub(super) fn new(py: Python<'_>, cancelled: Option<&'a AtomicBool>) -> PyResult<Self> {
        let threading = py.import("threading")?;
        let main = threading.call_method0("main_thread")?.getattr("ident")?;
        let main_thread = threading.call_method0("get_ident")?.eq(main)?;
        Ok(Self {
            cancelled,
            main_thread,
            looked: Instant::now(),
            raised: None,
        })
    }

    /// `Interrupted` when the work should stop. Cheap: called between layers.
    pub(super) fn check(&mut self) -> Result<()> {
        if self
            .cancelled
            .is_some_and(|flag| flag.load(Ordering::Relaxed))
        {
            return Err(Error::Interrupted);
        }
        if self.main_thread && self.looked.elapsed() >= LOOK_EVERY {
            self.looked = Instant::now();
            // None while the interpreter shuts down: nobody is left to tell.
            if let Some(Err(raised)) = Python::try_attach(|py| py.check_signals()) {
                self.raised = Some(raised);
                return Err(Error::Interrupted);
            }
        }
        Ok(())
    }

    /// The exception that a signal handler raised, if one did.
    pub(super) fn into_result(self) -> PyResult<()> {
        self.raised.map_or(Ok(()), Err)
    }
}
