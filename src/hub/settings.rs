//! What the environment says: the same variables that Python's `huggingface_hub` reads.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::proxy::Proxies;
use crate::error::{Error, Result};

const ENDPOINT: &str = "https://huggingface.co";

/// Where to ask, where to keep, and how long to wait.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Such as `https://huggingface.co`, without a slash at the end (`HF_ENDPOINT`).
    pub endpoint: String,
    /// The folder of `models--owner--name` folders (`HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`).
    pub cache_dir: PathBuf,
    /// Sent to the endpoint and to nobody else (`HF_TOKEN`, or the file that logging in writes).
    pub token: Option<String>,
    /// Never touch the network (`HF_HUB_OFFLINE`).
    pub offline: bool,
    /// Link from snapshots to blobs with symbolic links where the system can (`HF_HUB_DISABLE_SYMLINKS`).
    pub symlinks: bool,
    /// For a connection and the answer to a question about a file (`HF_HUB_ETAG_TIMEOUT`, seconds).
    pub answer_timeout: Duration,
    /// For the next bytes of a file (`HF_HUB_DOWNLOAD_TIMEOUT`, seconds).
    pub stall_timeout: Duration,
    /// Tries again after failures that brought nothing, before giving up (`CANDLEWICK_DOWNLOAD_RETRIES`).
    pub retries: u32,
    /// The proxies of each scheme.
    pub(super) proxies: Proxies,
}

impl Settings {
    /// Reads the process environment. Python's `os.environ` changes it, so hold the GIL.
    pub fn from_env() -> Result<Self> {
        Self::from_variables(|name| std::env::var(name).ok(), std::env::home_dir())
    }

    /// The proxies that the environment names, as `VARIABLE=URL` without passwords.
    pub fn proxies(&self) -> Vec<String> {
        self.proxies.shown()
    }

    fn from_variables(
        variable: impl Fn(&str) -> Option<String>,
        home: Option<PathBuf>,
    ) -> Result<Self> {
        // A variable that is set to nothing is as good as not set.
        let get = |name: &str| {
            let value = variable(name)?;
            let value = value.trim();
            (!value.is_empty()).then(|| value.to_owned())
        };
        let is_true = |name: &str| get(name).is_some_and(|v| truth(&v));
        let folder = |name: &str| get(name).map(|v| expand(&v, home.as_deref()));
        let hf_home = folder("HF_HOME").or_else(|| {
            let caches =
                folder("XDG_CACHE_HOME").or_else(|| Some(home.as_ref()?.join(".cache")))?;
            Some(caches.join("huggingface"))
        });
        let cache_dir = folder("HF_HUB_CACHE")
            .or_else(|| folder("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| Some(hf_home.as_ref()?.join("hub")))
            .ok_or_else(|| {
                Error::InvalidRequest(
                    "this account has no home folder to keep models in: give cache_dir=, or set HF_HUB_CACHE".into(),
                )
            })?;
        let endpoint = get("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            return Err(Error::InvalidRequest(format!(
                "HF_ENDPOINT is {endpoint:?}, expected a URL such as {ENDPOINT:?}"
            )));
        }
        let token = if is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            None
        } else {
            let file = folder("HF_TOKEN_PATH").or_else(|| Some(hf_home.as_ref()?.join("token")));
            get("HF_TOKEN")
                .or_else(|| get("HUGGING_FACE_HUB_TOKEN"))
                .or_else(|| std::fs::read_to_string(file?).ok())
        };
        Ok(Self {
            endpoint,
            cache_dir,
            token: token.map(|t| clean(&t)).filter(|t| !t.is_empty()),
            offline: is_true("HF_HUB_OFFLINE") || is_true("TRANSFORMERS_OFFLINE"),
            symlinks: !is_true("HF_HUB_DISABLE_SYMLINKS"),
            answer_timeout: seconds("HF_HUB_ETAG_TIMEOUT", &get)?
                .unwrap_or(Duration::from_secs(10)),
            stall_timeout: seconds("HF_HUB_DOWNLOAD_TIMEOUT", &get)?
                .unwrap_or(Duration::from_secs(30)),
            retries: number("CANDLEWICK_DOWNLOAD_RETRIES", &get)?.unwrap_or(6),
            proxies: Proxies::from_variables(get),
        })
    }
}

