//! Client certificates: who must show one, which are accepted, and for which requests.

mod support;

use std::{
    io::{Read, Write},
    net::SocketAddr,
    sync::Arc,
};

use rustls::{
    ClientConfig, HandshakeKind, SupportedProtocolVersion,
    crypto::WebPkiSupportedAlgorithms,
    version::{TLS12, TLS13},
};
use support::{
    Answer, Gateway, Start, Upstream,
    certificates::{
        Authority, Identity, Secured, ask, client_with, connect, identity, indent, ssl,
    },
};

const BOTH: &[&SupportedProtocolVersion] = &[&TLS12, &TLS13];

/// A gateway with a route for everything, and `ssls`.
fn start(upstream: &Upstream, ssls: &str) -> Gateway {
    Gateway::start_with(Start {
        document: &document(upstream, ssls),
        apisix: "  ssl: {listen: [{ip: 127.0.0.1, port: 0}]}",
        ..Start::default()
    })
}

fn document(upstream: &Upstream, ssls: &str) -> String {
    format!(
        "routes:\n- {{id: 1, uri: /*, upstream: {{nodes: {{\"{}\": 1}}}}}}\nssls:\n{ssls}",
        upstream.address
    )
}

/// What `client` says of a resource.
fn demand(authority: &Authority, more: &str) -> String {
    format!("  client:\n{more}    ca: |\n{}", indent(&authority.pem()))
}

/// A client of the gateway's TLS listener.
struct Asker<'a> {
    address: SocketAddr,
    trusted: &'a [&'a Identity],
    versions: &'a [&'static SupportedProtocolVersion],
}

impl Asker<'_> {
    /// The status of `target`; an error if it got no answer.
    fn status(
        &self,
        own: Option<&Identity>,
        name: &str,
        target: &str,
        host: &str,
    ) -> Result<u16, String> {
        let config = Arc::new(client_with(self.trusted, own, self.versions));
        let mut stream = connect(self.address, name, &config)?;
        status(&ask(&mut stream, target, host)?)
    }
}

fn status(answer: &str) -> Result<u16, String> {
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    status.ok_or_else(|| format!("no answer: {answer:?}"))
}

/// G-289: who shows no certificate, or one of another authority, gets no connection.
#[test]
fn a_host_may_demand_certificates_of_all_clients() {
    let upstream = Upstream::start(|_| Answer::text(200, "for those who are known"));
    let (server, authority) = (identity(&["a.test.com"]), Authority::root("ours"));
    let gateway = start(
        &upstream,
        &ssl("1", "a.test.com", &server, &demand(&authority, "")),
    );
    let (known, other) = (
        authority.vouch("client"),
        Authority::root("theirs").vouch("client"),
    );
    for versions in [&[&TLS12][..], &[&TLS13]] {
        let asker = Asker {
            address: gateway.address("proxy_tls"),
            trusted: &[&server],
            versions,
        };
        let ask = |own| asker.status(own, "a.test.com", "/x", "a.test.com");
        assert_eq!(ask(Some(&known)), Ok(200));
        assert!(ask(None).is_err(), "served without a certificate");
        assert!(ask(Some(&other)).is_err(), "served with a foreign one");
    }
}

/// G-290: with exceptions everybody may connect, and each request is judged by its path.
#[test]
fn paths_may_be_excepted_from_certificates() {
    let upstream = Upstream::start(|_| Answer::text(200, "served"));
    let (server, authority) = (identity(&["a.test.com"]), Authority::root("ours"));
    let exceptions = demand(&authority, "    skip_mtls_uri_regex: [\"^/open\"]\n");
    let gateway = start(&upstream, &ssl("1", "a.test.com", &server, &exceptions));
    let (known, other) = (
        authority.vouch("client"),
        Authority::root("theirs").vouch("client"),
    );
    for versions in [&[&TLS12][..], &[&TLS13]] {
        let asker = Asker {
            address: gateway.address("proxy_tls"),
            trusted: &[&server],
            versions,
        };
        for (own, target, expected) in [
            (None, "/open", 200),
            (None, "/x", 400),
            (None, "/x?/open", 400),
            (None, "/open/../x", 400),
            (None, "/x/%2e%2e/open", 200),
            (Some(&other), "/open/1", 200),
            (Some(&other), "/x", 400),
            (Some(&known), "/open", 200),
            (Some(&known), "/x", 200),
        ] {
            for host in ["a.test.com", "A.test.com.:9443"] {
                let status = asker.status(own, "a.test.com", target, host);
                let shown = own.is_some();
                assert_eq!(
                    status,
                    Ok(expected),
                    "{target} for {host}, certificate: {shown}"
                );
            }
        }
    }
}

