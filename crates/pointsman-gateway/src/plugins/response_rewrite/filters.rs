//! `filters`: patterns in the body of a response, and what replaces them.

use std::{io::Read as _, ops::ControlFlow, sync::Arc, time::Duration};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;

use super::FilterConf;
use crate::{
    clock,
    config::plugin_schema::Faults,
    forward::relay::TooLong,
    router::pattern::{Case, Pattern},
};

/// One of them.
pub(super) struct Filter {
    pattern: Pattern,
    replacement: Vec<Part>,
    once: bool,
}

/// A part of a replacement.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Group(usize),
}

/// How a body came over the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// As it is.
    Identity,
    /// `gzip`.
    Gzip,
}

impl Coding {
    /// The one that `Content-Encoding` says; `None` if it is not known here.
    pub(super) fn named(name: &[u8]) -> Option<Self> {
        let name = name.trim_ascii();
        if name.is_empty() || name.eq_ignore_ascii_case(b"identity") {
            Some(Self::Identity)
        } else if name.eq_ignore_ascii_case(b"gzip") || name.eq_ignore_ascii_case(b"x-gzip") {
            Some(Self::Gzip)
        } else {
            None
        }
    }
}

impl Filter {
    pub(super) fn new(conf: &FilterConf, path: &str) -> Result<Self, Faults> {
        let pattern = format!("{}{}", flags(&conf.options, path)?, conf.regex);
        let pattern = Pattern::new(&pattern, Case::Sensitive).map_err(|error| {
            let path = format!("{path}.regex");
            let text = format!(
                "regex \"{}\" validation failed: {}",
                conf.regex, error.reason
            );
            Faults::at(&path, text)
        })?;
        Ok(Self {
            pattern,
            replacement: parts(&conf.replace),
            once: conf.scope == "once",
        })
    }

    /// `text` with what stands for the pattern, if that has no more than `limit` bytes.
    fn apply(&self, text: &str, limit: usize) -> Result<String, TooLong> {
        let mut out = String::with_capacity(text.len().min(limit));
        let mut copied = 0;
        // Others are served by the same thread.
        let (until, mut is_late) = (clock::now() + TIME_MAX, false);
        let done = self.pattern.each(text, &mut |range, group| {
            is_late = clock::now() >= until;
            if is_late {
                return ControlFlow::Break(());
            }
            out.push_str(&text[copied..range.start]);
            copied = range.end;
            for part in &self.replacement {
                match part {
                    Part::Text(text) => out.push_str(text),
                    Part::Group(index) => out.push_str(group(*index)),
                }
            }
            if self.once || out.len() > limit {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        if is_late {
            tracing::warn!("response-rewrite: a filter took too long over a body, which is cut");
            return Err(TooLong);
        }
        if let Err(error) = done {
            // What should have been replaced must not get out.
            tracing::warn!(%error, "response-rewrite: a filter gave up on a body, which is cut");
            return Err(TooLong);
        }
        out.push_str(&text[copied..]);
        if out.len() > limit {
            return Err(TooLong);
        }
        Ok(out)
    }
}

/// `body`, which came as `coding`, with all `filters` applied. One that is no text, or does not come
/// out of its coding, is passed on as it is.
pub(super) fn apply(
    filters: &Arc<[Filter]>,
    body: Bytes,
    coding: Coding,
    limit: u64,
) -> Result<Bytes, TooLong> {
    if body.is_empty() {
        return Ok(body);
    }
    let plain = match coding {
        Coding::Identity => body,
        Coding::Gzip => unzip(&body, limit)?,
    };
    let Ok(text) = std::str::from_utf8(&plain) else {
        tracing::warn!("response-rewrite: a body is no UTF-8 text; its filters are left out");
        return Ok(plain);
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut filters = filters.iter();
    let Some(first) = filters.next() else {
        return Ok(plain);
    };
    let text = first.apply(text, limit)?;
    let text = filters.try_fold(text, |text, filter| filter.apply(&text, limit))?;
    Ok(text.into())
}

fn unzip(body: &Bytes, limit: u64) -> Result<Bytes, TooLong> {
    let mut plain = Vec::new();
    // One byte more tells whether there is too much.
    let mut reader = MultiGzDecoder::new(&body[..]).take(limit.saturating_add(1));
    if let Err(error) = reader.read_to_end(&mut plain) {
        // The head does not say gzip any more, so what cannot be read cannot be passed on.
        tracing::warn!(%error, "response-rewrite: a body is not the gzip that it claims to be");
        return Err(TooLong);
    }
    if plain.len() as u64 > limit {
        return Err(TooLong);
    }
    Ok(plain.into())
}

/// The options of PCRE that make a difference here, as flags at the start of a pattern.
fn flags(options: &str, path: &str) -> Result<String, Faults> {
    let mut flags = String::new();
    for option in options.chars() {
        match option {
            // Compiling, caching and UTF-8 are as they are.
            'j' | 'o' | 'u' | 'U' => {}
            'i' | 'm' | 's' | 'x' => flags.push(option),
            other => {
                let path = format!("{path}.options");
                let text = format!("{path}: `{other}` is not supported (i, j, m, o, s, u, x)");
                return Err(Faults::at(&path, text));
            }
        }
    }
    Ok(match flags.as_str() {
        "" => flags,
        _ => format!("(?{flags})"),
    })
}

/// `$1`, `${1}` and `$$` in a replacement, as `ngx.re.sub` reads them.
fn parts(text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        plain.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let braced = after.strip_prefix('{').and_then(|inside| {
            let (digits, behind) = inside.split_once('}')?;
            Some((digits, behind))
        });
        let end = after.find(|c: char| !c.is_ascii_digit());
        let bare = after.split_at(end.unwrap_or(after.len()));
        let (digits, behind) = braced.unwrap_or(bare);
        match digits.parse() {
            Ok(group) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                if !plain.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut plain)));
                }
                parts.push(Part::Group(group));
                rest = behind;
            }
            _ => {
                plain.push('$');
                rest = after.strip_prefix('$').unwrap_or(after);
            }
        }
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        parts.push(Part::Text(plain));
    }
    parts
}

