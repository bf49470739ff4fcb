//! The two questions that a hub answers: what is in a repository, and what is known about a file.

use serde::Deserialize;

use super::client::{Client, Follow, Method, Reply, Request};
use super::failure::{Failure, Kind, Stop};
use super::repo::{Listed, is_commit};
use super::retry::retry_after;
use super::settings::Settings;
use super::url::escape;
use super::watch::Watch;

/// A listing of a thousand files with their hashes is about half a megabyte.
const MAX_LISTING_BYTES: usize = 64 << 20;

/// A repository at a revision.
#[derive(Debug, Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) repo: &'a str,
    pub(super) revision: &'a str,
}

/// What the hub says about a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Meta {
    /// The commit that the revision means now.
    pub(super) commit: String,
    /// The name of the file's bytes in the cache.
    pub(super) etag: String,
    pub(super) size: Option<u64>,
}

impl Meta {
    /// The SHA-256 of the bytes: the etag of a large file. Small ones have git's SHA-1, of another text.
    pub(super) fn sha256(&self) -> Option<&str> {
        let hex = self.etag.len() == 64 && self.etag.bytes().all(|b| b.is_ascii_hexdigit());
        hex.then_some(self.etag.as_str())
    }
}

/// The files of a repository at a commit.
pub(super) struct Listing {
    pub(super) commit: String,
    pub(super) files: Vec<Listed>,
}

/// Where the bytes of a file are.
pub(super) fn file_url(settings: &Settings, at: At, file: &str) -> String {
    format!(
        "{}/{}/resolve/{}/{}",
        settings.endpoint,
        at.repo,
        escape(at.revision, false),
        escape(file, true)
    )
}

