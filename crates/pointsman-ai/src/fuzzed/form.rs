//! What the fuzz target `form` does with its bytes: a `Content-Type` on a line, then a body.
//!
//! A form that we take says the same to a reader that takes whatever it can get: one model, and that
//! is the one that we have seen. With another model in its place it is still a form, and nothing
//! else of it has changed.

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::{
    BodyError, DirectApi, Protocol, Provider, RequestBody, Shaper, Shaping,
    multipart::{self, Parts},
};

/// # Panics
///
/// Somebody could read another model in the form than we do, or it was broken on its way.
pub fn form(data: &[u8]) {
    let Some(line_end) = data.iter().position(|byte| *byte == b'\n') else {
        return;
    };
    let (kind, body) = (&data[..line_end], &data[line_end + 1..]);
    // As it comes out of a header.
    let is_visible = kind.iter().all(|byte| (b' '..=b'~').contains(byte));
    let kind = std::str::from_utf8(kind).ok().filter(|_| is_visible);
    let Some(boundary) = kind.and_then(multipart::boundary) else {
        return;
    };
    let bytes = Bytes::copy_from_slice(body);
    let Ok(form) = RequestBody::form(bytes, &boundary) else {
        return;
    };
    let ours = form.as_form().expect("a form").model.clone();
    let ours: Vec<&[u8]> = ours.map(|place| &body[place]).into_iter().collect();
    assert_eq!(lenient(body, &boundary), ours);
    let shaper = Shaper::compile(
        Provider::Openai,
        &Shaping {
            options: Map::from_iter([("model".to_owned(), Value::from("m-1"))]),
            ..Shaping::default()
        },
    );
    let protocol = Protocol::Direct(DirectApi::Transcription);
    let (parts, _) = shaper.shape(&form, protocol, false).into_parts();
    let sent = parts.concat();
    match RequestBody::form(Bytes::from(sent.clone()), &boundary) {
        Ok(read) => assert_eq!(read.model().as_deref(), Some("m-1")),
        // One more than there were.
        Err(error) => assert!(matches!(error, BodyError::TooManyMembers(_)), "{error}"),
    }
    assert_eq!(others(&sent, &boundary), others(body, &boundary));
}

/// The values of all fields but the model.
fn others<'b>(body: &'b [u8], boundary: &str) -> Vec<&'b [u8]> {
    Parts::new(body, boundary)
        .filter(|part| !part.is_called("model"))
        .map(|part| &body[part.value])
        .collect()
}

/// The values of all fields that somebody might take for the model who looks for boundaries
/// anywhere, ends lines where they might end, goes on where they are folded, and knows nothing of
/// escaped quotes.
fn lenient<'b>(body: &'b [u8], boundary: &str) -> Vec<&'b [u8]> {
    let dashed = format!("--{}", boundary.trim_ascii());
    let mut places: Vec<usize> = memchr::memmem::find_iter(body, &dashed).collect();
    places.push(body.len());
    let pieces = places.windows(2).map(|pair| &body[pair[0]..pair[1]]);
    pieces
        .filter_map(|piece| value_of_model(&piece[dashed.len()..]))
        .collect()
}

fn value_of_model(piece: &[u8]) -> Option<&[u8]> {
    // What closes a form closes it; what stands behind that is no part to anybody.
    if piece.starts_with(b"--") {
        return None;
    }
    let ends = ["\r\n\r\n", "\n\n", "\r\r"];
    let found = |end: &&str| memchr::memmem::find(piece, end.as_bytes()).map(|at| (at, end.len()));
    let (at, length) = ends.iter().filter_map(found).min()?;
    let head = String::from_utf8_lossy(&piece[..at]);
    let head = head
        .replace(['\r', '\n'], "\n")
        .replace("\n ", " ")
        .replace("\n\t", " ");
    let says_model = head.split('\n').any(|line| {
        line.split_once(':').is_some_and(|(key, value)| {
            key.trim().eq_ignore_ascii_case("content-disposition") && names_model(value)
        })
    });
    let value = &piece[at + length..];
    says_model.then(|| value.strip_suffix(b"\r\n").unwrap_or(value))
}

fn names_model(disposition: &str) -> bool {
    let mut is_quoted = false;
    let parameters = disposition.split(|letter| {
        is_quoted ^= letter == '"';
        letter == ';' && !is_quoted
    });
    parameters
        .filter_map(|parameter| parameter.split_once('='))
        .any(|(key, value)| {
            let value = value.trim();
            let value = value
                .strip_prefix('"')
                .map_or(value, |quoted| quoted.split('"').next().unwrap_or_default());
            let key = key.trim().to_ascii_lowercase();
            // Only the names of parameters have no case.
            matches!(&*key, "name" | "name*") && value == "model"
        })
}
