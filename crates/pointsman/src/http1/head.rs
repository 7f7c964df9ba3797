//! Request and response heads (RFC 9112 §2 to §6).
//!
//! What the framing headers say is decided here, once, and strictly for requests: two lengths, or
//! an encoding that is not understood, end the connection.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};
use pointsman_gateway::failure::Failure;

use super::decoder::Decoder;

/// The head of a request.
#[derive(Debug)]
pub(crate) struct RequestHead {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    /// `None`: no body.
    pub(crate) body: Option<Decoder>,
    /// The client wants the connection kept.
    pub(crate) keep_alive: bool,
    /// The client waits for a `100 Continue` before it sends the body.
    pub(crate) expects_continue: bool,
}

/// The head of a response.
#[derive(Debug)]
pub(crate) struct ResponseHead {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// `None`: no body.
    pub(crate) body: Option<Decoder>,
    /// The target keeps the connection.
    pub(crate) keep_alive: bool,
}

/// Limits of a head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadLimits {
    /// Bytes of the whole head.
    pub(crate) bytes: usize,
    /// Header lines.
    pub(crate) lines: usize,
}

/// Looks for heads in the input of a connection.
///
/// A head that arrives in many pieces is parsed once, when its end is there, and not again for
/// every piece.
#[derive(Debug, Default)]
pub(crate) struct HeadScan {
    seen: usize,
    /// Responses before the response.
    interims: usize,
}

/// Why a response's head cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadResponse(pub(crate) &'static str);

impl HeadScan {
    /// Whether it is worth parsing: always the first time, then once the end has come.
    fn is_due(&mut self, input: &[u8]) -> bool {
        if input.is_empty() {
            return false;
        }
        let from = self.seen.saturating_sub(3);
        let first = self.seen == 0;
        self.seen = input.len();
        first || ends(&input[from..])
    }

    /// The next request, once all of its head is in `input`, from which it is taken.
    pub(crate) fn request(
        &mut self,
        input: &mut Bytes,
        limits: HeadLimits,
    ) -> Result<Option<RequestHead>, Failure> {
        if !self.is_due(input) {
            return too_long(input, limits).map_or(Ok(None), Err);
        }
        let whole = input.clone();
        let mut small = [const { MaybeUninit::uninit() }; LINES_INLINE];
        let mut large = Vec::new();
        let lines = if limits.lines <= LINES_INLINE {
            &mut small[..limits.lines]
        } else {
            large.resize_with(limits.lines, MaybeUninit::uninit);
            &mut large[..]
        };
        let mut parsed = httparse::Request::new(&mut []);
        let length = match parsed.parse_with_uninit_headers(&whole, lines) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return too_long(input, limits).map_or(Ok(None), Err),
            Err(httparse::Error::TooManyHeaders) => return Err(Failure::HeadTooLarge),
            Err(error) => return Err(Failure::BadHead(why(error))),
        };
        if length > limits.bytes {
            return Err(too_long(&input[..length], limits).unwrap_or(Failure::HeadTooLarge));
        }
        input.advance(length);
        self.seen = 0;
        request_of(&whole, &parsed).map(Some)
    }

    /// The next response to a request with `method`, once all of its head is in `input`.
    pub(crate) fn response(
        &mut self,
        input: &mut Bytes,
        method: &Method,
        bytes_max: usize,
    ) -> Result<Option<ResponseHead>, BadResponse> {
        loop {
            if !self.is_due(input) {
                return bounded(input, bytes_max);
            }
            let whole = input.clone();
            let mut lines = [const { MaybeUninit::uninit() }; RESPONSE_LINES_MAX];
            let mut parsed = httparse::Response::new(&mut []);
            let config = httparse::ParserConfig::default();
            let length =
                match config.parse_response_with_uninit_headers(&mut parsed, &whole, &mut lines) {
                    Ok(httparse::Status::Complete(length)) => length,
                    Ok(httparse::Status::Partial) => return bounded(input, bytes_max),
                    Err(error) => return Err(BadResponse(why(error))),
                };
            input.advance(length);
            self.seen = 0;
            let head = response_of(&whole, &parsed, method)?;
            // 1xx only announces the response; 101 is one.
            if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
                return Ok(Some(head));
            }
            self.interims += 1;
            if self.interims > INTERIMS_MAX {
                return Err(BadResponse("too many 1xx responses"));
            }
        }
    }
}

