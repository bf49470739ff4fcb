//! Items of streams that are delivered to a Python callable, by the thread that steps them.

use std::sync::{Arc, Mutex, Once, PoisonError, Weak};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use super::stream::Stream;
use crate::error::Result;
use crate::generate::{self, Awaited, Driver, Given, Model, Token};

/// A model, and the thread that steps the streams that nobody's thread waits for.
#[derive(Clone)]
pub(super) struct Loaded {
    pub model: Arc<Model>,
    pub driver: Arc<Driver<Request>>,
}

/// All drivers there are, for the end of the interpreter.
static DRIVERS: Mutex<Vec<Weak<Driver<Request>>>> = Mutex::new(Vec::new());

impl Loaded {
    pub(super) fn new(model: Arc<Model>) -> Self {
        let driver = Arc::new(Driver::new());
        let mut drivers = DRIVERS.lock().unwrap_or_else(PoisonError::into_inner);
        drivers.retain(|driver| driver.strong_count() > 0);
        drivers.push(Arc::downgrade(&driver));
        Self { model, driver }
    }
}

/// What is waited for.
#[derive(Clone, Copy)]
pub(super) enum Wanted {
    /// A delta that is not empty.
    Text,
    /// A token.
    Token,
    /// The end.
    End,
}

/// Somebody who waits.
pub(super) struct Request {
    stream: Py<Stream>,
    wanted: Wanted,
    deliver: Py<PyAny>,
}

impl Request {
    pub(super) fn send(
        stream: &Bound<'_, Stream>,
        wanted: Wanted,
        deliver: Py<PyAny>,
    ) -> PyResult<()> {
        close_at_exit(stream.py())?;
        let request = Self {
            stream: stream.clone().unbind(),
            wanted,
            deliver,
        };
        let Loaded { model, driver } = &stream.get().loaded;
        Ok(driver.send(model, request)?)
    }

    fn deliver(&self, py: Python<'_>, result: Result<Option<Token>>) -> PyResult<()> {
        let stream = self.stream.get();
        let token = stream.raised().and_then(|()| Ok(result?));
        let (item, error) = match (token, self.wanted) {
            (Err(error), _) => (py.None(), Some(error.into_value(py))),
            (Ok(None), _) | (_, Wanted::End) => (py.None(), None),
            (Ok(Some(token)), Wanted::Text) => {
                (token.text.into_pyobject(py)?.into_any().unbind(), None)
            }
            (Ok(Some(token)), Wanted::Token) => (
                stream.token(token).into_pyobject(py)?.into_any().unbind(),
                None,
            ),
        };
        self.deliver.call1(py, (item, error)).map(drop)
    }
}

impl Awaited for Request {
    fn take(&self) -> Option<generate::Stream> {
        self.stream.get().take()
    }

    fn is_cancelled(&self) -> bool {
        self.stream.get().is_cancelled()
    }

    fn saw(&self, stream: &generate::Stream, token: &Token) -> bool {
        self.stream.get().show(stream);
        match self.wanted {
            Wanted::Text => !token.text.is_empty(),
            Wanted::Token => true,
            Wanted::End => false,
        }
    }

    fn give(all: Vec<Given<Self>>) {
        let mut results = Vec::with_capacity(all.len());
        for given in all {
            if let Some(stream) = given.stream {
                given.awaited.stream.get().put_back(stream);
            }
            results.push((given.awaited, given.result));
        }
        // The GIL is taken once for all; not at all while the interpreter shuts down.
        Python::try_attach(|py| {
            for (request, result) in results {
                if let Err(error) = request.deliver(py, result) {
                    // Nobody is there any more to take it.
                    request.stream.get().cancel();
                    // An event loop that was closed says so by this.
                    if !error.is_instance_of::<PyRuntimeError>(py) {
                        error.write_unraisable(py, None);
                    }
                }
            }
        });
    }
}

/// Has the threads end before the interpreter does, from the first request on.
fn close_at_exit(py: Python<'_>) -> PyResult<()> {
    static REGISTERED: Once = Once::new();
    if REGISTERED.is_completed() {
        return Ok(());
    }
    let close = wrap_pyfunction!(close_drivers, py)?;
    py.import("atexit")?.call_method1("register", (close,))?;
    REGISTERED.call_once(|| ());
    Ok(())
}

#[pyfunction]
fn close_drivers(py: Python<'_>) {
    py.detach(|| {
        let drivers = std::mem::take(&mut *DRIVERS.lock().unwrap_or_else(PoisonError::into_inner));
        for driver in drivers.iter().filter_map(Weak::upgrade) {
            driver.close();
        }
    });
}
