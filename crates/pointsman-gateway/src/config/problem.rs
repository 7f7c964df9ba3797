//! What is wrong with a configuration, in the words in which an operator reads it.
//!
//! Every problem says which resource it is about, where in it, on which line and why. Reading and
//! compiling both report through [`Report`], so that none of them can forget the line.

use super::{schema::Issue, text::Lines};

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Something was left out, or requests will fail because of it.
    Error,
    /// Something is worth knowing.
    Warning,
}

/// Something that is wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The resource, such as `routes[0] (id chat)`.
    pub resource: String,
    /// The path inside it; empty for the whole.
    pub path: String,
    /// Its line in the file, from 1.
    pub line: Option<usize>,
    /// What is wrong.
    pub message: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        f.write_str(&self.resource)?;
        if !self.path.is_empty() {
            write!(f, " {}", self.path)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// The resource that a problem is about.
#[derive(Clone, Copy, Debug)]
pub struct Spot<'a> {
    /// Where it stands, such as `routes[0]`.
    pub place: &'a str,
    /// Its id, if it has one.
    pub id: Option<&'a str>,
}

impl<'a> Spot<'a> {
    /// A part of the document that is no resource, such as a collection.
    pub fn bare(place: &'a str) -> Self {
        Self { place, id: None }
    }
}

impl std::fmt::Display for Spot<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.place)?;
        // A place in a store is a key, which ends in the id.
        let told = |id: &&str| !self.place.starts_with('/') || !self.place.ends_with(*id);
        match self.id.as_ref().filter(|id| told(id)) {
            Some(id) => write!(f, " (id {id})"),
            None => Ok(()),
        }
    }
}

/// Collects problems and finds their lines.
pub struct Report<'a> {
    lines: &'a Lines,
    problems: Vec<Problem>,
}

impl<'a> Report<'a> {
    /// An empty one for the document whose lines these are.
    pub fn new(lines: &'a Lines) -> Self {
        Self {
            lines,
            problems: Vec::new(),
        }
    }

    /// Something at `path` of `spot` was left out, or makes requests fail.
    pub fn error(&mut self, spot: Spot<'_>, path: &str, message: impl Into<String>) {
        self.add(Severity::Error, spot, path, message.into());
    }

    /// Something at `path` of `spot` is worth knowing.
    pub fn warning(&mut self, spot: Spot<'_>, path: &str, message: impl Into<String>) {
        self.add(Severity::Warning, spot, path, message.into());
    }

    /// The same for all of `issues`.
    pub fn issues(&mut self, severity: Severity, spot: Spot<'_>, issues: Vec<Issue>) {
        for issue in issues {
            self.add(severity, spot, &issue.path, issue.message);
        }
    }

    /// Everything that was reported, in that order.
    pub fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    fn add(&mut self, severity: Severity, spot: Spot<'_>, path: &str, message: String) {
        let line = if path.is_empty() {
            self.lines.of(spot.place)
        } else {
            self.lines.of(&format!("{}.{path}", spot.place))
        };
        self.problems.push(Problem {
            severity,
            resource: spot.to_string(),
            path: path.to_owned(),
            line,
            message,
        });
    }
}
