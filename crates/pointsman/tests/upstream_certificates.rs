//! Certificates that the gateway shows to nodes.

mod support;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use rustls::{
    RootCertStore, ServerConfig, ServerConnection, StreamOwned, server::WebPkiClientVerifier,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use support::{
    Gateway,
    certificates::{Authority, Identity, identity, indent},
    get,
};

/// A node that answers whom `authority` vouches for, and nobody else.
fn guarded(authority: &Authority) -> SocketAddr {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(authority.pem().as_bytes()).expect("PEM");
    roots.add(root).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .expect("a verifier");
    let (chain, key) = identity(&["node.test"]).parsed();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .expect("a pair");
    let config = Arc::new(config);
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = ServerConnection::new(Arc::clone(&config)).expect("made");
            let mut stream = StreamOwned::new(connection, stream);
            let mut piece = [0; 4096];
            // Who is not let in is told so by the handshake, and sends no request.
            if matches!(stream.read(&mut piece), Ok(1..)) {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                let _ = stream.write_all(answer);
            }
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    address
}

fn route(node: SocketAddr, tls: &str) -> String {
    format!(
        "routes:\n- id: 1\n  uri: /x\n  upstream:\n    scheme: https\n    nodes: {{\"{node}\": 1}}\n{tls}"
    )
}

fn inline(own: &Identity) -> String {
    let (cert, key) = (indent(&own.cert), indent(&own.key));
    let (cert, key) = (
        cert.replace("      ", "        "),
        key.replace("      ", "        "),
    );
    format!("    tls:\n      client_cert: |\n{cert}      client_key: |\n{key}")
}

fn certificate(kind: &str, own: &Identity) -> String {
    let (cert, key) = (indent(&own.cert), indent(&own.key));
    format!("ssls:\n- id: mine\n  type: {kind}\n  cert: |\n{cert}  key: |\n{key}")
}

/// G-292: a pair of the upstream's own, or that of an `ssl` resource of type `client`.
#[test]
fn nodes_are_shown_the_certificate_of_their_upstream() {
    let authority = Authority::root("ours");
    let node = guarded(&authority);
    let (known, other) = (
        authority.vouch("gate"),
        Authority::root("theirs").vouch("gate"),
    );
    let by_id = "    tls: {client_cert_id: mine}\n";
    let gateway = Gateway::start(&route(node, ""));
    let status = || get(gateway.proxy, "/x", &[]).status;
    assert_eq!(status(), 502, "without a certificate");
    gateway.reload(&route(node, &inline(&known)));
    assert_eq!(status(), 200, "with its own");
    gateway.reload(&route(node, &inline(&other)));
    assert_eq!(status(), 502, "with a foreign one");
    gateway.reload(&(route(node, by_id) + &certificate("client", &known)));
    assert_eq!(status(), 200, "by id");
    gateway.reload(&(route(node, by_id) + &certificate("client", &other)));
    assert_eq!(status(), 502, "by id, after it has changed");
    gateway.reload(&route(node, by_id));
    gateway.wait_for_line("upstream.tls.client_cert_id: there is no ssl `mine`");
    assert_eq!(status(), 502, "by an id that names nothing");
    let served = certificate("server\n  sni: a.test", &known);
    gateway.reload(&(route(node, by_id) + &served));
    gateway.wait_for_line("ssl `mine` is of another type than `client`");
    assert_eq!(status(), 502, "by the id of a server's certificate");
}

/// What is shown goes by the `ssl` resource as it is now, also where the upstream stays the same.
#[test]
fn a_certificate_that_is_replaced_in_the_store_is_shown_at_once() {
    use serde_json::{Value, json};
    let authority = Authority::root("ours");
    let node = guarded(&authority);
    let (known, other) = (
        authority.vouch("gate"),
        Authority::root("theirs").vouch("gate"),
    );
    let gateway = Gateway::with_store();
    let certificate = |own: &Identity| json!({"type": "client", "cert": own.cert, "key": own.key});
    let put = |path: &str, body: Value, status: u16| gateway.asked(status, "PUT", path, body);
    put("/ssls/mine", certificate(&other), 201);
    let upstream = json!({"scheme": "https", "nodes": {node.to_string(): 1}, "tls": {"client_cert_id": "mine"}});
    put("/routes/1", json!({"uri": "/x", "upstream": upstream}), 201);
    gateway.wait_for_route("/x", 502);
    put("/ssls/mine", certificate(&known), 200);
    gateway.wait_for_route("/x", 200);
    put("/ssls/mine", certificate(&other), 200);
    gateway.wait_for_route("/x", 502);
}
