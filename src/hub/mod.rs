//! A repository and a file on the Hugging Face hub -> verified files on this disk.
//!
//! The only module that touches the network. The cache is the one that Python's `huggingface_hub` uses. hf-hub
//! names its places; the transfer is our own, because hf-hub's cannot be cancelled, gives up on a lock after five
//! seconds and gives a file its final name before anyone could check it.
//!
//! ```no_run
//! use candlewick::hub::{self, RepoId, Settings, Wanted, Watch};
//!
//! let wanted = Wanted {
//!     repo: RepoId::parse("microsoft/Phi-3-mini-4k-instruct-gguf:q4")?,
//!     filename: None,
//!     revision: None,
//! };
//! let mut interrupt = || Ok(());
//! let mut progress = |_: hub::Progress| Ok(());
//! let paths = hub::fetch(&wanted, &Settings::from_env()?, &mut Watch::new(&mut interrupt, &mut progress))?;
//! # Ok::<(), candlewick::error::Error>(())
//! ```

mod api;
mod cache;
mod client;
mod failure;
mod header;
mod lock;
mod proxy;
mod repo;
mod retry;
mod settings;
mod transfer;
mod url;
mod watch;

use std::path::PathBuf;

use self::api::{At, Meta};
use self::cache::RepoCache;
use self::client::Client;
use self::failure::{Failure, Kind, Stop};
use self::header::Start;
use self::lock::Lock;
pub use self::repo::RepoId;
use self::repo::{choose, is_commit, listing, models, parts};
use self::retry::Retry;
pub use self::settings::Settings;
pub use self::watch::{Progress, Watch};
use crate::error::{Error, Result};
use crate::gguf::Header;

/// What is wanted from the hub.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The repository.
    pub repo: RepoId,
    /// The file's path in it; `None` chooses a GGUF by the rule of [`fetch`].
    pub filename: Option<String>,
    /// A branch, a tag or a commit; `None` is `main`.
    pub revision: Option<String>,
}

/// Brings what is `wanted` into the cache and returns where it is: one path, or all parts of a split model.
///
/// Without a file name it is the repository's only GGUF, else its Q4_K_M, else the only one with `q4` in its name.
/// What is cached for a commit is returned without asking anybody. For a branch or tag the hub is asked whether it
/// has moved; when the hub cannot be reached, or does not let us in, what is cached is used with a warning.
///
/// # Errors
/// `ModelNotFound` where there is no such repository, revision or file, or where a choice is needed; `Download` and
/// `DiskFull` where it could not be brought; `ModelFormat` where the hub's own file is damaged. Whatever error comes,
/// those of `watch` included, the bytes that came are kept and the next call goes on from there.
pub fn fetch(wanted: &Wanted, settings: &Settings, watch: &mut Watch) -> Result<Vec<PathBuf>> {
    Fetcher::with(wanted, settings, |fetcher| {
        fetcher.run(
            watch,
            |paths| paths,
            |client, files, watch| fetcher.fetch_all(client, files, watch),
        )
    })
}

/// A model and where it is.
#[derive(Debug)]
pub enum Found {
    /// In the cache: what [`fetch`] would return.
    Here(Vec<PathBuf>),
    /// At the hub.
    There {
        /// Its path in the repository; of a split model that of the first part.
        file: String,
        /// What it says before its weights.
        header: Header,
        /// The models of the repository with their sizes, by name; none where the hub does not tell.
        models: Vec<(String, Option<u64>)>,
    },
}

/// What [`fetch`] would fetch, of which no more is read than the header; nothing is written to the cache.
///
/// # Errors
/// As for [`fetch`].
pub fn look(wanted: &Wanted, settings: &Settings, watch: &mut Watch) -> Result<Found> {
    Fetcher::with(wanted, settings, |fetcher| {
        fetcher.run(watch, Found::Here, |client, files, watch| {
            fetcher.look(client, files, watch)
        })
    })
}

struct Fetcher<'a> {
    wanted: &'a Wanted,
    revision: &'a str,
    cache: RepoCache,
    settings: &'a Settings,
}