/// A token as it goes into a header: what copying and `echo` put around it is not part of it.
pub(super) fn clean(token: &str) -> String {
    token.chars().filter(|c| !c.is_whitespace()).collect()
}

fn truth(value: &str) -> bool {
    ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str())
}

fn number(name: &str, get: &impl Fn(&str) -> Option<String>) -> Result<Option<u32>> {
    let Some(value) = get(name) else {
        return Ok(None);
    };
    value
        .parse()
        .map(Some)
        .map_err(|_| Error::InvalidRequest(format!("{name} is {value:?}, expected a whole number")))
}

fn seconds(name: &str, get: &impl Fn(&str) -> Option<String>) -> Result<Option<Duration>> {
    Ok(number(name, get)?
        .filter(|&s| s > 0)
        .map(|s| Duration::from_secs(u64::from(s))))
}

/// `~/models` below the home folder, everything else as it is.
fn expand(path: &str, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix('~'), home) {
        (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with(['/', '\\']) => {
            home.join(rest.trim_start_matches(['/', '\\']))
        }
        _ => path.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Settings> {
        let get = |name: &str| {
            let found = variables.iter().find(|(n, _)| *n == name)?;
            Some(found.1.to_owned())
        };
        Settings::from_variables(get, Some("/home/ann".into()))
    }

    #[test]
    fn the_cache_is_where_huggingface_hub_has_it() {
        for (variables, expected) in [
            (&[][..], "/home/ann/.cache/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
            (
                &[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "~/hf")],
                "/home/ann/hf/hub",
            ),
            (
                &[("HF_HOME", "/hf"), ("HUGGINGFACE_HUB_CACHE", "/old")],
                "/old",
            ),
            (
                &[("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HUB_CACHE", "/hub")],
                "/hub",
            ),
            (&[("HF_HUB_CACHE", " ")], "/home/ann/.cache/huggingface/hub"),
        ] {
            let found = settings(variables).expect("valid variables").cache_dir;
            assert_eq!(found, Path::new(expected), "{variables:?}");
        }
    }

    #[test]
    fn the_token_comes_from_the_variable_before_the_file() {
        let folder = std::env::temp_dir().join(format!("candlewick-token-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a temporary folder");
        std::fs::write(folder.join("token"), "hf_file\n").expect("a token file");
        let home = folder.display().to_string();
        let path = folder.join("token").display().to_string();
        for (variables, expected) in [
            (&[("HF_HOME", home.as_str())][..], Some("hf_file")),
            (&[("HF_TOKEN_PATH", path.as_str())], Some("hf_file")),
            (
                &[("HF_HOME", &home), ("HF_TOKEN", " hf_env\r\n")],
                Some("hf_env"),
            ),
            (
                &[("HF_HOME", &home), ("HUGGING_FACE_HUB_TOKEN", "old")],
                Some("old"),
            ),
            (
                &[("HF_TOKEN", "t"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")],
                None,
            ),
            (&[("HF_HOME", "/nowhere")], None),
        ] {
            let found = settings(variables).expect("valid variables").token;
            assert_eq!(found.as_deref(), expected, "{variables:?}");
        }
        std::fs::remove_dir_all(&folder).expect("the temporary folder can go");
    }

    #[test]
    fn offline_is_what_huggingface_hub_takes_for_true() {
        for (value, expected) in [
            ("1", true),
            ("Yes", true),
            ("ON", true),
            ("0", false),
            ("", false),
        ] {
            let found = settings(&[("HF_HUB_OFFLINE", value)]).expect("valid variables");
            assert_eq!(found.offline, expected, "{value}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (name, value) in [
            ("HF_ENDPOINT", "huggingface.co"),
            ("HF_HUB_DOWNLOAD_TIMEOUT", "soon"),
            ("CANDLEWICK_DOWNLOAD_RETRIES", "-1"),
        ] {
            let error = settings(&[(name, value)])
                .expect_err("a bad value")
                .to_string();
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
        let found = settings(&[("HF_ENDPOINT", "http://mirror/")]).expect("a mirror");
        assert_eq!(found.endpoint, "http://mirror");
    }
}
