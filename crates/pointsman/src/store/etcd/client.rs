//! Calls to etcd, over HTTP, at whichever of its members answers.
//!
//! Its JSON gateway rather than gRPC: every etcd since 3.4 has it, APISIX uses nothing else, and the HTTP
//! client that is here anyhow speaks it. A call goes to one member; who that is changes when one fails.
//! What changes something is never sent twice: nobody would know which of the two was acknowledged.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use pointsman_gateway::{
    body::{self, Body},
    config::settings::{EtcdLogin, EtcdSettings},
    failure::TransportFault,
    side_call::{self, ReadError, SideCall},
    upstream::destination::{ClientCertificate, Destination, Tls},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::wire::{self, Header, Notice, Refusal, Span, WatchLine};
use crate::http_client::{Dialer, HttpClient};

/// Why a call came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// No answer came, or none that can be understood.
    Broken(String),
    /// What was asked for has been forgotten by etcd.
    Compacted,
    /// What is known of etcd is not what etcd says.
    Differs,
    /// An answer has more bytes than we take.
    TooLarge,
    /// A watch has told nothing for as long as it may.
    Silent,
    /// The token is not known any more.
    Token(String),
    /// etcd refuses.
    Refused(String),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Broken(what) | Self::Token(what) | Self::Refused(what) => f.write_str(what),
            Self::Compacted => f.write_str("etcd has compacted what was asked for"),
            Self::Differs => f.write_str("etcd is not what it was"),
            Self::TooLarge => f.write_str("etcd's answer is too large"),
            Self::Silent => f.write_str("etcd's watch was silent for too long"),
        }
    }
}

/// Who calls.
pub(super) struct Client {
    http: HttpClient,
    members: Vec<Member>,
    /// Whose turn it is.
    at: Cell<usize>,
    login: Option<EtcdLogin>,
    token: RefCell<Option<HeaderValue>>,
    timeout: Duration,
}

struct Member {
    calls: SideCall,
    /// For watches, which may be silent for longer.
    watches: SideCall,
}

/// A watch that is open; it ends when it is dropped.
pub(super) struct Watch {
    body: Body,
    buffer: BytesMut,
    member: String,
    lines: VecDeque<Bytes>,
}

impl Client {
    /// A client that calls as `settings` say.
    ///
    /// # Errors
    /// When certificates cannot be read, or a host has no valid name.
    pub(super) fn new(settings: &EtcdSettings, dialer: Arc<Dialer>) -> Result<Self, String> {
        let certificate = settings.certificate.as_ref().map(certificate).transpose()?;
        let mut members = Vec::new();
        for host in &settings.hosts {
            let call = |limit| {
                let tls = host.is_secure.then(|| Tls {
                    server_name: settings.sni.as_deref().unwrap_or(&host.name).into(),
                    verify: settings.verify,
                    client: certificate.clone(),
                });
                let destination = Destination::new(&host.name, host.port, tls)?;
                SideCall::new(destination, "etcd", limit)
            };
            let member = || {
                Ok(Member {
                    calls: call(settings.timeout)?,
                    watches: call(settings.watch_timeout)?,
                })
            };
            let member =
                member().map_err(|error: String| format!("deployment.etcd.host: {error}"))?;
            members.push(member);
        }
        Ok(Self {
            http: HttpClient::new(dialer),
            members,
            at: Cell::new(0),
            login: settings.login.clone(),
            token: RefCell::default(),
            timeout: settings.timeout,
        })
    }

    /// How many members there are to choose from.
    pub(super) fn members(&self) -> usize {
        self.members.len()
    }

    /// From now on another member is called.
    pub(super) fn turn_to_next(&self) {
        self.at.set((self.at.get() + 1) % self.members.len().max(1));
        self.token.take();
    }

    /// Closes connections that nobody uses any more.
    pub(super) fn sweep(&self) {
        self.http.sweep();
    }

    /// Who etcd is and how far it has come, as a majority of its members knows it.
    pub(super) async fn head(&self, key: &[u8]) -> Result<Header, Fault> {
        let range: wire::Range = self.call("/v3/kv/range", &wire::head(key)).await?;
        Ok(range.header)
    }

