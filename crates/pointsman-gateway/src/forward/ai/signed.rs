//! Requests to AWS: signed last, over what goes out.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use pointsman_ai::sign::{self, AwsKeys, Unsigned};

use crate::failure::Failure;

/// Where and when a request to AWS goes out.
pub(super) struct Signing<'a> {
    /// The instance's keys.
    pub(super) keys: &'a AwsKeys,
    /// `provider_conf.region`.
    pub(super) region: &'a str,
    /// The endpoint's host, without port: what `Host` says, too.
    pub(super) host: &'a str,
    /// Seconds since 1970.
    pub(super) now: u64,
}

impl Signing<'_> {
    /// Spells the path of `uri` as AWS expects it, and signs it with `method` and `body` (APISIX 3.18's
    /// choice of headers). Whatever stands in `headers` under the names that it sets is replaced.
    pub(super) fn sign(
        &self,
        method: &Method,
        uri: &mut Uri,
        headers: &mut HeaderMap,
        body: &[Bytes],
    ) -> Result<(), Failure> {
        let path = sign::wire_path(uri.path());
        let query = uri
            .query()
            .map(pointsman_ai::query_pairs)
            .unwrap_or_default();
        let signature = sign::sign(
            &Unsigned {
                method: method.as_str(),
                host: self.host,
                path: &path,
                query: &query,
                body,
                region: self.region,
                service: "bedrock",
                target: None,
                now: self.now,
            },
            self.keys,
        );
        let full = match uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path,
        };
        *uri = Uri::try_from(full).map_err(|error| unfit("path", &error))?;
        let token = self.keys.session_token.as_deref();
        for (name, value) in [
            (header::HOST, Some(self.host)),
            (header::AUTHORIZATION, Some(&*signature.authorization)),
            (DATE, Some(&*signature.date)),
            (TOKEN, token),
        ] {
            let Some(value) = value else {
                headers.remove(name);
                continue;
            };
            let mut value =
                HeaderValue::from_str(value).map_err(|error| unfit(name.as_str(), &error))?;
            value.set_sensitive(name == header::AUTHORIZATION || name == TOKEN);
            headers.insert(name, value);
        }
        Ok(())
    }
}

fn unfit(what: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::Internal(format!("signing for AWS: {what}: {error}"))
}

const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");
