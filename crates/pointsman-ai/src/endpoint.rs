//! `override.endpoint`: scheme, host, port, path and query of an instance.

/// A parsed endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    https: bool,
    host: String,
    port: u16,
    path: Option<String>,
    query: Vec<(String, String)>,
    raw_query: Option<String>,
    lone_slash: bool,
}

/// An endpoint that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointError(&'static str);

impl std::fmt::Display for EndpointError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for EndpointError {}

impl Endpoint {
    /// Reads `http(s)://host[:port][/path][?query]`; without a scheme it is https. A lone `/` is
    /// no path. Fragment and user information are ignored.
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        let text = text.trim();
        let text = text.split('#').next().unwrap_or_default();
        let (https, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
            Some(_) => return Err(EndpointError("the scheme must be http or https")),
            None => (true, text),
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        let authority = authority.rsplit('@').next().unwrap_or_default();
        let (host, port) = split(authority, if https { 443 } else { 80 })?;
        if host.is_empty() {
            return Err(EndpointError("it has no host"));
        }
        let (path, raw_query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };
        Ok(Self {
            https,
            host: host.to_owned(),
            port,
            path: (path.len() > 1).then(|| path.to_owned()),
            query: raw_query.map(query_pairs).unwrap_or_default(),
            raw_query: raw_query.map(str::to_owned),
            lone_slash: path == "/",
        })
    }

    /// Over TLS.
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// Name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Port, the scheme's own unless given.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Path, if there is more of it than `/`.
    pub fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }

    /// Query, decoded.
    pub fn query(&self) -> &[(String, String)] {
        &self.query
    }

    /// Path and query as they would stand in a request line.
    pub fn target(&self) -> String {
        let path = self.path.as_deref().unwrap_or("/");
        match &self.raw_query {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        }
    }

    /// The text ended in a lone `/`, which APISIX would take for the whole path.
    pub fn lone_slash(&self) -> bool {
        self.lone_slash
    }
}

fn split(authority: &str, default: u16) -> Result<(&str, u16), EndpointError> {
    const BAD_PORT: EndpointError = EndpointError("its port is not a number up to 65535");
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, after) = rest
            .split_once(']')
            .ok_or(EndpointError("its IPv6 address has no `]`"))?;
        return match after.strip_prefix(':') {
            Some(port) => Ok((host, port.parse().map_err(|_| BAD_PORT)?)),
            None => Ok((host, default)),
        };
    }
    match authority.split_once(':') {
        Some((host, port)) => Ok((host, port.parse().map_err(|_| BAD_PORT)?)),
        None => Ok((authority, default)),
    }
}

/// The arguments of a query, decoded, in order; an argument without `=` has an empty value.
pub fn query_pairs(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| {
        let spaced = text.replace('+', " ");
        percent_encoding::percent_decode_str(&spaced)
            .decode_utf8_lossy()
            .into_owned()
    };
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: (bool, &str, u16, Option<&str>)) {
        let endpoint = Endpoint::parse(text).expect("valid");
        let found = (
            endpoint.is_https(),
            endpoint.host(),
            endpoint.port(),
            endpoint.path(),
        );
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn endpoints() {
        check(
            "https://api.openai.com",
            (true, "api.openai.com", 443, None),
        );
        check("http://127.0.0.1:1980", (false, "127.0.0.1", 1980, None));
        check("http://a.com/", (false, "a.com", 80, None));
        check("http://a.com/v1/x?y=1", (false, "a.com", 80, Some("/v1/x")));
        check("https://[::1]:8443/x", (true, "::1", 8443, Some("/x")));
        check("a.com:81", (true, "a.com", 81, None));
        check("http://user:pass@a.com?x=1#f", (false, "a.com", 80, None));
        let query = Endpoint::parse("http://a/b?x=1&y=a%20b").expect("valid");
        assert_eq!(
            query.query(),
            [("x".into(), "1".into()), ("y".into(), "a b".into())]
        );
        assert_eq!(query.target(), "/b?x=1&y=a%20b");
        assert!(Endpoint::parse("http://a/").expect("valid").lone_slash());
        for bad in [
            "",
            "http://",
            "ftp://a",
            "http://a:x",
            "http://a:70000",
            "http://[::1",
        ] {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
    }
}
