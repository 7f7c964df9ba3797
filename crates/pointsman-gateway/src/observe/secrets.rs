//! What logs star out: a log is read by more people than a key is for.

use std::{borrow::Cow, sync::Arc};

use http::{HeaderValue, header};

use crate::{
    exchange::Exchange,
    variables,
    vars::{Lookup, VarValue},
};

/// The variables of an exchange as a log shows them: what is starred out in a default entry is
/// starred out in one of the operator's own, too.
pub(crate) struct Starred<'x>(pub(crate) &'x Exchange);

impl Lookup for Starred<'_> {
    fn var(&self, name: &str) -> Option<VarValue<'_>> {
        let x = self.0;
        let text = match name {
            "args" | "query_string" => shown_query(x, x.request.query.as_deref()?),
            "request_uri" => {
                let query = x.received.uri.query().map(|query| shown_query(x, query));
                Cow::Owned(variables::request_uri(x, query))
            }
            "real_request_uri" => match x.received.uri.query() {
                Some(query) => {
                    let path = x.received.uri.path();
                    Cow::Owned(format!("{path}?{}", shown_query(x, query)))
                }
                None => return x.var(name),
            },
            _ => {
                let value = x.var(name)?;
                let is_secret = name
                    .strip_prefix("arg_")
                    .is_some_and(|arg| is_secret_arg(x, arg))
                    || name.starts_with("cookie_")
                    || name.strip_prefix("http_").is_some_and(|header| {
                        let header = header.replace('_', "-");
                        let value = x.request.headers.get(&*header);
                        value.is_some_and(|value| is_secret_header(&header, value))
                    });
                return Some(if is_secret {
                    VarValue::Text(Cow::from("***"))
                } else {
                    value
                });
            }
        };
        Some(VarValue::Text(text))
    }
}

/// Whether a header's value is not shown. Plugins mark further ones as sensitive.
pub(crate) fn is_secret_header(name: &str, value: &HeaderValue) -> bool {
    value.is_sensitive() || is_credential_header(name)
}

/// Whether a header of that name always holds a credential.
pub(crate) fn is_credential_header(name: &str) -> bool {
    [
        header::AUTHORIZATION.as_str(),
        header::PROXY_AUTHORIZATION.as_str(),
        header::COOKIE.as_str(),
        header::SET_COOKIE.as_str(),
        "x-access-token",
        "x-api-key",
        "api-key",
        "apikey",
        "x-goog-api-key",
        "x-amz-security-token",
        "ocp-apim-subscription-key",
    ]
    .contains(&name)
}

/// Names of query arguments that are not shown: a list whose ends can be shared.
///
/// One pointer wide, because the exchange has a size to keep; and a request with one such argument,
/// the usual number, shares its plugin's list instead of making one.
#[derive(Debug)]
pub(crate) struct SecretArgs {
    name: Box<str>,
    more: Option<Arc<Self>>,
}

impl SecretArgs {
    /// The list of that one name, decoded.
    pub(crate) fn one(name: &str) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            more: None,
        })
    }

    /// The name that the list begins with.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::successors(Some(self), |list| list.more.as_deref()).map(Self::name)
    }
}

/// Adds the name that `one` begins with to `all`.
pub(crate) fn add_secret_arg(all: &mut Option<Arc<SecretArgs>>, one: &Arc<SecretArgs>) {
    *all = match all.take() {
        None => Some(Arc::clone(one)),
        Some(list) if list.names().any(|name| name == one.name()) => Some(list),
        Some(list) => Some(Arc::new(SecretArgs {
            name: one.name.clone(),
            more: Some(list),
        })),
    };
}

/// Whether a query argument of that name, decoded, always holds a credential.
pub(crate) fn is_credential_arg(name: &str) -> bool {
    ARGUMENTS
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known))
}

/// Whether the value of a query argument is not shown: its name, decoded, is one that credentials
/// go by, or one that an authentication plugin reads.
pub(crate) fn is_secret_arg(x: &Exchange, raw_name: &str) -> bool {
    let name = crate::variables::decode(raw_name);
    is_credential_arg(&name)
        || x.secret_args
            .as_ref()
            .is_some_and(|secrets| secrets.names().any(|secret| *secret == *name))
}

/// The query with its credentials starred out.
pub(crate) fn shown_query<'a>(x: &Exchange, query: &'a str) -> Cow<'a, str> {
    let is_secret = |pair: &str| {
        pair.split_once('=')
            .is_some_and(|(name, _)| is_secret_arg(x, name))
    };
    if !query.split('&').any(is_secret) {
        return Cow::Borrowed(query);
    }
    let pairs: Vec<Cow<'_, str>> = query
        .split('&')
        .map(|pair| match pair.split_once('=') {
            Some((name, _)) if is_secret(pair) => Cow::Owned(format!("{name}=***")),
            _ => Cow::Borrowed(pair),
        })
        .collect();
    Cow::Owned(pairs.join("&"))
}

const ARGUMENTS: &[&str] = &[
    "apikey",
    "api_key",
    "api-key",
    "key",
    "token",
    "access_token",
    "jwt",
    // A presigned AWS request is a credential as a whole.
    "x-amz-security-token",
    "x-amz-signature",
    "x-amz-credential",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plugin_adds_its_argument_once() {
        let (a, b) = (SecretArgs::one("a"), SecretArgs::one("b"));
        let mut all = None;
        for one in [&a, &b, &a, &b] {
            add_secret_arg(&mut all, one);
        }
        let names: Vec<&str> = all.as_ref().expect("two").names().collect();
        assert_eq!(names, ["b", "a"]);
    }
}
