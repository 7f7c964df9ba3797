//! Where everything stood: line numbers by path.
//!
//! Most documents are sound, and then nobody asks for a line. So reading notes as little as it
//! can (a number for the path, which grows with it and needs no text), and the first question
//! pays for the look-up table.

use std::sync::OnceLock;

use rustc_hash::FxHashMap;

/// Line numbers (from 1) by path, such as `routes[0].uri`.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    noted: Vec<(PathHash, u32)>,
    table: OnceLock<FxHashMap<PathHash, u32>>,
}

impl Lines {
    /// The line of `path`, or of the nearest thing around it.
    pub fn of(&self, path: &str) -> Option<usize> {
        let table = self
            .table
            .get_or_init(|| self.noted.iter().copied().collect());
        let mut path = path;
        loop {
            if let Some(line) = table.get(&PathHash::of(path)) {
                return usize::try_from(*line).ok();
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }

    pub(super) fn note(&mut self, path: PathHash, line: usize) {
        self.noted
            .push((path, u32::try_from(line).unwrap_or(u32::MAX)));
    }
}

/// A path as FNV-1a of its text: what two paths share is hashed once. Two paths with the same
/// hash would cost one of them its right line, nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct PathHash(u64);

impl PathHash {
    /// The path of the whole.
    pub(super) const ROOT: Self = Self(0xcbf2_9ce4_8422_2325);

    fn of(path: &str) -> Self {
        Self::ROOT.with(path.as_bytes())
    }

    /// The path of a member, as [`super::join`] makes it.
    pub(super) fn member(self, key: &str) -> Self {
        let start = if self == Self::ROOT {
            self
        } else {
            self.with(b".")
        };
        start.with(key.as_bytes())
    }

    /// The path of an item.
    pub(super) fn item(self, index: usize) -> Self {
        self.with(b"[")
            .with(itoa::Buffer::new().format(index).as_bytes())
            .with(b"]")
    }

    fn with(self, bytes: &[u8]) -> Self {
        Self(bytes.iter().fold(self.0, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_line_is_found() {
        let mut lines = Lines::default();
        let item = PathHash::ROOT.member("routes").item(12);
        lines.note(PathHash::ROOT.member("routes"), 1);
        lines.note(item, 40);
        lines.note(item.member("uri"), 41);
        for (path, line) in [
            ("routes[12].uri", Some(41)),
            ("routes[12].vars[0][1]", Some(40)),
            ("routes[1]", Some(1)),
            ("services[0]", None),
            ("", None),
        ] {
            assert_eq!(lines.of(path), line, "{path}");
        }
    }
}