/// Asks what is known about `file`.
pub(super) fn metadata(
    client: &mut Client,
    settings: &Settings,
    at: At,
    file: &str,
    watch: &mut Watch,
) -> Result<Meta, Stop> {
    let request = Request {
        method: Method::Head,
        url: &file_url(settings, at, file),
        from: 0,
        to: None,
        follow: Follow::ToTheHub,
        patience: settings.answer_timeout,
    };
    let reply = client.open(&request, watch)?;
    if reply.status >= 400 {
        return Err(refusal(&reply, settings, at, Some(file)).into());
    }
    let foreign = |what: &str| {
        reply.failure(
            Kind::Refused,
            format!("the answer has no valid {what}, so it is not a hub's"),
            "check HF_ENDPOINT; or log in to the network, if it asks for that in a browser",
        )
    };
    let commit = reply.header("x-repo-commit").unwrap_or_default();
    let legal = |text: &str| {
        !text.is_empty() && text.len() <= 128 && text.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    if !legal(commit) {
        return Err(foreign("X-Repo-Commit").into());
    }
    let etag = reply
        .header("x-linked-etag")
        .or_else(|| reply.header("etag"))
        .unwrap_or_default();
    let etag = etag.trim_start_matches("W/").trim_matches('"');
    // It becomes a file's name.
    if !legal(&etag.replace(['-', '_'], "")) {
        return Err(foreign("ETag").into());
    }
    let size = reply.header("x-linked-size").or_else(|| {
        let whole = reply.status == 200;
        whole.then(|| reply.header("content-length")).flatten()
    });
    Ok(Meta {
        commit: commit.to_owned(),
        etag: etag.to_owned(),
        size: size.and_then(|s| s.parse().ok()),
    })
}

/// Asks which files there are.
pub(super) fn list(
    client: &mut Client,
    settings: &Settings,
    at: At,
    watch: &mut Watch,
) -> Result<Listing, Stop> {
    #[derive(Deserialize)]
    struct Answer {
        sha: Option<String>,
        siblings: Vec<Sibling>,
    }
    #[derive(Deserialize)]
    struct Sibling {
        rfilename: String,
        size: Option<u64>,
    }
    let url = format!(
        "{}/api/models/{}/revision/{}?blobs=true",
        settings.endpoint,
        at.repo,
        escape(at.revision, false)
    );
    let request = Request {
        method: Method::Get,
        url: &url,
        from: 0,
        to: None,
        follow: Follow::All,
        patience: settings.answer_timeout,
    };
    let mut reply = client.open(&request, watch)?;
    if reply.status != 200 {
        return Err(refusal(&reply, settings, at, None).into());
    }
    let text = reply.text(MAX_LISTING_BYTES, watch)?;
    let answer: Option<Answer> = serde_json::from_slice(&text).ok();
    let Some((commit, siblings)) = answer
        .and_then(|a| Some((a.sha?, a.siblings)))
        .filter(|(sha, _)| is_commit(sha))
    else {
        let cause = "the list of files is not what a hub sends";
        let remedy =
            "check HF_ENDPOINT; or log in to the network, if it asks for that in a browser";
        return Err(reply.failure(Kind::Refused, cause, remedy).into());
    };
    let files = siblings
        .into_iter()
        .map(|s| Listed {
            name: s.rfilename,
            size: s.size,
        })
        .collect();
    Ok(Listing { commit, files })
}

/// What a status of 400 or more means.
pub(super) fn refusal(reply: &Reply, settings: &Settings, at: At, file: Option<&str>) -> Failure {
    let At { repo, revision } = at;
    let page = format!("{}/{repo}", settings.endpoint);
    let said = reply.header("x-error-message").map_or(String::new(), |m| {
        format!(" ({})", m.trim().trim_end_matches('.'))
    });
    let code = reply.header("x-error-code").unwrap_or_default();
    let make = |kind, cause: String, remedy: String| reply.failure(kind, cause, remedy);
    let token = if settings.token.is_some() {
        "check that the token in HF_TOKEN or token= is valid and may read this repository"
    } else {
        "if it is private, set HF_TOKEN, or give token="
    };
    match (reply.status, code) {
        (401 | 403, "GatedRepo") => make(
            Kind::Refused,
            format!("the model is gated: its owner wants its licence accepted first{said}"),
            format!(
                "accept it at {page}, then {}",
                if settings.token.is_some() {
                    "use a token of the account that did"
                } else {
                    "set HF_TOKEN, or give token=, to a token of the account that did"
                }
            ),
        ),
        (404, "RevisionNotFound") => make(
            Kind::Missing,
            format!("no revision {revision:?} in `{repo}` at {}", reply.host),
            format!("see {page}/branches/all for those there are, or leave revision= out"),
        ),
        (404, "EntryNotFound") => make(
            Kind::Missing,
            missing_file(repo, revision, file, &reply.host),
            format!("see {page}/tree/{revision} for those there are"),
        ),
        (401 | 404, "RepoNotFound") => make(
            Kind::Hidden,
            format!("no repository `{repo}` at {}, or a private one", reply.host),
            format!("check the name; {token}"),
        ),
        (404, _) => make(
            Kind::Missing,
            missing_file(repo, revision, file, &reply.host),
            format!("check the names at {page}; {token}"),
        ),
        (401, _) => make(
            Kind::Refused,
            format!("not without a valid token{said}"),
            format!("check the name of the repository; {token}"),
        ),
        (403, _) => make(
            Kind::Refused,
            format!("access denied{said}"),
            token.to_owned(),
        ),
        (408 | 425 | 429 | 500 | 502 | 503 | 504, _) => {
            let asked = reply.header("retry-after").and_then(retry_after);
            let cause = if reply.status == 429 {
                "too many requests"
            } else {
                "the server is in trouble"
            };
            make(
                Kind::Busy(asked),
                format!("{cause}{said}"),
                "try again in a few minutes".to_owned(),
            )
        }
        _ => make(
            Kind::Refused,
            format!("the server refused{said}"),
            format!("see whether {page} works in a browser"),
        ),
    }
}

fn missing_file(repo: &str, revision: &str, file: Option<&str>, host: &str) -> String {
    match file {
        Some(file) => format!("no file `{file}` in `{repo}` at revision {revision:?} of {host}"),
        None => format!("no repository `{repo}` with revision {revision:?} at {host}"),
    }
}
