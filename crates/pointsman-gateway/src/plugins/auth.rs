//! What authentication plugins share: who is let in without proof, and how the others are told.

use std::sync::Arc;

use http::{
    HeaderName, HeaderValue, StatusCode,
    header::{self, Entry},
};
use serde_json::json;

use crate::{
    config::{plugin_schema::Faults, snapshot::Identity},
    exchange::{Authenticated, Exchange},
    observe::secrets::{self, SecretArgs},
    plugin::{Flow, Reply},
    variables,
};

/// A header and a query argument that hold a credential.
pub(super) struct Places {
    /// `None` when the configured name is none that a header can have.
    pub(super) header: Option<HeaderName>,
    /// Name of the query argument.
    pub(super) query: String,
    /// The header, if logs do not know it as one that holds a credential.
    unusual_header: Option<HeaderName>,
    /// The query argument, likewise.
    unusual_query: Option<Arc<SecretArgs>>,
}

impl Places {
    pub(super) fn new(header: &str, query: &str) -> Self {
        let header = HeaderName::from_bytes(header.as_bytes()).ok();
        let is_unusual = |name: &HeaderName| !secrets::is_credential_header(name.as_str());
        let is_unusual_arg = !secrets::is_credential_arg(query);
        Self {
            unusual_header: header.clone().filter(is_unusual),
            unusual_query: is_unusual_arg.then(|| SecretArgs::one(query)),
            header,
            query: query.to_owned(),
        }
    }

    /// No log shows what was, or may have been, a credential: neither the one that was read nor
    /// one that stands in the other place.
    pub(super) fn mark(&self, exchange: &mut Exchange) {
        if let Some(name) = &self.unusual_header
            && exchange.request.headers.contains_key(name)
            && let Entry::Occupied(mut values) = exchange.request.headers.entry(name)
        {
            for value in values.iter_mut() {
                value.set_sensitive(true);
            }
        }
        if let Some(secret) = &self.unusual_query
            && let Some(query) = &exchange.request.query
            && variables::query_arg(query, secret.name()).is_some()
        {
            secrets::add_secret_arg(&mut exchange.secret_args, secret);
        }
    }

    /// Removes the header.
    pub(super) fn hide_header(&self, exchange: &mut Exchange) {
        if let Some(name) = &self.header {
            exchange.request.headers.remove(name);
        }
    }

    /// Removes the arguments of that name whose value, decoded, is one that `goes`.
    pub(super) fn hide_query(&self, exchange: &mut Exchange, goes: impl Fn(&str) -> bool) {
        let Some(query) = &exchange.request.query else {
            return;
        };
        let kept: Vec<&str> = query
            .split('&')
            .filter(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                let is_it = variables::decode(name) == self.query;
                !(is_it && goes(&variables::decode(value)))
            })
            .collect();
        exchange.request.query = Some(kept.join("&")).filter(|query| !query.is_empty());
    }
}

/// What lets a request in as the consumer of `identity`.
pub(super) fn proof(identity: &Identity) -> Authenticated {
    Authenticated {
        consumer: Arc::clone(&identity.consumer),
        credential_id: identity.credential_id.clone(),
    }
}

/// Attaches the consumer `name`, who stands for everybody without proof; false if there is none.
pub(super) fn accept_anonymous(exchange: &mut Exchange, name: &str) -> bool {
    let Some(consumer) = exchange.snapshot().consumers.named(name).cloned() else {
        return false;
    };
    exchange.authenticate(Authenticated {
        consumer,
        credential_id: None,
    });
    true
}

/// Goes on as the consumer that was found, or as the anonymous one, or refuses with what is wrong.
pub(super) fn settle(
    exchange: &mut Exchange,
    found: Result<Authenticated, &'static str>,
    anonymous: Option<&str>,
    challenge: &HeaderValue,
) -> Flow {
    match (found, anonymous) {
        (Ok(who), _) => exchange.authenticate(who),
        (Err(_), Some(name)) if accept_anonymous(exchange, name) => {}
        (Err(_), Some(_)) => return refuse("Invalid user authorization", challenge),
        (Err(message), None) => return refuse(message, challenge),
    }
    Flow::Continue
}

/// 401 with `message` and the `WWW-Authenticate` of the plugin.
pub(super) fn refuse(message: &str, challenge: &HeaderValue) -> Flow {
    let reply = Reply::json(StatusCode::UNAUTHORIZED, json!({ "message": message }));
    Flow::Respond(reply.with_header(header::WWW_AUTHENTICATE, challenge.clone()))
}

/// `WWW-Authenticate` of `scheme` for `realm`.
///
/// # Errors
/// A realm that no header can hold.
pub(super) fn challenge(scheme: &str, realm: &str) -> Result<HeaderValue, Faults> {
    HeaderValue::from_str(&format!("{scheme} realm=\"{realm}\""))
        .map_err(|_| Faults::at("realm", "realm cannot stand in a header"))
}
