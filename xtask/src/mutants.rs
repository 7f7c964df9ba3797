//! Shows that the tests of health hold what they say: each guard is broken in turn, in a copy of the
//! tree, and the test that ought to notice is run.
//!
//! A mutant names the exact text that it replaces, so that a change of that text shows here
//! (`cargo xtask tidy` looks for all of them) instead of a mutant that breaks nothing any more. The
//! tree itself is never touched.

mod kept;
mod list;
mod races;
mod semantic;
mod sending;
mod traffic;

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

/// All of them, by what they are about.
fn all() -> impl Iterator<Item = &'static Mutant> {
    let lists = [
        list::MUTANTS,
        traffic::MUTANTS,
        kept::MUTANTS,
        races::MUTANTS,
        semantic::MUTANTS,
        sending::MUTANTS,
    ];
    lists.into_iter().flatten()
}

/// One guard, broken.
struct Mutant {
    /// For `--only`, and for the table.
    name: &'static str,
    /// From the root of the repository.
    file: &'static str,
    /// Occurs exactly once in the file.
    text: &'static str,
    replacement: &'static str,
    /// What cargo is called with to run the test that must fail, after `test`.
    test: &'static str,
}

impl Mutant {
    /// What `--only` is looked for in.
    fn texts(&self) -> [&'static str; 3] {
        [self.name, self.file, self.test]
    }
}

/// What became of a mutant.
#[derive(PartialEq, Eq)]
enum Fate {
    /// The test failed.
    Caught,
    /// The test did not end: as good as failed, for whoever waits for it.
    Hung,
    Survived,
    /// It is no program, or there is no such test: the list is wrong.
    Broken(String),
}

/// Problems of the list: texts that are not where they are said to be.
pub(crate) fn problems(root: &Path) -> Vec<String> {
    let mut problems = Vec::new();
    for mutant in all() {
        let text = std::fs::read_to_string(root.join(mutant.file)).unwrap_or_default();
        let found = text.matches(mutant.text).count();
        if found != 1 {
            problems.push(format!(
                "mutant {}: its text occurs {found} times in {}, and must once; write it anew",
                mutant.name, mutant.file
            ));
        }
    }
    problems
}

/// Tries every mutant whose name, file or test contains `only`, and prints what became of each.
pub(crate) fn run(root: &Path, only: &str) -> Result<(), String> {
    let problems = problems(root);
    if !problems.is_empty() {
        return Err(problems.join("\n"));
    }
    let chosen: Vec<&Mutant> = all()
        .filter(|mutant| mutant.texts().iter().any(|text| text.contains(only)))
        .collect();
    if chosen.is_empty() {
        return Err(format!("no mutant's name, file or test contains `{only}`"));
    }
    let copy = Copy::of(root)?;
    let mut tests: Vec<&str> = chosen.iter().map(|mutant| mutant.test).collect();
    tests.sort_unstable();
    tests.dedup();
    // A test that fails anyhow catches nothing.
    for test in tests {
        match copy.try_test(test)? {
            Fate::Survived => {}
            Fate::Broken(why) => return Err(format!("`cargo test {test}`: {why}")),
            Fate::Caught | Fate::Hung => {
                return Err(format!("`cargo test {test}` fails without any mutant"));
            }
        }
    }
    let mut bad = 0;
    say("| mutant | test | |\n|---|---|---|")?;
    for mutant in chosen {
        let fate = copy.with(mutant, || copy.try_test(mutant.test))?;
        bad += usize::from(!matches!(fate, Fate::Caught | Fate::Hung));
        let word = match fate {
            Fate::Caught => "caught".to_owned(),
            Fate::Hung => "caught: it did not end".to_owned(),
            Fate::Survived => "**survived**".to_owned(),
            Fate::Broken(why) => format!("**broken**: {why}"),
        };
        say(&format!("| {} | `{}` | {word} |", mutant.name, mutant.test))?;
    }
    match bad {
        0 => Ok(()),
        bad => Err(format!("{bad} mutant(s) were not caught")),
    }
}

/// A copy of the tree, with a folder of its own for what is built.
struct Copy {
    tree: PathBuf,
    built: PathBuf,
}

