//! What is wrong with a plugin's configuration beyond its schema.

use crate::config::schema::Issue;

/// Why a plugin cannot be made of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Faults {
    /// Its types do not fit. The schema says the same, with the place, so this is only for what
    /// slips through it.
    Unreadable(String),
    /// Rules that it breaks, by path in the configuration.
    Rules(Vec<Issue>),
}

/// A configuration whose types do not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable(pub String);

impl Faults {
    /// One fault, of the value at `path`.
    pub fn at(path: &str, message: impl Into<String>) -> Self {
        Self::Rules(vec![Issue::new(path, message)])
    }

    /// `Ok` if nothing was found.
    pub fn none_of(found: Vec<Issue>) -> Result<(), Self> {
        if found.is_empty() {
            Ok(())
        } else {
            Err(Self::Rules(found))
        }
    }

    /// All values, or all faults: unlike collecting into a `Result`, which stops at the first.
    pub fn collect<T>(results: impl IntoIterator<Item = Result<T, Self>>) -> Result<Vec<T>, Self> {
        let (mut values, mut found) = (Vec::new(), Vec::new());
        for result in results {
            match result {
                Ok(value) => values.push(value),
                Err(faults) => found.extend(faults.into_issues()),
            }
        }
        // Many of these stay as long as their configuration: thousands of lists of one.
        values.shrink_to_fit();
        Self::none_of(found).map(|()| values)
    }

    /// The same, of a configuration that stands at `path` in another.
    pub fn under(self, path: &str) -> Self {
        let issues = self.into_issues().into_iter();
        Self::Rules(issues.map(|issue| issue.under(path)).collect())
    }

    /// The same by path alone, of a configuration whose references have been replaced: words may repeat what
    /// they stood for.
    pub fn hidden(self) -> Self {
        let message = "it does not fit once its references are replaced";
        let issues = self.into_issues().into_iter();
        Self::Rules(
            issues
                .map(|issue| Issue::new(&issue.path, message))
                .collect(),
        )
    }

    /// One by one; never none.
    pub fn into_issues(self) -> Vec<Issue> {
        match self {
            Self::Unreadable(message) => vec![Issue::new("", message)],
            Self::Rules(issues) => issues,
        }
    }
}

impl From<Unreadable> for Faults {
    fn from(Unreadable(message): Unreadable) -> Self {
        Self::Unreadable(message)
    }
}

impl From<String> for Faults {
    fn from(message: String) -> Self {
        Self::at("", message)
    }
}

impl From<&str> for Faults {
    fn from(message: &str) -> Self {
        Self::at("", message)
    }
}
