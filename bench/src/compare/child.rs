//! A process that this program started and will end, whatever happens to the run.
//!
//! Output goes to files, which can be searched for a line and quoted in an error without a thread
//! that drains a pipe. Each child leads a process group of its own: a Ctrl-C in the terminal
//! reaches only us, who then end the children in order, and a worker that outlived its master is
//! still found.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::interrupt::{Interrupt, LOOK_EVERY};
use crate::clock;
use crate::procfs::{self, Pid};

/// Ended when dropped: SIGTERM, some time to comply, then SIGKILL to all that is left of its group.
#[derive(Debug)]
pub(super) struct Child {
    name: &'static str,
    process: std::process::Child,
    output: PathBuf,
    errors: PathBuf,
}

/// Where a child's standard error goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Errors {
    ToFile,
    ToTerminal,
}

/// A command that runs on the given core, or anywhere.
pub(super) fn command(core: Option<usize>, program: &Path) -> Command {
    let Some(core) = core else {
        return Command::new(program);
    };
    let mut pinned = Command::new("taskset");
    pinned.args(["-c", &core.to_string()]).arg(program);
    pinned
}

impl Child {
    /// Starts a command whose output goes to files in `folder` that are named after it.
    pub(super) fn start(
        name: &'static str,
        command: &mut Command,
        folder: &Path,
        errors_go: Errors,
    ) -> Result<Self, String> {
        let (output, errors) = (
            folder.join(format!("{name}.out")),
            folder.join(format!("{name}.err")),
        );
        let create = |path: &Path| {
            File::create(path).map_err(|error| format!("{}: {error}", path.display()))
        };
        command
            .stdout(create(&output)?)
            .stdin(Stdio::piped())
            .process_group(0);
        if errors_go == Errors::ToFile {
            command.stderr(create(&errors)?);
        }
        let process = command
            .spawn()
            .map_err(|error| cannot_start(command, &error))?;
        Ok(Self {
            name,
            process,
            output,
            errors,
        })
    }

    pub(super) fn pid(&self) -> Pid {
        Pid(self.process.id())
    }

    /// Waits until `find` finds what it looks for in what the child has printed so far (output,
    /// then errors).
    pub(super) fn wait_for<T>(
        &mut self,
        interrupt: &Interrupt,
        find: impl Fn(&str) -> Option<T>,
    ) -> Result<T, String> {
        let give_up = clock::now() + START_DEADLINE;
        loop {
            if let Some(found) = find(&self.printed()) {
                return Ok(found);
            }
            if let Ok(Some(status)) = self.process.try_wait() {
                return Err(self.complaint(&format!("ended with {status}")));
            }
            if clock::now() > give_up {
                return Err(self.complaint(&format!("not ready after {START_DEADLINE:?}")));
            }
            interrupt.pause(LOOK_EVERY)?;
        }
    }

    /// Waits for the end and returns standard output; an exit status other than 0 is an error.
    pub(super) fn finish(mut self, interrupt: &Interrupt) -> Result<String, String> {
        loop {
            match self.process.try_wait() {
                Ok(Some(status)) if status.success() => {
                    return fs::read_to_string(&self.output).map_err(|error| error.to_string());
                }
                Ok(Some(status)) => return Err(self.complaint(&format!("ended with {status}"))),
                Ok(None) => interrupt.pause(LOOK_EVERY)?,
                Err(error) => return Err(self.complaint(&error.to_string())),
            }
        }
    }

    /// What went wrong, with the end of what the child printed.
    pub(super) fn complaint(&self, what: &str) -> String {
        let printed = self.printed();
        let lines: Vec<&str> = printed.lines().collect();
        let shown = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n  ");
        format!("{}: {what}\n  {shown}", self.name)
    }

    fn printed(&self) -> String {
        let read =
            |path: &Path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        [&self.output, &self.errors]
            .map(|path| read(path).unwrap_or_default())
            .concat()
    }

    fn has_ended(&mut self) -> bool {
        // An error here means that there is nothing to wait for.
        !matches!(self.process.try_wait(), Ok(None))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let root = self.pid();
        if !self.has_ended() {
            signal("TERM", root);
            wait_until(|| self.has_ended());
        }
        // Both return at once if the process has ended, which was all that we wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
        for orphan in procfs::group(root) {
            signal("KILL", orphan);
        }
        wait_until(|| procfs::group(root).is_empty());
    }
}

/// Waits for what must happen soon, but not for ever. An interrupt doesn't shorten it: it is what
/// cleaning up takes.
fn wait_until(mut happened: impl FnMut() -> bool) {
    let give_up = clock::now() + STOP_DEADLINE;
    while !happened() && clock::now() < give_up {
        thread::sleep(LOOK_EVERY);
    }
}

/// Sends a signal through the shell's own `kill`: the standard library knows only SIGKILL.
fn signal(name: &str, pid: Pid) {
    let script = "kill -s \"$0\" \"$1\" 2>/dev/null";
    // If the process is gone by now, that is what was wanted.
    let _ = Command::new("sh")
        .args(["-c", script, name, &pid.0.to_string()])
        .status();
}

fn cannot_start(command: &Command, error: &io::Error) -> String {
    format!("cannot start {}: {error}", command.get_program().display())
}

/// A gateway or mock that isn't ready by then never will be.
const START_DEADLINE: Duration = Duration::from_secs(20);

/// Between SIGTERM and SIGKILL.
const STOP_DEADLINE: Duration = Duration::from_secs(3);

/// Lines of a child's output in an error.
const SHOWN_LINES: usize = 15;

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, folder: &Path) -> Child {
        Child::start(
            "child",
            Command::new("sh").args(["-c", script]),
            folder,
            Errors::ToFile,
        )
        .unwrap()
    }

    #[test]
    fn a_dropped_child_is_gone_and_so_are_its_own_children() {
        let (folder, interrupt) = (tempfile::tempdir().unwrap(), Interrupt::never());
        let mut child = shell("sleep 600 & echo up; wait", folder.path());
        let pid = child.pid();
        child
            .wait_for(&interrupt, |printed| printed.contains("up").then_some(()))
            .unwrap();
        assert!(procfs::tree(pid).len() >= 2);
        drop(child);
        let alive = procfs::group(pid);
        assert_eq!(alive, Vec::new());
    }

    #[test]
    fn a_failed_child_is_quoted() {
        let (folder, interrupt) = (tempfile::tempdir().unwrap(), Interrupt::never());
        let error = shell("echo why >&2; exit 3", folder.path())
            .finish(&interrupt)
            .unwrap_err();
        assert!(
            error.contains("exit status: 3") && error.contains("why"),
            "{error}"
        );
        assert_eq!(
            shell("echo fine", folder.path()).finish(&interrupt),
            Ok("fine\n".to_owned())
        );
        let waited = shell("exit 4", folder.path()).wait_for(&interrupt, |_| None::<()>);
        assert!(waited.is_err_and(|error| error.contains("exit status: 4")));
    }
}