/// G-290: a resumed session shows what its first connection has shown.
#[test]
fn resumed_sessions_are_judged_too() {
    let upstream = Upstream::start(|_| Answer::text(200, "served"));
    let (server, authority) = (identity(&["a.test.com"]), Authority::root("ours"));
    let exceptions = demand(&authority, "    skip_mtls_uri_regex: [^/open]\n");
    let gateway = start(&upstream, &ssl("1", "a.test.com", &server, &exceptions));
    let (known, other) = (
        authority.vouch("client"),
        Authority::root("theirs").vouch("client"),
    );
    for versions in [&[&TLS12][..], &[&TLS13]] {
        for (own, expected) in [(None, 400), (Some(&other), 400), (Some(&known), 200)] {
            let config = Arc::new(client_with(&[&server], own, versions));
            let once = || {
                let address = gateway.address("proxy_tls");
                let mut stream = connect(address, "a.test.com", &config).expect("connected");
                let answer = ask(&mut stream, "/x", "a.test.com").expect("answered");
                (stream.conn.handshake_kind(), status(&answer))
            };
            assert_eq!(once(), (Some(HandshakeKind::Full), Ok(expected)));
            assert_eq!(once(), (Some(HandshakeKind::Resumed), Ok(expected)));
        }
    }
}

/// G-291: a connection under one name is no way around what another demands.
#[test]
fn another_host_is_not_served_without_its_certificate() {
    let upstream = Upstream::start(|_| Answer::text(200, "served"));
    let server = identity(&["a.test.com", "b.test.com", "x.test2.com"]);
    let (authority, broken) = (Authority::root("ours"), identity(&["c.test.com"]));
    let broken = Identity {
        cert: broken.cert,
        key: server.key.clone(),
    };
    let demand = |more: &str| demand(&authority, more);
    let ssls = [
        ssl("1", "a.test.com", &server, ""),
        ssl("2", "b.test.com", &server, &demand("")),
        ssl(
            "3",
            "*.test2.com",
            &server,
            &demand("    skip_mtls_uri_regex: [^/open]\n"),
        ),
        // It cannot be served, and demands its certificates all the same.
        ssl("4", "c.test.com", &broken, &demand("")),
    ];
    let gateway = start(&upstream, &ssls.concat());
    let known = authority.vouch("client");
    let asker = Asker {
        address: gateway.address("proxy_tls"),
        trusted: &[&server],
        versions: BOTH,
    };
    for (name, host, expected) in [
        ("a.test.com", "a.test.com", 200),
        ("a.test.com", "z.test.com", 200),
        ("a.test.com", "b.test.com", 400),
        ("a.test.com", "B.Test.com.", 400),
        ("a.test.com", "x.test2.com", 400),
        ("a.test.com", "c.test.com", 400),
        ("b.test.com", "b.test.com", 200),
        ("b.test.com", "x.test2.com", 400),
        ("x.test2.com", "x.test2.com", 200),
        ("x.test2.com", "y.test2.com", 400),
    ] {
        let status = asker.status(Some(&known), name, "/x", host);
        assert_eq!(status, Ok(expected), "{host} on a connection to {name}");
    }
    // And a host that demands nothing is none around what the connection's own name does.
    for (host, path, expected) in [
        ("x.test2.com", "/open", 200),
        ("x.test2.com", "/x", 400),
        ("a.test.com", "/x", 400),
        ("z.test.com", "/x", 400),
        ("z.test.com", "/open", 200),
    ] {
        let status = asker.status(None, "x.test2.com", path, host);
        assert_eq!(
            status,
            Ok(expected),
            "{path} of {host} without a certificate"
        );
    }
}

/// A chain may have `client.depth` certificates between the client's and the authority's.
#[test]
fn chains_may_be_as_long_as_depth_says() {
    let upstream = Upstream::start(|_| Answer::text(200, "served"));
    let server = identity(&["d0.test", "d1.test", "d2.test"]);
    let root = Authority::root("root");
    let middle = root.below("middle");
    let lowest = middle.below("lowest");
    let of_depth = |depth: &str| demand(&root, depth);
    let ssls = [
        ssl("3", "d0.test", &server, &of_depth("    depth: 0\n")),
        ssl("1", "d1.test", &server, &of_depth("")),
        ssl("2", "d2.test", &server, &of_depth("    depth: 2\n")),
    ];
    let gateway = start(&upstream, &ssls.concat());
    let asker = Asker {
        address: gateway.address("proxy_tls"),
        trusted: &[&server],
        versions: BOTH,
    };
    let clients = [&root, &middle, &lowest].map(|authority| authority.vouch("client"));
    for (between, own) in clients.iter().enumerate() {
        for depth in 0..3 {
            let name = format!("d{depth}.test");
            let status = asker.status(Some(own), &name, "/x", &name);
            assert_eq!(
                status.is_ok(),
                between <= depth,
                "{between} at depth {depth}: {status:?}"
            );
        }
    }
    // What is shown beside the chain does not make it longer.
    let own = Identity {
        cert: clients[0].cert.clone() + &lowest.pem() + &middle.pem(),
        key: clients[0].key.clone(),
    };
    assert_eq!(
        asker.status(Some(&own), "d0.test", "/x", "d0.test"),
        Ok(200)
    );
}

