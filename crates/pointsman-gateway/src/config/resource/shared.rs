//! Types that several resources share.

use std::{borrow::Cow, collections::BTreeMap};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An id: a short text, or a number that means the same text.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(untagged)]
pub enum Id {
    /// As text.
    Text(#[schemars(length(min = 1, max = 64), regex(pattern = r"^[a-zA-Z0-9-_.]+$"))] String),
    /// As a number.
    Number(#[schemars(range(min = 1))] u64),
}

impl Id {
    /// The text that it means.
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Number(number) => Cow::Owned(number.to_string()),
        }
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

/// Limits in seconds.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Timeout {
    /// Connecting.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub connect: f64,
    /// Between two writes.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub send: f64,
    /// Between two reads.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub read: f64,
}

/// Labels.
pub type Labels = BTreeMap<String, String>;

/// Hosts that a route, service or ssl may name.
pub const HOST_PATTERN: &str = r"^(\*|\*?[0-9a-zA-Z\-._\[\]:]+)$";

/// One host.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(transparent)]
pub struct Host(#[schemars(regex(pattern = HOST_PATTERN))] pub String);

/// One path pattern.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(transparent)]
pub struct UriPattern(#[schemars(length(min = 1, max = 4096))] pub String);

/// `1` or `0`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(transparent)]
pub struct Status(#[schemars(range(min = 0, max = 1))] pub u8);

impl Default for Status {
    fn default() -> Self {
        Self(1)
    }
}
