//! Which functions of the program run, so that the linker can put them side by side.
//!
//! The release build is run under callgrind while the bench drives it, and what was called is
//! written to `crates/pointsman/layout.txt`, which the program's `build.rs` gives to the linker.
//! Hashes are left out, so the list stays good for a long time: a function that is new is merely
//! not beside the others, one that is gone is ignored.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
};

/// From the root of the repository.
const LIST: &str = "crates/pointsman/layout.txt";
/// Called more often than that in a few thousand requests: part of the path of each.
const OFTEN: u64 = 500;
const HEAD: &str = "\
# The program's functions that run, for the linker to put side by side: first those that run often,
# then those that run at all. Made by `cargo xtask layout`; see docs/performance.md.
";

/// Writes the list anew. Needs valgrind; takes some minutes.
pub(crate) fn run(root: &Path) -> Result<(), String> {
    let release = [
        "build",
        "--release",
        "-p",
        "pointsman",
        "-p",
        "pointsman-bench",
    ];
    super::cargo("the program", &release, &[])?;
    let folder = root.join("target/layout");
    // Profiles of an earlier run; that there is none is fine.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).map_err(|error| failed(&folder, &error))?;
    take_profiles(&root.join("target/release"), &folder)?;

    let mut calls = BTreeMap::new();
    for entry in fs::read_dir(&folder).map_err(|error| failed(&folder, &error))? {
        let path = entry.map_err(|error| failed(&folder, &error))?.path();
        if path.extension().is_some_and(|extension| extension == "out") {
            let profile = fs::read_to_string(&path).map_err(|error| failed(&path, &error))?;
            count_calls(&profile, &mut calls);
        }
    }
    let list = list(&calls);
    let lines = list.lines().count();
    if lines < LEAST_LINES {
        return Err(format!(
            "only {lines} functions were seen to run: no profile was taken"
        ));
    }
    let file = root.join(LIST);
    fs::write(&file, list).map_err(|error| failed(&file, &error))?;
    eprintln!("{LIST}: {lines} lines");
    Ok(())
}

/// Has the bench drive a script that is the program under callgrind; profiles go to `folder`.
fn take_profiles(programs: &Path, folder: &Path) -> Result<(), String> {
    let wrapper = folder.join("pointsman");
    let script = format!(
        "#!/bin/sh\nexec valgrind --tool=callgrind --demangle=no \
         --callgrind-out-file='{}/%p.out' '{}' \"$@\"\n",
        folder.display(),
        programs.join("pointsman").display()
    );
    fs::write(&wrapper, script).map_err(|error| failed(&wrapper, &error))?;
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(&wrapper, executable).map_err(|error| failed(&wrapper, &error))?;

    let mut bench = Command::new(programs.join("pointsman-bench"));
    bench.args([
        "compare",
        "--no-build",
        "--targets",
        "pointsman",
        "--rounds",
        "1",
    ]);
    bench.args([
        "--only",
        "json-1k,json-32k,json-256k,sse-burst,rss",
        "--connections",
        "8",
    ]);
    bench.arg("--pointsman").arg(&wrapper);
    eprintln!("==> profile: {bench:?}");
    let status = bench
        .status()
        .map_err(|error| format!("{bench:?}: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{bench:?}: {status}; it needs valgrind"))
    }
}

fn failed(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}

const LEAST_LINES: usize = 500;

/// Adds the calls in a profile in callgrind's format, by the name of what was called.
fn count_calls(profile: &str, calls: &mut BTreeMap<String, u64>) {
    // A name is written out once and has a number from then on.
    let mut names: HashMap<&str, &str> = HashMap::new();
    let mut callee = "";
    for line in profile.lines() {
        if let Some(count) = line.strip_prefix("calls=") {
            let count = count.split(' ').next().and_then(|count| count.parse().ok());
            *calls.entry(callee.to_owned()).or_default() += count.unwrap_or(0);
            continue;
        }
        let called = line.strip_prefix("cfn=");
        let Some(function) = called.or_else(|| line.strip_prefix("fn=")) else {
            continue;
        };
        let (number, name) = function.split_once(' ').unwrap_or((function, ""));
        let name = match name.split('\'').next().unwrap_or_default() {
            "" => names.get(number).copied().unwrap_or_default(),
            name => {
                names.insert(number, name);
                name
            }
        };
        if called.is_some() {
            callee = name;
        } else {
            // What nothing is seen to call runs, too.
            calls.entry(name.to_owned()).or_default();
        }
    }
}

fn list(calls: &BTreeMap<String, u64>) -> String {
    let of = |often: bool| -> BTreeSet<String> {
        calls
            .iter()
            .filter(|(_, count)| (**count >= OFTEN) == often)
            .filter_map(|(name, _)| pattern(name))
            .collect()
    };
    let often = of(true);
    let seldom = of(false);
    let lines = often.iter().chain(seldom.difference(&often));
    HEAD.lines()
        .map(str::to_owned)
        .chain(lines.cloned())
        .map(|line| line + "\n")
        .collect()
}

/// The name with everything left open that changes by itself: hashes, numbers of crates and of
/// copies, versions. `None` for what is no function of a section of its own.
fn pattern(name: &str) -> Option<String> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if name.starts_with("_ZN") {
        const HASH: &str = "17h";
        let end = name.rfind(HASH)?;
        let hash = name.get(end + HASH.len()..)?.split('E').next()?;
        let is_hash = hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        return is_hash.then(|| format!("{}{HASH}*", &name[..end]));
    }
    if name.starts_with("_R") {
        let copy = name.rsplit_once('.').filter(|(_, copy)| digits(copy));
        let mut crates = copy.map_or(name, |(name, _)| name).split("Cs");
        let mut pattern = crates.next()?.to_owned();
        for rest in crates {
            let (_, path) = rest.split_once('_')?;
            pattern.push_str("Cs*_");
            pattern.push_str(path);
        }
        return Some(pattern + "*");
    }
    let mut parts = name.strip_prefix("aws_lc_")?.splitn(4, '_');
    let is_version = parts.by_ref().take(3).all(digits);
    let function = parts.next().filter(|_| is_version)?;
    Some(format!("aws_lc_*_{function}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_name() {
        let profile = "\
fn=(1) _ZN1a17h0123456789abcdefE
16 3
cfn=(2) _ZN1b17h0123456789abcdefE
calls=400 0
16 9
cfn=(3) malloc
calls=900 0
fn=(2)
cfn=(2) _ZN1b17h0123456789abcdefE'2
calls=200 0
fn=(4) _ZN1b17hfedcba9876543210E.llvm.12
";
        let mut calls = BTreeMap::new();
        count_calls(profile, &mut calls);
        assert_eq!(calls["_ZN1b17h0123456789abcdefE"], 600);
        assert_eq!(list(&calls), format!("{HEAD}_ZN1b17h*\n_ZN1a17h*\n"));
    }

    #[test]
    fn what_changes_by_itself_is_left_open() {
        for (name, expected) in [
            ("_ZN1b17hfedcba9876543210E.llvm.12", Some("_ZN1b17h*")),
            ("_ZN1b17hfedcE", None),
            (
                "_RNvNtCsjrHSEGnQ3l9_3std2fs4readINtCsg1_4core1a.12",
                Some("_RNvNtCs*_3std2fs4readINtCs*_4core1a*"),
            ),
            ("aws_lc_0_47_0_SHA256", Some("aws_lc_*_SHA256")),
            ("aws_lc_SHA256", None),
            ("malloc", None),
        ] {
            assert_eq!(pattern(name).as_deref(), expected, "{name}");
        }
    }
}
