//! Requests that can be left at any moment, with redirects of our own.
//!
//! ureq blocks: in name resolution, in a connect, in a read. So each request runs on a thread of its own that
//! hands what arrives to the caller through a short queue, and the caller never waits longer than a tick. It is
//! a pipeline too: the next bytes are read while the last ones are hashed and written. When the client is
//! dropped its sockets are shut down, which frees the threads.

use std::io::Read;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

use ureq::http::{HeaderMap, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Proxy};

use super::failure::{Failure, Kind, Stop};
use super::proxy::Named;
use super::settings::Settings;
use super::url::{self, Origin};
use super::watch::Watch;
use crate::error::{Error, Result};

const MAX_REDIRECTS: usize = 10;
const BUFFER_BYTES: usize = 256 << 10;
/// Fewer bytes than this, in the time after which silence is given up, are no better than silence.
const LEAST_BYTES: usize = 1 << 10;
/// Buffers on the way between the network and the disk.
const QUEUE: usize = 4;
const CHECK_NETWORK: &str =
    "check the network connection and try again (models that are in the cache also work offline)";

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Head,
    Get,
}

/// Which redirects to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Follow {
    /// All, to the bytes.
    All,
    /// Up to the hub's own answer about a file, whose redirect to the storage carries what is known about it.
    ToTheHub,
}

/// One request.
pub(super) struct Request<'a> {
    pub(super) method: Method,
    pub(super) url: &'a str,
    /// Leave out this many bytes at the beginning.
    pub(super) from: u64,
    /// And those from this one on.
    pub(super) to: Option<u64>,
    pub(super) follow: Follow,
    /// For the head of the answer, with connecting.
    pub(super) patience: Duration,
}

/// The head of an answer, and the way to its body.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) host: String,
    /// Whether the endpoint itself answered, not a storage it redirected to.
    pub(super) from_hub: bool,
    headers: HeaderMap,
    body: Body,
}

struct Body {
    full: Receiver<Message>,
    empty: Sender<Vec<u8>>,
    current: Vec<u8>,
    // Bytes that have come since then
    came: usize,
    since: Instant,
    via: Via,
}

enum Message {
    Head(Result<(u16, HeaderMap), ureq::Error>),
    Bytes(Vec<u8>),
    End(std::io::Result<()>),
}

/// What the texts of failures need to know about the way a request went.
#[derive(Clone)]
struct Via {
    host: String,
    https: bool,
    proxy: Option<Named>,
    stall_timeout: Duration,
}

/// The network, for one call of `fetch`.
pub(super) struct Client<'a> {
    settings: &'a Settings,
    endpoint: Origin,
    agents: Vec<(Option<Named>, Agent)>,
}

impl Drop for Client<'_> {
    fn drop(&mut self) {
        for (_, agent) in self.agents.drain(..) {
            agent.shutdown();
        }
    }
}

impl<'a> Client<'a> {
    pub(super) fn new(settings: &'a Settings) -> Result<Self> {
        let endpoint = url::parse(&settings.endpoint).and_then(|u| Origin::of(&u));
        let endpoint = endpoint.ok_or_else(|| {
            Error::InvalidRequest(format!(
                "HF_ENDPOINT is {:?}, which is not a URL",
                settings.endpoint
            ))
        })?;
        if let Some(token) = &settings.token
            && !token.bytes().all(|b| b.is_ascii_graphic())
        {
            return Err(Error::InvalidRequest(
                "the token has characters that no token has: copy it again from the hub's settings page".into(),
            ));
        }
        Ok(Self {
            settings,
            endpoint,
            agents: Vec::new(),
        })
    }

    /// The host that is asked first.
    pub(super) fn host(&self) -> String {
        self.endpoint.shown()
    }

