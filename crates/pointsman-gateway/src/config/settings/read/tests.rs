use std::time::Duration;

use super::*;
use crate::{admin_api::access::Role, config::settings::AdminKey};

const DEPLOYMENT: &str =
    "deployment: {role: data_plane, role_data_plane: {config_provider: yaml}}\n";

fn read(text: &str) -> (Settings, Vec<String>) {
    let env = |name: &str| (name == "PORT").then(|| "9999".to_owned());
    let (settings, warnings) =
        parse(&format!("{DEPLOYMENT}{text}"), &env).expect("settings without an error");
    (settings, warnings.iter().map(ToString::to_string).collect())
}

fn refused(text: &str, part: &str) {
    let errors = parse(text, &|_| None).expect_err("refused");
    let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert!(
        all.iter().any(|error| error.contains(part)),
        "{all:?} lacks {part}"
    );
}

#[test]
fn node_listen_has_three_forms() {
    let ports = |text: &str| -> Vec<String> {
        read(text)
            .0
            .node_listen
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    assert_eq!(ports(""), ["0.0.0.0:9080"]);
    assert_eq!(ports("apisix: {node_listen: 8000}"), ["0.0.0.0:8000"]);
    assert_eq!(
        ports("apisix: {node_listen: [8000, 8001]}"),
        ["0.0.0.0:8000", "0.0.0.0:8001"]
    );
    assert_eq!(
        ports("apisix: {node_listen: [{ip: 127.0.0.1, port: 0}, {port: 81}]}"),
        ["127.0.0.1:0", "0.0.0.0:81"]
    );
    assert_eq!(
        ports("apisix: {node_listen: \"${{PORT}}\"}"),
        ["0.0.0.0:9999"]
    );
    assert_eq!(
        ports("apisix: {node_listen: \"${{NOPE:=77}}\"}"),
        ["0.0.0.0:77"]
    );
}

#[test]
fn the_role_says_where_configuration_comes_from() {
    let check = |text: &str, provider: Provider, has_admin: bool| {
        let (settings, _) = parse(text, &|_| None).expect("settings without an error");
        let found = (settings.provider, settings.admin.is_some());
        assert_eq!(found, (provider, has_admin), "{text}");
    };
    check("", Provider::Store, true);
    check("deployment: {role: traditional}", Provider::Store, true);
    check("apisix: {enable_admin: false}", Provider::Store, false);
    let api = "deployment: {role_traditional: {config_provider: yaml}}";
    check(api, Provider::Api, true);
    let file = format!("{api}\napisix: {{enable_admin: false}}");
    check(&file, Provider::File(Format::Yaml), false);
    check(DEPLOYMENT, Provider::File(Format::Yaml), false);
}

#[test]
fn keys_of_the_admin_api_are_asked_for_unless_that_is_off() {
    let keys = |text: &str| {
        let text = format!("deployment: {{admin: {text}}}");
        let (settings, _) = parse(&text, &|_| None).expect("settings without an error");
        let keys = settings.admin.expect("an Admin API").keys?;
        let made = |key: &AdminKey| (key.name.clone(), key.key.is_none(), key.role);
        Some(keys.iter().map(made).collect::<Vec<_>>())
    };
    let own = Some(vec![("admin".to_owned(), true, Role::Admin)]);
    assert_eq!(keys("{}"), own);
    assert_eq!(
        keys("{admin_key: [{name: admin, key: '', role: admin}]}"),
        own
    );
    assert_eq!(keys("{admin_key: ~}"), None);
    assert_eq!(keys("{admin_key_required: false}"), None);
    assert_eq!(
        keys("{admin_key: [{name: v, key: k, role: viewer}]}"),
        Some(vec![("v".to_owned(), false, Role::Viewer)])
    );
}

#[test]
fn unknown_keys_warn_and_change_nothing() {
    let (_, warnings) = read("apisix: {nonsense: 1}\nelse: {}\n");
    assert_eq!(
        warnings,
        [
            "line 2: apisix.nonsense: not supported by this gateway; ignored",
            "line 3: else: not supported by this gateway; ignored"
        ]
    );
}

/// A setting that is read and does nothing says so, once.
#[test]
fn settings_without_effect_warn() {
    let (settings, warnings) = read(
        "apisix: {enable_ipv6: false, enable_resolv_search_opt: false, ssl: {ssl_protocols: TLSv1.1 TLSv1.3}}\n\
         plugin_attr:\n  prometheus: {refresh_interval: 5}\n  ai-proxy: {http_client: lua-resty-http}\n\
         nginx_config:\n  http:\n    real_ip_header: X\n    real_ip_from: [127.0.0.1]\n    real_ip_recursive: on\n",
    );
    assert_eq!((settings.ipv6, settings.dns_search), (false, false));
    assert_eq!(
        warnings,
        [
            "line 2: apisix.ssl.ssl_protocols: TLSv1.1 is not supported, and not offered",
            "line 4: plugin_attr.prometheus.refresh_interval: has no effect: metrics are made when they are asked for",
            "line 5: plugin_attr.ai-proxy.http_client: has no effect: this gateway has one client of its own",
            "line 8: nginx_config.http.real_ip_header: not supported by this gateway; ignored",
            "line 9: nginx_config.http.real_ip_from: not supported by this gateway; ignored",
            "line 10: nginx_config.http.real_ip_recursive: not supported by this gateway; ignored",
        ]
    );
}

#[test]
fn tls_of_the_admin_api_needs_its_files() {
    for (admin, part) in [
        ("{https_admin: true}", "needs a certificate"),
        (
            "{https_admin: true, admin_api_mtls: {admin_ssl_cert: a.pem}}",
            "needs a certificate",
        ),
        (
            "{admin_api_mtls: {admin_ssl_ca_cert: ca.pem}}",
            "no effect without TLS",
        ),
    ] {
        refused(&format!("deployment: {{admin: {admin}}}"), part);
    }
}

#[test]
fn mistakes_are_errors_with_a_path() {
    refused("deployment: {role: other}", "none of traditional");
    refused(
        "deployment: {role: data_plane}",
        "set it to etcd, yaml or json",
    );
    refused(
        "deployment: {role: control_plane, role_control_plane: {config_provider: yaml}}",
        "set it to etcd",
    );
    refused(
        "deployment: {role_traditional: {config_provider: xds}}",
        "none of etcd and yaml",
    );
    for (admin, part) in [
        ("{admin_key: secret}", "must be a list of {name, key, role}"),
        ("{admin_key: []}", "names no key"),
        (
            "{admin_key: [{name: a, key: 12, role: admin}]}",
            "put it in quotes",
        ),
        (
            "{admin_key: [{name: a, key: k, role: root}]}",
            "admin or viewer",
        ),
        (
            "{admin_key: [{name: v, role: viewer}]}",
            "a viewer needs a key",
        ),
        ("{admin_api_version: v2}", "set it to v3"),
        ("{allow_admin: [nowhere]}", "an address or a network"),
        ("{allow_admin: []}", "must name somebody"),
        (
            "{admin_listen: {port: 9080}}",
            "conflicts with apisix.node_listen",
        ),
    ] {
        refused(&format!("deployment: {{admin: {admin}}}"), part);
    }
    refused(&format!("{DEPLOYMENT}apisix: 5"), "apisix: must be a map");
    refused(
        &format!("{DEPLOYMENT}apisix: {{node_listen: [{{port: 1, enable_http2: true}}]}}"),
        "enable_http2",
    );
    refused(
        &format!("{DEPLOYMENT}apisix: {{node_listen: 9090}}"),
        "conflicts with apisix.node_listen",
    );
    refused(
        &format!("{DEPLOYMENT}nginx_config: {{http: {{send_timeout: soon}}}}"),
        "is not a time",
    );
    refused(
        &format!("{DEPLOYMENT}plugin_attr: {{ai-proxy: {{http_client: curl}}}}"),
        "curl",
    );
    refused(
        &format!("{DEPLOYMENT}apisix: {{enable_http2: yes}}"),
        "apisix.enable_http2: must be true or false (\"yes\" is text; write true), not `\"yes\"`",
    );
    for value in ["true", "''", "7"] {
        refused(
            &format!("{DEPLOYMENT}pointsman: {{health_state_file: {value}}}"),
            "pointsman.health_state_file: must be a path, or false for none, not",
        );
    }
    refused("a: [", "");
}

#[test]
fn health_is_kept_unless_that_is_off() {
    let check = |text: &str, expected: HealthStateFile| {
        assert_eq!(read(text).0.health_state_file, expected, "{text}");
    };
    check("", HealthStateFile::Default);
    check(
        "pointsman: {health_state_file: /var/h}",
        HealthStateFile::At("/var/h".to_owned()),
    );
    check(
        "pointsman: {health_state_file: false}",
        HealthStateFile::Off,
    );
    check(
        "pointsman: {health_state_file: \"${{NOPE:=false}}\"}",
        HealthStateFile::Off,
    );
}

#[test]
fn sections_are_read() {
    let (settings, warnings) = read(
        "apisix:\n  enable_control: false\n  ssl: {enable: false}\n  status: {port: 7}\n  \
         enable_server_tokens: false\n  trusted_addresses: [10.0.0.0/8]\n  dns_resolver: [1.1.1.1, \"127.0.0.1:5353\"]\n\
         plugins: [key-auth]\nnginx_config: {worker_processes: 3, http: {client_max_body_size: 8m, client_body_timeout: 5s}}\n\
         pointsman: {drain_timeout: 5s, access_log: {enabled: false}, max_connections: 9}\n",
    );
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!((settings.control, settings.ssl.listen.len()), (None, 0));
    assert_eq!(
        settings
            .status
            .map(|address| address.to_string())
            .as_deref(),
        Some("127.0.0.1:7")
    );
    assert_eq!(settings.server_header, "APISIX");
    assert_eq!(settings.dns_servers[1].port(), 5353);
    assert_eq!(settings.plugins, Some(vec!["key-auth".to_owned()]));
    assert_eq!(
        (settings.workers, settings.client_max_body_size),
        (Some(3), Some(8 << 20))
    );
    assert_eq!(
        (settings.access_log, settings.max_connections),
        (None, Some(9))
    );
    assert_eq!(settings.client_body_timeout, Duration::from_secs(5));
}

#[test]
fn secrets_are_told_without_their_keys() {
    refused(
        "apisix: {data_encryption: {keyring: [1234567890123456]}}",
        "quote those",
    );
    refused(
        "apisix: {data_encryption: {keyring: [short]}}",
        "must have 16 bytes",
    );
    refused(
        "apisix: {data_encryption: {keyring: 5}}",
        "keyring: must be a list",
    );
    let (settings, warnings) = read(
        "apisix: {lru: {secret: {ttl: 5, neg_ttl: 2, count: 9}}, data_encryption: {keyring: [0123456789abcdef]}}",
    );
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(settings.secret_cache.lifetime, Duration::from_secs(5));
    assert_eq!(
        settings.secret_cache.failure_lifetime,
        Duration::from_secs(2)
    );
    assert_eq!(settings.data_encryption.keyring, ["0123456789abcdef"]);
    let errors = parse(
        "apisix: {data_encryption: {keyring: [a-short-key]}}",
        &|_| None,
    );
    let errors = errors.expect_err("refused");
    assert!(!format!("{errors:?}").contains("a-short-key"));
}
