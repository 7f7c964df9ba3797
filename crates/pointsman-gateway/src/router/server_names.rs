//! Which certificate resource a server name belongs to.
//!
//! Asked twice: in a handshake for the name that a client sends (SNI), and for every request over
//! TLS for its `Host`, when client certificates are demanded. Both must find the same resource, so
//! the rule is here alone.

use std::collections::HashMap;

/// Something for each server name.
#[derive(Clone, Debug)]
pub struct ServerNames<T> {
    exact: HashMap<String, T>,
    /// `*.example.com` is kept as `example.com`.
    wildcard: HashMap<String, T>,
    any: Option<T>,
}

impl<T> Default for ServerNames<T> {
    fn default() -> Self {
        Self {
            exact: HashMap::new(),
            wildcard: HashMap::new(),
            any: None,
        }
    }
}

impl<T: Clone> ServerNames<T> {
    /// `value` for `names`, whatever they had before.
    pub fn add(&mut self, names: impl IntoIterator<Item = String>, value: &T) {
        for name in names {
            let name = normalise(&name);
            let value = value.clone();
            if name == "*" {
                self.any = Some(value);
            } else if let Some(parent) = name.strip_prefix("*.") {
                self.wildcard.insert(parent.to_owned(), value);
            } else {
                self.exact.insert(name, value);
            }
        }
    }
}

impl<T> ServerNames<T> {
    /// Exact name first, then the wildcard one label up, then `*`. `name` is normalised.
    pub fn find(&self, name: &str) -> Option<&T> {
        let parent = || name.split_once('.').map(|(_, parent)| parent);
        self.exact
            .get(name)
            .or_else(|| self.wildcard.get(parent()?))
            .or(self.any.as_ref())
    }
}

/// `name` in lower case, without the dot of the root.
pub fn normalise(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}
