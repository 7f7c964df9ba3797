//! The text of the file: what it says, and whether it can be believed.
//!
//! Lines of words, so that a person can read it, and a checksum over all of them. Targets are named
//! by a keyed hash of their definition; the key stands in the file and is another one in each
//! process, so equal definitions of two files have nothing in common, and nothing that a definition
//! holds (credentials above all) can be looked up in a table.

use aws_lc_rs::{digest, hmac};
use pointsman_balance::{Counters, ProbeOutcome, Status};

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Contents {
    /// Key of the names.
    pub(super) salt: Salt,
    /// When it was written, in milliseconds since the Unix epoch.
    pub(super) saved_ms: u64,
    /// One for each target of which there is something to say.
    pub(super) lines: Vec<Line>,
    /// One for each guard that keeps somebody out.
    pub(super) guards: Vec<Guard>,
}

/// Where a guard stands. Times are in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Guard {
    pub(super) name: Name,
    /// Until when it cools down.
    pub(super) cools_until_ms: Option<u64>,
    pub(super) circuit: Circuit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Circuit {
    Closed,
    /// Until then.
    Open(u64),
    HalfOpen,
}

/// What is known about one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) name: Name,
    pub(super) status: Status,
    pub(super) counters: Counters,
    /// The last outcome and when it came, in milliseconds since the Unix epoch.
    pub(super) last: Option<(ProbeOutcome, u64)>,
}

pub(super) type Salt = [u8; 32];
pub(super) type Name = [u8; 32];

/// Why a file says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It was written by a program that writes other files.
    Version,
    /// It is not as it was written.
    Damaged,
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Version => "it was written by another version",
            Self::Damaged => "it is damaged or cut off",
        })
    }
}

/// The name of the target that `canonical` defines.
pub(super) fn name(salt: &Salt, canonical: &str) -> Name {
    let key = hmac::Key::new(hmac::HMAC_SHA256, salt);
    let tag = hmac::sign(&key, canonical.as_bytes());
    let mut name = Name::default();
    name.copy_from_slice(tag.as_ref());
    name
}

/// The text of a file.
pub(super) fn write(contents: &Contents) -> String {
    let mut text = format!(
        "{VERSION}\nsalt {}\nsaved {}\n",
        hex(&contents.salt),
        contents.saved_ms
    );
    for line in &contents.lines {
        let counters = line.counters;
        text.push_str(&format!(
            "target {} {} {} {} {} {}",
            hex(&line.name),
            line.status.as_str(),
            counters.success,
            counters.http_failure,
            counters.tcp_failure,
            counters.timeout_failure,
        ));
        match line.last {
            Some((outcome, at_ms)) => text.push_str(&format!(" {outcome} {at_ms}\n")),
            None => text.push_str(" - -\n"),
        }
    }
    for guard in &contents.guards {
        let cools = guard
            .cools_until_ms
            .map_or_else(|| "-".to_owned(), |at_ms| at_ms.to_string());
        text.push_str(&format!("guard {} {cools} ", hex(&guard.name)));
        match guard.circuit {
            Circuit::Closed => text.push_str("closed\n"),
            Circuit::Open(until_ms) => text.push_str(&format!("open {until_ms}\n")),
            Circuit::HalfOpen => text.push_str("half_open\n"),
        }
    }
    let sum = checksum(&text);
    text.push_str(&format!("{SUM}{sum}\n"));
    text
}

/// What a text says; all of it, or nothing.
pub(super) fn read(text: &[u8]) -> Result<Contents, Unreadable> {
    let text = std::str::from_utf8(text).map_err(|_| Unreadable::Damaged)?;
    let (body, sum) = text
        .strip_suffix('\n')
        .and_then(|text| text.rsplit_once(SUM))
        .ok_or(Unreadable::Damaged)?;
    if sum != checksum(body) {
        return Err(Unreadable::Damaged);
    }
    let mut lines = body.lines();
    if lines.next() != Some(VERSION) {
        return Err(Unreadable::Version);
    }
    parse(lines).ok_or(Unreadable::Damaged)
}

fn parse<'a>(mut lines: impl Iterator<Item = &'a str>) -> Option<Contents> {
    let mut contents = Contents {
        salt: bytes(lines.next()?.strip_prefix("salt ")?)?,
        saved_ms: lines.next()?.strip_prefix("saved ")?.parse().ok()?,
        lines: Vec::new(),
        guards: Vec::new(),
    };
    for text in lines {
        let words: Vec<&str> = text.split(' ').collect();
        match words.split_first()? {
            (&"target", words) => contents.lines.push(line(words)?),
            (&"guard", words) => contents.guards.push(guard(words)?),
            _ => return None,
        }
    }
    Some(contents)
}

fn guard(words: &[&str]) -> Option<Guard> {
    let [name, cools, circuit @ ..] = words else {
        return None;
    };
    Some(Guard {
        name: bytes(name)?,
        cools_until_ms: match *cools {
            "-" => None,
            at_ms => Some(at_ms.parse().ok()?),
        },
        circuit: match circuit {
            ["closed"] => Circuit::Closed,
            ["open", until_ms] => Circuit::Open(until_ms.parse().ok()?),
            ["half_open"] => Circuit::HalfOpen,
            _ => return None,
        },
    })
}

