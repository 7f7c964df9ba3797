//! TLS on both sides: certificates by name for clients, verified certificates of instances.

mod support;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use support::{
    Answer, CHAT, Gateway, Start, Upstream,
    certificates::{Identity, client, https, identity, ssl},
    post_json, single,
};

/// G-284, G-285, G-288: names, wildcards of one label, no name, protocols; and renewal.
#[test]
fn certificates_are_found_by_name() {
    let upstream = Upstream::start(|_| Answer::text(200, "over TLS"));
    let (exact, wild) = (
        identity(&["a.test.com", "new.test.com"]),
        identity(&["*.test2.com", "b.a.test2.com"]),
    );
    let routes = format!(
        "routes:\n- {{id: 1, uri: /x, upstream: {{nodes: {{\"{}\": 1}}}}}}\nssls:\n",
        upstream.address
    );
    let document = format!(
        "{routes}{}{}",
        ssl("1", "a.test.com", &exact, "  ssl_protocols: [TLSv1.3]\n"),
        ssl("2", "*.test2.com", &wild, "")
    );
    let gateway = Gateway::start_with(Start {
        document: &document,
        apisix: "  ssl: {listen: [{ip: 127.0.0.1, port: 0}]}",
        ..Start::default()
    });
    let tls = gateway.address("proxy_tls");
    let trusted = [&exact, &wild];
    let ask = |name: &str| https(tls, name, client(&trusted, false));
    assert!(ask("a.test.com").expect("served").ends_with("over TLS"));
    assert!(ask("x.test2.com").expect("served").ends_with("over TLS"));
    for name in ["b.test.com", "b.a.test2.com", "test2.com"] {
        assert!(ask(name).is_err(), "{name} was served");
    }
    assert!(
        https(tls, "a.test.com", client(&trusted, true)).is_err(),
        "TLS 1.2 was served"
    );
    assert!(https(tls, "x.test2.com", client(&trusted, true)).is_ok());
    assert!(
        upstream
            .last()
            .header("x-forwarded-proto")
            .is_some_and(|proto| proto == "https")
    );
    gateway.reload(&format!("{routes}{}", ssl("1", "new.test.com", &exact, "")));
    assert!(ask("new.test.com").is_ok() && ask("a.test.com").is_err());
}

/// G-286, G-287: an exact name beats a wildcard; without a name there is `fallback_sni`, or nothing.
#[test]
fn the_nearest_certificate_is_served_and_no_name_has_a_fallback() {
    let upstream = Upstream::start(|_| Answer::text(200, "over TLS"));
    let (exact, wild) = (
        identity(&["a.test.com", "127.0.0.1"]),
        identity(&["*.test.com"]),
    );
    // The wildcard comes first and last: the order must not matter.
    let document = format!(
        "routes:\n- {{id: 1, uri: /x, upstream: {{nodes: {{\"{}\": 1}}}}}}\nssls:\n{}{}{}",
        upstream.address,
        ssl("1", "*.test.com", &wild, ""),
        ssl("2", "a.test.com", &exact, ""),
        ssl("3", "*.com", &wild, "")
    );
    let start = |more: &str| {
        Gateway::start_with(Start {
            document: &document,
            apisix: &format!("  ssl: {{listen: [{{ip: 127.0.0.1, port: 0}}]{more}}}"),
            ..Start::default()
        })
    };
    let ask = |gateway: &Gateway, name: &str, trusted: &Identity| {
        let config = client(&[trusted], false);
        https(gateway.address("proxy_tls"), name, config)
    };
    let plain = start("");
    assert!(ask(&plain, "a.test.com", &exact).is_ok());
    assert!(ask(&plain, "a.test.com", &wild).is_err());
    assert!(ask(&plain, "b.test.com", &wild).is_ok());
    // An address is no name, so the client sends none.
    assert!(ask(&plain, "127.0.0.1", &exact).is_err());
    let falling_back = start(", fallback_sni: a.test.com");
    assert!(ask(&falling_back, "127.0.0.1", &exact).is_ok());
}

/// A broken certificate is reported and takes nothing else with it.
#[test]
fn a_broken_certificate_falls_out_alone() {
    let good = identity(&["a.test.com"]);
    let other = identity(&["b.test.com"]);
    let mixed = Identity {
        cert: good.cert.clone(),
        key: other.key.clone(),
    };
    let document = format!(
        "ssls:\n{}{}",
        ssl("1", "bad.test.com", &mixed, ""),
        ssl(
            "2",
            "a.test.com",
            &good,
            "  ssl_protocols: [TLSv1.1, TLSv1.2]\n"
        )
    );
    let gateway = Gateway::start_with(Start {
        document: &document,
        apisix: "  ssl: {listen: [{ip: 127.0.0.1, port: 0}]}",
        ..Start::default()
    });
    gateway.wait_for_line("ssls[0] (id 1) key: failed to handle cert-key pair[1]");
    gateway.wait_for_line("ssls[1] (id 2) ssl_protocols: TLSv1.1 is not supported");
    let served = https(
        gateway.address("proxy_tls"),
        "a.test.com",
        client(&[&good], false),
    );
    assert!(served.expect("served").starts_with("HTTP/1.1 404"));
    assert!(
        !gateway.stderr().contains("PRIVATE KEY"),
        "a key is in the log"
    );
}

