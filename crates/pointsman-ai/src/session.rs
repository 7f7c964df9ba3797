//! A Realtime session, read in passing: whether it began well, its tokens, and how it was closed.
//!
//! Of what the server says only text is read, one message at a time and none that is very large; of
//! what the client says, only where its frames end. Compressed messages are not read.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use crate::{
    DirectApi, Protocol, Usage,
    json::{self, members, value_at},
    stream::websocket::{Frames, Piece},
    translate::status_of_words,
    usage::Total,
};

/// Reads one session.
#[derive(Debug, Default)]
pub struct SessionMeter {
    server: Frames,
    client: Frames,
    reader: Reader,
}

/// What a session's first event says about whoever sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionOpening {
    /// It works.
    Well,
    /// It says that it does not, in an event that stands for this status.
    Failed(u16),
}

/// How a session was closed by its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionClose {
    /// By a close that is not the server's fault.
    Proper,
    /// By a close that says that the server cannot go on.
    Fault,
}

#[derive(Debug, Default)]
struct Reader {
    /// The message that is under way.
    message: Vec<u8>,
    /// It is too large, or no text.
    is_skipped: bool,
    opening: Option<SessionOpening>,
    usage: Option<Usage>,
}

impl SessionMeter {
    /// Takes what the server said next.
    pub fn on_server(&mut self, bytes: &[u8]) {
        let Self { server, reader, .. } = self;
        server.push(bytes, |piece| reader.piece(piece));
    }

    /// Takes what the client said next.
    pub fn on_client(&mut self, bytes: &[u8]) {
        self.client.push(bytes, |_| ());
    }

    /// What the first event has shown, once there was one.
    pub fn opening(&self) -> Option<SessionOpening> {
        self.reader.opening
    }

    /// The tokens of all answers so far, if any were stated.
    pub fn usage(&self) -> Option<Usage> {
        self.reader.usage
    }

    /// How the server closed the session, if it did.
    pub fn closed_by_server(&self) -> Option<SessionClose> {
        if !self.server.is_closed() {
            return None;
        }
        // 1001: it goes away. 1011 to 1014: an error, a restart, too much to do, a bad gateway.
        Some(match self.server.close_code() {
            Some(1001 | 1011..=1014) => SessionClose::Fault,
            _ => SessionClose::Proper,
        })
    }

    /// Whether the client has closed the session.
    pub fn is_closed_by_client(&self) -> bool {
        self.client.is_closed()
    }

    /// Whether a close frame may follow what the server has said.
    pub fn may_close_to_client(&self) -> bool {
        self.server.may_be_closed()
    }

    /// Whether a close frame may follow what the client has said.
    pub fn may_close_to_server(&self) -> bool {
        self.client.may_be_closed()
    }
}

impl Reader {
    fn piece(&mut self, piece: Piece<'_>) {
        self.is_skipped |=
            !piece.is_text || self.message.len() + piece.bytes.len() > MESSAGE_BYTES_MAX;
        if !self.is_skipped {
            self.message.extend_from_slice(piece.bytes);
        }
        if !piece.is_last {
            return;
        }
        let message = std::mem::take(&mut self.message);
        if !std::mem::take(&mut self.is_skipped) {
            self.event(&message);
        }
        self.opening.get_or_insert(SessionOpening::Well);
        // The next one may do with the same memory, but sessions are many and long.
        if message.capacity() <= KEPT_BYTES_MAX {
            self.message = message;
            self.message.clear();
        }
    }

    fn event(&mut self, data: &[u8]) {
        if self.opening.is_some() && USAGE.find(data).is_none() {
            return;
        }
        let Some([kind, error, response, usage]) =
            members(data, ["type", "error", "response", "usage"])
        else {
            return;
        };
        let kind = kind.and_then(json::text).unwrap_or_default();
        match &*kind {
            "error" => {
                let fault = error.map_or(Some(502), fault);
                if let Some(status) = fault {
                    self.opening.get_or_insert(SessionOpening::Failed(status));
                }
            }
            "response.done" => self.count(response.and_then(|all| value_at(all, ["usage"]))),
            "conversation.item.input_audio_transcription.completed" => self.count(usage),
            _ => {}
        }
    }

    /// Each answer states its own tokens, and none states those before it.
    fn count(&mut self, usage: Option<&[u8]>) {
        let protocol = Protocol::Direct(DirectApi::Realtime);
        let read = usage.and_then(|usage| Usage::read(protocol, usage, Total::Summed));
        if let Some(read) = read {
            self.usage.get_or_insert_default().add(read);
        }
    }
}