    /// Asks, follows redirects, and returns the head of the last answer, whatever its status.
    pub(super) fn open(&mut self, request: &Request, watch: &mut Watch) -> Result<Reply, Stop> {
        let mut url = url::parse(request.url)
            .ok_or_else(|| Error::Engine(format!("not a URL: {:?}", request.url)))?;
        let mut token = self.settings.token.as_deref();
        let mut seen = vec![url.to_string()];
        loop {
            // Once it has left the endpoint the token does not come back, either.
            let origin = Origin::of(&url);
            let from_hub = origin.as_ref() == Some(&self.endpoint);
            if !from_hub {
                token = None;
            }
            let reply = self.exchange(request, &url, token, from_hub, watch)?;
            if !matches!(reply.status, 301 | 302 | 303 | 307 | 308) {
                return Ok(reply);
            }
            let failed = |cause: String| {
                let remedy = "the hub or a proxy on the way is set up wrongly: try again later, or another HF_ENDPOINT";
                let mut failure = Failure::new(Kind::Refused, &reply.host, cause, remedy);
                failure.status = Some(reply.status);
                Stop::Failed(failure)
            };
            let Some(location) = reply.header("location") else {
                return Err(failed("a redirect to nowhere".into()));
            };
            let next = url::join(&url, location).ok_or_else(|| {
                failed(format!(
                    "a redirect to {location:?}, which is no http or https URL"
                ))
            })?;
            let stays = Origin::of(&next) == origin;
            let complete = reply.header("x-linked-etag").is_some() || !stays;
            if request.follow == Follow::ToTheHub
                && complete
                && reply.header("x-repo-commit").is_some()
            {
                return Ok(reply);
            }
            if url.scheme_str() == Some("https") && next.scheme_str() == Some("http") {
                return Err(failed(
                    "a redirect from https to http, which anyone on the way could read and change"
                        .into(),
                ));
            }
            let text = next.to_string();
            if seen.contains(&text) {
                return Err(failed("a redirect loop".into()));
            }
            if seen.len() > MAX_REDIRECTS {
                return Err(failed(format!("more than {MAX_REDIRECTS} redirects")));
            }
            seen.push(text);
            url = next;
        }
    }

    fn exchange(
        &mut self,
        request: &Request,
        url: &Uri,
        token: Option<&str>,
        from_hub: bool,
        watch: &mut Watch,
    ) -> Result<Reply, Stop> {
        let (agent, proxy) = self.agent(url)?;
        let mut builder = match request.method {
            Method::Head => agent.head(url),
            Method::Get => agent.get(url),
        };
        // Compressed bytes have another length and another hash.
        builder = builder.header("Accept-Encoding", "identity");
        if let Some(token) = token {
            builder = builder.header("Authorization", format!("Bearer {token}"));
        }
        if request.from > 0 || request.to.is_some() {
            let last = request.to.map_or(String::new(), |to| (to - 1).to_string());
            builder = builder.header("Range", format!("bytes={}-{last}", request.from));
        }
        let via = Via {
            host: Origin::of(url).map_or(String::new(), |o| o.shown()),
            https: url.scheme_str() == Some("https"),
            proxy,
            stall_timeout: self.settings.stall_timeout,
        };
        let (full_in, full) = sync_channel(QUEUE);
        let (empty, empty_out) = channel();
        let thread = std::thread::Builder::new().name("candlewick-net".into());
        let spawned = thread.spawn(move || work(|| builder.call(), &full_in, &empty_out));
        spawned.map_err(|e| Error::Engine(format!("cannot start a thread: {e}")))?;
        match watch.receive(&full, Some(request.patience))? {
            Some(Message::Head(Ok((status, headers)))) => Ok(Reply {
                status,
                host: via.host.clone(),
                from_hub,
                headers,
                body: Body {
                    full,
                    empty,
                    current: Vec::new(),
                    came: 0,
                    since: Instant::now(),
                    via,
                },
            }),
            Some(Message::Head(Err(error))) => Err(via.failure(error).into()),
            _ => {
                let cause = format!("no answer within {} s", request.patience.as_secs());
                Err(via.unreachable(cause).into())
            }
        }
    }

