//! What logs star out: a log is read by more people than a key is for.

use std::borrow::Cow;

use http::{HeaderValue, header};

use crate::exchange::Exchange;

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
        "x-api-key",
        "api-key",
        "apikey",
        "x-goog-api-key",
    ]
    .contains(&name)
}

/// Whether the value of a query argument is not shown: its name, decoded, is one that credentials
/// go by, or the one that an authentication plugin read.
pub(crate) fn is_secret_arg(x: &Exchange, raw_name: &str) -> bool {
    let name = crate::variables::decode(raw_name);
    ARGUMENTS
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known))
        || x.secret_arg
            .as_ref()
            .is_some_and(|secret| ***secret == *name)
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
];
