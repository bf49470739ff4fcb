//! `candlewick._native.fetch`: files of the hub, with the GIL released.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyBool;

use super::convert;
use super::errors::guard;
use super::signals::Signals;
use crate::error::{Error, Result};
use crate::hub::{self, Progress, RepoId, Settings, Wanted, Watch};

/// Python hears of progress at most this often, and of each file's end.
const SPEAK_EVERY: Duration = Duration::from_millis(100);

/// Calls a Python function with (downloaded bytes, total bytes, file name).
struct Speaker<'a> {
    callable: Option<&'a Py<PyAny>>,
    spoke: Option<Instant>,
    last: (u64, String),
    raised: Option<PyErr>,
}

impl Speaker<'_> {
    fn speak(&mut self, progress: Progress) -> Result<()> {
        let Some(callable) = self.callable else {
            return Ok(());
        };
        let ended = progress.total > 0 && progress.done == progress.total;
        let told = self.last.0 == progress.done && self.last.1 == progress.file;
        let soon = self.spoke.is_some_and(|at| at.elapsed() < SPEAK_EVERY);
        if soon && (told || !ended) {
            return Ok(());
        }
        self.spoke = Some(Instant::now());
        self.last = (progress.done, progress.file.to_owned());
        // None while the interpreter shuts down: nobody is left to tell.
        let called = Python::try_attach(|py| {
            callable
                .call1(py, (progress.done, progress.total, progress.file))
                .map(drop)
        });
        if let Some(Err(raised)) = called {
            self.raised = Some(raised);
            return Err(Error::Interrupted);
        }
        Ok(())
    }
}

/// Brings files of a repository into the cache and returns their paths: one, or all parts of a split model.
#[pyfunction]
#[pyo3(signature = (repo, *, filename, revision, cache_dir, local_files_only, token, progress))]
#[allow(clippy::too_many_arguments)]
pub fn fetch(
    py: Python<'_>,
    repo: &Bound<'_, PyAny>,
    filename: Option<&Bound<'_, PyAny>>,
    revision: Option<&Bound<'_, PyAny>>,
    cache_dir: Option<PathBuf>,
    local_files_only: Option<bool>,
    token: Option<&Bound<'_, PyAny>>,
    progress: Option<Py<PyAny>>,
) -> PyResult<Vec<PathBuf>> {
    let wanted = Wanted {
        repo: RepoId::parse(&convert::text("repo", repo)?)?,
        filename: filename.map(|f| convert::text("filename", f)).transpose()?,
        revision: revision.map(|r| convert::text("revision", r)).transpose()?,
    };
    let mut settings = Settings::from_env()?;
    if let Some(folder) = cache_dir {
        settings.cache_dir = folder;
    }
    settings.offline |= local_files_only == Some(true);
    settings.token = match token {
        None => settings.token,
        Some(flag) if flag.is_instance_of::<PyBool>() => {
            settings.token.filter(|_| flag.is_truthy().unwrap_or(true))
        }
        Some(text) => Some(convert::text("token", text)?),
    };
    if let Some(callable) = &progress
        && !callable.bind(py).is_callable()
    {
        return Err(PyTypeError::new_err("progress must be a callable or None"));
    }

    let mut signals = Signals::new(py, None)?;
    let mut speaker = Speaker {
        callable: progress.as_ref(),
        spoke: None,
        last: (0, String::new()),
        raised: None,
    };
    let paths = py.detach(|| {
        guard(|| {
            let mut interrupt = || signals.check();
            let mut speak = |p: Progress| speaker.speak(p);
            hub::fetch(
                &wanted,
                &settings,
                &mut Watch::new(&mut interrupt, &mut speak),
            )
        })
    });
    if let Some(raised) = speaker.raised {
        return Err(raised);
    }
    signals.into_result()?;
    Ok(paths?)
}

/// The folder that fetched files are kept in, unless `cache_dir` names another.
#[pyfunction]
pub fn cache_dir() -> PyResult<PathBuf> {
    Ok(Settings::from_env()?.cache_dir)
}