fn bounded(input: &[u8], bytes_max: usize) -> Result<Option<ResponseHead>, BadResponse> {
    if input.len() > bytes_max {
        return Err(BadResponse("the head is too long"));
    }
    Ok(None)
}

/// Whether the end of a head is in `bytes`: a line end and, behind it, an empty line.
fn ends(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', bytes).any(|feed| {
        let rest = &bytes[feed + 1..];
        rest.starts_with(b"\n") || rest.starts_with(b"\r\n")
    })
}

/// The failure of a head that is longer than the limit, if it is.
fn too_long(head: &[u8], limits: HeadLimits) -> Option<Failure> {
    if head.len() < limits.bytes {
        return None;
    }
    let line = memchr::memchr(b'\n', head).unwrap_or(head.len());
    Some(if line >= limits.bytes.min(TARGET_BYTES_MAX) {
        Failure::TargetTooLong
    } else {
        Failure::HeadTooLarge
    })
}

fn request_of(whole: &Bytes, parsed: &httparse::Request<'_, '_>) -> Result<RequestHead, Failure> {
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version)
    else {
        return Err(Failure::BadHead("the request line is not complete"));
    };
    let method = Method::from_bytes(method.as_bytes())
        .map_err(|_| Failure::BadHead("the method is not a token"))?;
    if target.len() > TARGET_BYTES_MAX {
        return Err(Failure::TargetTooLong);
    }
    let uri = Uri::from_maybe_shared(whole.slice_ref(target.as_bytes()))
        .map_err(|_| Failure::BadHead("the request target is not a valid URI"))?;
    let version = version(minor);
    let mut facts = Facts::default();
    let headers = headers(whole, parsed.headers, &mut facts).map_err(Failure::BadHead)?;
    if facts.hosts > 1 || (facts.hosts == 0 && version == Version::HTTP_11) {
        return Err(Failure::BadHead("a request needs exactly one Host header"));
    }
    let body = match (facts.codings, facts.lengths) {
        (0, 0) => None,
        (0, 1) => match facts.length {
            Some(0) => None,
            Some(length) => Some(Decoder::Length(length)),
            None => return Err(Failure::BadHead("Content-Length is not a number")),
        },
        (0, _) => {
            return Err(Failure::BadHead(
                "Content-Length stands there more than once",
            ));
        }
        (_, 1..) => return Err(Failure::AmbiguousLength),
        (_, 0) if version == Version::HTTP_10 => {
            return Err(Failure::BadHead("HTTP/1.0 has no Transfer-Encoding"));
        }
        (1, 0) if facts.chunked == Coding::Chunked => Some(Decoder::chunked()),
        (1, 0) if facts.chunked == Coding::ThenChunked => return Err(Failure::UnknownCoding),
        _ => {
            return Err(Failure::BadHead(
                "Transfer-Encoding does not end in one `chunked`",
            ));
        }
    };
    Ok(RequestHead {
        expects_continue: facts.expects_continue && version == Version::HTTP_11 && body.is_some(),
        keep_alive: facts.keep_alive(version),
        method,
        uri,
        version,
        headers,
        body,
    })
}

fn response_of(
    whole: &Bytes,
    parsed: &httparse::Response<'_, '_>,
    method: &Method,
) -> Result<ResponseHead, BadResponse> {
    let (Some(code), Some(minor)) = (parsed.code, parsed.version) else {
        return Err(BadResponse("the status line is not complete"));
    };
    let status =
        StatusCode::from_u16(code).map_err(|_| BadResponse("the status is not a number"))?;
    let mut facts = Facts {
        is_response: true,
        ..Facts::default()
    };
    let headers = headers(whole, parsed.headers, &mut facts).map_err(BadResponse)?;
    let mut keep_alive = facts.keep_alive(version(minor));
    let without = *method == Method::HEAD
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let body = if without {
        None
    } else if facts.codings > 0 {
        // The coding counts (RFC 9112 §6.3), but whoever sends both may have meant the other.
        keep_alive &= facts.lengths == 0;
        match facts.chunked {
            Coding::Chunked if facts.codings == 1 => Some(Decoder::chunked()),
            // Another coding would have to be undone, or passed on to a client who must not see it.
            _ => return Err(BadResponse("the transfer coding is not understood")),
        }
    } else if facts.lengths > 0 {
        let length = facts
            .length
            .ok_or(BadResponse("Content-Length is not one number"))?;
        (length > 0).then_some(Decoder::Length(length))
    } else {
        Some(Decoder::UntilClose)
    };
    Ok(ResponseHead {
        keep_alive: keep_alive && body != Some(Decoder::UntilClose),
        status,
        headers,
        body,
    })
}