/// A key whose line breaks were lost: the message must not repeat it.
#[test]
fn a_key_on_one_line_is_not_shown() {
    let good = identity(&["a.test.com"]);
    let key = good.key.replace('\n', "");
    let secret: String = key
        .bytes()
        .skip(40)
        .take(12)
        .map(|b| format!("{b}, "))
        .collect();
    let squeezed = Identity {
        cert: good.cert.clone(),
        key: key.clone(),
    };
    let gateway = Gateway::start_with(Start {
        document: &format!("ssls:\n{}", ssl("1", "a.test.com", &squeezed, "")),
        apisix: "  ssl: {listen: [{ip: 127.0.0.1, port: 0}]}",
        ..Start::default()
    });
    gateway.wait_for_line("failed to parse key");
    let log = gateway.stderr();
    assert!(
        !log.contains(&key[40..60]) && !log.contains(&secret),
        "the key is in the log"
    );
}

/// A certificate and its key out of the environment.
#[test]
fn certificates_may_stand_in_the_environment() {
    let good = identity(&["a.test.com"]);
    let gateway = Gateway::start_with(Start {
        document: "ssls:\n- {id: 1, sni: a.test.com, cert: \"$env://CERT\", key: \"$env://KEY\"}\n",
        apisix: "  ssl: {listen: [{ip: 127.0.0.1, port: 0}]}",
        environment: &[("CERT", &good.cert), ("KEY", &good.key)],
        ..Start::default()
    });
    let served = https(
        gateway.address("proxy_tls"),
        "a.test.com",
        client(&[&good], false),
    );
    assert!(served.expect("served").starts_with("HTTP/1.1 404"));
}

/// A model server over TLS that answers every request on a connection.
fn tls_upstream(identity: &Identity) -> SocketAddr {
    let chain = CertificateDer::pem_slice_iter(identity.cert.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .expect("PEM");
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("PEM");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate");
    let config = Arc::new(config);
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let config = Arc::clone(&config);
            std::thread::spawn(move || {
                let connection = ServerConnection::new(config).expect("a connection");
                let mut stream = StreamOwned::new(connection, stream);
                let mut request = Vec::new();
                let mut piece = [0u8; 4096];
                while !request.ends_with(b"}") {
                    match stream.read(&mut piece) {
                        Ok(read) if read > 0 => request.extend_from_slice(&piece[..read]),
                        _ => return,
                    }
                }
                let body = support::upstream::chat_body("tls");
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all((head + &body).as_bytes());
            });
        }
    });
    address
}

/// P-037: an untrusted certificate is refused unless verification is off; a trusted one is fine.
#[test]
fn certificates_of_instances_are_verified() {
    let identity = identity(&["localhost"]);
    let address = tls_upstream(&identity);
    let document = |more: &str| {
        single("openai", address, more).replace(
            &format!("http://{address}"),
            &format!("https://localhost:{}", address.port()),
        )
    };
    let gateway = Gateway::start(&document(""));
    let refused = post_json(gateway.proxy, "/x", CHAT);
    assert_eq!(refused.status, 500);
    assert_eq!(
        refused.json()["error"]["message"],
        "upstream TLS handshake failed"
    );
    gateway.reload(&document("        ssl_verify: false\n"));
    assert_eq!(post_json(gateway.proxy, "/x", CHAT).status, 200);
    let folder = tempfile::tempdir().expect("a folder");
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, &identity.cert).expect("written");
    let trusting = Gateway::start_with(Start {
        document: &document(""),
        apisix: &format!(
            "  ssl: {{enable: false, ssl_trusted_certificate: \"{}\"}}",
            ca.display()
        ),
        ..Start::default()
    });
    assert_eq!(post_json(trusting.proxy, "/x", CHAT).status, 200);
}

/// `$secret://`: a certificate whose key Vault has is served; `check`, which asks nobody, does not call it wrong.
#[test]
fn a_private_key_may_be_elsewhere() {
    let echo = Upstream::start(|_| Answer::text(200, "over TLS"));
    let made = identity(&["a.test"]);
    let answer = serde_json::json!({"data": {"key": made.key}}).to_string();
    let vault = Upstream::start(move |_| Answer::json(&answer));
    let document = format!(
        "routes: [{{id: 1, uri: /x, upstream: {{nodes: {{\"{}\": 1}}}}}}]\n\
         secrets: [{{id: vault/1, uri: \"http://{}\", prefix: kv, token: t}}]\n\
         ssls:\n- id: s\n  sni: a.test\n  key: $secret://vault/1/tls/key\n  cert: |\n{}",
        echo.address,
        vault.address,
        support::certificates::indent(&made.cert)
    );
    let gateway = Gateway::start_with(Start {
        document: &document,
        apisix: "  ssl: {listen: [{ip: 127.0.0.1, port: 0}]}",
        ..Start::default()
    });
    let tls = gateway.address("proxy_tls");
    let served = https(tls, "a.test", client(&[&made], false));
    assert!(served.expect("served").ends_with("over TLS"));
    let config = gateway.folder().join("config.yaml").display().to_string();
    let (code, _, told) = support::run(&["check", "--config", &config]);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("was not asked so far"), "{told}");
    assert_eq!(vault.hits(), 1);
}
