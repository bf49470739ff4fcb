//! The cache on disk, laid out as Python's `huggingface_hub` does, so that either finds what the other fetched:
//!
//! ```text
//! models--owner--name/refs/main                      the commit that `main` meant when last asked
//! models--owner--name/blobs/<etag>                   the bytes
//! models--owner--name/blobs/<etag>.incomplete        what there is of them so far
//! models--owner--name/snapshots/<commit>/<file>      a link to them
//! .locks/models--owner--name/<etag>.lock             held while they are fetched
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use hf_hub::{Cache, Repo, RepoType};

use super::repo::{Listed, is_commit};
use crate::error::{Error, Result};

/// One repository's part of the cache.
pub(super) struct RepoCache {
    root: PathBuf,
    folder: String,
    cache: Cache,
    repo: Repo,
}

impl RepoCache {
    pub(super) fn new(root: &Path, repo: &str) -> Self {
        let repo = Repo::new(repo.to_owned(), RepoType::Model);
        Self {
            root: root.to_owned(),
            folder: repo.folder_name(),
            cache: Cache::new(root.to_owned()),
            repo,
        }
    }

    pub(super) fn folder(&self) -> PathBuf {
        self.root.join(&self.folder)
    }

    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.folder().join("blobs").join(etag)
    }

    /// The unfinished bytes of a blob.
    pub(super) fn part(&self, etag: &str) -> PathBuf {
        self.folder()
            .join("blobs")
            .join(format!("{etag}.incomplete"))
    }

    pub(super) fn lock(&self, etag: &str) -> PathBuf {
        self.root
            .join(".locks")
            .join(&self.folder)
            .join(format!("{etag}.lock"))
    }

    fn snapshot(&self, commit: &str) -> PathBuf {
        self.cache.repo(self.repo.clone()).pointer_path(commit)
    }

    /// Where a user finds `file`.
    pub(super) fn pointer(&self, commit: &str, file: &str) -> PathBuf {
        let mut path = self.snapshot(commit);
        path.extend(file.split('/'));
        path
    }

    fn ref_path(&self, revision: &str) -> PathBuf {
        let mut path = self.folder().join("refs");
        path.extend(revision.split('/'));
        path
    }

    /// The commit that `revision` meant when the hub was last asked.
    pub(super) fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let text = fs::read_to_string(self.ref_path(revision)).ok()?;
        let commit = text.trim();
        let legal = !commit.is_empty() && commit.bytes().all(|b| b.is_ascii_alphanumeric());
        legal.then(|| commit.to_owned())
    }

    /// Notes what `revision` means. A cache that cannot be written to is no reason to fail.
    pub(super) fn set_commit(&self, revision: &str, commit: &str) {
        if revision == commit || self.commit(revision).as_deref() == Some(commit) {
            return;
        }
        let path = self.ref_path(revision);
        let write = || {
            fs::create_dir_all(path.parent().unwrap_or(&path))?;
            // Readers see the old commit or the new one, never half a line.
            let new = path.with_file_name(format!(".{}.{}", std::process::id(), commit));
            fs::write(&new, commit)?;
            fs::rename(&new, &path)
        };
        if let Err(error) = write() {
            log::debug!("cannot write {}: {error}", path.display());
        }
    }

    /// The file, if it is there whole.
    pub(super) fn find(&self, commit: &str, file: &str, size: Option<u64>) -> Option<PathBuf> {
        let path = self.pointer(commit, file);
        let meta = fs::metadata(&path).ok()?;
        if !meta.is_file() {
            return None;
        }
        if let Some(expected) = size.filter(|&s| s != meta.len()) {
            log::warn!(
                "{} has {} bytes and the hub's file {expected}: fetching it again",
                path.display(),
                meta.len()
            );
            return None;
        }
        Some(path)
    }

    /// All files of a commit that are there.
    pub(super) fn list(&self, commit: &str) -> Vec<Listed> {
        let mut found = Vec::new();
        let mut folders = vec![(self.snapshot(commit), String::new())];
        while let Some((folder, prefix)) = folders.pop() {
            let Ok(entries) = fs::read_dir(&folder) else {
                continue;
            };
            for entry in entries.flatten() {
                let name = entry.file_name();
                // Links are followed; one whose blob has gone is not a file.
                let (Some(name), Ok(meta)) = (name.to_str(), fs::metadata(entry.path())) else {
                    continue;
                };
                let name = format!("{prefix}{name}");
                if meta.is_dir() {
                    folders.push((entry.path(), format!("{name}/")));
                } else if meta.is_file() {
                    found.push(Listed {
                        name,
                        size: Some(meta.len()),
                    });
                }
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }

    /// Makes the folders that a fetch of `file` writes to.
    pub(super) fn prepare(&self, commit: &str, file: &str, etag: &str) -> Result<()> {
        for path in [self.blob(etag), self.lock(etag), self.pointer(commit, file)] {
            let folder = path.parent().unwrap_or(&path);
            fs::create_dir_all(folder).map_err(|e| Error::io(folder, &e))?;
        }
        Ok(())
    }

    /// Lets `file` of `commit` be the bytes of `etag`.
    pub(super) fn link(
        &self,
        commit: &str,
        file: &str,
        etag: &str,
        symlinks: bool,
    ) -> Result<PathBuf> {
        let (blob, pointer) = (self.blob(etag), self.pointer(commit, file));
        let mut target = PathBuf::from("../..");
        target.extend(file.split('/').skip(1).map(|_| ".."));
        target.extend(["blobs", etag]);
        match fs::remove_file(&pointer) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::io(&pointer, &e)),
            _ => {}
        }
        if symlinks && symlink(&target, &pointer).or_else(|e| already(&e)).is_ok() {
            return Ok(pointer);
        }
        // Where the system or the file system has no links for us the file itself goes there, as in huggingface_hub.
        fs::hard_link(&blob, &pointer)
            .or_else(|e| already(&e))
            .or_else(|_| fs::rename(&blob, &pointer))
            .map_err(|e| Error::io(&pointer, &e))?;
        Ok(pointer)
    }
}

