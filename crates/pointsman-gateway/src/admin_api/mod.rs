//! The Admin API (APISIX 3.18, v3): resources are written and looked at one by one.
//!
//! `target` says what a path names, `access` who may ask, `look` and `write` what comes of it; what
//! resources say of each other is in `references`. Nothing here keeps anything: a [`Store`] does,
//! and whether a resource is sound is said by the same code that reads files.

pub mod access;
pub(crate) mod catalog;
mod look;
mod openapi;
mod patch;
mod references;
mod refusal;
pub mod standalone;
pub mod store;
mod target;
pub mod transfer;
mod validate;
mod write;

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use serde_json::Value;

use self::{
    access::{Access, Denied},
    refusal::Refusal,
    standalone::Held,
    store::{Store, StoreError},
    target::Target,
    write::Write,
};
use crate::{
    admin,
    config::{document::item::ItemReader, text::Env},
    plugin::registry::Registry,
};

/// The head of a request.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path.
    pub path: &'a str,
    /// The query, or empty.
    pub query: &'a str,
    /// All headers.
    pub headers: &'a HeaderMap,
    /// Where it comes from.
    pub peer: IpAddr,
}

/// What answers look like, and who gets one.
pub struct AdminApi {
    /// Who is let in.
    pub access: Access,
    /// `deployment.admin.enable_admin_cors`.
    pub cors: bool,
    /// `Server`.
    pub server: HeaderValue,
}

/// What requests are answered by.
pub struct Context<'a> {
    /// The plugins that resources may name.
    pub registry: &'a Registry,
    /// The environment that they may refer to.
    pub env: Env<'a>,
    /// The time, in milliseconds since the Unix epoch.
    pub now_ms: u64,
}

impl Context<'_> {
    fn reader(&self) -> ItemReader<'_> {
        ItemReader {
            catalog: self.registry,
            env: self.env,
        }
    }

    fn now_seconds(&self) -> u64 {
        self.now_ms / 1000
    }
}

impl AdminApi {
    /// What a request is answered before its body is read: those that are turned away, and those
    /// that have none.
    pub fn admit(&self, ask: &Ask<'_>) -> Option<Response<Bytes>> {
        let mut response = match self.access.check(ask) {
            Err(Denied::Address) => {
                let page = "<html>\n<head><title>403 Forbidden</title></head>\n<body>\n\
                            <center><h1>403 Forbidden</h1></center>\n</body>\n</html>\n";
                admin::text(StatusCode::FORBIDDEN, "text/html", page.to_owned())
            }
            Err(Denied::Key(description)) => {
                let body = serde_json::json!({
                    "error_msg": "failed to check token",
                    "description": description,
                });
                let mut response = admin::json(StatusCode::UNAUTHORIZED, &body);
                self.dress(&mut response);
                response.headers_mut().remove(VERSION);
                return Some(response);
            }
            Ok(()) if ask.method == Method::OPTIONS => empty(StatusCode::OK),
            Ok(()) => return None,
        };
        self.dress(&mut response);
        Some(response)
    }

    /// The answer to a body that is larger than it may be.
    pub fn too_large(&self, most: u64, size: Option<u64>) -> Response<Bytes> {
        let size = size.map_or_else(|| format!("{most} or more"), |size| size.to_string());
        let message = format!(
            "invalid request body: request size {size} is greater than the maximum size {most} \
             allowed"
        );
        let mut response = admin::error(StatusCode::PAYLOAD_TOO_LARGE, message);
        self.dress(&mut response);
        response
    }

    /// Answers a request that was admitted.
    pub async fn answer(
        &self,
        ask: &Ask<'_>,
        body: &Bytes,
        context: &Context<'_>,
        store: &dyn Store,
    ) -> Response<Bytes> {
        let answer = match target::segments(ask.path) {
            None => Err(Refusal::not_found()),
            Some(segments) => dispatch(ask, &segments, body, context, store).await,
        };
        let mut response =
            answer.unwrap_or_else(|refusal| admin::json(refusal.status, &refusal.body));
        self.dress(&mut response);
        response
    }

    /// Answers a request that was admitted, of the standalone Admin API. What it is given replaces
    /// `held`.
    pub fn answer_standalone(
        &self,
        ask: &Ask<'_>,
        body: &Bytes,
        context: &Context<'_>,
        held: &mut Held,
    ) -> Response<Bytes> {
        let answer = standalone::answer(ask, body, context, held);
        let mut response =
            answer.unwrap_or_else(|refusal| admin::json(refusal.status, &refusal.body));
        self.dress(&mut response);
        response
    }

