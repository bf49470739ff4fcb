//! Everything that can go wrong, one variant for each thing a user can do something about.
//!
//! Every message says what was found, what was expected and what to do. The Python binding maps each
//! variant to the exception named in its doc line; nothing else in the crate knows about Python.

use std::path::Path;

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, and for whom.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No such file, folder, repository or quantization (`ModelNotFoundError`).
    #[error("{0}")]
    ModelNotFound(String),
    /// The file is not a well-formed GGUF, or contradicts itself (`ModelFormatError`).
    #[error("{0}")]
    ModelFormat(String),
    /// A well-formed file that this package, engine, device or CPU cannot run (`UnsupportedModelError`).
    #[error("{0}")]
    Unsupported(String),
    /// An argument that makes no sense (`InvalidRequestError`).
    #[error("{0}")]
    InvalidRequest(String),
    /// The prompt does not fit (`ContextLengthError`).
    #[error(
        "the prompt has {prompt_tokens} tokens and the context holds {n_ctx} (at least one must stay free for the \
         answer): shorten the prompt{}",
        if n_ctx < model_ctx {
            format!(", or load the model with a larger n_ctx (this model goes up to {model_ctx})")
        } else {
            String::new()
        }
    )]
    ContextLength {
        /// Tokens in the prompt, template and BOS included.
        prompt_tokens: usize,
        /// The context of this generator, in tokens.
        n_ctx: usize,
        /// The context the model was made for, in tokens.
        model_ctx: usize,
    },
    /// More memory than there is would be needed (`OutOfMemoryError`).
    #[error("{what} needs {} and {} are available: {remedy}", bytes(*needed), bytes(*available))]
    OutOfMemory {
        /// What the memory was wanted for.
        what: String,
        /// Bytes wanted.
        needed: u64,
        /// Bytes that can be had.
        available: u64,
        /// The way out.
        remedy: String,
    },
    /// A saved conversation that is damaged, or of another model, version or kind of keys and values (`SessionError`).
    #[error("{0}")]
    Session(String),
    /// A download failed; what was fetched is kept (`DownloadError`).
    #[error("{}", download_text(what, host, *status, cause, *kept, remedy))]
    Download {
        /// What was wanted, such as "`model.gguf` of `owner/name`".
        what: String,
        /// The host that was asked, with its port where that is not the usual one; empty before any was.
        host: String,
        /// The HTTP status of the last answer, when there was one that counts.
        status: Option<u16>,
        /// What went wrong.
        cause: String,
        /// Bytes that are on disk already and will not be fetched again.
        kept: u64,
        /// The way out.
        remedy: String,
    },
    /// The file does not fit on the disk (`DownloadError`).
    #[error(
        "cannot download {what}: {} more are needed and {} are free in `{path}`{}; free some space, or choose another \
         disk with cache_dir= or HF_HUB_CACHE",
        bytes(*needed), bytes(*available), kept_text(*kept)
    )]
    DiskFull {
        /// What was wanted.
        what: String,
        /// The folder it was to go to.
        path: String,
        /// Bytes still to be written.
        needed: u64,
        /// Bytes free there.
        available: u64,
        /// Bytes that are on disk already and will not be fetched again.
        kept: u64,
    },
    /// The operating system refused to read or write (`OSError` with its number and file name).
    #[error("{path}: {message}")]
    Io {
        /// The file or folder concerned.
        path: String,
        /// The system's error number, when it gave one.
        errno: Option<i32>,
        /// The system's words.
        message: String,
    },
    /// The caller asked for the work to stop; never shown to a user.
    #[error("interrupted")]
    Interrupted,
    /// A failure of the engine underneath, which is a bug worth reporting (`Error`).
    #[error("{0}")]
    Engine(String),
}

impl Error {
    /// An [`Error::Io`] for `path`.
    pub fn io(path: &Path, error: &std::io::Error) -> Self {
        Self::Io {
            path: path.display().to_string(),
            errno: error.raw_os_error(),
            message: error.to_string(),
        }
    }
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Engine(format!("candle: {error}"))
    }
}

fn download_text(
    what: &str,
    host: &str,
    status: Option<u16>,
    cause: &str,
    kept: u64,
    remedy: &str,
) -> String {
    let from = if host.is_empty() {
        String::new()
    } else {
        format!(" from {host}")
    };
    let status = status.map_or(String::new(), |s| format!(" (HTTP status {s})"));
    let kept = kept_text(kept);
    format!("cannot download {what}{from}: {cause}{status}{kept}; {remedy}")
}

fn kept_text(kept: u64) -> String {
    match kept {
        0 => String::new(),
        n => format!(
            "; the {} that were fetched are kept, and the next call goes on from there",
            bytes(n)
        ),
    }
}

/// `n` bytes in the decimal unit a person would use: `"2.39 GB"`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if n < 1000 {
        return format!("{n} bytes");
    }
    let mut value = n as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = if value < 10.0 {
        2
    } else if value < 100.0 {
        1
    } else {
        0
    };
    format!("{value:.digits$} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_a_person_writes_them() {
        for (n, text) in [
            (0, "0 bytes"),
            (999, "999 bytes"),
            (1000, "1.00 kB"),
            (2_390_000_000, "2.39 GB"),
            (24_000_000_000, "24.0 GB"),
            (u64::MAX, "18447 PB"),
        ] {
            assert_eq!(bytes(n), text);
        }
    }

    #[test]
    fn context_error_mentions_n_ctx_only_where_it_helps() {
        let error = |n_ctx, model_ctx| {
            Error::ContextLength {
                prompt_tokens: 600,
                n_ctx,
                model_ctx,
            }
            .to_string()
        };
        assert!(error(512, 4096).contains("larger n_ctx (this model goes up to 4096)"));
        assert!(!error(512, 512).contains("n_ctx"));
    }
}
