//! The bytes of a model file: mapped, or read into memory.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use memmap2::{Mmap, MmapMut};

use crate::error::{Error, Result, bytes};
use crate::memory;

/// A file's bytes, page-aligned either way.
#[derive(Debug)]
pub struct Data {
    map: Mmap,
    is_file: bool,
}

impl Data {
    /// Maps `path`, or reads it into anonymous memory when `mmap` is false.
    ///
    /// A map costs no memory of its own and loads at once, but the kernel kills the process (SIGBUS) if
    /// somebody shortens the file in place meanwhile; replacing it by rename is harmless. Reading is the
    /// way out where that can happen.
    pub fn open(path: &Path, mmap: bool) -> Result<Self> {
        let (mut file, len) = open(path)?;
        if mmap {
            // SAFETY: the map is private and read-only. That nobody truncates the file while it is mapped
            // cannot be proven; the documentation of `mmap` names it as a limit with its way out.
            let map = unsafe { Mmap::map(&file) };
            let map = map.map_err(|e| match (e.kind(), memory::available()) {
                // A map takes addresses, which `ulimit -v` counts.
                (ErrorKind::OutOfMemory, Some(available)) => Error::OutOfMemory {
                    what: format!("mapping `{}`", path.display()),
                    needed: len,
                    available,
                    remedy:
                        "raise the limit on addresses (ulimit -v), or use a smaller quantization"
                            .into(),
                },
                _ => Error::io(path, &e),
            })?;
            return Ok(Self { map, is_file: true });
        }
        if let Some(available) = memory::available().filter(|&available| len > available) {
            return Err(Error::OutOfMemory {
                what: format!("reading `{}` into memory", path.display()),
                needed: len,
                available,
                remedy: "use mmap=True, or a smaller quantization".into(),
            });
        }
        let len = usize::try_from(len).map_err(|_| {
            Error::ModelFormat(format!(
                "a file of {} cannot be addressed on this machine",
                bytes(len)
            ))
        })?;
        let mut map = MmapMut::map_anon(len).map_err(|e| Error::io(path, &e))?;
        file.read_exact(&mut map).map_err(|e| Error::io(path, &e))?;
        let map = map.make_read_only().map_err(|e| Error::io(path, &e))?;
        Ok(Self {
            map,
            is_file: false,
        })
    }

    /// Lets go of the memory of `range` of a mapped file: whoever reads it again gets it from the system's cache.
    pub fn release(&self, range: std::ops::Range<usize>) {
        #[cfg(unix)]
        if self.is_file && !range.is_empty() {
            // SAFETY: of a read-only map of a file, what is let go is read again from the file. Anonymous memory
            // would be lost, and is left alone.
            let _ = unsafe {
                self.map.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    range.start,
                    range.len(),
                )
            };
        }
        let _ = (range, self.is_file);
    }
}

/// A regular file that is not empty, and its length.
pub(super) fn open(path: &Path) -> Result<(File, u64)> {
    // Before opening: opening a pipe waits for its other end.
    let meta = std::fs::metadata(path).map_err(|e| {
        if e.kind() == std::io::ErrorKind::NotFound {
            Error::ModelNotFound(format!("no such file: `{}`", path.display()))
        } else {
            Error::io(path, &e)
        }
    })?;
    if !meta.is_file() {
        return Err(Error::ModelNotFound(format!(
            "`{}` is not a regular file",
            path.display()
        )));
    }
    let file = File::open(path).map_err(|e| Error::io(path, &e))?;
    let len = file.metadata().map_err(|e| Error::io(path, &e))?.len();
    if len == 0 {
        return Err(Error::ModelFormat(format!(
            "`{}` is empty (0 bytes), expected a GGUF file: download it again",
            path.display()
        )));
    }
    Ok((file, len))
}

impl std::ops::Deref for Data {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}
