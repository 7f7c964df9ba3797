//! One call to an embeddings endpoint: texts out, vectors back.
//!
//! It goes through the same port as every attempt, so on a worker it uses that worker's pooled
//! connections and ends with the client. The endpoint gets the model, the texts and the configured
//! credentials; nothing of the client's request reaches it. What it answers reaches no log: it may
//! repeat the text.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use pointsman_ai::NoVectors;

use crate::{
    body::Body,
    failure::TransportFault,
    ports::Upstreams,
    side_call::{self, ReadError, SideCall},
    upstream::destination::Destination,
};

/// Makes vectors of texts.
pub struct Embedder {
    place: SideCall,
    uri: Uri,
    headers: HeaderMap,
    model: String,
}

/// Why there are no vectors. Says nothing of what was sent or received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmbedError {
    /// The whole call took longer than it may.
    Timeout,
    /// The connection failed.
    Transport(TransportFault),
    /// Another status than 200.
    Status(StatusCode),
    /// More bytes than so many vectors can take.
    TooLarge,
    /// The response has no sound vector for every text.
    Unsound(NoVectors),
}

impl std::fmt::Display for EmbedError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Timeout => f.write_str("the embeddings endpoint took too long"),
            Self::Transport(fault) => write!(f, "the embeddings endpoint: {}", fault.as_str()),
            Self::Status(status) => {
                write!(f, "the embeddings endpoint answered {}", status.as_u16())
            }
            Self::TooLarge => f.write_str("the embeddings endpoint answered too much"),
            Self::Unsound(what) => write!(f, "the embeddings endpoint's answer: {what}"),
        }
    }
}

impl EmbedError {
    /// Whether the text is at fault, such as one that is too long for the model.
    pub fn is_of_text(self) -> bool {
        matches!(
            self,
            Self::Status(
                StatusCode::BAD_REQUEST
                    | StatusCode::PAYLOAD_TOO_LARGE
                    | StatusCode::UNPROCESSABLE_ENTITY
            )
        )
    }
}

impl Embedder {
    /// Sends to `uri` (in origin form) at `destination`, with `headers` and nothing else. `timeout` is
    /// for a whole call.
    ///
    /// # Errors
    /// Never in practice: a pool of one member can always be built.
    pub fn new(
        destination: Destination,
        uri: Uri,
        mut headers: HeaderMap,
        model: String,
        timeout: Duration,
    ) -> Result<Self, String> {
        let json = header::HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json);
        Ok(Self {
            place: SideCall::new(destination, "embeddings", timeout)?,
            uri,
            headers,
            model,
        })
    }

    /// `host:port`, as logs show it.
    pub fn address(&self) -> &str {
        self.place.address()
    }

    /// The vectors of `texts`, in their order, of one length.
    pub async fn embed(
        &self,
        texts: &[&str],
        upstreams: &dyn Upstreams,
    ) -> Result<Vec<Vec<f32>>, EmbedError> {
        let call = self.call(texts, upstreams);
        let outcome = self.place.in_time(call, upstreams).await;
        outcome.unwrap_or(Err(EmbedError::Timeout))
    }

    async fn call(
        &self,
        texts: &[&str],
        upstreams: &dyn Upstreams,
    ) -> Result<Vec<Vec<f32>>, EmbedError> {
        let sent = self.place.send(self.request(texts), upstreams).await;
        let (head, body) = sent.map_err(EmbedError::Transport)?.into_parts();
        if head.status != StatusCode::OK {
            return Err(EmbedError::Status(head.status));
        }
        let limit = (texts.len() as u64 + 1)
            .saturating_mul(VECTOR_BYTES_MAX)
            .min(RESPONSE_BYTES_MAX);
        let bytes = side_call::read(body, limit).await;
        let bytes = bytes.map_err(|error| match error {
            ReadError::TooLarge => EmbedError::TooLarge,
            ReadError::Transport(fault) => EmbedError::Transport(fault),
        })?;
        pointsman_ai::read_embeddings(&bytes, texts.len()).map_err(EmbedError::Unsound)
    }

    fn request(&self, texts: &[&str]) -> Request<Body> {
        let body = pointsman_ai::embedding_request(&self.model, texts);
        let mut request = Request::new(Body::whole(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

/// The most bytes of a response for each text: the largest models have some 8,000 components of at
/// most 25 characters.
const VECTOR_BYTES_MAX: u64 = 256 << 10;
/// The most bytes of a response for any number of texts.
const RESPONSE_BYTES_MAX: u64 = 64 << 20;
