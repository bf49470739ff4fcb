//! The bytes of one file: fetched, resumed, checked. The caller holds the lock.
//!
//! ```text
//! hash what the part file holds already
//! until all bytes are there: ask for the rest, hash and write what comes; on failure wait and ask again
//! compare the hash; if it differs, begin once more from nothing
//! read the header, flush to the disk, rename
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use super::api::{At, Meta, file_url, refusal};
use super::client::{Client, Follow, Method, Reply, Request};
use super::failure::{Failure, Kind, Stop};
use super::lock::same_file;
use super::retry::Retry;
use super::settings::Settings;
use super::watch::Watch;
use crate::error::{Error, Result, bytes};
use crate::gguf::Gguf;

/// An attempt that brought this much shows that the line works.
const PROGRESS_BYTES: u64 = 64 << 10;
const READ_BYTES: usize = 1 << 20;

/// The file that is wanted, and where it goes.
pub(super) struct Job<'a> {
    pub(super) at: At<'a>,
    pub(super) file: &'a str,
    pub(super) meta: &'a Meta,
    pub(super) part: &'a Path,
    pub(super) blob: &'a Path,
}

impl Job<'_> {
    /// As errors name it.
    fn what(&self) -> String {
        what(self.at.repo, self.file)
    }
}

pub(super) fn what(repo: &str, file: &str) -> String {
    format!("`{file}` of `{repo}`")
}

/// Leaves the verified file at `job.blob`, or an error and what was fetched at `job.part`.
pub(super) fn fetch(
    client: &mut Client,
    settings: &Settings,
    job: &Job,
    watch: &mut Watch,
) -> Result<()> {
    let mut discarded = false;
    loop {
        let mut part = Part::open(job, watch)?;
        part.check_space(job)?;
        let resumed = part.at > 0;
        let fetched = fetch_rest(client, settings, job, &mut part, watch);
        fetched.map_err(|stop| stop.into_error(&job.what(), part.at))?;
        let Err(problem) = part.finish(job, watch)? else {
            return Ok(());
        };
        // Wrong bytes are of no use to anybody.
        fs::remove_file(job.part).map_err(|e| Error::io(job.part, &e))?;
        if discarded {
            let remedy = "the server or a proxy on the way sends wrong bytes: try another network or HF_ENDPOINT";
            let failure = Failure::new(Kind::Refused, &client.host(), problem, remedy);
            return Err(failure.into_error(&job.what(), 0));
        }
        discarded = true;
        let since = if resumed {
            ", perhaps since an earlier call"
        } else {
            ""
        };
        log::warn!(
            "{}: {problem}{since}; fetching it again from the beginning",
            job.what()
        );
    }
}

/// Attempts until the file is complete.
fn fetch_rest(
    client: &mut Client,
    settings: &Settings,
    job: &Job,
    part: &mut Part,
    watch: &mut Watch,
) -> Result<(), Stop> {
    let mut retry = Retry::new(settings.retries);
    while !part.complete {
        let before = part.at;
        let failure = match attempt(client, settings, job, part, watch) {
            Ok(()) => continue,
            Err(Stop::Failed(failure)) => failure,
            Err(stop) => return Err(stop),
        };
        if part.at >= before + PROGRESS_BYTES {
            retry.progressed();
        }
        retry.wait(failure, watch, || part.touch())?;
    }
    Ok(())
}

