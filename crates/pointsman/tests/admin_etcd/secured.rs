//! An etcd that lets in whom it knows: users, and certificates.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

use crate::{
    apisix_route, gateway_on, route,
    support::{
        Gateway, Start, Upstream,
        etcd::{Etcd, deployment},
        get,
    },
};

/// A user with a password, whose role has the prefix only; tokens that are no longer known are renewed.
#[test]
fn users_have_passwords() {
    let Some(mut etcd) = Etcd::start() else {
        return;
    };
    let echo = Upstream::named("a");
    for user in ["root", "gate"] {
        etcd.ask(
            "/v3/auth/user/add",
            &json!({"name": user, "password": format!("{user}-secret")}),
        );
        etcd.ask("/v3/auth/role/add", &json!({"name": user}));
        etcd.ask("/v3/auth/user/grant", &json!({"user": user, "role": user}));
    }
    // From `/apisix/` to `/apisix0`.
    let permission =
        json!({"permType": "READWRITE", "key": "L2FwaXNpeC8=", "range_end": "L2FwaXNpeDA="});
    etcd.ask(
        "/v3/auth/role/grant",
        &json!({"name": "gate", "perm": permission}),
    );
    etcd.ask("/v3/auth/enable", &json!({}));
    etcd.log_in("root", "root-secret");
    etcd.put("/apisix/routes/1", &apisix_route("1", "/a", echo.address));
    let gateway = gateway_on(&etcd.deployment(", user: gate, password: gate-secret"));
    assert_eq!(get(gateway.proxy, "/a", &[]).status, 200);
    gateway.asked(201, "PUT", "/routes/2", route("/b", echo.address));
    gateway.asked(201, "PUT", "/routes/3?ttl=1000", route("/c", echo.address));
    gateway.wait_for_route("/b", 200);
    // A password that is set anew ends all tokens of its user.
    let same = json!({"name": "gate", "password": "gate-secret"});
    for _ in 0..5 {
        etcd.ask("/v3/auth/user/changepw", &same);
        gateway.asked(200, "PATCH", "/routes/2", json!({"desc": "d"}));
    }
    // Tokens do not outlive this etcd.
    etcd.kill();
    etcd.start_again();
    etcd.log_in("root", "root-secret");
    etcd.put("/apisix/routes/4", &apisix_route("4", "/d", echo.address));
    gateway.wait_for_route("/d", 200);
    gateway.asked(200, "PATCH", "/routes/2", json!({"desc": "d"}));
    // Nor a change of the password.
    let ask = json!({"name": "gate", "password": "other-secret"});
    etcd.ask("/v3/auth/user/changepw", &ask);
    let refused = gateway_on(&etcd.deployment(", user: gate, password: gate-secret"));
    let line = refused.wait_for_line("etcd is out of reach");
    assert!(line.contains("invalid user ID or password"), "{line}");
    let nobody = gateway_on(&etcd.deployment(""));
    nobody.wait_for_line("user name is empty");
    let stderr = format!(
        "{}{}{}",
        gateway.stderr(),
        refused.stderr(),
        nobody.stderr()
    );
    assert!(!stderr.contains("-secret"), "{stderr}");
}

/// An authority, and what it has vouched for, as files in a folder.
struct Authority<'a> {
    folder: &'a Path,
    issuer: Issuer<'static, KeyPair>,
}

impl<'a> Authority<'a> {
    fn new(folder: &'a Path, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("valid");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let own = params.self_signed(&key).expect("signed");
        std::fs::write(folder.join(name), own.pem()).expect("written");
        Self {
            folder,
            issuer: Issuer::new(params, key),
        }
    }

    /// Writes `name.crt` and `name.key`, for a server or client at `host`.
    fn vouch(&self, name: &str, host: &str) {
        let mut params = CertificateParams::new(vec![host.to_owned()]).expect("valid");
        // etcd's own gateway shows the server's certificate to etcd.
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("signed");
        let write = |ending: &str, text: String| {
            let path = self.folder.join(format!("{name}.{ending}"));
            std::fs::write(path, text).expect("written");
        };
        write("crt", cert.pem());
        write("key", key.serialize_pem());
    }
}

/// Over TLS: both sides show certificates and ask for the other's.
#[test]
fn both_sides_show_certificates() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let authority = Authority::new(folder.path(), "ca.crt");
    authority.vouch("server", "etcd.test");
    authority.vouch("client", "gateway.test");
    Authority::new(folder.path(), "other.crt");
    let arguments = vec![
        format!("--cert-file={}", path("server.crt")),
        format!("--key-file={}", path("server.key")),
        format!("--trusted-ca-file={}", path("ca.crt")),
        "--client-cert-auth".to_owned(),
    ];
    let Some(etcd) = Etcd::start_with("https", arguments) else {
        return;
    };
    let url = format!("https://{}", etcd.address);
    let start = |trusted: &str, tls: &str| {
        let certificate = path(trusted);
        let ssl = format!("  ssl: {{enable: false, ssl_trusted_certificate: \"{certificate}\"}}");
        Gateway::start_with(Start {
            deployment: &deployment(&url, &format!(", tls: {{{tls}}}")),
            apisix: &ssl,
            ..Start::default()
        })
    };
    let own = format!(
        "cert: \"{}\", key: \"{}\"",
        path("client.crt"),
        path("client.key")
    );
    let named = format!("{own}, sni: etcd.test");
    let echo = Upstream::named("a");
    let one = start("ca.crt", &named);
    let other = start("other.crt", &format!("{named}, verify: false"));
    one.asked(201, "PUT", "/routes/1", route("/a", echo.address));
    other.wait_for_route("/a", 200);
    other.asked(200, "GET", "/routes/1", Value::Null);
    for (trusted, tls) in [
        ("other.crt", named.as_str()),
        ("ca.crt", own.as_str()),
        ("ca.crt", "sni: etcd.test"),
    ] {
        let refused = start(trusted, tls);
        refused.wait_for_line("etcd is out of reach");
        refused.asked(503, "GET", "/routes/1", Value::Null);
    }
}