fn line(words: &[&str]) -> Option<Line> {
    let [name, status, success, http, tcp, timeout, outcome, at] = *words else {
        return None;
    };
    let last = match (outcome, at) {
        ("-", "-") => None,
        _ => Some((outcome.parse().ok()?, at.parse().ok()?)),
    };
    Some(Line {
        name: bytes(name)?,
        status: status.parse().ok()?,
        counters: Counters {
            success: success.parse().ok()?,
            http_failure: http.parse().ok()?,
            tcp_failure: tcp.parse().ok()?,
            timeout_failure: timeout.parse().ok()?,
        },
        last,
    })
}

fn checksum(body: &str) -> String {
    hex(digest::digest(&digest::SHA256, body.as_bytes()).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if hex.len() != 64 || !hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}

const VERSION: &str = "pointsman-health 1";
const SUM: &str = "sha256 ";

#[cfg(test)]
mod tests {
    use super::*;

    fn contents() -> Contents {
        let salt = [7; 32];
        Contents {
            salt,
            saved_ms: 1_700_000_000_123,
            lines: vec![
                Line {
                    name: name(&salt, "a"),
                    status: Status::Unhealthy,
                    counters: Counters {
                        success: 0,
                        http_failure: 1,
                        tcp_failure: 2,
                        timeout_failure: 3,
                    },
                    last: Some((ProbeOutcome::Status(503), 1_700_000_000_100)),
                },
                Line {
                    name: name(&salt, "b"),
                    status: Status::MostlyHealthy,
                    counters: Counters::default(),
                    last: None,
                },
            ],
            guards: vec![
                Guard {
                    name: name(&salt, "c"),
                    cools_until_ms: Some(1_700_000_009_000),
                    circuit: Circuit::Open(1_700_000_008_000),
                },
                Guard {
                    name: name(&salt, "d"),
                    cools_until_ms: None,
                    circuit: Circuit::HalfOpen,
                },
                Guard {
                    name: name(&salt, "e"),
                    cools_until_ms: Some(1_700_000_009_000),
                    circuit: Circuit::Closed,
                },
            ],
        }
    }

    #[test]
    fn a_file_says_what_was_written() {
        let empty = Contents {
            lines: Vec::new(),
            guards: Vec::new(),
            ..contents()
        };
        for contents in [contents(), empty] {
            assert_eq!(read(write(&contents).as_bytes()), Ok(contents));
        }
    }

    /// Wherever it is cut and whatever byte is another one, it says nothing rather than anything else.
    #[test]
    fn a_damaged_file_says_nothing() {
        let text = write(&contents()).into_bytes();
        for end in 0..text.len() {
            assert_eq!(read(&text[..end]), Err(Unreadable::Damaged), "{end} bytes");
        }
        for index in 0..text.len() {
            for mask in [1, 0x20, 0x80] {
                let mut damaged = text.clone();
                damaged[index] ^= mask;
                assert_eq!(read(&damaged), Err(Unreadable::Damaged), "byte {index}");
            }
        }
        let twice = [&text[..], &text[..]].concat();
        assert_eq!(read(&twice), Err(Unreadable::Damaged));
    }

    /// Right by its checksum, and yet not what this version writes.
    #[test]
    fn only_what_this_version_writes_is_read() {
        let check = |from: &str, to: &str, expected| {
            let text = write(&contents());
            let (body, _) = text.rsplit_once(SUM).expect("it ends in a sum");
            let body = body.replacen(from, to, 1);
            assert_ne!(text, body, "{from}");
            let text = format!("{body}{SUM}{}\n", checksum(&body));
            assert_eq!(read(text.as_bytes()), Err(expected), "{to}");
        };
        check(
            "pointsman-health 1",
            "pointsman-health 2",
            Unreadable::Version,
        );
        check("salt 07", "salt 0", Unreadable::Damaged);
        check("salt 07", "salt +7", Unreadable::Damaged);
        check("saved 1", "saved -1", Unreadable::Damaged);
        check(" unhealthy ", " sick ", Unreadable::Damaged);
        check(" 1 2 3 ", " 1 2 300 ", Unreadable::Damaged);
        check(" 1 2 3 ", " 1 2 ", Unreadable::Damaged);
        check("status_503", "-", Unreadable::Damaged);
        check("target ", "target", Unreadable::Damaged);
        check("target ", "member ", Unreadable::Damaged);
        check(" closed", " closed 1", Unreadable::Damaged);
        check(" half_open", " ajar", Unreadable::Damaged);
        check(" open 1", " open -1", Unreadable::Damaged);
        check(" - half_open", " half_open", Unreadable::Damaged);
    }

    #[test]
    fn a_name_depends_on_every_bit_of_definition_and_salt() {
        let salt = [7; 32];
        let mut other = salt;
        other[31] ^= 1;
        assert_eq!(name(&salt, "host 1 a\n"), name(&salt, "host 1 a\n"));
        assert_ne!(name(&salt, "host 1 a\n"), name(&salt, "host 1 b\n"));
        assert_ne!(name(&salt, "host 1 a\n"), name(&other, "host 1 a\n"));
        // RFC 4231, test case 2: HMAC-SHA-256 and nothing of our own making.
        let mut key = [0; 32];
        key[..4].copy_from_slice(b"Jefe");
        assert_eq!(
            hex(&name(&key, "what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
