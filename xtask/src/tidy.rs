//! Rules that no compiler checks.
//!
//! The dependency files are the architecture: a crate may depend only on the crates that the
//! arrows in ARCHITECTURE.md allow. Files and functions that are already large may not grow;
//! `tidy-sizes.txt` holds what they measure today. And the map must not name what is gone.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use serde::Deserialize;

/// Checks every rule and reports all violations.
pub(crate) fn check() -> Result<(), String> {
    let root = root()?;
    let mut violations = Vec::new();
    violations.extend(dependencies(&root)?);
    violations.extend(map(&root)?);
    violations.extend(sizes(&root)?);
    violations.extend(unfinished(&root)?);
    violations.extend(memory(&root)?);
    violations.extend(wall_clock(&root)?);
    violations.extend(crate::mutants::problems(&root));
    violations.extend(crate::protocols::stale(&root));
    if violations.is_empty() {
        eprintln!("tidy: all rules hold");
        return Ok(());
    }
    for violation in &violations {
        eprintln!("tidy: {violation}");
    }
    Err(format!("tidy found {} violation(s)", violations.len()))
}

/// Writes today's sizes of everything large.
pub(crate) fn ratchet() -> Result<(), String> {
    let root = root()?;
    let mut text = String::from(
        "# What is large today, and may not grow: `cargo xtask tidy --ratchet` notes a new state\n\
         # after something became smaller. Lines of a file, or of a function in it.\n",
    );
    for (name, lines) in large(&root)? {
        text.push_str(&format!("{lines} {name}\n"));
    }
    std::fs::write(root.join(SIZES), text).map_err(|error| error.to_string())
}

/// The folder of the workspace.
pub(crate) fn root() -> Result<PathBuf, String> {
    let output = cargo(&["locate-project", "--workspace", "--message-format", "plain"])?;
    Path::new(output.trim())
        .parent()
        .map(Path::to_path_buf)
        .ok_or_else(|| "the workspace has no folder".to_owned())
}

fn cargo(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(arguments)
        .output()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    String::from_utf8(output.stdout).map_err(|error| error.to_string())
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

/// Which crates may depend on what.
fn dependencies(root: &Path) -> Result<Vec<String>, String> {
    let manifest = root.join("Cargo.toml");
    let manifest = manifest
        .to_str()
        .ok_or("the workspace's path is not UTF-8")?;
    let json = cargo(&[
        "metadata",
        "--no-deps",
        "--format-version",
        "1",
        "--manifest-path",
        manifest,
    ])?;
    let metadata: Metadata = serde_json::from_str(&json).map_err(|error| error.to_string())?;
    let mut violations = Vec::new();
    for package in &metadata.packages {
        for dependency in &package.dependencies {
            if dependency.kind.as_deref() == Some("dev") {
                continue;
            }
            if let Some(why) = forbidden(&package.name, &dependency.name) {
                violations.push(format!(
                    "{} must not depend on {}: {why}",
                    package.name, dependency.name
                ));
            }
        }
    }
    Ok(violations)
}

fn forbidden(package: &str, dependency: &str) -> Option<&'static str> {
    let ours = dependency.starts_with("pointsman");
    match package {
        "pointsman-balance" => Some("it is pure and uses the standard library alone"),
        "pointsman-ai" if ours => Some("it knows no other crate"),
        "pointsman-ai" if NETWORK.contains(&dependency) || RUNTIME.contains(&dependency) => {
            Some("it must never be able to open a connection")
        }
        "pointsman-gateway" if ours && dependency == "pointsman" => Some("arrows point one way"),
        "pointsman-gateway" if NETWORK.contains(&dependency) || RUNTIME.contains(&dependency) => {
            Some("only `pointsman` names sockets, the HTTP library, DNS or a runtime")
        }
        _ => None,
    }
}

/// Every path in ARCHITECTURE.md that looks like a file of ours must exist.
fn map(root: &Path) -> Result<Vec<String>, String> {
    let text = std::fs::read_to_string(root.join("ARCHITECTURE.md"))
        .map_err(|error| format!("ARCHITECTURE.md: {error}"))?;
    let mut violations = Vec::new();
    for word in text.split(|c: char| c.is_whitespace() || "`()|,;".contains(c)) {
        let is_path = word.contains('/')
            && !word.contains("://")
            && !word.contains('*')
            && !word.contains('<')
            && (word.ends_with(".rs") || word.ends_with(".md") || word.ends_with('/'))
            && ["crates/", "xtask/", "bench/", "docs/", "fuzz/", "examples/"]
                .iter()
                .any(|top| word.starts_with(top));
        if is_path && !root.join(word).exists() {
            violations.push(format!(
                "ARCHITECTURE.md names `{word}`, which does not exist"
            ));
        }
    }
    Ok(violations)
}

