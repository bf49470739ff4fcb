//! One process fetches, the others wait: the lock file that `huggingface_hub` takes too.
//!
//! Nothing but traffic depends on it. On file systems where locks are granted to everybody two processes write
//! the same bytes to the same places of the part file, and its hash is checked before it counts.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use super::failure::{Failure, Kind, Stop};
use super::watch::{TICK, Watch};
use crate::error::{Error, Result};

/// Held until dropped; the system gives it back when the process dies.
pub(super) struct Lock(#[allow(dead_code)] Option<File>);

impl Lock {
    /// Waits for the lock at `path` as long as `part` or its siblings change, at most `patience` without a change.
    pub(super) fn acquire(
        path: &Path,
        part: &Path,
        patience: Duration,
        watch: &mut Watch,
    ) -> Result<Self, Stop> {
        let mut told = false;
        let mut seen = traces(part);
        let mut since = Instant::now();
        loop {
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(path)
                .map_err(|e| Error::io(path, &e))?;
            match file.try_lock() {
                // Somebody may have deleted the file between the two calls, and others lock the new one.
                Ok(()) if same_file(&file, path) => return Ok(Self(Some(file))),
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(e)) if e.kind() == ErrorKind::Interrupted => {}
                Err(TryLockError::Error(e)) => {
                    log::warn!("cannot lock {}, going on without: {e}", path.display());
                    return Ok(Self(None));
                }
            }
            if !told {
                log::info!(
                    "another process is fetching {}: waiting for it",
                    part.display()
                );
                told = true;
            }
            let now = traces(part);
            if now != seen {
                seen = now;
                since = Instant::now();
            } else if since.elapsed() > patience {
                return Err(Failure::new(
                    Kind::Refused,
                    "",
                    format!(
                        "another process holds `{}` and has fetched nothing for {} s",
                        path.display(),
                        patience.as_secs()
                    ),
                    "end that process, or give another cache_dir=",
                )
                .into());
            }
            if let Ok(meta) = part.metadata() {
                watch.done(meta.len())?;
            }
            watch.pause(2 * TICK)?;
        }
    }
}

/// Sizes and times of the unfinished files of one blob, whoever writes them.
fn traces(part: &Path) -> Vec<(u64, Option<SystemTime>)> {
    let stem = part
        .file_stem()
        .and_then(|s| s.to_str())
        .unwrap_or_default();
    let folder = part.parent().unwrap_or(part);
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|e| {
            let name = e.file_name();
            name.to_str()
                .is_some_and(|n| n.starts_with(stem) && n.ends_with(".incomplete"))
        })
        .filter_map(|e| e.metadata().ok())
        .map(|m| (m.len(), m.modified().ok()))
        .collect()
}

/// Whether `path` still names the open `file`.
#[cfg(unix)]
pub(super) fn same_file(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), path.metadata()) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

/// A file that is open cannot be deleted there.
#[cfg(not(unix))]
pub(super) fn same_file(_: &File, _: &Path) -> bool {
    true
}
