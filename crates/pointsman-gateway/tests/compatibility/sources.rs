//! The tests' sources: which function uses a field of which subject.

use std::path::{Path, PathBuf};

/// All tests of the workspace.
pub(crate) struct Tests(Vec<File>);

struct File {
    /// From the root of the repository.
    name: String,
    text: String,
    functions: Vec<Function>,
}

struct Function {
    name: String,
    body: String,
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

impl Tests {
    /// Reads them.
    pub(crate) fn read(root: &Path) -> Self {
        let mut files = Vec::new();
        for folder in [
            "crates/pointsman/tests",
            "crates/pointsman-gateway/tests",
            "crates/pointsman-gateway/src",
        ] {
            collect(root, &root.join(folder), &mut files);
        }
        files.sort_by(|one: &File, other| one.name.cmp(&other.name));
        Self(files)
    }

    /// A test that has the last name of `path` and the `subject` in it; or one of a file that has the subject.
    pub(crate) fn using(&self, subject: &str, path: &str) -> Option<String> {
        let leaf = path
            .rsplit(['.', ']'])
            .next()
            .filter(|leaf| !leaf.is_empty())?;
        // The part before tells `timeout` of a probe from that of an instance.
        let before = path.strip_suffix(leaf).unwrap_or_default();
        let before = before
            .trim_end_matches(['.', '[', ']'])
            .rsplit(['.', ']'])
            .next();
        let before = before.filter(|before| !before.is_empty());
        let subject = subject_in_tests(subject);
        let score = |file: &File, function: &Function| {
            if !has_word(&function.body, leaf) {
                return 0;
            }
            let (in_body, in_file) = (
                has_word(&function.body, subject),
                has_word(&file.text, subject),
            );
            let near = before.is_none_or(|before| has_word(&function.body, before));
            let outside = file.name.starts_with("crates/pointsman/tests");
            match (in_body, in_file) {
                (true, _) => 8 + 4 * u32::from(near) + u32::from(outside),
                (false, true) => 2 + 4 * u32::from(near) + u32::from(outside),
                (false, false) => 0,
            }
        };
        let mut best: Option<(u32, &File, &Function)> = None;
        for file in &self.0 {
            for function in &file.functions {
                let score = score(file, function);
                if score > best.map_or(0, |(best, ..)| best) {
                    best = Some((score, file, function));
                }
            }
        }
        let short = |file: &File| {
            let short = file.name.strip_prefix("crates/").unwrap_or(&file.name);
            format!("`{short}`")
        };
        if let Some((_, file, function)) = best {
            return Some(format!("{} {}", short(file), function.name));
        }
        // A configuration that several tests of a file share.
        let shared = self.0.iter().find(|file| {
            file.name.starts_with("crates/pointsman/tests")
                && has_word(&file.text, subject)
                && has_word(&file.text, leaf)
        });
        if let Some(file) = shared {
            return Some(short(file));
        }
        // The subject is written by a helper of the tests; a name like that has no other meaning.
        let telling = leaf.len() >= TELLING && leaf.contains(['_', '-']);
        let files = self.0.iter().filter(|_| telling);
        let mut files = files.filter(|file| file.name.starts_with("crates/pointsman/tests"));
        files.find_map(|file| {
            let function = (file.functions.iter()).find(|one| has_word(&one.body, leaf))?;
            Some(format!("{} {}", short(file), function.name))
        })
    }
}

/// How long a name must be to tell what it is of.
const TELLING: usize = 12;

/// How tests speak of a resource: by its collection.
fn subject_in_tests(subject: &str) -> &str {
    match subject {
        "route" => "routes",
        "service" => "services",
        "consumer" => "consumers",
        "credential" => "credentials",
        "consumer_group" => "consumer_groups",
        "plugin_config" => "plugin_configs",
        "global_rule" => "global_rules",
        "ssl" => "ssls",
        other => other,
    }
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<File>) {
    let entries = std::fs::read_dir(folder).expect("a folder of tests");
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(root, &path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source");
            let name = path
                .strip_prefix(root)
                .expect("below")
                .display()
                .to_string();
            if name.contains("tests/compatibility/") {
                continue;
            }
            let functions = functions(&text);
            files.push(File {
                name,
                text,
                functions,
            });
        }
    }
}

/// Functions behind `#[test]`, up to the line that closes them.
fn functions(text: &str) -> Vec<Function> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() != "#[test]" {
            continue;
        }
        let mut head = None;
        let mut body = String::new();
        for line in lines.by_ref() {
            let depth = line.len() - line.trim_start().len();
            match head {
                None => {
                    let Some(rest) = line.trim_start().strip_prefix("fn ") else {
                        continue;
                    };
                    let name: String = rest.chars().take_while(|c| *c != '(').collect();
                    head = Some((name, depth));
                }
                Some((_, of))
                    if depth == of && line.trim_end() == format!("{}}}", " ".repeat(of)) =>
                {
                    break;
                }
                Some(_) => {}
            }
            body.push_str(line);
            body.push('\n');
        }
        if let Some((name, _)) = head {
            found.push(Function { name, body });
        }
    }
    found
}

/// Whether `word` stands in `text` with no letter of a name beside it.
fn has_word(text: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(is_name) && !after.is_some_and(is_name)
    })
}

#[test]
fn words_are_whole() {
    assert!(has_word("a: {key: 1}", "key"));
    assert!(!has_word("key-auth, key_x, monkey", "key"));
}

#[test]
fn functions_end_where_they_do() {
    let text = "#[test]\nfn one() {\n    a();\n}\n\nfn other() {\n    b();\n}\n\n    #[test]\n    fn two() {\n        c();\n    }\n";
    let found = functions(text);
    let found: Vec<(&str, bool)> = found
        .iter()
        .map(|one| (one.name.as_str(), one.body.contains("b()")))
        .collect();
    assert_eq!(found, [("one", false), ("two", false)]);
}
