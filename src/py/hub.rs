//! `candlewick._native.fetch`: files of the hub, with the GIL released.

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict};

use super::convert;
use super::errors::guard;
use super::progress::Speaker;
use super::signals::Signals;
use crate::error::Result;
use crate::hub::{self, Progress, RepoId, Settings, Wanted, Watch};

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
    let ask = Ask::new(
        (repo, filename, revision),
        cache_dir,
        local_files_only,
        token,
    )?;
    asking(py, progress, |watch| {
        hub::fetch(&ask.wanted, &ask.settings, watch)
    })
}

/// A question to the hub, from what a user gave.
pub(super) struct Ask {
    pub(super) wanted: Wanted,
    pub(super) settings: Settings,
}

impl Ask {
    pub(super) fn new(
        (repo, filename, revision): (
            &Bound<'_, PyAny>,
            Option<&Bound<'_, PyAny>>,
            Option<&Bound<'_, PyAny>>,
        ),
        cache_dir: Option<PathBuf>,
        local_files_only: Option<bool>,
        token: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
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
        Ok(Self { wanted, settings })
    }
}

/// Does `work` with the GIL released; Ctrl-C ends it, and `progress` is told how far it is.
pub(super) fn asking<T: Send>(
    py: Python<'_>,
    progress: Option<Py<PyAny>>,
    work: impl Send + FnOnce(&mut Watch) -> Result<T>,
) -> PyResult<T> {
    let mut signals = Signals::new(py, None)?;
    let mut speaker = Speaker::new(py, progress.as_ref())?;
    let result = py.detach(|| {
        guard(|| {
            let mut interrupt = || signals.check();
            let mut speak = |p: Progress| speaker.speak(p.done, p.total, p.file);
            work(&mut Watch::new(&mut interrupt, &mut speak))
        })
    });
    speaker.into_result()?;
    signals.into_result()?;
    Ok(result?)
}

/// What the environment says about the hub; of the token only whether there is one.
#[pyfunction]
pub fn hub_settings(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let settings = Settings::from_env()?;
    let found = PyDict::new(py);
    found.set_item("endpoint", &settings.endpoint)?;
    found.set_item("offline", settings.offline)?;
    found.set_item("token", settings.token.is_some())?;
    found.set_item("proxies", settings.proxies())?;
    Ok(found)
}

/// The folder that fetched files are kept in, unless `cache_dir` names another.
#[pyfunction]
pub fn cache_dir() -> PyResult<PathBuf> {
    Ok(Settings::from_env()?.cache_dir)
}