/// One request and as many of its bytes as come.
fn attempt(
    client: &mut Client,
    settings: &Settings,
    job: &Job,
    part: &mut Part,
    watch: &mut Watch,
) -> Result<(), Stop> {
    // Storage addresses are good for minutes only, so each attempt begins at the hub.
    let request = Request {
        method: Method::Get,
        url: &file_url(settings, job.at, job.file),
        from: part.at,
        to: None,
        follow: Follow::All,
        patience: settings.answer_timeout + settings.stall_timeout,
    };
    let mut reply = client.open(&request, watch)?;
    let mut skip = match reply.status {
        206 => {
            check_range(&reply, part.at, job.meta.size)?;
            0
        }
        200 => {
            check_length(&reply, job.meta.size)?;
            part.at
        }
        416 => {
            // Without a size only this tells that nothing is missing, or that what is there is too much.
            part.restart(job.part)?;
            return Err(reply
                .failure(
                    Kind::Broken,
                    "the server has fewer bytes than are here",
                    "try again",
                )
                .into());
        }
        _ => return Err(status_failure(&reply, settings, job.at, job.file).into()),
    };
    let expected = job.meta.size.unwrap_or(u64::MAX);
    let length = reply
        .header("content-length")
        .and_then(|l| l.parse::<u64>().ok());
    let end = match (job.meta.size, reply.status) {
        (Some(size), _) => Some(size),
        (None, 206) => length.map(|l| part.at + l),
        (None, _) => length,
    };
    if skip > 0 {
        log::info!("{} ignores Range: reading past what is here", reply.host);
    }
    while part.at < expected {
        let Some(chunk) = reply.next(watch)? else {
            break;
        };
        let skipped = skip.min(chunk.len() as u64);
        skip -= skipped;
        let left = usize::try_from(expected - part.at).unwrap_or(usize::MAX);
        let fresh = &chunk[skipped as usize..];
        part.write(&fresh[..fresh.len().min(left)], job)?;
        watch.done(part.at)?;
    }
    part.complete = end.is_none_or(|end| part.at == end) && skip == 0;
    if !part.complete {
        let cause = format!(
            "the answer ended after {} of {}",
            bytes(part.at),
            bytes(end.unwrap_or(0))
        );
        return Err(reply
            .failure(
                Kind::Broken,
                cause,
                "try again: the server or a proxy on the way cuts answers short",
            )
            .into());
    }
    Ok(())
}

/// A storage that refuses its own address has let it expire, most likely.
pub(super) fn status_failure(reply: &Reply, settings: &Settings, at: At, file: &str) -> Failure {
    if reply.from_hub || matches!(reply.status, 429 | 500..) {
        return refusal(reply, settings, at, Some(file));
    }
    reply.failure(
        Kind::Broken,
        "the storage refused the hub's address",
        "try again in a few minutes",
    )
}

/// `bytes 100-199/200`: the bytes that were asked for, of a file of the right size.
pub(super) fn check_range(reply: &Reply, from: u64, size: Option<u64>) -> Result<(), Failure> {
    let range = reply.header("content-range").unwrap_or_default();
    let parsed = || {
        let (span, total) = range.strip_prefix("bytes ")?.split_once('/')?;
        let start: u64 = span.split_once('-')?.0.trim().parse().ok()?;
        Some((start, total.trim().parse::<u64>().ok()))
    };
    let right = parsed().is_some_and(|(start, total)| {
        start == from && total.is_none_or(|t| size.is_none_or(|s| s == t))
    });
    if right {
        return Ok(());
    }
    let wanted = size.map_or(String::new(), |s| format!(" of {s}"));
    let cause = format!("asked for the bytes from {from}{wanted} on, the server sent {range:?}");
    Err(reply.failure(
        Kind::Broken,
        cause,
        "try again later: the server's file has another length than the hub says",
    ))
}

fn check_length(reply: &Reply, size: Option<u64>) -> Result<(), Failure> {
    let length = reply
        .header("content-length")
        .and_then(|l| l.parse::<u64>().ok());
    match (length, size) {
        (Some(length), Some(size)) if length != size => Err(reply.failure(
            Kind::Broken,
            format!("the server sends {length} bytes where the hub says {size}"),
            "try again later: the server's file has another length than the hub says",
        )),
        _ => Ok(()),
    }
}

/// The unfinished file.
struct Part {
    file: File,
    /// Bytes that are in the file and in the hash. Not the file's length: others may be writing it too.
    at: u64,
    hash: Sha256,
    complete: bool,
}

impl Part {
    /// Opens what there is, and hashes it.
    fn open(job: &Job, watch: &mut Watch) -> Result<Self> {
        let error = |e| Error::io(job.part, &e);
        let file = open(job.part)?;
        let len = file.metadata().map_err(error)?.len();
        let mut part = Self {
            file,
            at: 0,
            hash: Sha256::new(),
            complete: false,
        };
        if job.meta.size.is_some_and(|size| len > size) {
            part.restart(job.part)?;
        }
        let len = part.file.metadata().map_err(error)?.len();
        if len > 0 {
            log::info!("going on with {} of {}", bytes(len), job.what());
        }
        // Reading what is here is no progress of the line.
        watch.done(len)?;
        let mut buffer = vec![0; READ_BYTES];
        let mut touched = 0;
        loop {
            match part.file.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => {
                    part.hash.update(&buffer[..n]);
                    part.at += n as u64;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(error(e)),
            }
            if part.at >> 28 != touched {
                touched = part.at >> 28;
                part.touch();
            }
            watch.tick()?;
        }
        part.complete = job.meta.size == Some(part.at);
        Ok(part)
    }

