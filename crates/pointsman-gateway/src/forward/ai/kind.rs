//! How an answer is to be read, by the type that it says it has.

use http::{HeaderMap, header};

/// What an answer is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Stream,
    /// Anything that may turn out to be JSON, whatever it calls itself.
    Json,
    /// Sound and pictures: large, played while they arrive, and without usage.
    Media,
}

/// Server-sent events.
pub(super) fn says_events(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.to_ascii_lowercase().contains("text/event-stream"))
}

impl Kind {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let Some(value) = headers.get(header::CONTENT_TYPE) else {
            return Self::Json;
        };
        if value.as_bytes() == b"application/json" {
            return Self::Json;
        }
        let value = value.to_str().unwrap_or_default().to_ascii_lowercase();
        if value.contains("text/event-stream")
            || value.contains("application/vnd.amazon.eventstream")
        {
            Self::Stream
        } else if MEDIA.iter().any(|kind| value.starts_with(kind)) {
            Self::Media
        } else {
            Self::Json
        }
    }
}

/// Types of bodies that are passed on while they arrive.
const MEDIA: &[&str] = &["audio/", "video/", "image/", "application/octet-stream"];
