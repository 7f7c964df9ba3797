//! `proxy-mirror`: sends a copy of requests elsewhere, and wants nothing back.
//!
//! The copy is made while the request passes and goes out once that has ended, beside everything else:
//! it holds nobody up, fails nobody, and there is no health behind it, so it goes to its host whatever
//! is known of that. Of bodies beyond `BODY_BYTES_MAX` no copy is made, and how many copies are under
//! way at a time is the program's limit.

use std::{rc::Rc, sync::Arc, time::Duration};

use http::{HeaderMap, Method, Request, Uri, header};
use pointsman_ai::Endpoint;
use rand::Rng as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::parse;
use crate::{
    body::Body,
    config::{
        plugin_schema::{Faults, PluginSchema},
        resource::schema_of,
    },
    exchange::{Ended, Exchange},
    forward,
    observe::entry::Wants,
    plugin::{
        Phases, Plugin,
        registry::{Building, PluginKind},
    },
    ports::Upstreams,
    side_call::{self, SideCall},
    upstream::destination::{Destination, Tls},
};

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
struct Conf {
    /// Where copies go: scheme, host and port.
    #[schemars(regex(pattern = r"^https?://([\da-zA-Z.\-]+|\[[\da-fA-F:]+\])(:\d+)?$"))]
    host: String,
    /// Another path for them.
    #[schemars(length(min = 1, max = 4096), regex(pattern = r"^/[^?&]*$"))]
    path: Option<String>,
    /// Whether `path` comes instead of the request's, or before it.
    #[serde(default = "replace")]
    #[schemars(extend("enum" = ["replace", "prefix"]))]
    path_concat_mode: String,
    /// The share of requests that is copied.
    #[serde(default = "all")]
    #[schemars(range(min = 0.00001, max = 1.0))]
    sample_ratio: f64,
}

fn replace() -> String {
    "replace".to_owned()
}

fn all() -> f64 {
    1.0
}

struct ProxyMirror {
    place: Arc<SideCall>,
    path: Option<String>,
    is_prefix: bool,
    sample_ratio: f64,
}

/// For the registry.
pub(crate) fn kind() -> PluginKind {
    PluginKind {
        schema: PluginSchema {
            name: "proxy-mirror",
            priority: 1010,
            version: "0.1",
            schema: schema_of::<Conf>(),
            consumer_schema: None,
            metadata_schema: None,
            is_auth: false,
            check: |conf| compile(conf).map(drop),
        },
        build: |conf, _: &mut Building<'_>| Ok(Arc::new(compile(conf)?)),
        checkers: None,
        identity_field: None,
    }
}

fn compile(conf: &Value) -> Result<ProxyMirror, Faults> {
    let conf: Conf = parse(conf)?;
    let wrong = |error: &dyn std::fmt::Display| Faults::at("host", format!("host: {error}"));
    let endpoint = Endpoint::parse(&conf.host).map_err(|error| wrong(&error))?;
    let tls = endpoint.is_https().then(|| Tls {
        server_name: endpoint.host().into(),
        // As for the nodes of upstreams.
        verify: false,
        client: None,
    });
    let destination = Destination::new(endpoint.host(), endpoint.port(), tls);
    let destination = destination.map_err(|error| wrong(&error))?;
    let place = SideCall::new(destination, "mirror", TIMEOUT).map_err(|error| wrong(&error))?;
    Ok(ProxyMirror {
        place: Arc::new(place),
        path: conf.path,
        is_prefix: conf.path_concat_mode == "prefix",
        sample_ratio: conf.sample_ratio,
    })
}