    /// The next call logs in anew.
    pub(super) fn forget_token(&self) {
        self.token.take();
    }

    /// Calls `path` with `ask`.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        path: &str,
        ask: &Value,
    ) -> Result<T, Fault> {
        let called = async {
            match self.call_once(path, ask).await {
                // Tokens run out, and are forgotten when users change.
                Err(Fault::Token(_)) if self.login.is_some() => {
                    self.token.take();
                    self.call_once(path, ask).await
                }
                other => other,
            }
        };
        let bytes = timeout(self.timeout, called).await.unwrap_or_else(|_| {
            let what = format!("{} took longer than {:?}", self.name(), self.timeout);
            Err(Fault::Broken(what))
        })?;
        serde_json::from_slice(&bytes).map_err(|error| self.unreadable(&error))
    }

    async fn call_once(&self, path: &str, ask: &Value) -> Result<Bytes, Fault> {
        let token = self.token().await?;
        let member = self.member()?;
        let sent = member
            .calls
            .send(request(path, ask, token), &self.http)
            .await;
        self.whole(sent).await
    }

    /// Begins to watch `span`, from `revision` on.
    pub(super) async fn watch(&self, span: Span<'_>, revision: u64) -> Result<Watch, Fault> {
        let token = self.token().await?;
        let ask = request("/v3/watch", &wire::watch(span, revision), token);
        let member = self.member()?;
        let sent = member.watches.send(ask, &self.http).await;
        let response = sent.map_err(|fault| self.broken(fault))?;
        if response.status() != StatusCode::OK {
            self.whole(Ok(response)).await?;
            return Err(Fault::Broken(format!("{} answers no watch", self.name())));
        }
        Ok(Watch {
            body: response.into_body(),
            buffer: BytesMut::new(),
            member: self.name(),
            lines: VecDeque::new(),
        })
    }

    /// The token that goes with calls, if one must.
    async fn token(&self) -> Result<Option<HeaderValue>, Fault> {
        let Some(login) = &self.login else {
            return Ok(None);
        };
        if let Some(token) = &*self.token.borrow() {
            return Ok(Some(token.clone()));
        }
        let ask = json!({ "name": login.user, "password": login.password });
        let member = self.member()?;
        let ask = request("/v3/auth/authenticate", &ask, None);
        let sent = member.calls.send(ask, &self.http).await;
        let bytes = self.whole(sent).await.map_err(|fault| match fault {
            Fault::Token(what) => Fault::Refused(what),
            other => other,
        })?;
        let login: wire::Login =
            serde_json::from_slice(&bytes).map_err(|error| self.unreadable(&error))?;
        let token = HeaderValue::from_str(&login.token);
        let mut token = token.map_err(|_| self.unreadable(&"the token is none"))?;
        token.set_sensitive(true);
        *self.token.borrow_mut() = Some(token.clone());
        Ok(Some(token))
    }

    /// All of an answer that is good.
    async fn whole(&self, sent: Result<Response<Body>, TransportFault>) -> Result<Bytes, Fault> {
        let (head, body) = sent.map_err(|fault| self.broken(fault))?.into_parts();
        let bytes = side_call::read(body, ANSWER_BYTES_MAX).await;
        let bytes = bytes.map_err(|error| match error {
            ReadError::TooLarge => Fault::TooLarge,
            ReadError::Transport(fault) => self.broken(fault),
        })?;
        if head.status == StatusCode::OK {
            return Ok(bytes);
        }
        let refusal: Refusal = serde_json::from_slice(&bytes).unwrap_or_default();
        Err(refused(&self.name(), head.status.as_str(), &refusal))
    }

    fn member(&self) -> Result<&Member, Fault> {
        let member = self.members.get(self.at.get());
        member.ok_or_else(|| Fault::Broken("no etcd is named".to_owned()))
    }

    /// How logs name whoever is called.
    fn name(&self) -> String {
        let member = self.members.get(self.at.get());
        format!(
            "etcd at {}",
            member.map_or("nowhere", |one| one.calls.address())
        )
    }

    fn broken(&self, fault: TransportFault) -> Fault {
        let what = fault.as_str();
        let what = what.strip_prefix("upstream ").unwrap_or(what);
        Fault::Broken(format!("{}: {what}", self.name()))
    }

    fn unreadable(&self, error: &dyn std::fmt::Display) -> Fault {
        Fault::Broken(format!("{} says what cannot be read: {error}", self.name()))
    }
}

