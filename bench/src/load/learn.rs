//! What to expect of answers that nobody knows beforehand: as much as there is in the first one.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::BUFFER_BYTES;
use super::response::Expected;
use crate::http1::{self, BodyReader, Framing};

/// Sends `request` once. Events are counted where `streams`; the answer must have status 200.
pub(super) fn expected(
    target: SocketAddr,
    request: &[u8],
    streams: bool,
) -> Result<Expected, String> {
    let failed = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(target).map_err(failed)?;
    stream.write_all(request).map_err(failed)?;
    let mut input = Vec::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut more = |input: &mut Vec<u8>| match stream.read(&mut buffer).map_err(failed)? {
        0 => Err("it ended early".to_owned()),
        count => {
            input.extend_from_slice(&buffer[..count]);
            Ok(())
        }
    };
    let mut reader = loop {
        let head = http1::parse_head(&input).map_err(|error| error.to_string())?;
        let Some(head) = head else {
            more(&mut input)?;
            continue;
        };
        let status = http1::status(head.start_line).map_err(|error| error.to_string())?;
        if status != 200 {
            return Err(format!("status {status}"));
        }
        let (len, framing) = (head.len, head.framing.unwrap_or(Framing::Length(0)));
        input.drain(..len);
        break BodyReader::new(framing);
    };
    let mut body = Vec::new();
    loop {
        reader
            .feed(&input, |bytes| body.extend_from_slice(bytes))
            .map_err(|error| error.to_string())?;
        input.clear();
        if reader.is_done() {
            break;
        }
        more(&mut input)?;
    }
    let events = memchr::memmem::find_iter(&body, b"\n\n").count() as u64;
    Ok(Expected {
        body_bytes: body.len() as u64,
        events: if streams { events } else { 0 },
    })
}
