//! Request variables (`uri`, `arg_x`, `http_x`, `post_arg.model` ...) as the
//! rest of the gateway sees them: a name goes in, perhaps a value comes out.
//!
//! Expressions, templates, log formats and limit keys all read a request
//! through [`Lookup`] and nothing else, so they can be tested with a plain map.

use std::borrow::Cow;

use serde_json::Value;

/// The value of one variable.
#[derive(Debug, Clone, PartialEq)]
pub enum VarValue<'a> {
    /// Text, which is what nearly every variable is.
    Text(Cow<'a, str>),
    /// A typed value. Only a JSON request body has these: `post_arg.n` may be
    /// a number, `post_arg.messages[*].role` is always a list.
    Json(Value),
}

impl<'a> VarValue<'a> {
    /// The value as it appears inside a text: strings without quotes, whole
    /// numbers without a fraction, lists and objects as compact JSON.
    pub fn into_text(self) -> Cow<'a, str> {
        match self {
            Self::Text(text) => text,
            Self::Json(Value::String(text)) => Cow::Owned(text),
            Self::Json(Value::Number(number)) => Cow::Owned(number_text(&number)),
            Self::Json(other) => Cow::Owned(other.to_string()),
        }
    }

    /// Whether the value counts as absent. A JSON `null` does: a client that
    /// writes `"user": null` means the same as one that leaves `user` out.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Json(Value::Null))
    }
}

/// Where variables come from: a request, or a map in a test.
pub trait Lookup {
    /// The variable called `name`, written without `$`. `None` when this
    /// request has no such variable; never an empty text in its place.
    fn var(&self, name: &str) -> Option<VarValue<'_>>;
}

/// Knows no variable at all.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoVars;

impl Lookup for NoVars {
    fn var(&self, _name: &str) -> Option<VarValue<'_>> {
        None
    }
}

/// `5.0` reads `5`, as Lua writes it: keys and headers built from numbers must
/// not depend on how a client chose to spell them.
pub(crate) fn number_text(number: &serde_json::Number) -> String {
    const EXACT_IN_F64: f64 = 9_007_199_254_740_992.0;
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < EXACT_IN_F64 => {
            format!("{float:.0}")
        }
        _ => number.to_string(),
    }
}

#[cfg(test)]
pub(crate) mod fixture {
    //! Variables from a list, for the tests of everything that reads them.

    use super::*;

    #[derive(Debug, Clone, Default)]
    pub(crate) struct Vars(Vec<(String, Value)>);

    impl Vars {
        /// Names and values; a JSON string becomes a text variable.
        pub(crate) fn of(vars: Value) -> Self {
            let Value::Object(map) = vars else {
                panic!("variables are written as a JSON object");
            };
            Self(map.into_iter().collect())
        }
    }

    impl Lookup for Vars {
        fn var(&self, name: &str) -> Option<VarValue<'_>> {
            let (_, value) = self.0.iter().find(|(known, _)| known == name)?;
            Some(match value {
                Value::String(text) => VarValue::Text(Cow::Borrowed(text)),
                other => VarValue::Json(other.clone()),
            })
        }
    }
}