/// How long a filter may take over one body.
const TIME_MAX: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn filter(regex: &str, replace: &str, scope: &str, options: &str) -> Filter {
        let conf = FilterConf {
            regex: regex.to_owned(),
            replace: replace.to_owned(),
            scope: scope.to_owned(),
            options: options.to_owned(),
        };
        Filter::new(&conf, "filters[0]").expect("valid")
    }

    #[test]
    fn patterns_are_replaced_once_or_everywhere() {
        for (regex, replace, scope, options, expected) in [
            ("hello", "bye", "once", "jo", "bye hello HELLO"),
            ("hello", "bye", "global", "jo", "bye bye HELLO"),
            ("hello", "bye", "global", "ijo", "bye bye bye"),
            ("^hello", "bye", "global", "jo", "bye hello HELLO"),
            (
                "(h)(e)",
                "$2${1}$$1$3$x",
                "once",
                "",
                "eh$1$xllo hello HELLO",
            ),
            ("(?<=l)o", "0", "global", "", "hell0 hell0 HELLO"),
            (
                "x*",
                "-",
                "global",
                "",
                "-h-e-l-l-o- -h-e-l-l-o- -H-E-L-L-O-",
            ),
            ("none", "some", "global", "", "hello hello HELLO"),
        ] {
            let filter = filter(regex, replace, scope, options);
            let found = filter.apply("hello hello HELLO", 100);
            assert_eq!(found.as_deref(), Ok(expected), "{regex}");
        }
    }

    #[test]
    fn what_would_be_too_long_is_refused() {
        let long = filter("a", &"b".repeat(100), "global", "");
        assert_eq!(long.apply(&"a".repeat(1000), 5000), Err(TooLong));
        assert_eq!(long.apply("aa", 200).map(|text| text.len()), Ok(200));
        assert_eq!(long.apply("aac", 200), Err(TooLong));
    }

    #[test]
    fn bodies_come_out_of_their_coding() {
        let mut zip = GzEncoder::new(Vec::new(), Compression::default());
        zip.write_all(&b"hello".repeat(1000)).expect("in memory");
        let zipped = Bytes::from(zip.finish().expect("in memory"));
        let filters: Arc<[Filter]> = Arc::new([filter("hello", "bye", "global", "")]);
        let run = |body: &Bytes, limit| apply(&filters, body.clone(), Coding::Gzip, limit);
        assert_eq!(run(&zipped, 5000), Ok("bye".repeat(1000).into()));
        // A bomb: small as it comes, large as it is.
        assert!(zipped.len() < 200);
        assert_eq!(run(&zipped, 4999), Err(TooLong));
        assert_eq!(run(&zipped.slice(..20), 5000), Err(TooLong));
        let binary = Bytes::from_static(b"hello\xff");
        let plain = apply(&filters, binary.clone(), Coding::Identity, 100);
        assert_eq!(plain, Ok(binary));
    }
}
