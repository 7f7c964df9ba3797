//! One call to an embeddings endpoint: texts out, vectors back.
//!
//! It goes through the same port as every attempt, so on a worker it uses that worker's pooled
//! connections and ends with the client. The endpoint gets the model, the texts and the configured
//! credentials; nothing of the client's request reaches it. What it answers reaches no log: it may
//! repeat the text.

use std::{pin::pin, sync::Arc, task::Poll, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use pointsman_ai::NoVectors;
use pointsman_balance::{Algorithm, Ask, Availability, MemberSpec, Pool, Tried};

use crate::{
    body::{self, Body, CollectError},
    clock,
    failure::TransportFault,
    ports::{Attempt, BrokenBody, Source, Upstreams},
    upstream::destination::{Destination, Keepalive, Timeouts},
};

/// Makes vectors of texts.
pub struct Embedder {
    /// Of one member without checks: this call, too, needs the proof of a pick.
    pool: Arc<Pool>,
    destination: Arc<Destination>,
    uri: Uri,
    headers: HeaderMap,
    model: String,
    timeout: Duration,
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
        let member = MemberSpec {
            name: "embeddings".to_owned(),
            weight: 1,
            priority: 0,
            targets: vec![],
            gate: None,
        };
        let pool = Pool::new(vec![member], Algorithm::RoundRobin, 0);
        let json = header::HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json);
        headers.insert(header::HOST, destination.authority.clone());
        Ok(Self {
            pool: Arc::new(pool.map_err(|error| error.to_string())?),
            destination: Arc::new(destination),
            uri,
            headers,
            model,
            timeout,
        })
    }

    /// `host:port`, as logs show it.
    pub fn address(&self) -> &str {
        &self.destination.address
    }

    /// The vectors of `texts`, in their order, of one length.
    pub async fn embed(
        &self,
        texts: &[&str],
        upstreams: &dyn Upstreams,
    ) -> Result<Vec<Vec<f32>>, EmbedError> {
        let mut call = pin!(self.call(texts, upstreams));
        let mut limit = upstreams.sleep_until(clock::now() + self.timeout);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(outcome) = call.as_mut().poll(cx) {
                return Poll::Ready(outcome);
            }
            let over = limit.as_mut().poll(cx);
            over.map(|()| Err(EmbedError::Timeout))
        })
        .await
    }

    async fn call(
        &self,
        texts: &[&str],
        upstreams: &dyn Upstreams,
    ) -> Result<Vec<Vec<f32>>, EmbedError> {
        let sent = upstreams.send(self.attempt(texts)?).await;
        let answer = sent.map_err(|error| EmbedError::Transport(error.fault))?;
        let (head, mut body) = answer.response.into_parts();
        if head.status != StatusCode::OK {
            return Err(EmbedError::Status(head.status));
        }
        let limit = (texts.len() as u64 + 1)
            .saturating_mul(VECTOR_BYTES_MAX)
            .min(RESPONSE_BYTES_MAX);
        let bytes = body::collect(&mut body, None, limit).await;
        let bytes = bytes.map_err(|error| match error {
            CollectError::TooLarge(_) => EmbedError::TooLarge,
            CollectError::Broken(source) => EmbedError::Transport(
                (source.downcast_ref::<BrokenBody>())
                    .map_or(TransportFault::Closed, |broken| broken.0),
            ),
        })?;
        pointsman_ai::read_embeddings(&bytes, texts.len()).map_err(EmbedError::Unsound)
    }

    fn attempt(&self, texts: &[&str]) -> Result<Attempt, EmbedError> {
        let ask = Ask {
            key: None,
            now: Duration::ZERO,
            tried: &Tried::new(),
        };
        let picked = self.pool.pick(&ask, &Availability::empty());
        let body = pointsman_ai::embedding_request(&self.model, texts);
        let mut request = Request::new(Body::whole(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        Ok(Attempt {
            // Its only member is always usable.
            picked: picked.map_err(|_| EmbedError::Transport(TransportFault::Connect))?,
            source: Source::Unjudged(Arc::clone(&self.pool)),
            destination: Arc::clone(&self.destination),
            addresses: Vec::new(),
            group: None,
            request,
            timeouts: Timeouts::all(self.timeout),
            keepalive: KEEPALIVE,
            upgrade: false,
        })
    }
}

const KEEPALIVE: Keepalive = Keepalive {
    pool_size: 30,
    idle: Duration::from_secs(60),
    requests: u64::MAX,
    after_errors: false,
};

/// The most bytes of a response for each text: the largest models have some 8,000 components of at
/// most 25 characters.
const VECTOR_BYTES_MAX: u64 = 256 << 10;
/// The most bytes of a response for any number of texts.
const RESPONSE_BYTES_MAX: u64 = 64 << 20;