/// Nothing large may grow, and nothing new may be large.
fn sizes(root: &Path) -> Result<Vec<String>, String> {
    let noted = std::fs::read_to_string(root.join(SIZES)).unwrap_or_default();
    let limits: BTreeMap<&str, usize> = noted
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(lines, name)| Some((name, lines.parse().ok()?)))
        .collect();
    let mut violations = Vec::new();
    for (name, lines) in large(root)? {
        let allowed = limits.get(name.as_str()).copied();
        match allowed {
            Some(limit) if lines > limit => {
                violations.push(format!(
                    "{name} was large ({limit} lines) and grew to {lines}"
                ));
            }
            Some(_) => {}
            None => violations.push(format!("{name} has {lines} lines: look for a seam")),
        }
    }
    Ok(violations)
}

/// Files and functions above the limits, by name.
fn large(root: &Path) -> Result<Vec<(String, usize)>, String> {
    let mut found = Vec::new();
    for path in sources(root)? {
        let text = read(&path)?;
        let name = relative(root, &path);
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            found.push((name.clone(), lines));
        }
        for (function, lines) in functions(&text) {
            if lines > FUNCTION_LINES_MAX {
                found.push((format!("{name}::{function}"), lines));
            }
        }
    }
    Ok(found)
}

/// Functions and how many lines each has, from the indentation that rustfmt guarantees.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else {
            continue;
        };
        let indent = &line[..line.len() - line.trim_start().len()];
        let closing = format!("{indent}}}");
        let end = lines[start..]
            .iter()
            .position(|candidate| *candidate == closing);
        if let Some(length) = end {
            found.push((name.to_owned(), length + 1));
        }
    }
    found
}

fn function_name(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    for prefix in ["pub(crate) ", "pub(super) ", "pub ", "const ", "async "] {
        rest = rest.strip_prefix(prefix).unwrap_or(rest);
    }
    let rest = rest.strip_prefix("fn ")?;
    rest.split(['(', '<']).next()
}

/// A pick is a function of what it is given: nothing on its path can remember an answer, under
/// whatever key (I-5).
fn memory(root: &Path) -> Result<Vec<String>, String> {
    let mut violations = Vec::new();
    for path in sources(root)? {
        let name = relative(root, &path);
        if !PICK_PATH.iter().any(|part| name.starts_with(part)) {
            continue;
        }
        for (number, line) in read(&path)?.lines().enumerate() {
            if let Some(word) = remembers(line) {
                violations.push(format!(
                    "{name}:{}: `{word}` on the path of a pick, which keeps no cache",
                    number + 1
                ));
            }
        }
    }
    Ok(violations)
}

fn remembers(line: &str) -> Option<&'static str> {
    let code = line.split("//").next().unwrap_or_default();
    MEMORY.iter().find(|word| code.contains(**word)).copied()
}

/// Who reads the clock that jumps, beside those who write dates or read them.
fn wall_clock(root: &Path) -> Result<Vec<String>, String> {
    let mut violations = Vec::new();
    for path in sources(root)? {
        let name = relative(root, &path);
        let ships = name.starts_with("crates/") && name.contains("/src/");
        if !ships || WALL_CLOCK.iter().any(|file| name == *file) {
            continue;
        }
        for (number, line) in read(&path)?.lines().enumerate() {
            if reads_wall_clock(line) {
                violations.push(format!(
                    "{name}:{}: reads the wall clock, which jumps; waits and ages go by `clock::now`",
                    number + 1
                ));
            }
        }
    }
    Ok(violations)
}

fn reads_wall_clock(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    ["SystemTime::now", "clock::wall", "unix_millis()"]
        .iter()
        .any(|word| code.contains(word))
}