/// The status that an error stands for, unless it is the client's own.
fn fault(error: &[u8]) -> Option<u16> {
    let Some(found) = members(error, ["type", "code"]) else {
        return Some(502);
    };
    let words = found.map(|word| word.and_then(json::text).unwrap_or_default().to_lowercase());
    let words = words.concat();
    if words.contains("quota") {
        return Some(429);
    }
    let is_servers = ["server", "internal", "api_error"]
        .iter()
        .any(|word| words.contains(word));
    match status_of_words(&words) {
        // Of the client's errors a session goes on.
        400..=428 => None,
        // What nobody knows is held against nobody.
        502 if !is_servers && !words.is_empty() => None,
        status => Some(status),
    }
}

static USAGE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"usage\""));

/// A message that is larger is not read.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// The most memory that a session keeps between two messages.
const KEPT_BYTES_MAX: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn text(message: &str) -> Vec<u8> {
        let length = u16::try_from(message.len()).expect("short");
        let head = [&[0x81, 126][..], &length.to_be_bytes()].concat();
        [&head, message.as_bytes()].concat()
    }

    #[test]
    fn the_first_event_says_whether_the_server_works() {
        let check = |message: &str, expected: SessionOpening| {
            let mut meter = SessionMeter::default();
            assert_eq!(meter.opening(), None);
            meter.on_server(&text(message));
            assert_eq!(meter.opening(), Some(expected), "{message}");
            meter.on_server(&text(r#"{"type":"error","error":{"type":"server_error"}}"#));
            assert_eq!(meter.opening(), Some(expected), "{message}");
        };
        let error = |kind: &str| format!(r#"{{"type":"error","error":{kind}}}"#);
        check(r#"{"type":"session.created"}"#, SessionOpening::Well);
        check("no JSON", SessionOpening::Well);
        for (kind, status) in [
            (r#"{"type":"server_error","code":null}"#, 502),
            (r#"{"type":"overloaded_error"}"#, 503),
            (
                r#"{"type":"invalid_request_error","code":"rate_limit_exceeded"}"#,
                429,
            ),
            (r#"{"type":"insufficient_quota"}"#, 429),
            ("{}", 502),
            ("null", 502),
        ] {
            check(&error(kind), SessionOpening::Failed(status));
        }
        let clients = r#"{"type":"invalid_request_error","code":"missing_model"}"#;
        check(&error(clients), SessionOpening::Well);
    }

    #[test]
    fn tokens_of_all_answers_are_added_up() {
        let mut meter = SessionMeter::default();
        let done = r#"{"type":"response.done","response":{"usage":{"total_tokens":30,"input_tokens":20,"output_tokens":10,"input_token_details":{"cached_tokens":5}}}}"#;
        meter.on_server(&text(r#"{"type":"session.created"}"#));
        for _ in 0..2 {
            meter.on_server(&text(done));
        }
        let heard = r#"{"type":"conversation.item.input_audio_transcription.completed","usage":{"type":"tokens","total_tokens":3,"input_tokens":2,"output_tokens":1}}"#;
        meter.on_server(&text(heard));
        // Time is no tokens, and what failed has none.
        meter.on_server(&text(
            r#"{"type":"response.done","response":{"usage":null}}"#,
        ));
        let large = [
            &[0x81, 127, 0, 0, 0, 0, 0, 0x20, 0, 0][..],
            &vec![b' '; 1 << 21],
        ];
        meter.on_server(&large.concat());
        meter.on_server(&text(r#"{"type":"response.created","response":{"usage":{"total_tokens":9,"input_tokens":9}}}"#));
        let usage = meter.usage().expect("tokens");
        assert_eq!((usage.prompt, usage.completion, usage.total), (42, 21, 63));
        assert_eq!(usage.cache_read, 10);
    }

    #[test]
    fn a_close_is_the_servers_fault_or_not() {
        let check = |code: u16, expected: SessionClose| {
            let mut meter = SessionMeter::default();
            meter.on_server(&[&[0x88, 2][..], &code.to_be_bytes()].concat());
            assert_eq!(meter.closed_by_server(), Some(expected), "{code}");
            assert_eq!(meter.opening(), None);
        };
        for code in [1001, 1011, 1012, 1013, 1014] {
            check(code, SessionClose::Fault);
        }
        for code in [1000, 1008, 3000, 4001] {
            check(code, SessionClose::Proper);
        }
    }
}
