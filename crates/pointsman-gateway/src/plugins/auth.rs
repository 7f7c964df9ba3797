//! What authentication plugins share: who is let in without proof, and how the others are told.

use std::sync::Arc;

use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use crate::{
    config::{plugin_schema::Faults, snapshot::Identity},
    exchange::{Authenticated, Exchange},
    plugin::{Flow, Reply},
};

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