impl Fetcher<'_> {
    /// Checks what is `wanted`.
    fn with<T>(
        wanted: &Wanted,
        settings: &Settings,
        work: impl FnOnce(&Fetcher) -> Result<T>,
    ) -> Result<T> {
        let mut settings = settings.clone();
        settings.token = settings
            .token
            .map(|t| settings::clean(&t))
            .filter(|t| !t.is_empty());
        let fetcher = Fetcher {
            wanted,
            revision: wanted.revision.as_deref().unwrap_or("main"),
            cache: RepoCache::new(&settings.cache_dir, &wanted.repo.id),
            settings: &settings,
        };
        repo::check_revision(fetcher.revision)?;
        if let Some(name) = &wanted.filename {
            repo::check_filename(name)?;
            if wanted.repo.quantization.is_some() {
                return Err(Error::InvalidRequest(format!(
                    "filename is {name:?}, and the model names a quantization too: give one of them"
                )));
            }
        }
        work(&fetcher)
    }

    fn repo(&self) -> &str {
        &self.wanted.repo.id
    }

    /// What is `here`, or what `found` makes of the files that the hub says are wanted.
    fn run<T>(
        &self,
        watch: &mut Watch,
        here: impl Fn(Vec<PathBuf>) -> T,
        found: impl FnOnce(&mut Client, &[(String, Meta)], &mut Watch) -> Result<T>,
    ) -> Result<T> {
        if self.settings.offline {
            return self
                .cached(true)?
                .map(here)
                .ok_or_else(|| self.not_cached());
        }
        if is_commit(self.revision)
            && let Ok(Some(paths)) = self.cached(false)
        {
            return Ok(here(paths));
        }
        let fallback = self.cached(true).ok().flatten();
        let mut client = Client::new(self.settings)?;
        // Somebody who has the files waits for one answer at most.
        let retries = if fallback.is_some() {
            0
        } else {
            self.settings.retries
        };
        match self.ask(&mut client, retries, watch) {
            Ok(files) => found(&mut client, &files, watch),
            Err(Stop::Failed(failure)) if failure.kind != Kind::Missing => match fallback {
                Some(paths) => {
                    log::warn!(
                        "{}: using the cached files of {} at {:?}",
                        failure.into_error(self.repo(), 0),
                        self.repo(),
                        self.revision
                    );
                    Ok(here(paths))
                }
                None => Err(failure.into_error(&self.what(), 0)),
            },
            Err(stop) => Err(stop.into_error(&self.what(), 0)),
        }
    }

    /// What is wanted, for a person.
    fn what(&self) -> String {
        match &self.wanted.filename {
            Some(file) => transfer::what(self.repo(), file),
            None => format!("`{}`", self.repo()),
        }
    }

    /// What the cache has. A choice by rule counts only where the hub would make the same, unless `any`.
    fn cached(&self, any: bool) -> Result<Option<Vec<PathBuf>>> {
        let Some(commit) = self.cache.commit(self.revision) else {
            return Ok(None);
        };
        let file = match &self.wanted.filename {
            Some(file) => file.clone(),
            None => {
                let files = self.cache.list(&commit);
                if files.is_empty() {
                    return Ok(None);
                }
                let quantization = self.wanted.repo.quantization.as_deref();
                let place = format!("the cache of `{}`", self.repo());
                let chosen = choose(&files, quantization, &place)?;
                let sure = quantization.is_some() || chosen.to_ascii_lowercase().contains("q4_k_m");
                if !any && !sure {
                    return Ok(None);
                }
                chosen
            }
        };
        let found = parts(&file)
            .iter()
            .map(|f| self.cache.find(&commit, f, None))
            .collect();
        Ok(found)
    }

    fn not_cached(&self) -> Error {
        let commit = self.cache.commit(self.revision);
        let there = commit.map_or(String::new(), |c| listing(&self.cache.list(&c)));
        let there = if there.is_empty() {
            there
        } else {
            format!("; of this repository it has{there}")
        };
        Error::ModelNotFound(format!(
            "{} at revision {:?} is not in the cache `{}`, and this call is offline (local_files_only=True or \
             HF_HUB_OFFLINE): fetch it once with a network, or give the path of a .gguf file{there}",
            self.what(),
            self.revision,
            self.settings.cache_dir.display()
        ))
    }

    /// Which files there are to fetch, and what the hub knows about them.
    fn ask(
        &self,
        client: &mut Client,
        retries: u32,
        watch: &mut Watch,
    ) -> Result<Vec<(String, Meta)>, Stop> {
        let mut revision = self.revision.to_owned();
        let file = match &self.wanted.filename {
            Some(file) => file.clone(),
            None => {
                let at = At {
                    repo: self.repo(),
                    revision: &revision,
                };
                let listing = persist(retries, watch, |w| api::list(client, self.settings, at, w))?;
                let place = format!("`{}` at {}", self.repo(), client.host());
                let chosen = choose(
                    &listing.files,
                    self.wanted.repo.quantization.as_deref(),
                    &place,
                )?;
                repo::check_filename(&chosen)?;
                // What was chosen from is what is fetched, even if the branch moves meanwhile.
                revision = listing.commit;
                chosen
            }
        };
        let mut files = Vec::new();
        for part in parts(&file) {
            let at = At {
                repo: self.repo(),
                revision: &revision,
            };
            let meta = persist(retries, watch, |w| {
                api::metadata(client, self.settings, at, &part, w)
            });
            let meta = match meta {
                Err(Stop::Failed(failure)) if failure.kind == Kind::Missing => {
                    return Err(self.with_listing(client, failure, watch));
                }
                other => other?,
            };
            revision.clone_from(&meta.commit);
            files.push((part, meta));
        }
        Ok(files)
    }

    /// Adds the files that there are to the news that one is not.
    fn with_listing(&self, client: &mut Client, mut failure: Failure, watch: &mut Watch) -> Stop {
        let at = At {
            repo: self.repo(),
            revision: self.revision,
        };
        match api::list(client, self.settings, at, watch) {
            Ok(found) => failure.remedy.push_str(&listing(&found.files)),
            Err(Stop::Failed(_)) => {}
            Err(stop) => return stop,
        }
        Stop::Failed(failure)
    }

    fn look(
        &self,
        client: &mut Client,
        files: &[(String, Meta)],
        watch: &mut Watch,
    ) -> Result<Found> {
        let there = |(file, meta): &(String, Meta)| self.cache.find(&meta.commit, file, meta.size);
        if let Some(paths) = files.iter().map(there).collect() {
            return Ok(Found::Here(paths));
        }
        let mut whole: Option<Header> = None;
        for (file, meta) in files {
            let at = At {
                repo: self.repo(),
                revision: &meta.commit,
            };
            let mut start = Start::default();
            let header = persist(self.settings.retries, watch, |watch| {
                start.read(client, self.settings, (at, file, meta), watch)
            });
            let header =
                header.map_err(|stop| stop.into_error(&transfer::what(self.repo(), file), 0))?;
            match &mut whole {
                Some(whole) => whole.join(header, files.len())?,
                None => whole = Some(header),
            }
        }
        let ((file, meta), header) = files.first().zip(whole).expect("a model has a part");
        let at = At {
            repo: self.repo(),
            revision: &meta.commit,
        };
        let listed = match api::list(client, self.settings, at, watch) {
            Ok(listing) => models(&listing.files),
            Err(Stop::Failed(_)) => Vec::new(),
            Err(stop) => return Err(stop.into_error(&self.what(), 0)),
        };
        Ok(Found::There {
            file: file.clone(),
            header,
            models: listed.into_iter().map(|m| (m.name, m.size)).collect(),
        })
    }

    fn fetch_all(
        &self,
        client: &mut Client,
        files: &[(String, Meta)],
        watch: &mut Watch,
    ) -> Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for (file, meta) in files {
            let path = match self.cache.find(&meta.commit, file, meta.size) {
                Some(path) => path,
                None => self.fetch_one(client, file, meta, watch)?,
            };
            paths.push(path);
        }
        // Only now: whoever is offline finds what the revision meant before, until all of this is here.
        if let Some((_, meta)) = files.first() {
            self.cache.set_commit(self.revision, &meta.commit);
        }
        Ok(paths)
    }

    fn fetch_one(
        &self,
        client: &mut Client,
        file: &str,
        meta: &Meta,
        watch: &mut Watch,
    ) -> Result<PathBuf> {
        let (blob, part) = (self.cache.blob(&meta.etag), self.cache.part(&meta.etag));
        let link = || {
            self.cache
                .link(&meta.commit, file, &meta.etag, self.settings.symlinks)
        };
        let there = || {
            blob.metadata()
                .is_ok_and(|m| m.is_file() && meta.size.is_none_or(|s| s == m.len()))
        };
        self.cache.prepare(&meta.commit, file, &meta.etag)?;
        if there() {
            return link();
        }
        watch.begin(file, meta.size.unwrap_or(0));
        let patience = 3 * self.settings.stall_timeout;
        let lock = Lock::acquire(&self.cache.lock(&meta.etag), &part, patience, watch);
        let _lock = lock.map_err(|stop| stop.into_error(&transfer::what(self.repo(), file), 0))?;
        // Whoever held the lock may have finished the work.
        if let Some(path) = self.cache.find(&meta.commit, file, meta.size) {
            watch.end();
            return Ok(path);
        }
        if !there() {
            let job = transfer::Job {
                at: At {
                    repo: self.repo(),
                    revision: &meta.commit,
                },
                file,
                meta,
                part: &part,
                blob: &blob,
            };
            transfer::fetch(client, self.settings, &job, watch)?;
        }
        watch.end();
        link()
    }
}

/// Asks until there is an answer, or no hope for one.
fn persist<T>(
    retries: u32,
    watch: &mut Watch,
    mut ask: impl FnMut(&mut Watch) -> Result<T, Stop>,
) -> Result<T, Stop> {
    let mut retry = Retry::new(retries);
    loop {
        match ask(watch) {
            Err(Stop::Failed(failure)) => retry.wait(failure, watch, || {})?,
            other => return other,
        }
    }
}
