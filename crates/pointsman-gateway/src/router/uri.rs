//! URI patterns of routes: exact, prefix, wildcard segments and parameters.

/// A pattern, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UriPattern {
    /// Everything before the first wildcard or parameter; all of it for an exact pattern.
    pub(super) literal: String,
    /// What must hold for the rest of a path that starts with `literal`.
    pub(super) rest: Rest,
}

/// What may follow the literal part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Nothing.
    Nothing,
    /// Anything.
    Anything,
    /// Something for each `*`, and these texts between and after them, in order.
    Texts(Vec<String>),
    /// Segments.
    Segments(Vec<Segment>),
}

/// One segment of a pattern with parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    /// This text.
    Text(String),
    /// One non-empty segment, by name.
    One(String),
    /// All that is left, by name (which may be empty).
    All(String),
}

/// Path parameters that a match found.
pub(super) type Params = Vec<(String, String)>;

impl UriPattern {
    /// A pattern without parameters.
    pub(super) fn parse(pattern: &str) -> Self {
        let Some((literal, after)) = pattern.split_once('*') else {
            return Self {
                literal: pattern.to_owned(),
                rest: Rest::Nothing,
            };
        };
        // Text after a `*` counts only when the `*` is a segment of its own.
        let is_segment = literal.ends_with('/') && after.starts_with('/');
        let rest = if is_segment {
            Rest::Texts(after.split('*').map(str::to_owned).collect())
        } else {
            Rest::Anything
        };
        Self {
            literal: literal.to_owned(),
            rest,
        }
    }

    /// A pattern in which `:name` and a final `*name` are parameters.
    pub(super) fn with_parameters(pattern: &str) -> Self {
        let has_parameter = pattern.split('/').any(|segment| segment.starts_with(':'));
        let named_rest = pattern
            .rsplit('/')
            .next()
            .is_some_and(|last| last.len() > 1 && last.starts_with('*'));
        if !has_parameter && !named_rest {
            return Self::parse(pattern);
        }
        let start = pattern
            .match_indices('/')
            .map(|(at, _)| at + 1)
            .find(|at| pattern[*at..].starts_with([':', '*']))
            .unwrap_or(pattern.len());
        let segments = pattern[start..]
            .split('/')
            .map(|segment| match segment.chars().next() {
                Some(':') => Segment::One(segment[1..].to_owned()),
                Some('*') => Segment::All(segment[1..].to_owned()),
                _ => Segment::Text(segment.to_owned()),
            })
            .collect();
        Self {
            literal: pattern[..start].to_owned(),
            rest: Rest::Segments(segments),
        }
    }

    /// Whether a path that starts with the literal part matches as a whole.
    pub(super) fn matches_rest(&self, path: &str) -> Option<Params> {
        let rest = path.get(self.literal.len()..)?;
        match &self.rest {
            Rest::Nothing => rest.is_empty().then(Vec::new),
            Rest::Anything => Some(Vec::new()),
            Rest::Texts(texts) => matches_texts(rest, texts).then(Vec::new),
            Rest::Segments(segments) => match_segments(rest, segments),
        }
    }
}

/// Each `*` takes at least one character, as little as possible; the last text must end the path.
fn matches_texts(mut rest: &str, texts: &[String]) -> bool {
    let Some((last, between)) = texts.split_last() else {
        return true;
    };
    for text in between {
        let Some(first) = rest.chars().next() else {
            return false;
        };
        let from = first.len_utf8();
        let Some(at) = rest[from..].find(text.as_str()) else {
            return false;
        };
        rest = &rest[from + at + text.len()..];
    }
    let taken = rest.len().saturating_sub(last.len());
    rest.ends_with(last.as_str()) && taken > 0
}

fn match_segments(rest: &str, segments: &[Segment]) -> Option<Params> {
    let mut params = Vec::new();
    let mut left = Some(rest);
    for segment in segments {
        let here = left?;
        if let Segment::All(name) = segment {
            params.push((name.clone(), here.to_owned()));
            return Some(params);
        }
        let (one, after) = match here.split_once('/') {
            Some((one, after)) => (one, Some(after)),
            None => (here, None),
        };
        match segment {
            Segment::Text(text) if text == one => {}
            Segment::One(name) if !one.is_empty() => params.push((name.clone(), one.to_owned())),
            _ => return None,
        }
        left = after;
    }
    left.is_none().then_some(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &UriPattern, path: &str) -> Option<Params> {
        path.starts_with(&pattern.literal)
            .then(|| pattern.matches_rest(path))
            .flatten()
    }

    /// G-005, G-006, G-012, G-013
    #[test]
    fn patterns_without_parameters() {
        let matches =
            |pattern: &str, path: &str| check(&UriPattern::parse(pattern), path).is_some();
        assert!(matches("/foo", "/foo") && !matches("/foo", "/foo/"));
        for path in ["/foo", "/foobar", "/foo/x"] {
            assert!(matches("/foo*", path), "{path}");
        }
        assert!(
            !matches("/foo/*", "/foo")
                && matches("/foo/*", "/foo/")
                && matches("/foo/*", "/foo/a/b")
        );
        assert!(matches("/a/*/b", "/a/x/b") && matches("/a/*/b", "/a/x/y/b"));
        assert!(!matches("/a/*/b", "/a/b") && !matches("/a/*/b", "/a/x/c"));
        assert!(matches("/foo*bar", "/foo/anything"));
        assert!(matches("/blog/:id", "/blog/:id") && !matches("/blog/:id", "/blog/1"));
        assert!(matches("/a/*/b/*", "/a/x/b/y") && !matches("/a/*/b/*", "/a/x/b/"));
    }

    /// G-014
    #[test]
    fn patterns_with_parameters() {
        let params = |pattern: &str, path: &str| check(&UriPattern::with_parameters(pattern), path);
        let one = |name: &str, value: &str| Some(vec![(name.to_owned(), value.to_owned())]);
        assert_eq!(params("/blog/:id", "/blog/1"), one("id", "1"));
        assert_eq!(params("/blog/:id", "/blog/1/2"), None);
        assert_eq!(params("/blog/:id", "/blog/"), None);
        assert_eq!(params("/u/:id/x", "/u/7/x"), one("id", "7"));
        assert_eq!(params("/f/*rest", "/f/a/b"), one("rest", "a/b"));
        assert_eq!(params("/plain/*", "/plain/x"), Some(Vec::new()));
    }
}