impl Watch {
    /// What it tells next.
    pub(super) async fn next(&mut self) -> Result<Notice, Fault> {
        let line = self.line().await?;
        let line: WatchLine = serde_json::from_slice(&line).map_err(|error| {
            Fault::Broken(format!("{} says what cannot be read: {error}", self.member))
        })?;
        if let Some(refusal) = line.error {
            return Err(refused(&self.member, "ended the watch", &refusal));
        }
        let notice = line.result.unwrap_or_default();
        if notice.compact_revision > 0 {
            return Err(Fault::Compacted);
        }
        if notice.canceled {
            let what = format!("{} ended the watch: {}", self.member, notice.cancel_reason);
            // Whoever logs in anew may watch again.
            return Err(match notice.cancel_reason.contains("auth token") {
                true => Fault::Token(what),
                false => Fault::Refused(what),
            });
        }
        Ok(notice)
    }

    async fn line(&mut self) -> Result<Bytes, Fault> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Ok(line);
            }
            let frame = body::next_frame(&mut self.body).await;
            let frame = frame.ok_or_else(|| self.ended("ended the watch"))?;
            let frame = frame.map_err(|error| {
                let of_silence = |broken: &pointsman_gateway::ports::BrokenBody| {
                    broken.0 == TransportFault::ReadTimeout
                };
                match error.downcast_ref().is_some_and(of_silence) {
                    true => Fault::Silent,
                    false => self.ended(&format!("broke off the watch: {error}")),
                }
            })?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let seen = self.buffer.len();
            self.buffer.extend_from_slice(&data);
            // Only what is new can hold the end of a line.
            let mut from = seen;
            while let Some(at) = memchr::memchr(b'\n', &self.buffer[from..]) {
                self.lines
                    .push_back(self.buffer.split_to(from + at + 1).freeze());
                from = 0;
            }
            if self.buffer.len() > ANSWER_BYTES_MAX as usize {
                return Err(Fault::TooLarge);
            }
        }
    }

    fn ended(&self, how: &str) -> Fault {
        Fault::Broken(format!("{} {how}", self.member))
    }
}

fn refused(member: &str, how: &str, refusal: &Refusal) -> Fault {
    let words: String = refusal.words().chars().take(WORDS_MAX).collect();
    let what = format!("{member}: {how}: {words}");
    if refusal.is_compacted() {
        Fault::Compacted
    } else if refusal.is_of_token() {
        Fault::Token(what)
    } else if what.contains("larger than max") {
        // The gateway in front of an older etcd takes no more than 4 MiB of it.
        Fault::TooLarge
    } else {
        Fault::Refused(what)
    }
}

fn request(path: &str, ask: &Value, token: Option<HeaderValue>) -> Request<Body> {
    let mut request = Request::new(Body::whole(Bytes::from(ask.to_string())));
    *request.method_mut() = Method::POST;
    if let Ok(uri) = path.parse() {
        *request.uri_mut() = uri;
    }
    let headers = request.headers_mut();
    let kind = HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, kind);
    if let Some(token) = token {
        headers.insert(header::AUTHORIZATION, token);
    }
    request
}

fn certificate((cert, key): &(String, String)) -> Result<Arc<ClientCertificate>, String> {
    let read = |name: &str, path: &str| {
        std::fs::read_to_string(path)
            .map_err(|error| format!("deployment.etcd.tls.{name}: cannot read {path}: {error}"))
    };
    Ok(Arc::new(ClientCertificate {
        cert: read("cert", cert)?,
        key: read("key", key)?,
    }))
}

/// Of one answer, or one line of a watch.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// Of what etcd says when it refuses.
const WORDS_MAX: usize = 300;