impl ProxyMirror {
    /// A copy of the request as plugins left it; `None` if there is none to be had.
    fn copy(&self, exchange: &Exchange) -> Option<Request<Body>> {
        let body = exchange.beginning_of_body(BODY_BYTES_MAX + 1);
        let body = body.unwrap_or_default();
        let sent = &exchange.request;
        // A part must not look like the whole.
        let declared = sent.headers.get(header::CONTENT_LENGTH);
        let is_whole = match declared.and_then(|length| length.to_str().ok()?.parse::<usize>().ok())
        {
            Some(length) => length == body.len(),
            None => body.is_empty() || exchange.ended() == Some(Ended::Complete),
        };
        let has_all =
            exchange.attempts.last().is_some() && body.len() <= BODY_BYTES_MAX && is_whole;
        if !has_all || sent.method == Method::CONNECT {
            return None;
        }
        let mut request = Request::new(Body::whole(body));
        *request.method_mut() = sent.method.clone();
        *request.uri_mut() = self.target(&forward::http::target(exchange).ok()?)?;
        *request.headers_mut() = copied(&sent.headers);
        Some(request)
    }

    fn target(&self, sent: &Uri) -> Option<Uri> {
        let Some(path) = &self.path else {
            return Some(sent.clone());
        };
        let query = sent.query().map(|query| format!("?{query}"));
        let rest = if self.is_prefix { sent.path() } else { "" };
        let target = format!("{path}{rest}{}", query.unwrap_or_default());
        Uri::try_from(target).ok()
    }
}

fn copied(headers: &HeaderMap) -> HeaderMap {
    let mut headers = forward::http::forwardable(headers, false);
    // The body is as long as its copy.
    headers.remove(header::CONTENT_LENGTH);
    headers
}

/// Sends `request`, and reads what comes back only so that the connection can be used again.
async fn send(place: &SideCall, request: Request<Body>, upstreams: &dyn Upstreams) {
    let call = async {
        match place.send(request, upstreams).await {
            Ok(response) => {
                let _ = side_call::read(response.into_body(), ANSWER_BYTES_MAX).await;
            }
            Err(fault) => {
                let at = place.address();
                tracing::debug!(at, "a mirrored request came to nothing: {}", fault.as_str());
            }
        }
    };
    place.in_time(call, upstreams).await;
}

impl Plugin for ProxyMirror {
    fn phases(&self) -> Phases {
        Phases::LOG
    }

    fn wants(&self) -> Wants {
        Wants {
            request_body_bytes: BODY_BYTES_MAX + 1,
            ..Wants::default()
        }
    }

    fn log(&self, exchange: &Exchange) {
        let is_drawn = self.sample_ratio >= 1.0 || rand::rng().random_bool(self.sample_ratio);
        if !is_drawn {
            return;
        }
        let Some(request) = self.copy(exchange) else {
            return;
        };
        let (place, gateway) = (Arc::clone(&self.place), Rc::clone(exchange.gateway()));
        let upstreams = Rc::clone(exchange.gateway());
        upstreams.upstreams().detach(Box::pin(async move {
            send(&place, request, gateway.upstreams()).await;
        }));
    }
}

/// Bytes of a body of which a copy is made.
const BODY_BYTES_MAX: usize = 1 << 20;
/// More of an answer is not read; its connection is closed then.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// For a whole copy: as APISIX has it for each step.
const TIMEOUT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn copies_go_where_they_are_sent() {
        let target = |more: Value| {
            let mut conf = json!({"host": "http://127.0.0.1:81"});
            conf.as_object_mut()
                .expect("one")
                .extend(more.as_object().cloned().expect("one"));
            let plugin = compile(&conf).expect("valid");
            let found = plugin.target(&Uri::from_static("/a%20b?c=d"));
            found.map(|uri| uri.to_string())
        };
        assert_eq!(target(json!({})).as_deref(), Some("/a%20b?c=d"));
        assert_eq!(target(json!({"path": "/m"})).as_deref(), Some("/m?c=d"));
        let prefix = json!({"path": "/m", "path_concat_mode": "prefix"});
        assert_eq!(target(prefix).as_deref(), Some("/m/a%20b?c=d"));
        assert!(compile(&json!({"host": "http://a:99999"})).is_err());
    }
}