    /// The agent for `url`: one for each proxy, so that connections are used again.
    fn agent(&mut self, url: &Uri) -> Result<(Agent, Option<Named>), Stop> {
        let named = self.settings.proxies.of(url);
        if let Some((_, agent)) = self.agents.iter().find(|(p, _)| p.as_ref() == named) {
            return Ok((agent.clone(), named.cloned()));
        }
        let proxy = match named {
            None => None,
            Some(named) => Some(Proxy::new(&named.url).map_err(|_| {
                let cause = format!("{} is {:?}", named.variable, named.shown());
                Failure::new(
                    Kind::Refused,
                    &self.host(),
                    cause,
                    "expected a proxy such as \"http://host:3128\"",
                )
            })?),
        };
        let settings = self.settings;
        let agent: Agent = Agent::config_builder()
            .proxy(proxy)
            .tls_config(
                TlsConfig::builder()
                    .root_certs(roots(&self.host())?)
                    .build(),
            )
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("candlewick/", env!("CARGO_PKG_VERSION")))
            .input_buffer_size(BUFFER_BYTES)
            .timeout_resolve(Some(settings.answer_timeout))
            .timeout_connect(Some(settings.answer_timeout))
            .timeout_per_read(Some(settings.stall_timeout))
            .timeout_per_write(Some(settings.stall_timeout))
            .build()
            .into();
        self.agents.push((named.cloned(), agent.clone()));
        Ok((agent, named.cloned()))
    }
}

/// The certificates of `SSL_CERT_FILE` and `SSL_CERT_DIR`, else the system's, else Mozilla's.
fn roots(host: &str) -> Result<RootCerts, Failure> {
    // The system's do not change while a program runs, and take a moment to read.
    static SYSTEM: OnceLock<RootCerts> = OnceLock::new();
    let named =
        std::env::var_os("SSL_CERT_FILE").is_some() || std::env::var_os("SSL_CERT_DIR").is_some();
    if !named && let Some(roots) = SYSTEM.get() {
        return Ok(roots.clone());
    }
    let found = rustls_native_certs::load_native_certs();
    let certificates: Vec<_> = found
        .certs
        .iter()
        .map(|c| Certificate::from_der(c.as_ref()).to_owned())
        .collect();
    if !certificates.is_empty() {
        let roots = RootCerts::from(certificates);
        if !named {
            return Ok(SYSTEM.get_or_init(|| roots).clone());
        }
        return Ok(roots);
    }
    if named {
        let causes: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
        return Err(Failure::new(
            Kind::Refused,
            host,
            format!(
                "SSL_CERT_FILE and SSL_CERT_DIR name no certificate that can be read ({})",
                causes.join("; ")
            ),
            "let SSL_CERT_FILE name a PEM file with certificates, or unset it to use the system's",
        ));
    }
    log::debug!("no system certificates: using Mozilla's");
    Ok(RootCerts::WebPki)
}

/// The thread's work: the head, then the body in pieces, until nobody listens.
fn work(
    call: impl FnOnce() -> Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    full: &SyncSender<Message>,
    empty: &Receiver<Vec<u8>>,
) {
    let (parts, body) = match call() {
        Ok(response) => response.into_parts(),
        Err(error) => {
            let _ = full.send(Message::Head(Err(error)));
            return;
        }
    };
    let head = (parts.status.as_u16(), parts.headers);
    if full.send(Message::Head(Ok(head))).is_err() {
        return;
    }
    let mut reader = body.into_reader();
    loop {
        let mut buffer = empty.try_recv().unwrap_or_default();
        buffer.resize(BUFFER_BYTES, 0);
        let message = match reader.read(&mut buffer) {
            Ok(0) => Message::End(Ok(())),
            Ok(n) => {
                buffer.truncate(n);
                Message::Bytes(buffer)
            }
            Err(error) => Message::End(Err(error)),
        };
        let end = matches!(message, Message::End(_));
        if full.send(message).is_err() || end {
            return;
        }
    }
}