/// Another process was as fast, which is as good.
fn already(error: &io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::AlreadyExists => Ok(()),
        _ => Err(io::Error::from(error.kind())),
    }
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, link)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn cache(name: &str) -> (RepoCache, PathBuf) {
        let root =
            std::env::temp_dir().join(format!("candlewick-cache-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        (RepoCache::new(&root, "owner/name"), root)
    }

    fn write(path: &Path, bytes: &[u8]) {
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, bytes).expect("a file");
    }

    #[test]
    fn places_are_those_of_huggingface_hub() {
        let cache = RepoCache::new(Path::new("/c"), "owner/name");
        assert_eq!(cache.blob("e"), Path::new("/c/models--owner--name/blobs/e"));
        assert_eq!(
            cache.pointer("abc", "d/f"),
            Path::new("/c/models--owner--name/snapshots/abc/d/f")
        );
        assert_eq!(
            cache.lock("e"),
            Path::new("/c/.locks/models--owner--name/e.lock")
        );
    }

    #[test]
    fn links_work_from_any_depth_and_without_symlinks() {
        for symlinks in [true, false] {
            let (cache, root) = cache(&format!("links-{symlinks}"));
            write(&cache.blob("e"), b"bytes");
            for file in ["f", "d/f", "d/e/f"] {
                cache.prepare(COMMIT, file, "e").expect("folders");
                // The second time replaces what is there.
                for _ in 0..2 {
                    let path = cache.link(COMMIT, file, "e", symlinks).expect("a link");
                    assert_eq!(fs::read(path).expect("a file"), b"bytes");
                }
            }
            assert_eq!(cache.list(COMMIT).len(), 3);
            fs::remove_dir_all(&root).expect("the temporary folder can go");
        }
    }

    #[test]
    fn only_whole_files_count() {
        let (cache, root) = cache("whole");
        write(&cache.blob("e"), b"bytes");
        cache.prepare(COMMIT, "f", "e").expect("folders");
        cache.link(COMMIT, "f", "e", true).expect("a link");
        assert!(cache.find(COMMIT, "f", Some(5)).is_some());
        assert!(cache.find(COMMIT, "f", Some(6)).is_none());
        assert!(cache.find(COMMIT, "g", None).is_none());
        // A link whose blob has been deleted is nothing.
        fs::remove_file(cache.blob("e")).expect("the blob can go");
        assert!(cache.find(COMMIT, "f", None).is_none());
        assert!(cache.list(COMMIT).is_empty());
        fs::remove_dir_all(&root).expect("the temporary folder can go");
    }

    #[test]
    fn revisions_may_have_slashes() {
        let (cache, root) = cache("refs");
        assert_eq!(cache.commit("refs/pr/1"), None);
        cache.set_commit("refs/pr/1", COMMIT);
        assert_eq!(cache.commit("refs/pr/1").as_deref(), Some(COMMIT));
        cache.set_commit("refs/pr/1", "abc");
        assert_eq!(cache.commit("refs/pr/1").as_deref(), Some("abc"));
        assert_eq!(cache.commit(COMMIT).as_deref(), Some(COMMIT));
        write(&cache.folder().join("refs/main"), b"../../etc");
        assert_eq!(cache.commit("main"), None);
        fs::remove_dir_all(&root).expect("the temporary folder can go");
    }
}
