//! The caller's ear and voice during a transfer: shall it stop, and how far is it.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::error::Result;

/// The caller is asked at least this often, whatever the network does.
pub(super) const TICK: Duration = Duration::from_millis(50);

/// How far the transfer of one file is.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// The file's path in its repository.
    pub file: &'a str,
    /// Bytes on disk, those of earlier calls included.
    pub done: u64,
    /// Bytes of the whole file; 0 where the hub does not tell.
    pub total: u64,
}

/// What a caller hands in. An error of either function stops the work at once and is returned.
pub struct Watch<'a> {
    interrupt: &'a mut dyn FnMut() -> Result<()>,
    progress: &'a mut dyn FnMut(Progress) -> Result<()>,
    file: String,
    done: u64,
    total: u64,
}

impl<'a> Watch<'a> {
    /// `interrupt` and `progress` are called many times a second, `progress` only while a file is being fetched.
    pub fn new(
        interrupt: &'a mut dyn FnMut() -> Result<()>,
        progress: &'a mut dyn FnMut(Progress) -> Result<()>,
    ) -> Self {
        Self {
            interrupt,
            progress,
            file: String::new(),
            done: 0,
            total: 0,
        }
    }

    /// From here on `progress` is told about `file`.
    pub(super) fn begin(&mut self, file: &str, total: u64) {
        file.clone_into(&mut self.file);
        self.total = total;
        self.done = 0;
    }

    /// `progress` is told nothing more until the next file.
    pub(super) fn end(&mut self) {
        self.file.clear();
    }

    pub(super) fn done(&mut self, done: u64) -> Result<()> {
        self.done = done;
        self.tick()
    }

    pub(super) fn tick(&mut self) -> Result<()> {
        (self.interrupt)()?;
        if self.file.is_empty() {
            return Ok(());
        }
        (self.progress)(Progress {
            file: &self.file,
            done: self.done,
            total: self.total,
        })
    }

    pub(super) fn pause(&mut self, duration: Duration) -> Result<()> {
        let end = Instant::now() + duration;
        loop {
            self.tick()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(TICK));
        }
    }

    /// What another thread sends, or `None` when it has gone or `patience` has run out.
    pub(super) fn receive<T>(
        &mut self,
        from: &Receiver<T>,
        patience: Option<Duration>,
    ) -> Result<Option<T>> {
        let end = patience.map(|p| Instant::now() + p);
        loop {
            match from.recv_timeout(TICK) {
                Ok(message) => return Ok(Some(message)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => self.tick()?,
            }
            if end.is_some_and(|end| Instant::now() >= end) {
                return Ok(None);
            }
        }
    }
}