impl Copy {
    /// Copies everything that git knows or would take in. What has not changed keeps its date, so that
    /// it is not built again.
    fn of(root: &Path) -> Result<Self, String> {
        let folder = root.join("target/mutants");
        let copy = Self {
            tree: folder.join("tree"),
            built: folder.join("built"),
        };
        let list = Command::new("git")
            .args([
                "ls-files",
                "--cached",
                "--others",
                "--exclude-standard",
                "-z",
            ])
            .current_dir(root)
            .output()
            .map_err(|error| format!("cannot run git: {error}"))?;
        for name in list.stdout.split(|byte| *byte == 0) {
            let name = String::from_utf8_lossy(name).into_owned();
            // A file may be gone and not yet forgotten.
            if name.is_empty() || !root.join(&name).is_file() {
                continue;
            }
            let bytes = std::fs::read(root.join(&name)).map_err(|error| of(&name, &error))?;
            copy.write(&name, &bytes)?;
        }
        Ok(copy)
    }

    /// Runs `work` with the mutant in the tree.
    fn with<T>(
        &self,
        mutant: &Mutant,
        work: impl FnOnce() -> Result<T, String>,
    ) -> Result<T, String> {
        let path = self.tree.join(mutant.file);
        let text = std::fs::read_to_string(&path).map_err(|error| of(mutant.file, &error))?;
        let broken = text.replace(mutant.text, mutant.replacement);
        self.write(mutant.file, broken.as_bytes())?;
        let result = work();
        self.write(mutant.file, text.as_bytes())?;
        result
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), String> {
        let path = self.tree.join(name);
        if std::fs::read(&path).is_ok_and(|before| before == bytes) {
            return Ok(());
        }
        let folder = path.parent().expect("it has a name");
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&path, bytes))
            .map_err(|error| of(name, &error))
    }

    fn try_test(&self, test: &str) -> Result<Fate, String> {
        eprintln!("==> cargo test {test}");
        let (built, text) = self.cargo(test, &["--no-run"], BUILD_TIME_MAX)?;
        if built != Some(true) {
            let error = text.lines().find(|line| line.starts_with("error"));
            return Ok(Fate::Broken(
                error.unwrap_or("it does not build").to_owned(),
            ));
        }
        let (passed, text) = self.cargo(test, &[], TEST_TIME_MAX)?;
        // A name that nothing answers to passes, too.
        let ran = text
            .lines()
            .any(|line| line.starts_with("running ") && line != "running 0 tests");
        Ok(match passed {
            None => Fate::Hung,
            Some(_) if !ran => Fate::Broken("no such test".to_owned()),
            Some(true) => Fate::Survived,
            Some(false) => Fate::Caught,
        })
    }

    /// Whether cargo succeeded, if it ended in time, and what it said.
    fn cargo(
        &self,
        test: &str,
        more: &[&str],
        limit: Duration,
    ) -> Result<(Option<bool>, String), String> {
        let log = self.built.with_extension("log");
        let file = std::fs::File::create(&log).map_err(|error| of("the log", &error))?;
        let other = file.try_clone().map_err(|error| of("the log", &error))?;
        // `timeout` ends what it started, all of its process group, and nothing else. (`kill` with the
        // id of a group is no way to do that: some versions take `-123` for `-1`, which is everybody.)
        let status = Command::new("timeout")
            .args(["--signal=KILL", &limit.as_secs().to_string()])
            .arg(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .arg("test")
            .args(more)
            .args(test.split(' '))
            .env("CARGO_TARGET_DIR", &self.built)
            .current_dir(&self.tree)
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(other)
            .status()
            .map_err(|error| format!("cannot run timeout: {error}"))?;
        let ended = match status.code() {
            // It is in the group that it ends.
            None | Some(124 | 137) => None,
            Some(code) => Some(code == 0),
        };
        let text = std::fs::read(&log).map_err(|error| of("the log", &error))?;
        Ok((ended, String::from_utf8_lossy(&text).into_owned()))
    }
}

/// One line of the table, as soon as it is known.
fn say(line: &str) -> Result<(), String> {
    writeln!(std::io::stdout(), "{line}").map_err(|error| of("standard output", &error))
}

fn of(name: &str, error: &std::io::Error) -> String {
    format!("{name}: {error}")
}

const BUILD_TIME_MAX: Duration = Duration::from_secs(30 * 60);
const TEST_TIME_MAX: Duration = Duration::from_secs(3 * 60);
