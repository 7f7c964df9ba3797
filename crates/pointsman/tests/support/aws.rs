//! What AWS expects and sends: signatures, event streams.

use aws_lc_rs::{digest, hmac};

use super::Received;

/// An event of that type in AWS's framing.
pub(crate) fn frame(name: &str, payload: &str) -> Vec<u8> {
    let mut headers = Vec::new();
    for (key, value) in [
        (":event-type", name),
        (":content-type", "application/json"),
        (":message-type", "event"),
    ] {
        headers.push(u8::try_from(key.len()).expect("short"));
        headers.extend_from_slice(key.as_bytes());
        headers.push(7);
        headers.extend_from_slice(&u16::try_from(value.len()).expect("short").to_be_bytes());
        headers.extend_from_slice(value.as_bytes());
    }
    let word = |length: usize| u32::try_from(length).expect("short").to_be_bytes();
    let mut frame = word(16 + headers.len() + payload.len()).to_vec();
    frame.extend_from_slice(&word(headers.len()));
    frame.extend_from_slice(&crc32fast::hash(&frame).to_be_bytes());
    frame.extend_from_slice(&headers);
    frame.extend_from_slice(payload.as_bytes());
    frame.extend_from_slice(&crc32fast::hash(&frame).to_be_bytes());
    frame
}

/// The payloads of events in AWS's framing.
pub(crate) fn payloads(mut bytes: &[u8]) -> Vec<String> {
    let mut payloads = Vec::new();
    while let Some(prelude) = bytes.first_chunk::<12>() {
        let number =
            |at: usize| u32::from_be_bytes(prelude[at..at + 4].try_into().expect("four")) as usize;
        let (total, headers) = (number(0), number(4));
        let frame = &bytes[..total];
        let check = crc32fast::hash(&frame[..total - 4]).to_be_bytes();
        assert_eq!(frame[total - 4..], check, "a frame's check");
        let payload = &frame[12 + headers..total - 4];
        payloads.push(String::from_utf8_lossy(payload).into_owned());
        bytes = &bytes[total..];
    }
    payloads
}

/// Whether `received` is signed (Signature Version 4) for Bedrock in `region` with that secret; worked
/// out from nothing but what arrived.
pub(crate) fn is_signed(received: &Received, secret: &str, region: &str) -> bool {
    is_signed_for(received, secret, region, "bedrock")
}

/// The same for any service.
pub(crate) fn is_signed_for(
    received: &Received,
    secret: &str,
    region: &str,
    service: &str,
) -> bool {
    let header = |name: &str| received.header(name).unwrap_or_default().to_owned();
    let authorization = header("authorization");
    let part = |name: &str| {
        let rest = authorization.split_once(name).expect("a part of it").1;
        rest.split(", ").next().expect("a value").to_owned()
    };
    let signed = part("SignedHeaders=");
    let headers: String = (signed.split(';'))
        .map(|name| format!("{name}:{}\n", header(name).trim()))
        .collect();
    let (path, query) = (received.target.split_once('?')).unwrap_or((&received.target, ""));
    // What is encoded in the path is encoded once more.
    let path = path.replace('%', "%25");
    let mut arguments: Vec<&str> = query.split('&').collect();
    arguments.sort_unstable();
    let hash = hex(digest::digest(&digest::SHA256, &received.body).as_ref());
    let canonical = format!(
        "{}\n{path}\n{}\n{headers}\n{signed}\n{hash}",
        received.method,
        arguments.join("&")
    );
    let date = header("x-amz-date");
    let scope = [&date[..8], region, service, "aws4_request"];
    let hash = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
    let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{}\n{hash}", scope.join("/"));
    let mut key = format!("AWS4{secret}").into_bytes();
    for text in scope {
        key = mac(&key, text);
    }
    part("Signature=") == hex(&mac(&key, &to_sign))
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
