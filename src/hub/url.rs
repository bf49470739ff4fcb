//! URLs: the hub's own, and where a redirect leads.

use ureq::http::Uri;

/// Scheme, host and port: what a token is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    /// The origin of an http or https URL.
    pub(super) fn of(url: &Uri) -> Option<Self> {
        let scheme = url.scheme_str()?.to_ascii_lowercase();
        let usual = usual_port(&scheme)?;
        Some(Self {
            host: url.host()?.to_ascii_lowercase(),
            port: url.port_u16().unwrap_or(usual),
            scheme,
        })
    }

    /// The host, with the port where it is not the usual one.
    pub(super) fn shown(&self) -> String {
        if usual_port(&self.scheme) == Some(self.port) {
            self.host.clone()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

fn usual_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// An http or https URL.
pub(super) fn parse(text: &str) -> Option<Uri> {
    let url = text.parse::<Uri>().ok()?;
    let known = usual_port(url.scheme_str()?).is_some();
    (known && url.host().is_some_and(|h| !h.is_empty())).then_some(url)
}

/// Where `location`, absolute or not, leads from `base`.
pub(super) fn join(base: &Uri, location: &str) -> Option<Uri> {
    // A fragment is for the reader of a page, and never sent.
    let location = location.split('#').next()?;
    let (scheme, authority) = (base.scheme_str()?, base.authority()?.as_str());
    let is_absolute = location.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    });
    let absolute = if is_absolute {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.starts_with('?') {
        format!("{scheme}://{authority}{}{location}", base.path())
    } else {
        let folder = base
            .path()
            .rsplit_once('/')
            .map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    parse(&absolute)
}

/// `text` as part of a path; `/` stays where `slash` is true.
pub(super) fn escape(text: &str, slash: bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (slash && byte == b'/') {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_where_a_browser_would_go() {
        let base = parse("https://hub.example:8443/a/b/c?x=1").expect("a URL");
        for (location, expected) in [
            (
                "https://cdn.example/f?sig=a://b",
                "https://cdn.example/f?sig=a://b",
            ),
            ("//cdn.example/f", "https://cdn.example/f"),
            ("/f?y=2", "https://hub.example:8443/f?y=2"),
            ("f", "https://hub.example:8443/a/b/f"),
            (
                "f?to=http://x",
                "https://hub.example:8443/a/b/f?to=http://x",
            ),
            ("?y=2", "https://hub.example:8443/a/b/c?y=2"),
            ("/f#part", "https://hub.example:8443/f"),
            ("/f?to=http://x", "https://hub.example:8443/f?to=http://x"),
        ] {
            assert_eq!(join(&base, location).expect(location).to_string(), expected);
        }
        for bad in [
            "http://",
            "https:///f",
            "/a b",
            "mailto:ann",
            "javascript:x",
        ] {
            assert!(join(&base, bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let origin = |u: &str| Origin::of(&parse(u).expect("a URL"));
        assert_eq!(origin("https://Hub/x"), origin("https://hub:443/y"));
        for other in [
            "http://hub/",
            "https://hub:444/",
            "https://hub.evil/",
            "https://evil/@hub",
        ] {
            assert_ne!(origin("https://hub/"), origin(other), "{other}");
        }
        assert!(parse("ftp://hub/").is_none());
        let user = parse("https://hub@evil/")
            .and_then(|u| Origin::of(&u))
            .expect("an origin");
        assert_eq!(user.shown(), "evil");
    }

    #[test]
    fn escapes_what_a_path_cannot_hold() {
        assert_eq!(escape("a b/ü?#", true), "a%20b/%C3%BC%3F%23");
        assert_eq!(escape("refs/pr/1", false), "refs%2Fpr%2F1");
    }
}