    /// Shows those who wait for the lock that this process lives.
    fn touch(&self) {
        let _ = self.file.set_modified(SystemTime::now());
    }

    /// Begins from nothing, in another file: where locks do not hold, somebody may still write the old one.
    fn restart(&mut self, path: &Path) -> Result<()> {
        fs::remove_file(path).map_err(|e| Error::io(path, &e))?;
        self.file = open(path)?;
        self.at = 0;
        self.hash = Sha256::new();
        Ok(())
    }

    fn check_space(&self, job: &Job) -> Result<()> {
        let Some(size) = job.meta.size else {
            return Ok(());
        };
        let folder = job.part.parent().unwrap_or(job.part);
        match fs4::available_space(folder) {
            Ok(available) if available < size - self.at => Err(self.disk_full(job)),
            _ => Ok(()),
        }
    }

    fn disk_full(&self, job: &Job) -> Error {
        let folder = job.part.parent().unwrap_or(job.part);
        Error::DiskFull {
            what: job.what(),
            path: folder.display().to_string(),
            needed: job.meta.size.unwrap_or(self.at).saturating_sub(self.at),
            available: fs4::available_space(folder).unwrap_or(0),
            kept: self.at,
        }
    }

    fn write(&mut self, bytes: &[u8], job: &Job) -> Result<()> {
        self.hash.update(bytes);
        self.file.write_all(bytes).map_err(|e| match e.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => self.disk_full(job),
            _ => Error::io(job.part, &e),
        })?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// Checks the bytes and gives the file its name; the inner error says what is wrong with them.
    fn finish(self, job: &Job, watch: &mut Watch) -> Result<Result<(), String>> {
        let found = hex(&self.hash.finalize());
        let expected = job.meta.sha256();
        if let Some(expected) = expected.filter(|e| !e.eq_ignore_ascii_case(&found)) {
            return Ok(Err(format!(
                "the bytes have the SHA-256 {found}, expected {expected}"
            )));
        }
        if !same_file(&self.file, job.part) {
            // Where locks do not hold another process may have finished, or begun again, in the meantime.
            return match job.blob.metadata() {
                Ok(meta) if meta.len() == self.at => Ok(Ok(())),
                _ => Err(Error::Engine(format!(
                    "another process replaced `{}`: try again",
                    job.part.display()
                ))),
            };
        }
        flush(self.file, job.part, watch)?;
        let header = if job.file.to_ascii_lowercase().ends_with(".gguf") {
            Gguf::open(job.part, true).map(drop)
        } else {
            Ok(())
        };
        let header = match header {
            // Without a hash nothing else tells a damaged transfer from a damaged file.
            Err(Error::ModelFormat(problem)) if expected.is_none() => return Ok(Err(problem)),
            other => other,
        };
        fs::rename(job.part, job.blob).map_err(|e| Error::io(job.blob, &e))?;
        match header {
            Err(Error::ModelFormat(problem)) => Err(Error::ModelFormat(format!(
                "{} arrived as the hub has it, but is no valid model: {}",
                job.what(),
                problem.replace(&job.part.display().to_string(), job.file)
            ))),
            // Whether this package can run it is not decided here.
            _ => Ok(Ok(())),
        }
    }
}

fn open(part: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(part)
        .map_err(|e| Error::io(part, &e))
}

/// Waits until the bytes are on the disk: a name that is there after a power cut must not mean zeros.
fn flush(file: File, path: &Path, watch: &mut Watch) -> Result<()> {
    let (done, wait) = sync_channel(1);
    std::thread::spawn(move || done.send(file.sync_all()));
    match watch.receive(&wait, None)? {
        Some(Err(e)) => Err(Error::io(path, &e)),
        _ => Ok(()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
