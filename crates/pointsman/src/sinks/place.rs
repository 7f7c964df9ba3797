//! What the path of a log stands for: a file, or one of the process's own streams.
//!
//! A path such as `/dev/stdout`, or a link to it, is written through the stream's own descriptor.
//! Opening it would fail when it is a socket (as under systemd), and when it is a file would give
//! it a second position, so that two writers overwrite each other. A descriptor above 2 is opened
//! by its path: pipes and files can be, a socket cannot.

use std::{
    fs::{File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

/// Where lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Standard output, whatever that is.
    Stdout,
    /// Standard error.
    Stderr,
    /// What the path names whenever it is opened.
    File,
}

impl Place {
    /// The place that `path` stands for, links followed.
    pub(super) fn of(path: &Path) -> Self {
        let mut path = path.to_path_buf();
        for _ in 0..LINKS_MAX {
            match descriptor(&path) {
                Some(1) => return Self::Stdout,
                Some(2) => return Self::Stderr,
                Some(_) => return Self::File,
                None => {}
            }
            let Ok(target) = std::fs::read_link(&path) else {
                return Self::File;
            };
            path = match path.parent() {
                Some(folder) => folder.join(target),
                None => target,
            };
        }
        Self::File
    }

    /// A file at whose end lines are appended. `path` is the one that the place was made of.
    ///
    /// # Errors
    /// When the path cannot be opened, or the stream is closed.
    pub(super) fn open(self, path: &Path) -> io::Result<File> {
        match self {
            Self::Stdout => own(&io::stdout()),
            Self::Stderr => own(&io::stderr()),
            Self::File => OpenOptions::new().create(true).append(true).open(path),
        }
    }
}

/// Why nothing can be appended at `path`, as far as that can be seen without touching anything;
/// `None` if nothing speaks against it.
pub(crate) fn problem(path: &str) -> Option<String> {
    let path = Path::new(path);
    if Place::of(path) != Place::File {
        return None;
    }
    if path.is_dir() {
        return Some(format!("{} is a folder: name a file in it", path.display()));
    }
    let folder = folder(path);
    match std::fs::metadata(&folder) {
        Ok(found) if found.is_dir() => None,
        Ok(_) => Some(format!("{} is not a folder", folder.display())),
        Err(error) => Some(format!(
            "the folder {} of this log cannot be used: {error}: create it, or name another",
            folder.display()
        )),
    }
}

/// What can be done about an `error` of opening `path`.
pub(super) fn advice(path: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!("create the folder {}", folder(path).display()),
        io::ErrorKind::PermissionDenied => "let this user write there".to_owned(),
        io::ErrorKind::IsADirectory => "name a file in it".to_owned(),
        _ => "name another file".to_owned(),
    }
}

fn folder(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// The number of the descriptor of this process that `path` names by itself.
fn descriptor(path: &Path) -> Option<u32> {
    let known = match path.to_str() {
        Some("/dev/stdout") => Some(1),
        Some("/dev/stderr") => Some(2),
        _ => None,
    };
    if known.is_some() {
        return known;
    }
    let folder = path.parent()?;
    let is_ours = folder == Path::new("/dev/fd") || {
        let folder = folder.canonicalize().ok()?;
        let number = std::process::id();
        [
            format!("/proc/{number}/fd"),
            format!("/proc/{number}/task/{number}/fd"),
        ]
        .iter()
        .any(|own| folder == Path::new(own))
    };
    let name = path.file_name()?.to_str()?;
    is_ours.then(|| name.parse().ok())?
}

#[cfg(unix)]
fn own(stream: &impl std::os::fd::AsFd) -> io::Result<File> {
    stream.as_fd().try_clone_to_owned().map(File::from)
}

#[cfg(not(unix))]
fn own<T>(_: &T) -> io::Result<File> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

/// As many links as systems follow.
const LINKS_MAX: usize = 40;

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_streams_are_found_under_all_their_names() {
        let folder = tempfile::tempdir().expect("a folder");
        let link = folder.path().join("access.log");
        let second = folder.path().join("second.log");
        std::os::unix::fs::symlink("/dev/stdout", &link).expect("linked");
        std::os::unix::fs::symlink("access.log", &second).expect("linked");
        let own = format!("/proc/{}/fd/2", std::process::id());
        let check = |path: &str, place| assert_eq!(Place::of(Path::new(path)), place, "{path}");
        for path in ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
            check(path, Place::Stdout);
        }
        check(second.to_str().expect("UTF-8"), Place::Stdout);
        for path in ["/dev/stderr", "/proc/self/fd/2", "/dev/../dev/fd/2", &own] {
            check(path, Place::Stderr);
        }
        for path in ["/dev/null", "/proc/self/fd/77", "/proc/1/fd/1", "fd/1", ""] {
            check(path, Place::File);
        }
        let circle = folder.path().join("circle");
        std::os::unix::fs::symlink(&circle, &circle).expect("linked");
        check(circle.to_str().expect("UTF-8"), Place::File);
    }

    #[test]
    fn what_speaks_against_a_path_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(at("file"), "").expect("written");
        assert_eq!(problem(&at("log")), None);
        assert_eq!(problem("log"), None);
        assert_eq!(problem("/dev/stdout"), None);
        let told = |path: &str| problem(path).expect("a problem");
        assert!(told(&at("missing/log")).contains("create it"));
        assert!(told(&at("file/log")).contains("is not a folder"));
        assert!(told(&at("")).contains("is a folder"));
    }
}
