//! Values that secret managers keep, and resources only refer to (`$secret://<manager>/<id>/<name>/<key>`).
//!
//! They are fetched off the path of requests ([`keeper`], [`fetch`]): a configuration is compiled with what is
//! known of them, and once more when that has changed. Values stand in no log, error, dump or metric.

pub mod fetch;
pub mod keeper;

use std::{collections::HashMap, sync::Arc};

/// What is known of the values that resources refer to, by reference. Has no `Debug`.
#[derive(Clone, Default)]
pub struct Values(HashMap<Arc<str>, Known>);

/// What is known of a value.
#[derive(Clone, PartialEq)]
enum Known {
    /// It.
    Value(Arc<str>),
    /// Why there is none.
    Nothing(Arc<str>),
}

impl Values {
    /// The value that `reference` stands for, if it is known.
    pub fn get(&self, reference: &str) -> Option<&str> {
        match self.0.get(rest_of(reference)?)? {
            Known::Value(value) => Some(value),
            Known::Nothing(_) => None,
        }
    }

    /// Whether `text` is a reference that nobody has asked for so far.
    pub fn awaits(&self, text: &str) -> bool {
        rest_of(text).is_some_and(|rest| !self.0.contains_key(rest))
    }

    /// Why nothing stands for `reference`.
    pub fn problem(&self, reference: &str) -> String {
        let known = rest_of(reference).and_then(|rest| self.0.get(rest));
        match known {
            Some(Known::Nothing(why)) => why.to_string(),
            Some(Known::Value(_)) | None => "its secret manager was not asked so far".to_owned(),
        }
    }
}

/// What a reference asks for: `<manager>/<id>/<name>/<key>`; `None` for any other text.
pub fn rest_of(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then_some(rest)
}

/// The manager, as its resource's id, and the rest of a reference without its scheme.
fn parts(rest: &str) -> Option<(&str, &str)> {
    let (kind, _) = rest.split_once('/')?;
    let (id, path) = rest[kind.len() + 1..].split_once('/')?;
    let manager = &rest[..kind.len() + 1 + id.len()];
    (!kind.is_empty() && !id.is_empty()).then_some((manager, path))
}

/// How references begin.
pub const SCHEME: &str = "$secret://";
