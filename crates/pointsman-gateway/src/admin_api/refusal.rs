//! What the Admin API answers when it does not do what it was asked to, in APISIX's words.

use http::StatusCode;
use serde_json::{Value, json};

use super::store::StoreError;
use crate::config::{
    collection::Collection,
    document::item::{Fault, Step},
};

/// Why something is not done: status and body.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) body: Value,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            body: json!({ "error_msg": message.into() }),
        }
    }

    /// The request is wrong.
    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// There is no such path or verb.
    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not found")
    }

    /// There is nothing under that key.
    pub(super) fn no_key() -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            body: json!({ "message": "Key not found" }),
        }
    }

    /// The collection does not have that verb.
    pub(super) fn method(method: &str, collection: Collection) -> Self {
        let message = format!("not supported `{method}` method for {}", collection.kind());
        Self::new(StatusCode::METHOD_NOT_ALLOWED, message)
    }

    /// The first of `faults`, which were found in a resource of `collection`.
    pub(super) fn of_faults(faults: &[Fault], collection: Collection) -> Option<Self> {
        worded(faults, collection).map(Self::bad)
    }

    /// The store did not take it.
    pub(super) fn of_store(error: &StoreError) -> Self {
        let status = match error {
            StoreError::Overtaken => StatusCode::CONFLICT,
            StoreError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.to_string())
    }
}

/// What the Admin API says of `faults`: APISIX stops at the first, and looks at the schema first.
pub(super) fn worded(faults: &[Fault], collection: Collection) -> Option<String> {
    let order = |fault: &&Fault| match fault.step {
        Step::Schema => 0,
        Step::Rules => 1,
        Step::Plugins => 2,
    };
    let first = faults.iter().min_by_key(order)?;
    let message = &first.issue.message;
    let of_whole = first.issue.path.is_empty() && first.step == Step::Rules;
    let in_consumer = matches!(collection, Collection::Consumers | Collection::Credentials);
    Some(match first.step {
        Step::Schema => format!("invalid configuration: {message}"),
        // What must be there at all is part of APISIX's schema.
        Step::Rules if of_whole => format!("invalid configuration: {message}"),
        Step::Plugins if in_consumer => format!("invalid plugins configuration: {message}"),
        Step::Rules | Step::Plugins => message.clone(),
    })
}
