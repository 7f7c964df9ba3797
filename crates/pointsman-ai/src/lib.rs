//! What an LLM message says: protocols, providers, streams and token usage. Bytes in, bytes out.
//!
//! Nothing here opens a connection or waits for anything. A request body is walked once, over its
//! top level, and never turned into a tree; what the gateway changes is spliced into the client's
//! own bytes. Responses are looked at in passing, for their usage and little else.
//!
//! ```
//! use bytes::Bytes;
//! use pointsman_ai::{Protocol, Provider, RequestBody, Shaper, Shaping, detect};
//!
//! let body = RequestBody::parse(Bytes::from_static(b"{ \"model\": \"a\", \"messages\": [] }"))?;
//! assert_eq!(detect("/v1/chat/completions", &body), Some(Protocol::OpenaiChat));
//! let mut shaping = Shaping::default();
//! shaping.options.insert("model".to_owned(), "b".into());
//! let shaped = Shaper::compile(Provider::Openai, &shaping).shape(&body, Protocol::OpenaiChat, false);
//! assert_eq!(shaped.to_vec(), b"{ \"model\": \"b\", \"messages\": [] }");
//! # Ok::<(), pointsman_ai::BodyError>(())
//! ```

mod base64;
mod body;
mod complaint;
pub mod conversation;
mod dialect;
mod direct;
mod embedding;
mod endpoint;
mod error;
mod estimate;
#[cfg(any(test, fuzzing))]
pub mod fuzzed;
pub mod gcp;
mod json;
pub mod multipart;
mod prompt;
mod protocol;
mod provider;
mod response;
mod sent;
mod session;
mod shape;
pub mod sign;
mod stream;
mod translate;
mod usage;
mod vectors;

pub use body::{BodyError, MEMBERS_MAX, RequestBody};
pub use complaint::{Complaint, complaint};
pub use dialect::{Setting, expresses, said_by_clients};
pub use direct::{DirectApi, detect_by_path};
pub use embedding::{NoVectors, embedding_request, read_embeddings};
pub use endpoint::{Endpoint, EndpointError, query_pairs};
pub use error::error_body;
pub use estimate::prompt_tokens;
pub use json::{readable, string::JsonStr, value_at};
pub use prompt::last_user_text;
pub use protocol::{Protocol, detect, is_streaming, model_in_path};
pub use provider::{Base, Binding, PathChoice, Provider, Unsupported, bind, fill};
pub use response::{Capture, ResponseFacts, read_response};
pub use sent::{Replaced, Sent};
pub use session::{SessionClose, SessionMeter, SessionOpening};
pub use shape::{Shaped, Shaper, Shaping};
pub use stream::{
    json_array,
    meter::{StreamFacts, StreamMeter},
    sse,
    websocket::{Sender, close_frame},
};
pub use translate::{
    Outside, Scout, StreamError, StreamOpening, StreamTranslator, TranslatedRequest, Translation,
    can_translate,
};
pub use usage::Usage;
pub use vectors::VectorApi;