    /// Adds the headers that every answer has.
    fn dress(&self, response: &mut Response<Bytes>) {
        let headers = response.headers_mut();
        headers.insert(header::SERVER, self.server.clone());
        headers.insert(VERSION, HeaderValue::from_static("v3"));
        if self.cors {
            for (name, value) in CORS {
                headers.insert(name, HeaderValue::from_static(value));
            }
        }
    }
}

async fn dispatch(
    ask: &Ask<'_>,
    segments: &[String],
    body: &Bytes,
    context: &Context<'_>,
    store: &dyn Store,
) -> Result<Response<Bytes>, Refusal> {
    if segments.is_empty() && ask.method == Method::HEAD {
        return Ok(empty(StatusCode::OK));
    }
    let names: Vec<&str> = segments.iter().map(String::as_str).collect();
    match names.as_slice() {
        ["openapi.json"] if ask.method == Method::GET => {
            let document = openapi::document(context.registry);
            Ok(admin::json(StatusCode::OK, &document))
        }
        ["plugins", rest @ ..] => catalog::plugins(ask, rest, context.registry),
        ["schema", "validate", collection] if ask.method == Method::POST => {
            validate::schema(&context.reader(), collection, &required(body)?)?;
            Ok(empty(StatusCode::OK))
        }
        ["schema", rest @ ..] => catalog::schema(ask, rest, context.registry),
        ["configs", "validate"] if ask.method == Method::POST => {
            validate::configs(&context.reader(), &required(body)?)?;
            Ok(admin::json(StatusCode::OK, &serde_json::json!({})))
        }
        _ => resources(ask, &Target::of(segments)?, body, context, store).await,
    }
}

async fn resources(
    ask: &Ask<'_>,
    target: &Target,
    body: &Bytes,
    context: &Context<'_>,
    store: &dyn Store,
) -> Result<Response<Bytes>, Refusal> {
    target.allows(ask.method)?;
    // Only a PATCH looks into a resource. Whoever deletes a part must not lose the whole.
    if ask.method != Method::PATCH && !target.below.is_empty() {
        return Err(Refusal::not_found());
    }
    if ask.method == Method::GET {
        store
            .fresh()
            .await
            .map_err(|error| Refusal::of_store(&error))?;
        let found = look::look(&store.contents(), store.prefix(), target, ask.query)?;
        return Ok(admin::json(StatusCode::OK, &found));
    }
    let body = parse(body)?;
    for _ in 0..ATTEMPTS_MAX {
        let turn = store.turn().await;
        let turn = turn.map_err(|error| Refusal::of_store(&error))?;
        let plan = {
            let write = Write {
                context,
                prefix: store.prefix(),
                at_rest: store.at_rest(),
                contents: &store.contents(),
                target,
                query: ask.query,
            };
            write.plan(ask.method, body.as_ref())?
        };
        match store.commit(plan.change, turn).await {
            Ok(()) => return Ok(admin::json(plan.status, &plan.body)),
            // What this went by is no more: look again, so that nobody's change gets lost.
            Err(StoreError::Overtaken) => {}
            Err(error) => return Err(Refusal::of_store(&error)),
        }
    }
    Err(Refusal::of_store(&StoreError::Overtaken))
}

/// A JSON body, if there is any.
fn parse(body: &Bytes) -> Result<Option<Value>, Refusal> {
    if body.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(body).map(Some).map_err(|error| {
        let mut refusal = Refusal::bad(format!("invalid request body: {error}"));
        let text = String::from_utf8_lossy(body);
        refusal.body["req_body"] = Value::from(text);
        refusal
    })
}

/// A JSON body that must be there.
fn required(body: &Bytes) -> Result<Value, Refusal> {
    let body = parse(body)?;
    body.ok_or_else(|| Refusal::bad("invalid request body: empty request body"))
}

fn empty(status: StatusCode) -> Response<Bytes> {
    admin::text(status, "application/json", String::new())
}

const VERSION: &str = "x-api-version";
const CORS: &[(header::HeaderName, &str)] = &[
    (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    (
        header::ACCESS_CONTROL_ALLOW_METHODS,
        "GET, POST, PUT, DELETE, PATCH, HEAD, OPTIONS",
    ),
    (header::ACCESS_CONTROL_ALLOW_HEADERS, "*"),
    (header::ACCESS_CONTROL_ALLOW_CREDENTIALS, "true"),
    (header::ACCESS_CONTROL_MAX_AGE, "3600"),
];
/// How often a request is looked at anew because somebody else was faster.
const ATTEMPTS_MAX: usize = 64;
