//! Regular expressions as operators write them: PCRE syntax, unanchored.
//!
//! Compiled once, when configuration is loaded, and matched under a limit, so
//! that no request can make a pattern run for long. Most patterns in the wild
//! are only `^/v1/` or `^chat$`; those never reach the engine.
//!
//! One difference from PCRE in byte mode is accepted: `\w`, `\d` and case
//! folding know Unicode.

use std::ops::{ControlFlow, Range};

use fancy_regex::{Regex, RegexBuilder};

/// Steps a backtracking match may take before it is given up.
pub const BACKTRACK_LIMIT: usize = 100_000;

/// Bytes one compiled pattern may take.
pub const COMPILED_BYTES_MAX: usize = 10 << 20;

/// Whether upper and lower case differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// `A` is not `a`.
    Sensitive,
    /// `A` is `a`.
    Insensitive,
}

/// A compiled pattern.
#[derive(Debug, Clone)]
pub struct Pattern {
    engine: Engine,
}

/// The pattern cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid regex '{pattern}': {reason}")]
pub struct PatternError {
    /// As configured.
    pub pattern: String,
    /// What the engine says about it.
    pub reason: String,
}

/// The match was given up: see [`BACKTRACK_LIMIT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("regex took too many steps on this input")]
pub struct MatchLimit;

/// The first place at which a pattern occurs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occurrence {
    /// Bytes of the text that it covers.
    pub range: Range<usize>,
    /// What `$0` (all of it), `$1`, `$2` and so on stand for. A group that took no part is empty.
    pub groups: Vec<String>,
}

#[derive(Debug, Clone)]
enum Engine {
    Equals(Box<str>),
    StartsWith(Box<str>),
    EndsWith(Box<str>),
    Contains(Box<str>),
    Regex(Box<Regex>),
}

impl Pattern {
    /// Compiles `pattern`.
    ///
    /// # Errors
    /// When the syntax is wrong or the result would exceed
    /// [`COMPILED_BYTES_MAX`].
    pub fn new(pattern: &str, case: Case) -> Result<Self, PatternError> {
        if case == Case::Sensitive
            && let Some(engine) = Engine::literal(pattern)
        {
            return Ok(Self { engine });
        }
        let regex = RegexBuilder::new(pattern)
            .case_insensitive(case == Case::Insensitive)
            .backtrack_limit(BACKTRACK_LIMIT)
            .delegate_size_limit(COMPILED_BYTES_MAX)
            .build()
            .map_err(|error| PatternError {
                pattern: pattern.to_owned(),
                reason: error.to_string(),
            })?;
        Ok(Self {
            engine: Engine::Regex(Box::new(regex)),
        })
    }

    /// Whether the pattern occurs anywhere in `text`.
    ///
    /// # Errors
    /// When the match took more than [`BACKTRACK_LIMIT`] steps; the answer is
    /// then unknown, and a caller must not take it for a "no".
    pub fn is_match(&self, text: &str) -> Result<bool, MatchLimit> {
        Ok(match &self.engine {
            Engine::Equals(literal) => text == &**literal,
            Engine::StartsWith(literal) => text.starts_with(&**literal),
            Engine::EndsWith(literal) => text.ends_with(&**literal),
            Engine::Contains(literal) => text.contains(&**literal),
            Engine::Regex(regex) => return regex.is_match(text).map_err(|_| MatchLimit),
        })
    }

    /// The first place in `text` at which the pattern occurs, with its groups; `None` when it
    /// does not.
    ///
    /// # Errors
    /// As [`Self::is_match`].
    pub fn find(&self, text: &str) -> Result<Option<Occurrence>, MatchLimit> {
        let literal = |at: usize, literal: &str| Occurrence {
            range: at..at + literal.len(),
            groups: vec![literal.to_owned()],
        };
        Ok(match &self.engine {
            Engine::Equals(l) => (text == &**l).then(|| literal(0, l)),
            Engine::StartsWith(l) => text.starts_with(&**l).then(|| literal(0, l)),
            Engine::EndsWith(l) => text
                .ends_with(&**l)
                .then(|| literal(text.len() - l.len(), l)),
            Engine::Contains(l) => text.find(&**l).map(|at| literal(at, l)),
            Engine::Regex(regex) => {
                let captures = regex.captures(text).map_err(|_| MatchLimit)?;
                captures.and_then(|captures| {
                    let range = captures.get(0)?.range();
                    let groups = captures.iter().map(|group| {
                        group.map_or_else(String::new, |group| group.as_str().to_owned())
                    });
                    Some(Occurrence {
                        range,
                        groups: groups.collect(),
                    })
                })
            }
        })
    }
}