/// What the headers say of the message's framing and of the connection.
#[derive(Default)]
struct Facts {
    is_response: bool,
    hosts: usize,
    /// `Content-Length` lines.
    lengths: usize,
    /// The length, while all lines agree on it.
    length: Option<u64>,
    /// `Transfer-Encoding` lines.
    codings: usize,
    chunked: Coding,
    close: bool,
    keep: bool,
    expects_continue: bool,
}

/// What a `Transfer-Encoding` comes to.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Coding {
    /// Not chunked at its end.
    #[default]
    Other,
    /// `chunked` and nothing else.
    Chunked,
    /// Something else, and `chunked` at the end.
    ThenChunked,
}

impl Facts {
    fn note(&mut self, name: &HeaderName, value: &[u8]) {
        if *name == header::HOST {
            self.hosts += 1;
        } else if *name == header::CONTENT_LENGTH {
            let length = number(value);
            self.length = if self.lengths == 0 || self.length == length {
                length
            } else {
                None
            };
            self.lengths += 1;
        } else if *name == header::TRANSFER_ENCODING && !self.ignores(value) {
            self.codings += 1;
            self.chunked = coding(value);
        } else if *name == header::CONNECTION {
            for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                self.close |= option.eq_ignore_ascii_case(b"close");
                self.keep |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        } else if *name == header::EXPECT {
            self.expects_continue |= value.eq_ignore_ascii_case(b"100-continue");
        }
    }

    /// `identity` once meant that there is no coding; some servers still say so.
    fn ignores(&self, coding: &[u8]) -> bool {
        self.is_response && coding.trim_ascii().eq_ignore_ascii_case(b"identity")
    }

    fn keep_alive(&self, version: Version) -> bool {
        !self.close && (version == Version::HTTP_11 || self.keep)
    }
}

/// Digits and nothing else: no sign, no list, no overflow.
fn number(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

fn coding(value: &[u8]) -> Coding {
    let is_chunked = |coding: &[u8]| coding.trim_ascii().eq_ignore_ascii_case(b"chunked");
    let mut codings = value.split(|byte| *byte == b',').rev();
    if !codings.next().is_some_and(is_chunked) {
        return Coding::Other;
    }
    let mut before = codings
        .filter(|coding| !coding.trim_ascii().is_empty())
        .peekable();
    if before.peek().is_none() {
        Coding::Chunked
    } else if before.any(is_chunked) {
        Coding::Other
    } else {
        Coding::ThenChunked
    }
}

fn headers(
    whole: &Bytes,
    lines: &[httparse::Header<'_>],
    facts: &mut Facts,
) -> Result<HeaderMap, &'static str> {
    let mut headers = HeaderMap::with_capacity(lines.len() + SPARE_LINES);
    for line in lines {
        let name = HeaderName::from_bytes(line.name.as_bytes())
            .map_err(|_| "a header name is not a token")?;
        let value = HeaderValue::from_maybe_shared(whole.slice_ref(line.value))
            .map_err(|_| "a header value has a control character")?;
        facts.note(&name, line.value);
        headers.append(name, value);
    }
    Ok(headers)
}

fn version(minor: u8) -> Version {
    if minor == 0 {
        Version::HTTP_10
    } else {
        Version::HTTP_11
    }
}

fn why(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::HeaderName => "a header name is not valid",
        httparse::Error::HeaderValue => "a header value is not valid",
        httparse::Error::NewLine => "a line does not end in CR LF",
        httparse::Error::Status => "the status is not a number",
        httparse::Error::Token => "a character stands where none may",
        httparse::Error::TooManyHeaders => "too many headers",
        httparse::Error::Version => "the HTTP version is not 1.0 or 1.1",
    }
}

/// Room for headers that plugins add.
const SPARE_LINES: usize = 8;
/// Header lines that are noted without an allocation.
const LINES_INLINE: usize = 128;
/// Header lines that a response may have.
const RESPONSE_LINES_MAX: usize = 200;
/// 1xx responses before the response.
const INTERIMS_MAX: usize = 16;
/// What the URI type can hold.
const TARGET_BYTES_MAX: usize = u16::MAX as usize - 1;

#[cfg(test)]
mod tests;
