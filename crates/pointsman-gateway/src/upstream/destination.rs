//! Where an attempt connects to, and the limits it keeps.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use http::HeaderValue;
use rustc_hash::FxHasher;

/// Everything that decides which connections are interchangeable.
///
/// Two attempts may share a pooled connection iff their destinations are equal: the same address
/// under another TLS name or client certificate is another destination.
#[derive(Debug)]
pub struct Destination {
    /// Address to dial: a name or an IP address without brackets.
    pub host: Box<str>,
    /// Port to dial.
    pub port: u16,
    /// How to secure the connection; `None` for plain text.
    pub tls: Option<Tls>,
    /// `Host` of requests to it: the host, and the port unless it is the scheme's own.
    pub authority: HeaderValue,
    /// `host:port`, as logs show it.
    pub address: Arc<str>,
    hash: u64,
}

/// How a connection is secured.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tls {
    /// Name for SNI and for the certificate check; an IP address sends no SNI.
    pub server_name: Box<str>,
    /// Verify the certificate against the trusted roots.
    pub verify: bool,
    /// Certificate chain and key to present, PEM.
    pub client: Option<Arc<ClientCertificate>>,
}

/// A client certificate for a target, PEM. `Debug` shows no key.
#[derive(PartialEq, Eq, Hash)]
pub struct ClientCertificate {
    /// Certificate chain.
    pub cert: String,
    /// Private key.
    pub key: String,
}

impl std::fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientCertificate(..)")
    }
}

impl Destination {
    /// A destination. Fails when `host` cannot stand in a `Host` header.
    pub fn new(host: &str, port: u16, tls: Option<Tls>) -> Result<Self, String> {
        let default_port = if tls.is_some() { 443 } else { 80 };
        let address = authority(host, port, 0).into();
        let authority = authority(host, port, default_port);
        let authority = HeaderValue::from_str(&authority)
            .map_err(|_| format!("`{host}` is not a valid host name"))?;
        let mut hasher = FxHasher::default();
        (host, port, &tls).hash(&mut hasher);
        Ok(Self {
            host: host.into(),
            port,
            tls,
            authority,
            address,
            hash: hasher.finish(),
        })
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}

/// `host[:port]`, with brackets around an IPv6 address and without the default port.
pub fn authority(host: &str, port: u16, default_port: u16) -> String {
    let bracketed = if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    if port == default_port {
        bracketed
    } else {
        format!("{bracketed}:{port}")
    }
}

impl PartialEq for Destination {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
            && self.port == other.port
            && self.host == other.host
            && self.tls == other.tls
    }
}

impl Eq for Destination {}

impl Hash for Destination {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// Limits of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Connecting, TLS included.
    pub connect: Duration,
    /// Between two successful writes of the request.
    pub send: Duration,
    /// Until the response's head, and between two reads of its body.
    pub read: Duration,
}

impl Timeouts {
    /// The same limit for everything.
    pub const fn all(limit: Duration) -> Self {
        Self {
            connect: limit,
            send: limit,
            read: limit,
        }
    }
}

/// Whether and how connections are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Idle connections kept per worker and destination; 0 turns re-use off.
    pub pool_size: usize,
    /// An idle connection is closed after this.
    pub idle: Duration,
    /// A connection is closed after this many requests.
    pub requests: u64,
    /// Also after a 429 or 5xx. APISIX's AI transport opens a new connection then, which lets a
    /// load balancer behind the address choose anew.
    pub after_errors: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authority_leaves_out_the_default_port_and_brackets_ipv6() {
        assert_eq!(authority("a.com", 443, 443), "a.com");
        assert_eq!(authority("a.com", 8443, 443), "a.com:8443");
        assert_eq!(authority("::1", 80, 80), "[::1]");
        assert_eq!(authority("::1", 8080, 80), "[::1]:8080");
    }

    #[test]
    fn destinations_differ_by_tls_name() {
        let tls = |name: &str| {
            Some(Tls {
                server_name: name.into(),
                verify: true,
                client: None,
            })
        };
        let one = Destination::new("10.0.0.1", 443, tls("a")).expect("valid");
        assert_eq!(
            one,
            Destination::new("10.0.0.1", 443, tls("a")).expect("valid")
        );
        assert_ne!(
            one,
            Destination::new("10.0.0.1", 443, tls("b")).expect("valid")
        );
        assert_ne!(one, Destination::new("10.0.0.1", 443, None).expect("valid"));
    }
}
