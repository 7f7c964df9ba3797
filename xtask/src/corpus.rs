//! Beginnings for the fuzzer: the golden examples, in the form that each target takes; of forms and
//! sessions there are none, and a few are written here.

use std::{fs, path::Path};

/// In the order of the fuzz target `translate`.
const DIALECTS: [&str; 6] = [
    "openai-chat",
    "openai-responses",
    "anthropic-messages",
    "gemini-generate-content",
    "cohere-chat",
    "bedrock-converse",
];
/// In that order, too.
const KINDS: [&str; 3] = ["request", "response", "stream"];

/// Writes `fuzz/corpus/`.
pub(crate) fn write(root: &Path) -> Result<(), String> {
    let mut written = 0;
    for (own, dialect) in (0u8..).zip(DIALECTS) {
        for (kind, folder) in (0u8..).zip(KINDS) {
            let folder = root
                .join("crates/pointsman-ai/tests/golden")
                .join(dialect)
                .join(folder);
            let entries = fs::read_dir(&folder).map_err(|error| failed(&folder, &error))?;
            for entry in entries {
                let path = entry.map_err(|error| failed(&folder, &error))?.path();
                let Some(bytes) = example(&path)? else {
                    continue;
                };
                let name = path.file_stem().unwrap_or_default().to_string_lossy();
                let name = format!("{dialect}-{}-{name}", KINDS[usize::from(kind)]);
                for other in 0..6 {
                    // A client's request goes to any provider, a provider's answer to any client.
                    let pair = if kind == 0 {
                        own * 6 + other
                    } else {
                        other * 6 + own
                    };
                    let seed = [&[pair, kind, 128], &bytes[..]].concat();
                    save(root, "translate", &format!("{name}-{other}"), &seed)?;
                }
                if kind == 2 {
                    save(root, "stream", &name, &[&[64, 0], &bytes[..]].concat())?;
                } else {
                    save(root, "body", &name, &bytes)?;
                }
                written += 1;
            }
        }
    }
    for (name, form) in FORMS {
        save(root, "form", name, form.as_bytes())?;
    }
    for (name, frames) in SESSIONS {
        save(root, "session", name, &[&[3, 0], *frames].concat())?;
    }
    written += FORMS.len() + SESSIONS.len();
    eprintln!("fuzz/corpus: seeds of {written} examples");
    Ok(())
}

/// A `Content-Type` on a line, then the body.
const FORMS: &[(&str, &str)] = &[
    (
        "transcription",
        "multipart/form-data; boundary=\"b 1\"\n\
         --b 1\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\\\"b.mp3\"\r\n\
         Content-Type: audio/mpeg\r\n\r\n\0\r\n--b\r\n\r\n\
         --b 1\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--b 1--\r\n",
    ),
    (
        "stream",
        "multipart/form-data; boundary=b\n\
         --b\r\nContent-Disposition: form-data; name=stream\r\n\r\ntrue\r\n\
         --b\r\nContent-Disposition: form-data; name=prompt\r\n\r\nmodel\r\n--b--",
    ),
    (
        "refused",
        "Multipart/Form-Data; charset=utf-8; BOUNDARY=b\npreamble\r\n\
         --b\r\nContent-Disposition: form-data;\r\n name*=UTF-8''model\r\n\r\na\r\n--b--",
    ),
];

/// What a WebSocket's side says: texts, pieces of one, lengths of all kinds, masks, pings, a close.
const SESSIONS: &[(&str, &[u8])] = &[
    ("created", b"\x81\x1a{\"type\":\"session.created\"}\x88\x02\x03\xe8"),
    (
        "done",
        b"\x81\x7e\0\x52{\"type\":\"response.done\",\"response\":{\"usage\":{\"input_tokens\":2,\"output_tokens\":1}}}\x89\0",
    ),
    (
        "error",
        b"\x81\x30{\"type\":\"error\",\"error\":{\"type\":\"server_error\"}}\x88\x02\x03\xf3",
    ),
    (
        "pieces",
        b"\x01\x01{\x89\x01p\x80\x01}\x82\x82mmmmhi\x81\x7f\0\0\0\0\0\0\0\x02{}\xc1\x01a",
    ),
];

/// The bytes of an example; `None` for what examples became.
fn example(path: &Path) -> Result<Option<Vec<u8>>, String> {
    let read = || fs::read(path).map_err(|error| failed(path, &error));
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("json" | "sse") => Ok(Some(read()?)),
        Some("hex") => {
            let text = read()?;
            let digits: Vec<u32> = text
                .iter()
                .filter_map(|byte| char::from(*byte).to_digit(16))
                .collect();
            let byte = |pair: &[u32]| (pair[0] * 16 + pair[1]) as u8;
            Ok(Some(digits.chunks_exact(2).map(byte).collect()))
        }
        _ => Ok(None),
    }
}

fn save(root: &Path, target: &str, name: &str, bytes: &[u8]) -> Result<(), String> {
    let folder = root.join("fuzz/corpus").join(target);
    fs::create_dir_all(&folder).map_err(|error| failed(&folder, &error))?;
    let file = folder.join(name);
    fs::write(&file, bytes).map_err(|error| failed(&file, &error))
}

fn failed(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}
