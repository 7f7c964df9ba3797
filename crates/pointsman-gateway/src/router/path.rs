//! Paths as routing sees them, and back: nginx's `$uri`.
//!
//! Decoded once, dot segments resolved, repeated slashes merged. What goes to a target is encoded
//! again from this form, so a path that was odd on the way in arrives clean.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

/// Settings of `config.yaml` that change how a path is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathOptions {
    /// `apisix.delete_uri_tail_slash`.
    pub delete_tail_slash: bool,
    /// `apisix.normalize_uri_like_servlet`.
    pub servlet: bool,
    /// `apisix.match_uri_encoded_slash`.
    pub keep_encoded_slash: bool,
}

/// A path that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPath;

/// The decoded, normalised form of `path`.
pub fn normalise<'a>(path: &'a str, options: &PathOptions) -> Result<Cow<'a, str>, BadPath> {
    if path == "*" {
        // `OPTIONS *`
        return Ok(Cow::Borrowed(path));
    }
    if !path.starts_with('/') {
        return Err(BadPath);
    }
    let stripped = if options.servlet {
        servlet(path)?
    } else {
        Cow::Borrowed(path)
    };
    let mut normal = if is_clean(&stripped) {
        stripped
    } else {
        let decoded = decode(&stripped, *options)?;
        Cow::Owned(resolve(&decoded)?)
    };
    if options.delete_tail_slash && normal.len() > 1 && normal.ends_with('/') {
        normal = Cow::Owned(normal[..normal.len() - 1].to_owned());
    }
    Ok(normal)
}

/// `path` with everything encoded that may not stand in a request line.
pub fn encode(path: &str) -> Cow<'_, str> {
    Cow::from(utf8_percent_encode(path, NOT_IN_PATH))
}

fn is_clean(path: &str) -> bool {
    let bytes = path.as_bytes();
    let mut before = 0u8;
    for byte in bytes {
        let odd = matches!((before, *byte), (_, b'%') | (b'/', b'/' | b'.'));
        if odd {
            return false;
        }
        before = *byte;
    }
    true
}

fn decode(path: &str, options: PathOptions) -> Result<String, BadPath> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, ..] = rest else {
            return Err(BadPath);
        };
        let (Some(high_digit), Some(low_digit)) = (hex(*high), hex(*low)) else {
            return Err(BadPath);
        };
        let value = high_digit * 16 + low_digit;
        match value {
            0 => return Err(BadPath),
            b'/' if options.keep_encoded_slash => bytes.extend_from_slice(&[b'%', *high, *low]),
            _ => bytes.push(value),
        }
        rest = &rest[2..];
    }
    // Bytes that are no UTF-8 cannot match a configured path; say so rather than guess.
    String::from_utf8(bytes).map_err(|_| BadPath)
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

/// Merges slashes and resolves `.` and `..`; one that climbs above the root is an error.
fn resolve(path: &str) -> Result<String, BadPath> {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop().ok_or(BadPath)?;
            }
            _ => segments.push(segment),
        }
    }
    let mut normal = String::with_capacity(path.len());
    for segment in &segments {
        normal.push('/');
        normal.push_str(segment);
    }
    let directory = path.ends_with('/') || path.ends_with("/.") || path.ends_with("/..");
    if normal.is_empty() || directory {
        normal.push('/');
    }
    Ok(normal)
}

/// Removes `;parameters` from each segment, as servlet containers do.
fn servlet(path: &str) -> Result<Cow<'_, str>, BadPath> {
    let lower = path.to_ascii_lowercase();
    if ["%2f", "%2e", "%25", "%00"]
        .iter()
        .any(|odd| lower.contains(odd))
    {
        return Err(BadPath);
    }
    if !path.contains(';') {
        return Ok(Cow::Borrowed(path));
    }
    let segments: Vec<&str> = path
        .split('/')
        .map(|segment| segment.split(';').next().unwrap_or_default())
        .collect();
    if segments
        .iter()
        .skip(1)
        .any(|segment| matches!(*segment, "." | ".."))
    {
        return Err(BadPath);
    }
    Ok(Cow::Owned(segments.join("/")))
}

/// What nginx escapes when it builds a request line, and quotes.
const NOT_IN_PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'?')
    .add(b'<')
    .add(b'>')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}')
    .add(b'\\');

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(path: &str, expected: Result<&str, BadPath>) {
        let normal = normalise(path, &PathOptions::default());
        assert_eq!(normal.as_deref().map_err(|e| *e), expected, "{path}");
    }

    /// G-015
    #[test]
    fn paths_are_decoded_and_resolved() {
        check("/hello", Ok("/hello"));
        check("/%68ello", Ok("/hello"));
        check("//hello", Ok("/hello"));
        check("/x/../hello", Ok("/hello"));
        check("/a/./b/", Ok("/a/b/"));
        check("/a/b/..", Ok("/a/"));
        check("/", Ok("/"));
        check("/a%2Fb", Ok("/a/b"));
        check("/.hidden", Ok("/.hidden"));
        check("/..", Err(BadPath));
        check("/%2e%2e/etc", Err(BadPath));
        check("/%", Err(BadPath));
        check("/%zz", Err(BadPath));
        check("/%00", Err(BadPath));
        check("/%ff", Err(BadPath));
        check("", Err(BadPath));
        check("*", Ok("*"));
    }

    #[test]
    fn options_change_the_path() {
        let tail = PathOptions {
            delete_tail_slash: true,
            ..PathOptions::default()
        };
        assert_eq!(normalise("/a/", &tail).as_deref(), Ok("/a"));
        assert_eq!(normalise("/", &tail).as_deref(), Ok("/"));
        let slash = PathOptions {
            keep_encoded_slash: true,
            ..PathOptions::default()
        };
        assert_eq!(normalise("/a%2Fb", &slash).as_deref(), Ok("/a%2Fb"));
        let servlet = PathOptions {
            servlet: true,
            ..PathOptions::default()
        };
        assert_eq!(normalise("/a;x=1/b;y", &servlet).as_deref(), Ok("/a/b"));
        assert_eq!(normalise("/a/..;/b", &servlet), Err(BadPath));
        assert_eq!(normalise("/a%2f", &servlet), Err(BadPath));
    }

    proptest! {
        #[test]
        fn any_path_is_normal_or_refused(path in "/[ -~]{0,40}") {
            if let Ok(normal) = normalise(&path, &PathOptions::default()) {
                prop_assert!(normal.starts_with('/'));
                prop_assert!(!normal.contains("//"));
                if !normal.contains('%') {
                    let again = normalise(&normal, &PathOptions::default());
                    prop_assert_eq!(again.as_deref(), Ok(&*normal));
                }
                let encoded = encode(&normal);
                prop_assert!(encoded.bytes().all(|byte| byte > b' ' && byte < 127));
            }
        }
    }
}
