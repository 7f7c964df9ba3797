//! The Admin API over TLS.

mod support;

use std::{path::Path, sync::Arc};

use rustls::version::{TLS12, TLS13};
use support::{
    Gateway, Start,
    certificates::{Authority, Identity, ask, client_with, connect, identity},
    run, write_config,
};

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("written");
    path.display().to_string()
}

fn deployment(more: &str) -> String {
    format!(
        "{{admin: {{admin_listen: {{ip: 127.0.0.1, port: 0}}, admin_key_required: false, {more}}}}}"
    )
}

/// What a client that shows `own` is answered.
fn routes(gateway: &Gateway, server: &Identity, own: Option<&Identity>) -> Result<String, String> {
    let config = Arc::new(client_with(&[server], own, &[&TLS12, &TLS13]));
    let mut stream = connect(gateway.address("admin"), "admin.test", &config)?;
    ask(&mut stream, "/apisix/admin/routes", "admin.test")
}

/// `https_admin`, without and with certificates of clients.
#[test]
fn the_admin_api_is_served_over_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, authority) = (identity(&["admin.test"]), Authority::root("ours"));
    let (known, other) = (authority.vouch("me"), Authority::root("theirs").vouch("me"));
    let cert = write(folder.path(), "cert.pem", &server.cert);
    let key = write(folder.path(), "key.pem", &server.key);
    let ca = write(folder.path(), "ca.pem", &authority.pem());
    let pair = format!("admin_ssl_cert: \"{cert}\", admin_ssl_cert_key: \"{key}\"");
    let start = |more: &str| {
        Gateway::start_with(Start {
            deployment: &deployment(&format!("https_admin: true, admin_api_mtls: {{{more}}}")),
            ..Start::default()
        })
    };
    let open = start(&format!("{pair}, admin_ssl_ca_cert: \"\""));
    let answer = routes(&open, &server, None).expect("answered");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let guarded = start(&format!("{pair}, admin_ssl_ca_cert: \"{ca}\""));
    let answer = routes(&guarded, &server, Some(&known)).expect("answered");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(
        routes(&guarded, &server, None).is_err(),
        "without a certificate"
    );
    assert!(
        routes(&guarded, &server, Some(&other)).is_err(),
        "with a foreign one"
    );
}

/// Files that are wrong are told by `check` and at the start; no key is shown.
#[test]
fn wrong_files_are_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let (own, other) = (identity(&["admin.test"]), identity(&["admin.test"]));
    let cert = write(folder.path(), "cert.pem", &own.cert);
    let key = write(folder.path(), "key.pem", &own.key);
    let foreign = write(folder.path(), "other.pem", &other.key);
    let squeezed = write(folder.path(), "line.pem", &own.key.replace('\n', ""));
    for (cert, key, ca, expected) in [
        (
            "/nowhere.pem",
            &*key,
            "",
            "admin_ssl_cert: `/nowhere.pem`: cannot be read",
        ),
        (&*key, &*key, "", "no PEM certificate is in it"),
        (&*cert, &*foreign, "", "admin_ssl_cert: "),
        (&*cert, &*squeezed, "", "admin_ssl_cert_key: "),
        (
            &*cert,
            &*key,
            "/nowhere.pem",
            "admin_ssl_ca_cert: `/nowhere.pem`: cannot be read",
        ),
    ] {
        let config = folder.path().join("config.yaml");
        write_config(folder.path(), "", "");
        let files = format!(
            "https_admin: true, admin_api_mtls: {{admin_ssl_cert: \"{cert}\", \
             admin_ssl_cert_key: \"{key}\", admin_ssl_ca_cert: \"{ca}\"}}"
        );
        support::set_config(folder.path(), support::DATA_PLANE, &deployment(&files));
        for command in ["check", "run"] {
            let (code, _, told) = run(&[command, "--config", &config.display().to_string()]);
            assert_eq!(code, Some(1), "{told}");
            assert!(told.contains(expected), "{command}: {told}");
            assert!(!told.contains("PRIVATE KEY"), "a key is shown");
        }
    }
}