/// Whether to go on from an occurrence.
type Visited = ControlFlow<()>;
/// What is shown of one: where it is, and what a group stands for there.
type Visit<'v, 't> = dyn FnMut(Range<usize>, &dyn Fn(usize) -> &'t str) -> Visited + 'v;

impl Pattern {
    /// Shows `visit` each place in `text` at which the pattern occurs, in order, and what its groups
    /// stand for there, until it has seen enough.
    ///
    /// # Errors
    /// As [`Self::is_match`].
    pub fn each<'t>(&self, text: &'t str, visit: &mut Visit<'_, 't>) -> Result<(), MatchLimit> {
        let Engine::Regex(regex) = &self.engine else {
            return self.each_literal(text, visit);
        };
        for captures in regex.captures_iter(text) {
            let captures = captures.map_err(|_| MatchLimit)?;
            let group = |index| captures.get(index).map_or("", |group| group.as_str());
            let Some(whole) = captures.get(0) else {
                continue;
            };
            if visit(whole.range(), &group).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn each_literal<'t>(&self, text: &'t str, visit: &mut Visit<'_, 't>) -> Result<(), MatchLimit> {
        let mut show = |range: Range<usize>| {
            let whole = &text[range.clone()];
            visit(range, &|index| if index == 0 { whole } else { "" })
        };
        if let Engine::Contains(literal) = &self.engine {
            for (at, found) in text.match_indices(&**literal) {
                if show(at..at + found.len()).is_break() {
                    break;
                }
            }
        } else if let Some(found) = self.find(text)? {
            let _ = show(found.range);
        }
        Ok(())
    }
}

impl Engine {
    /// The plain comparison a pattern without metacharacters comes down to.
    fn literal(pattern: &str) -> Option<Self> {
        let (at_start, rest) = match pattern.strip_prefix('^') {
            Some(rest) => (true, rest),
            None => (false, pattern),
        };
        let (at_end, literal) = match rest.strip_suffix('$') {
            Some(literal) => (true, literal),
            None => (false, rest),
        };
        if literal.contains(METACHARACTERS) {
            return None;
        }
        let literal = Box::from(literal);
        Some(match (at_start, at_end) {
            (true, true) => Self::Equals(literal),
            (true, false) => Self::StartsWith(literal),
            (false, true) => Self::EndsWith(literal),
            (false, false) => Self::Contains(literal),
        })
    }
}

const METACHARACTERS: [char; 14] = [
    '\\', '.', '+', '*', '?', '(', ')', '|', '[', ']', '{', '}', '^', '$',
];

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, case: Case, text: &str, expected: bool) {
        let compiled = Pattern::new(pattern, case).unwrap();
        assert_eq!(
            compiled.is_match(text),
            Ok(expected),
            "{pattern:?} on {text:?}"
        );
    }

    #[test]
    fn literals_take_the_short_way_and_mean_the_same() {
        for pattern in ["", "^", "$", "^$", "ab", "^ab", "ab$", "^ab$", "/v1/"] {
            let short = Pattern::new(pattern, Case::Sensitive).unwrap();
            assert!(!matches!(short.engine, Engine::Regex(_)), "{pattern:?}");
            let long = Regex::new(pattern).unwrap();
            for text in ["", "ab", "abc", "xab", "xabc", "a", "AB", "x/v1/y"] {
                assert_eq!(
                    short.is_match(text).unwrap(),
                    long.is_match(text).unwrap(),
                    "{pattern:?} on {text:?}"
                );
                let found = short.find(text).unwrap().map(|found| found.range);
                let range = long.find(text).unwrap().map(|found| found.range());
                assert_eq!(found, range, "{pattern:?} on {text:?}");
            }
        }
    }

    #[test]
    fn pcre_features_work() {
        check("^(?!internal-).+$", Case::Sensitive, "gpt-4", true);
        check("^(?!internal-).+$", Case::Sensitive, "internal-4", false);
        check(r"(a)\1", Case::Sensitive, "xaax", true);
        check("gpt", Case::Insensitive, "GPT-4", true);
        check("gpt", Case::Sensitive, "GPT-4", false);
    }

    #[test]
    fn the_first_place_and_its_groups_are_found() {
        let find = |pattern: &str, text: &str| {
            let found = Pattern::new(pattern, Case::Sensitive).unwrap().find(text);
            found.unwrap().map(|found| (found.range, found.groups))
        };
        let groups = |groups: &[&str]| groups.iter().map(|group| (*group).to_owned()).collect();
        assert_eq!(find("/a/", "/x/a/a/"), Some((2..5, groups(&["/a/"]))));
        assert_eq!(
            find("/(a)|(b)", "/x/a/b"),
            Some((2..4, groups(&["/a", "a", ""])))
        );
        assert_eq!(find("^/b", "/a/b"), None);
    }

    #[test]
    fn a_broken_pattern_is_refused() {
        for pattern in ["(", "[", "a{2,1}", r"\p{Nope}", "(?P<x"] {
            let error = Pattern::new(pattern, Case::Sensitive).unwrap_err();
            assert_eq!(error.pattern, pattern);
            assert!(error.to_string().starts_with("invalid regex '"));
        }
        assert!(Pattern::new(&"(".repeat(100_000), Case::Sensitive).is_err());
        assert!(Pattern::new("(?:a{1000}){10000}", Case::Sensitive).is_err());
    }

    #[test]
    fn runaway_backtracking_is_given_up() {
        let pattern = Pattern::new(r"^(a+)+\1b$", Case::Sensitive).unwrap();
        assert_eq!(pattern.is_match(&"a".repeat(64)), Err(MatchLimit));
        assert_eq!(pattern.find(&"a".repeat(64)), Err(MatchLimit));
    }
}