impl Reply {
    /// A header's value, where it is text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The next bytes, or `None` at the end.
    pub(super) fn next(&mut self, watch: &mut Watch) -> Result<Option<&[u8]>, Stop> {
        let body = &mut self.body;
        let used = std::mem::take(&mut body.current);
        if used.capacity() > 0 {
            let _ = body.empty.send(used);
        }
        match watch.receive(&body.full, None)? {
            Some(Message::Bytes(bytes)) => {
                body.current = bytes;
                body.came += body.current.len();
                let patience = body.via.stall_timeout;
                if body.since.elapsed() >= patience {
                    if body.came < LEAST_BYTES {
                        let cause = format!("{} bytes in {} s", body.came, patience.as_secs());
                        return Err(body.via.unreachable(cause).into());
                    }
                    body.came = 0;
                    body.since = Instant::now();
                }
                Ok(Some(&body.current))
            }
            Some(Message::End(Ok(()))) => Ok(None),
            Some(Message::End(Err(error))) => Err(body.via.failure(error.into()).into()),
            Some(Message::Head(_)) | None => Err(body
                .via
                .unreachable("the connection broke off".into())
                .into()),
        }
    }

    /// The whole body, where it is no longer than `limit` bytes.
    pub(super) fn text(&mut self, limit: usize, watch: &mut Watch) -> Result<Vec<u8>, Stop> {
        let mut text = Vec::new();
        while let Some(bytes) = self.next(watch)? {
            text.extend_from_slice(bytes);
            if text.len() > limit {
                let cause = format!("an answer of more than {limit} bytes");
                return Err(self.failure(Kind::Refused, cause, CHECK_NETWORK).into());
            }
        }
        Ok(text)
    }

    /// A failure that this answer is the reason of.
    pub(super) fn failure(
        &self,
        kind: Kind,
        cause: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Failure {
        let mut failure = Failure::new(kind, &self.host, cause, remedy);
        failure.status = Some(self.status);
        failure
    }
}

impl Via {
    fn unreachable(&self, cause: String) -> Failure {
        match &self.proxy {
            None => Failure::new(Kind::Broken, &self.host, cause, CHECK_NETWORK),
            Some(proxy) => Failure::new(
                Kind::Broken,
                &self.host,
                format!(
                    "{cause}, through the proxy {} of {}",
                    proxy.shown(),
                    proxy.variable
                ),
                format!(
                    "check {} and the network connection, or name the host in NO_PROXY if it needs no proxy",
                    proxy.variable
                ),
            ),
        }
    }

    fn failure(&self, error: ureq::Error) -> Failure {
        let certificate = |cause: String| {
            Failure::new(
                Kind::Refused,
                &self.host,
                format!("the secure connection failed ({cause})"),
                "if a proxy or firewall of your organisation is between, let SSL_CERT_FILE name a file with its \
                 certificate; also check this machine's clock",
            )
        };
        match error {
            ureq::Error::ConnectProxyFailed(reason) => {
                let mut failure = self.unreachable("the proxy refused to connect".into());
                failure.cause = format!("{} ({reason})", failure.cause);
                if reason.contains("407") {
                    failure.kind = Kind::Refused;
                    "give the proxy's user and password: http://user:password@host:port"
                        .clone_into(&mut failure.remedy);
                }
                failure
            }
            ureq::Error::Rustls(error) => certificate(error.to_string()),
            ureq::Error::Tls(error) => certificate(error.to_owned()),
            // rustls reports a certificate that it does not trust this way.
            ureq::Error::Io(error)
                if self.https && error.kind() == std::io::ErrorKind::InvalidData =>
            {
                certificate(error.to_string())
            }
            ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                self.unreachable("the connection broke off".into())
            }
            ureq::Error::Io(error) => self.unreachable(error.to_string()),
            ureq::Error::Timeout(ureq::Timeout::PerRead | ureq::Timeout::PerWrite) => {
                let cause = format!("no bytes for {} s", self.stall_timeout.as_secs());
                self.unreachable(cause)
            }
            ureq::Error::Timeout(what) => self.unreachable(format!("no answer in time ({what})")),
            other => self.unreachable(other.to_string()),
        }
    }
}
