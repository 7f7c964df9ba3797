//! One call to a token endpoint: a signed assertion out, an access token back.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use pointsman_ai::gcp::{self, AccessToken, ServiceAccount, Unusable};

use crate::{
    body::Body,
    clock,
    failure::TransportFault,
    ports::{SignRs256, Upstreams},
    side_call::{self, ReadError, SideCall},
};

/// Gets access tokens for a service account.
pub struct Fetcher {
    account: ServiceAccount,
    place: SideCall,
    uri: Uri,
}

/// Why there is no token. Says nothing of what was sent, and of what was received only OAuth's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchError {
    /// The account's key signs nothing.
    Key(&'static str),
    /// The whole call took longer than it may.
    Timeout,
    /// The connection failed.
    Transport(TransportFault),
    /// Another status than 200, and OAuth's word for why.
    Status(StatusCode, Option<String>),
    /// The answer is too large or has no token.
    Unusable(Unusable),
}

impl std::fmt::Display for FetchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Key(what) => write!(f, "the service account's private_key: {what}"),
            Self::Timeout => f.write_str("the token endpoint took too long"),
            Self::Transport(fault) => write!(f, "the token endpoint: {}", fault.as_str()),
            Self::Status(status, word) => {
                write!(f, "the token endpoint answered {}", status.as_u16())?;
                word.as_ref().map_or(Ok(()), |word| write!(f, " {word}"))
            }
            Self::Unusable(what) => write!(f, "{what}"),
        }
    }
}

impl Fetcher {
    /// Gets tokens for `account`, the JSON that Google hands out; `verify` its endpoint's certificate.
    ///
    /// # Errors
    /// The account cannot be used, and why; quotes nothing of it.
    pub fn new(account: &str, verify: bool) -> Result<Self, String> {
        let account = ServiceAccount::parse(account).map_err(|error| error.to_string())?;
        let place = SideCall::at(&account.token_uri, verify, "token endpoint", TIMEOUT);
        let (place, uri) = place.map_err(|error| format!("token_uri: {error}"))?;
        Ok(Self {
            uri,
            place,
            account,
        })
    }

    /// `host:port` of the token endpoint, as logs show it.
    pub fn address(&self) -> &str {
        self.place.address()
    }

    /// A new token.
    ///
    /// # Errors
    /// There is none, and why.
    pub async fn fetch(
        &self,
        sign: SignRs256,
        upstreams: &dyn Upstreams,
    ) -> Result<AccessToken, FetchError> {
        let unsigned = self.account.unsigned(clock::unix_millis() / 1000);
        let signature = sign(&self.account.private_key, unsigned.as_bytes());
        let signature = signature.map_err(FetchError::Key)?;
        let form = gcp::token_request(&unsigned, &signature);
        let call = self.call(form, upstreams);
        let outcome = self.place.in_time(call, upstreams).await;
        outcome.unwrap_or(Err(FetchError::Timeout))
    }

    async fn call(
        &self,
        form: String,
        upstreams: &dyn Upstreams,
    ) -> Result<AccessToken, FetchError> {
        let mut request = Request::new(Body::whole(Bytes::from(form)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(header::CONTENT_TYPE, kind);
        let sent = self.place.send(request, upstreams).await;
        let (head, body) = sent.map_err(FetchError::Transport)?.into_parts();
        let bytes = side_call::read(body, ANSWER_BYTES_MAX).await;
        let bytes = bytes.map_err(|error| match error {
            ReadError::TooLarge => {
                FetchError::Unusable(Unusable("the token endpoint's answer is too large"))
            }
            ReadError::Transport(fault) => FetchError::Transport(fault),
        })?;
        if head.status != StatusCode::OK {
            return Err(FetchError::Status(head.status, gcp::token_error(&bytes)));
        }
        gcp::read_token(&bytes).map_err(FetchError::Unusable)
    }
}

/// Of a whole call.
const TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: u64 = 256 << 10;
