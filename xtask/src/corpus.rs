//! Beginnings for the fuzzer: the golden examples, in the form that each target takes.

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
    eprintln!("fuzz/corpus: seeds of {written} examples");
    Ok(())
}

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
