//! Host names as routing compares them.

use std::borrow::Cow;

/// `Host` without its port, in lower case: nginx's `$host`, with the brackets of an IPv6 address.
pub fn normalise(host: &str) -> Cow<'_, str> {
    let name = split(host).0;
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

/// A normalised host as TLS and sockets name it: without brackets.
pub fn bare(host: &str) -> &str {
    host.strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host)
}

/// The port in `host`, if it has one.
pub fn port(host: &str) -> Option<u16> {
    split(host).1?.parse().ok()
}

fn split(host: &str) -> (&str, Option<&str>) {
    if host.starts_with('[') {
        let end = host.find(']').map_or(host.len(), |at| at + 1);
        let (address, after) = host.split_at(end);
        return (address, after.strip_prefix(':'));
    }
    match host.rsplit_once(':') {
        // More than one colon and no brackets: an IPv6 address, not a port.
        Some((name, _)) if name.contains(':') => (host, None),
        Some((name, port)) => (name, Some(port)),
        None => (host, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_lose_case_and_port() {
        let check = |host: &str, name: &str, number: Option<u16>| {
            assert_eq!(
                (normalise(host).as_ref(), port(host)),
                (name, number),
                "{host}"
            );
        };
        check("foo.com", "foo.com", None);
        check("FOO.com:9080", "foo.com", Some(9080));
        check("[::1]:80", "[::1]", Some(80));
        check("[FE80::A]", "[fe80::a]", None);
        check("[::1", "[::1", None);
        check("::1", "::1", None);
        check("foo.com:x", "foo.com", None);
        check("", "", None);
    }

    #[test]
    fn brackets_belong_to_the_text_alone() {
        assert_eq!(bare("[::1]"), "::1");
        assert_eq!(bare("[::1"), "[::1");
        assert_eq!(bare("a.com"), "a.com");
    }
}
