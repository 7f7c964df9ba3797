//! What the fuzz target `translate` does with its bytes. A test does the same with examples whose
//! bytes are disturbed.

use pointsman_ai::{Outside, Protocol, Provider, StreamTranslator, Translation};

const DIALECTS: [Protocol; 6] = [
    Protocol::OpenaiChat,
    Protocol::OpenaiResponses,
    Protocol::AnthropicMessages,
    Protocol::GeminiGenerateContent,
    Protocol::CohereChat,
    Protocol::BedrockConverse,
];

/// The first byte says from and to which protocol, the second what the rest is, the third where a
/// stream is cut.
pub(crate) fn any(data: &[u8]) {
    let [pair, kind, cut, rest @ ..] = data else {
        return;
    };
    let pair = usize::from(*pair) % 36;
    let (client, target) = (DIALECTS[pair / 6], DIALECTS[pair % 6]);
    match kind % 3 {
        0 => request(rest, client, target),
        1 => response(rest, client, target),
        _ => stream(rest, usize::from(*cut), client, target),
    }
}

fn outside(stream: bool) -> Outside<'static> {
    Outside {
        model: Some("model"),
        stream,
        now: 1,
        seed: "seed",
    }
}

/// A request is refused, or becomes JSON.
pub(crate) fn request(body: &[u8], client: Protocol, target: Protocol) {
    let provider = Provider::OpenaiCompatible;
    let streams = body.len().is_multiple_of(2);
    if let Ok(translated) = Translation::request(body, client, target, provider, outside(streams)) {
        is_json(&translated.body);
    }
}

/// An answer is refused, or becomes JSON. An error always does.
pub(crate) fn response(body: &[u8], client: Protocol, target: Protocol) {
    let translation = translation(client, target);
    if let Ok((text, _)) = translation.response(body) {
        is_json(&text);
    }
    is_json(&translation.error(500, body));
}

/// A stream becomes the same wherever it is cut.
pub(crate) fn stream(bytes: &[u8], cut: usize, client: Protocol, target: Protocol) {
    let read = |pieces: &[&[u8]]| {
        let translator = translation(client, target).stream(cut.is_multiple_of(2));
        let mut translator: StreamTranslator = translator.expect("a conversation");
        let mut out = Vec::new();
        for piece in pieces {
            translator.push(piece, &mut out);
        }
        let complete = translator.finish(&mut out);
        (out, complete)
    };
    let (first, second) = bytes.split_at(bytes.len() * cut / 256);
    assert_eq!(read(&[first, second]), read(&[bytes]));
}

fn translation(client: Protocol, target: Protocol) -> Translation {
    let body = match client {
        Protocol::GeminiGenerateContent => r#"{"contents":[{"parts":[{"text":"x"}]}]}"#,
        Protocol::BedrockConverse => r#"{"messages":[{"role":"user","content":[{"text":"x"}]}]}"#,
        Protocol::OpenaiResponses => r#"{"input":"x"}"#,
        _ => r#"{"messages":[{"role":"user","content":"x"}]}"#,
    };
    let provider = Provider::OpenaiCompatible;
    let read = Translation::request(body.as_bytes(), client, target, provider, outside(true));
    read.expect("a request").translation
}

fn is_json(text: &[u8]) {
    let read: Result<serde_json::Value, _> = serde_json::from_slice(text);
    if let Err(error) = read {
        panic!("{error}: {}", String::from_utf8_lossy(text));
    }
}