/// Words that say "not done", in code that ships.
fn unfinished(root: &Path) -> Result<Vec<String>, String> {
    let mut violations = Vec::new();
    for path in sources(root)? {
        let name = relative(root, &path);
        if name.starts_with("xtask/") {
            continue;
        }
        for (number, line) in read(&path)?.lines().enumerate() {
            if ["#[ignore", "todo!(", "unimplemented!("]
                .iter()
                .any(|word| line.contains(word))
            {
                violations.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    Ok(violations)
}

fn sources(root: &Path) -> Result<Vec<PathBuf>, String> {
    let mut pending: Vec<PathBuf> = ["crates", "bench", "xtask"]
        .iter()
        .map(|folder| root.join(folder))
        .collect();
    let mut files = Vec::new();
    while let Some(folder) = pending.pop() {
        let entries =
            std::fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        for entry in entries {
            let path = entry.map_err(|error| error.to_string())?.path();
            if path.is_dir() && !path.ends_with("target") {
                pending.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root)
        .unwrap_or(path)
        .to_string_lossy()
        .replace('\\', "/")
}

/// A file above this is looked at for a seam.
const FILE_LINES_MAX: usize = 600;
/// A function above this does not fit on a screen.
const FUNCTION_LINES_MAX: usize = 70;
/// Everything that runs during a pick.
const PICK_PATH: &[&str] = &[
    "crates/pointsman-balance/src/pool.rs",
    "crates/pointsman-balance/src/decision.rs",
    "crates/pointsman-balance/src/picker/",
    "crates/pointsman-balance/src/tried.rs",
    "crates/pointsman-balance/src/health/availability.rs",
    "crates/pointsman-gateway/src/forward/mod.rs",
];
/// Each says when something was, or reads what another has said. What bounds a date that is wrong:
/// `cooldown.max_ms` (`evidence.rs`), the age of what is kept (`health_file`).
const WALL_CLOCK: &[&str] = &[
    // A signature bears the date.
    "crates/pointsman-gateway/src/forward/ai/outgoing.rs",
    "crates/pointsman-gateway/src/secrets/fetch.rs",
    "crates/pointsman-gateway/src/tokens/fetch.rs",
    "crates/pointsman-gateway/src/clock.rs",
    "crates/pointsman-gateway/src/variables.rs",
    "crates/pointsman-gateway/src/exchange.rs",
    "crates/pointsman-gateway/src/admin/targets.rs",
    "crates/pointsman-gateway/src/plugins/request_id.rs",
    // Tokens bear the time of their making, and outlive processes.
    "crates/pointsman-gateway/src/plugins/csrf.rs",
    "crates/pointsman-gateway/src/plugins/hmac_auth.rs",
    "crates/pointsman-gateway/src/plugins/jwt_auth.rs",
    "crates/pointsman-gateway/src/plugins/openid_connect.rs",
    "crates/pointsman-gateway/src/oidc/introspection.rs",
    "crates/pointsman-gateway/src/forward/evidence.rs",
    "crates/pointsman/src/http1/encode.rs",
    // Resources bear the date of their writing, and may expire at one.
    "crates/pointsman/src/admin_server.rs",
    "crates/pointsman/src/store/embedded.rs",
    "crates/pointsman/src/transfer.rs",
    "crates/pointsman/src/store/etcd/commit.rs",
    "crates/pointsman/src/health_file/mod.rs",
];
/// What a cache would be made of. Atomics stay: a round-robin position is one.
const MEMORY: &[&str] = &[
    "HashMap",
    "BTreeMap",
    "Mutex",
    "RwLock",
    "Cell",
    "OnceLock",
    "LazyLock",
    "thread_local",
    "ArcSwap",
    "Hasher",
];
const SIZES: &str = "xtask/tidy-sizes.txt";
const NETWORK: &[&str] = &[
    "hyper",
    "hyper-util",
    "reqwest",
    "rustls",
    "tokio-rustls",
    "socket2",
    "redis",
    "hickory-resolver",
    "mio",
    "notify",
];
const RUNTIME: &[&str] = &["tokio", "async-std", "smol"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrows_point_one_way() {
        assert!(forbidden("pointsman-balance", "bytes").is_some());
        assert!(forbidden("pointsman-ai", "tokio").is_some());
        assert!(forbidden("pointsman-ai", "bytes").is_none());
        assert!(forbidden("pointsman-gateway", "hyper").is_some());
        assert!(forbidden("pointsman-gateway", "pointsman").is_some());
        assert!(forbidden("pointsman", "hyper").is_none());
    }

    #[test]
    fn a_cache_on_the_path_of_a_pick_is_seen() {
        assert_eq!(remembers("    last: RefCell<Option<usize>>,"), Some("Cell"));
        assert_eq!(
            remembers("    by_key: HashMap<String, usize>,"),
            Some("HashMap")
        );
        assert_eq!(remembers("    // no HashMap here"), None);
        assert_eq!(remembers("    position: AtomicU64,"), None);
    }

    #[test]
    fn a_look_at_the_wall_clock_is_seen() {
        assert!(reads_wall_clock("    let now = SystemTime::now();"));
        assert!(reads_wall_clock("    let ms = clock::unix_millis();"));
        assert!(!reads_wall_clock(
            "    let now = clock::now(); // no clock::wall()"
        ));
    }

    #[test]
    fn functions_are_measured_by_their_closing_brace() {
        let text = "impl A {\n    pub fn b() {\n        1\n    }\n}\nfn c<T>(\n    x: T,\n) {\n}\n";
        assert_eq!(functions(text), [("b".to_owned(), 3), ("c".to_owned(), 4)]);
    }
}