/// A pattern that is none is told, and takes its resource out.
#[test]
fn wrong_patterns_are_told() {
    let upstream = Upstream::start(|_| Answer::text(200, "served"));
    let (server, authority) = (identity(&["a.test.com"]), Authority::root("ours"));
    let exceptions = demand(&authority, "    skip_mtls_uri_regex: [/ok, \"(\"]\n");
    let gateway = start(&upstream, &ssl("1", "a.test.com", &server, &exceptions));
    gateway.wait_for_line("client.skip_mtls_uri_regex[1]: invalid regex '('");
}

/// Several pairs for one host: the client is served the kind that it can verify.
#[test]
fn the_pair_that_suits_the_client_is_served() {
    let upstream = Upstream::start(|_| Answer::text(200, "served"));
    let first = identity(&["a.test.com"]);
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    let params = rcgen::CertificateParams::new(vec!["a.test.com".to_owned()]).expect("valid");
    let second = Identity {
        cert: params.self_signed(&key).expect("signed").pem(),
        key: key.serialize_pem(),
    };
    let more = format!(
        "  certs:\n  - |\n{}  keys:\n  - |\n{}",
        indent(&second.cert),
        indent(&second.key)
    );
    let gateway = start(&upstream, &ssl("1", "a.test.com", &first, &more));
    let served = |config: ClientConfig| {
        let address = gateway.address("proxy_tls");
        let mut stream = connect(address, "a.test.com", &Arc::new(config))?;
        status(&ask(&mut stream, "/x", "a.test.com")?)
    };
    assert_eq!(served(client_with(&[&first], None, BOTH)), Ok(200));
    assert!(served(client_with(&[&second], None, BOTH)).is_err());
    for versions in [&[&TLS12][..], &[&TLS13]] {
        assert_eq!(served(only_ed25519(&second, versions)), Ok(200));
    }
}

/// A client that can verify nothing but Ed25519, and trusts `trusted`.
fn only_ed25519(
    trusted: &Identity,
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    let every = provider.signature_verification_algorithms.mapping;
    let at = every
        .iter()
        .position(|(scheme, _)| *scheme == rustls::SignatureScheme::ED25519);
    let at = at.expect("known");
    provider.signature_verification_algorithms = WebPkiSupportedAlgorithms {
        all: every[at].1,
        mapping: &every[at..=at],
    };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.parsed().0.remove(0)).expect("a root");
    ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// Certificates that change apply to new connections; those that are open go on.
#[test]
fn a_reload_keeps_connections() {
    let upstream = Upstream::start(|_| Answer::text(200, "served"));
    let (old, new) = (identity(&["a.test.com"]), identity(&["a.test.com"]));
    let gateway = start(&upstream, &ssl("1", "a.test.com", &old, ""));
    let open = |trusted: &Identity| {
        let config = Arc::new(client_with(&[trusted], None, BOTH));
        connect(gateway.address("proxy_tls"), "a.test.com", &config).expect("connected")
    };
    let mut kept = open(&old);
    read_one(&mut kept);
    gateway.reload(&document(&upstream, &ssl("1", "a.test.com", &new, "")));
    assert!(ask(&mut open(&new), "/x", "a").is_ok());
    assert!(ask(&mut open(&old), "/x", "a").is_err());
    read_one(&mut kept);
    // Nor does one that is not served any longer.
    gateway.reload(&document(&upstream, &ssl("1", "b.test.com", &new, "")));
    assert!(ask(&mut open(&new), "/x", "a").is_err());
    read_one(&mut kept);
}

/// One request on a connection that goes on.
fn read_one(stream: &mut Secured) {
    stream
        .write_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect("written");
    let mut answer = Vec::new();
    let mut piece = [0; 1024];
    while !answer.ends_with(b"served") {
        let read = stream.read(&mut piece).expect("an answer");
        assert!(read > 0, "closed: {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&piece[..read]);
    }
}
