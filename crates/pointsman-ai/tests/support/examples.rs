//! The examples in `tests/golden`.

use std::path::{Path, PathBuf};

use super::Protocol;

/// The protocols of conversations.
pub(crate) const DIALECTS: [Protocol; 6] = [
    Protocol::OpenaiChat,
    Protocol::OpenaiResponses,
    Protocol::AnthropicMessages,
    Protocol::GeminiGenerateContent,
    Protocol::CohereChat,
    Protocol::BedrockConverse,
];

/// What an example is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    Response,
    Stream,
}

/// An example.
pub(crate) struct Example {
    pub(crate) protocol: Protocol,
    pub(crate) kind: Kind,
    pub(crate) path: PathBuf,
    pub(crate) bytes: Vec<u8>,
}

/// All of them, in order.
pub(crate) fn examples() -> Vec<Example> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut examples = Vec::new();
    for protocol in DIALECTS {
        for (kind, folder) in [
            (Kind::Request, "request"),
            (Kind::Response, "response"),
            (Kind::Stream, "stream"),
        ] {
            let folder = root.join(protocol.as_str()).join(folder);
            let files = std::fs::read_dir(&folder)
                .expect("sound")
                .map(|file| file.expect("sound").path());
            let mut files: Vec<_> = files
                .filter(|path| path.extension().is_some_and(|ending| ending != "out"))
                .collect();
            files.sort();
            examples.extend(files.into_iter().map(|path| Example {
                protocol,
                kind,
                bytes: read(&path),
                path,
            }));
        }
    }
    examples
}

fn read(path: &Path) -> Vec<u8> {
    let mut bytes = std::fs::read(path).expect("sound");
    if path.extension().is_some_and(|ending| ending == "hex") {
        let text = String::from_utf8(bytes).expect("sound");
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let pairs = digits.chunks(2);
        let byte = |pair| {
            u8::from_str_radix(std::str::from_utf8(pair).expect("sound"), 16).expect("sound")
        };
        return pairs.map(byte).collect();
    }
    if path.extension().is_some_and(|ending| ending == "sse") {
        bytes.push(b'\n');
    }
    bytes
}
