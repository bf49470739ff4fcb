//! Which proxy a URL goes through, by the variables that curl and `requests` read.
//!
//! ureq reads them too, but takes one proxy for all schemes and matches `NO_PROXY` exactly only.

use ureq::http::Uri;

/// The proxies of the environment.
#[derive(Debug, Clone, Default)]
pub(super) struct Proxies {
    https: Option<Named>,
    http: Option<Named>,
    all: Option<Named>,
    except: Vec<String>,
}

/// A proxy's URL and the variable it came from.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) variable: &'static str,
    pub(super) url: String,
}

impl std::fmt::Debug for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.variable, self.shown())
    }
}

impl Named {
    /// The URL without the password that may be in it.
    pub(super) fn shown(&self) -> String {
        match (self.url.find("://"), self.url.rfind('@')) {
            (Some(scheme), Some(at)) => {
                format!("{}{}", &self.url[..scheme + 3], &self.url[at + 1..])
            }
            (None, Some(at)) => self.url[at + 1..].to_owned(),
            _ => self.url.clone(),
        }
    }
}

impl Proxies {
    pub(super) fn from_variables(get: impl Fn(&str) -> Option<String>) -> Self {
        // Lower case first, as curl and Python do.
        let find = |names: [&'static str; 2]| {
            names
                .into_iter()
                .find_map(|variable| get(variable).map(|url| Named { variable, url }))
        };
        let except = get("no_proxy")
            .or_else(|| get("NO_PROXY"))
            .unwrap_or_default();
        Self {
            https: find(["https_proxy", "HTTPS_PROXY"]),
            http: find(["http_proxy", "HTTP_PROXY"]),
            all: find(["all_proxy", "ALL_PROXY"]),
            except: except
                .split([',', ' '])
                .map(|e| e.trim().to_ascii_lowercase())
                .filter(|e| !e.is_empty())
                .collect(),
        }
    }

    /// All of them, as `VARIABLE=URL` without passwords.
    pub(super) fn shown(&self) -> Vec<String> {
        let all = [&self.https, &self.http, &self.all];
        all.into_iter()
            .flatten()
            .map(|named| format!("{named:?}"))
            .collect()
    }

    /// The proxy that `url` goes through, if any.
    pub(super) fn of(&self, url: &Uri) -> Option<&Named> {
        let host = url.host()?.trim_matches(['[', ']']).to_ascii_lowercase();
        if self
            .except
            .iter()
            .any(|e| excepts(e, &host, url.port_u16()))
        {
            return None;
        }
        let proxy = if url.scheme_str() == Some("https") {
            &self.https
        } else {
            &self.http
        };
        proxy.as_ref().or(self.all.as_ref())
    }
}

/// Whether an entry of `NO_PROXY` names `host`: the host itself, or a domain that it is in.
fn excepts(entry: &str, host: &str, port: Option<u16>) -> bool {
    if entry == "*" {
        return true;
    }
    // An IPv6 address has colons of its own.
    let entry = match entry.rsplit_once(':') {
        Some((name, digits)) if !name.contains(':') => {
            if digits.parse() != Ok(port.unwrap_or(0)) {
                return false;
            }
            name
        }
        _ => entry,
    };
    let domain = entry.trim_start_matches('*').trim_start_matches('.');
    host == domain
        || host
            .strip_suffix(domain)
            .is_some_and(|rest| rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_names_hosts_and_the_domains_they_are_in() {
        for (entry, url, expected) in [
            ("*", "https://hub.example.com/x", true),
            ("example.com", "https://example.com/x", true),
            ("example.com", "https://hub.example.com/x", true),
            (".example.com", "https://hub.example.com/x", true),
            ("*.example.com", "https://hub.example.com/x", true),
            ("example.com", "https://badexample.com/x", false),
            ("Example.com", "https://EXAMPLE.com/x", true),
            ("localhost, 127.0.0.1", "http://127.0.0.1:8080/x", true),
            ("127.0.0.1:8080", "http://127.0.0.1:8080/x", true),
            ("127.0.0.1:8081", "http://127.0.0.1:8080/x", false),
            ("::1", "http://[::1]:80/x", true),
        ] {
            let proxies = Proxies::from_variables(|name| match name {
                "NO_PROXY" => Some(entry.to_owned()),
                "all_proxy" => Some("http://proxy:3128".to_owned()),
                _ => None,
            });
            let url: Uri = url.parse().expect("a URL");
            assert_eq!(proxies.of(&url).is_none(), expected, "{entry} {url}");
        }
    }

    #[test]
    fn each_scheme_has_its_proxy() {
        let proxies = Proxies::from_variables(|name| match name {
            "HTTPS_PROXY" => Some("http://ann:secret@one:1".to_owned()),
            "http_proxy" => Some("two:2".to_owned()),
            _ => None,
        });
        let of = |url: &str| {
            let url = url.parse().expect("a URL");
            format!("{:?}", proxies.of(&url).expect("a proxy"))
        };
        assert_eq!(of("https://a/"), "HTTPS_PROXY=http://one:1");
        assert_eq!(of("http://a/"), "http_proxy=two:2");
    }
}
