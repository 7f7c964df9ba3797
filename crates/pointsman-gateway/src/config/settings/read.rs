//! Reading `config.yaml`, key by key.

mod nginx;
mod prometheus;
mod section;

use std::net::SocketAddr;

use http::HeaderValue;
use serde_json::{Map, Value};

use self::section::{Section, server_address};
use super::{HealthStateFile, SERVER_PLAIN, Settings};
use crate::config::{
    document::Format,
    resource::route::network,
    snapshot::whole_seconds,
    text::{self, Coerce, Env, Lines},
};

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingError {
    /// Its path, such as `apisix.node_listen`.
    pub path: String,
    /// Its line.
    pub line: Option<usize>,
    /// What is wrong.
    pub message: String,
}

/// A setting that has no effect.
pub type Warning = SettingError;

impl std::fmt::Display for SettingError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// Reads the whole file.
pub(super) fn parse(
    text: &str,
    env: Env<'_>,
) -> Result<(Settings, Vec<Warning>), Vec<SettingError>> {
    let whole = |error: text::TextError| {
        vec![SettingError {
            path: String::new(),
            line: error.line,
            message: error.message,
        }]
    };
    let mut located = text::yaml(text).map_err(whole)?;
    text::substitute_value(&mut located.value, env, Coerce::Yes).map_err(whole)?;
    let root = match located.value {
        Value::Null => Map::new(),
        Value::Object(map) => map,
        _ => {
            let message = "the file must be a map of sections".to_owned();
            return Err(vec![SettingError {
                path: String::new(),
                line: Some(1),
                message,
            }]);
        }
    };
    let mut reader = Reader {
        lines: &located.lines,
        errors: Vec::new(),
        warnings: Vec::new(),
    };
    let settings = reader.settings(root, env);
    if reader.errors.is_empty() {
        Ok((settings, reader.warnings))
    } else {
        Err(reader.errors)
    }
}

struct Reader<'a> {
    lines: &'a Lines,
    errors: Vec<SettingError>,
    warnings: Vec<Warning>,
}

impl Reader<'_> {
    fn settings(&mut self, root: Map<String, Value>, env: Env<'_>) -> Settings {
        let mut settings = Settings::default();
        let mut root = Section {
            path: String::new(),
            map: root,
        };
        self.deployment(&mut root, &mut settings);
        self.apisix(&mut root, &mut settings);
        if let Some((path, value)) = root.take("plugins") {
            settings.plugins = self.texts(&path, value);
        }
        self.plugin_attr(&mut root, &mut settings);
        self.nginx(&mut root, &mut settings);
        self.worker_processes(env, &mut settings);
        self.own(&mut root, &mut settings);
        self.leftover(&root);
        self.conflicts(&settings);
        settings
    }

    fn deployment(&mut self, root: &mut Section, settings: &mut Settings) {
        let Some(mut deployment) = self.section(root, "deployment") else {
            let path = "deployment.role";
            self.error(path, UNSUPPORTED_ROLE.to_owned());
            return;
        };
        let role = deployment.take("role").map(|(_, value)| value);
        if role.as_ref().and_then(Value::as_str) != Some("data_plane") {
            self.error("deployment.role", UNSUPPORTED_ROLE.to_owned());
        }
        if let Some(mut plane) = self.section(&mut deployment, "role_data_plane") {
            match plane
                .take("config_provider")
                .as_ref()
                .and_then(|(_, v)| v.as_str())
            {
                Some("yaml") => settings.format = Format::Yaml,
                Some("json") => settings.format = Format::Json,
                _ => {
                    let path = "deployment.role_data_plane.config_provider";
                    self.error(path, "only yaml and json are supported yet".to_owned());
                }
            }
            self.leftover(&plane);
        } else if role.as_ref().and_then(Value::as_str) == Some("data_plane") {
            let path = "deployment.role_data_plane.config_provider";
            self.error(
                path,
                "set it to yaml or json (etcd is not supported yet)".to_owned(),
            );
        }
        self.leftover(&deployment);
    }

    fn apisix(&mut self, root: &mut Section, settings: &mut Settings) {
        let Some(mut apisix) = self.section(root, "apisix") else {
            return;
        };
        if let Some((path, value)) = apisix.take("node_listen") {
            settings.node_listen = self.listeners(&path, value, 9080);
        }
        self.flag(&mut apisix, "enable_http2", &mut settings.http2);
        self.ssl(&mut apisix, settings);
        self.control(&mut apisix, settings);
        if let Some(status) = self.section(&mut apisix, "status") {
            settings.status = self.address(status, "127.0.0.1", 7085);
        }
        if let Some(mut router) = self.section(&mut apisix, "router") {
            if let Some(kind) = self.text(&mut router, "http") {
                if !ROUTERS.contains(&kind.as_str()) {
                    self.error(
                        "apisix.router.http",
                        format!("`{kind}` is none of {ROUTERS:?}"),
                    );
                }
                settings.router = kind;
            }
            self.leftover(&router);
        }
        let mut tokens = true;
        self.flag(&mut apisix, "enable_server_tokens", &mut tokens);
        if !tokens {
            settings.server_header = HeaderValue::from_static(SERVER_PLAIN);
        }
        let show = &mut settings.show_upstream_status;
        self.flag(&mut apisix, "show_upstream_status_in_response_header", show);
        let options = &mut settings.path_options;
        self.flag(
            &mut apisix,
            "delete_uri_tail_slash",
            &mut options.delete_tail_slash,
        );
        self.flag(
            &mut apisix,
            "normalize_uri_like_servlet",
            &mut options.servlet,
        );
        self.flag(
            &mut apisix,
            "match_uri_encoded_slash",
            &mut options.keep_encoded_slash,
        );
        let off = &mut settings.disable_upstream_healthcheck;
        self.flag(&mut apisix, "disable_upstream_healthcheck", off);
        self.addresses(&mut apisix, settings);
        if let Some(megabytes) = self.number(&mut apisix, "max_post_args_readable_size") {
            settings.post_args_bytes_max = megabytes.saturating_mul(1 << 20);
        }
        // The only role that there is has no Admin API, in APISIX neither.
        apisix.map.shift_remove("enable_admin");
        self.leftover(&apisix);
    }

    fn ssl(&mut self, apisix: &mut Section, settings: &mut Settings) {
        let Some(mut ssl) = self.section(apisix, "ssl") else {
            return;
        };
        let mut enabled = true;
        self.flag(&mut ssl, "enable", &mut enabled);
        if let Some((path, value)) = ssl.take("listen") {
            settings.ssl.listen = self.listeners(&path, value, 9443);
        }
        if !enabled {
            settings.ssl.listen.clear();
        }
        if let Some(protocols) = self.text(&mut ssl, "ssl_protocols") {
            settings.ssl.protocols = protocols.split_whitespace().map(str::to_owned).collect();
            let known = ["TLSv1.2", "TLSv1.3"];
            for other in protocols.split_whitespace().filter(|p| !known.contains(p)) {
                let message = format!("{other} is not supported, and not offered");
                self.warn("apisix.ssl.ssl_protocols", message);
            }
        }
        settings.ssl.trusted_certificate = self
            .text(&mut ssl, "ssl_trusted_certificate")
            .filter(|path| path != "system");
        settings.ssl.fallback_sni = self.text(&mut ssl, "fallback_sni");
        self.leftover(&ssl);
    }

    fn control(&mut self, apisix: &mut Section, settings: &mut Settings) {
        let mut enabled = true;
        self.flag(apisix, "enable_control", &mut enabled);
        if let Some(control) = self.section(apisix, "control") {
            settings.control = self.address(control, "127.0.0.1", 9090);
        }
        if !enabled {
            settings.control = None;
        }
    }

    fn addresses(&mut self, apisix: &mut Section, settings: &mut Settings) {
        if let Some((path, value)) = apisix.take("trusted_addresses") {
            let texts = self.texts(&path, value).unwrap_or_default();
            let networks: Vec<_> = texts.iter().filter_map(|text| network(text)).collect();
            if networks.len() != texts.len() {
                self.error(
                    &path,
                    "every entry must be an address or a network".to_owned(),
                );
            }
            settings.trusted_addresses = Some(networks);
        }
        if let Some((path, value)) = apisix.take("dns_resolver") {
            for text in self.texts(&path, value).unwrap_or_default() {
                match server_address(&text) {
                    Some(address) => settings.dns_servers.push(address),
                    None => self.error(&path, format!("`{text}` is not an address")),
                }
            }
        }
        settings.dns_valid = self.number(apisix, "dns_resolver_valid").map(whole_seconds);
        self.flag(apisix, "enable_ipv6", &mut settings.ipv6);
        self.flag(apisix, "enable_resolv_search_opt", &mut settings.dns_search);
    }

    fn plugin_attr(&mut self, root: &mut Section, settings: &mut Settings) {
        let Some(mut attributes) = self.section(root, "plugin_attr") else {
            return;
        };
        if let Some(mut section) = self.section(&mut attributes, "prometheus") {
            self.prometheus(&mut section, &mut settings.prometheus);
            self.leftover(&section);
        }
        if let Some(mut section) = self.section(&mut attributes, "ai-proxy") {
            match self.text(&mut section, "http_client").as_deref() {
                None => {}
                Some("ngx_http_ffi_client" | "lua-resty-http") => {
                    let message = "has no effect: this gateway has one client of its own";
                    self.warn(HTTP_CLIENT, message.to_owned());
                }
                Some(client) => {
                    let message =
                        format!("`{client}` is neither ngx_http_ffi_client nor lua-resty-http");
                    self.error(HTTP_CLIENT, message);
                }
            }
            self.leftover(&section);
        }
        self.leftover(&attributes);
    }

    fn own(&mut self, root: &mut Section, settings: &mut Settings) {
        let Some(mut own) = self.section(root, "pointsman") else {
            return;
        };
        let size = |number: Option<u64>| number.and_then(|number| usize::try_from(number).ok());
        if let Some(workers) = size(self.number(&mut own, "workers")) {
            settings.workers = Some(workers);
        }
        if let Some(mut log) = self.section(&mut own, "access_log") {
            if let Some(path) = self.text(&mut log, "path") {
                settings.access_log = Some(path);
            }
            let mut enabled = true;
            self.flag(&mut log, "enabled", &mut enabled);
            if !enabled {
                settings.access_log = None;
            }
            self.leftover(&log);
        }
        match own.take("health_state_file") {
            None => {}
            Some((_, Value::Bool(false))) => settings.health_state_file = HealthStateFile::Off,
            Some((_, Value::String(path))) if !path.is_empty() => {
                settings.health_state_file = HealthStateFile::At(path);
            }
            Some((path, other)) => self.wrong_type(&path, "a path, or false for none", &other),
        }
        self.time(&mut own, "drain_timeout", &mut settings.drain_timeout);
        if let Some(bytes) = size(self.number(&mut own, "max_header_bytes")) {
            settings.max_header_bytes = bytes.clamp(8 << 10, 1 << 20);
        }
        if let Some(headers) = size(self.number(&mut own, "max_headers")) {
            settings.max_headers = headers.clamp(1, 1000);
        }
        settings.max_connections =
            size(self.number(&mut own, "max_connections")).filter(|count| *count > 0);
        self.leftover(&own);
    }

    /// Two listeners on one address are a mistake that is best found before the start.
    fn conflicts(&mut self, settings: &Settings) {
        let mut all: Vec<(&str, SocketAddr)> = Vec::new();
        all.extend(
            settings
                .node_listen
                .iter()
                .map(|address| ("apisix.node_listen", *address)),
        );
        all.extend(
            settings
                .ssl
                .listen
                .iter()
                .map(|address| ("apisix.ssl.listen", *address)),
        );
        all.extend(settings.control.map(|address| ("apisix.control", address)));
        all.extend(settings.status.map(|address| ("apisix.status", address)));
        let exporter = settings.prometheus.export_addr;
        all.extend(exporter.map(|address| ("plugin_attr.prometheus.export_addr", address)));
        for (index, (name, address)) in all.iter().enumerate() {
            let clash = all[..index].iter().find(|(_, other)| {
                let anywhere = other.ip().is_unspecified() || address.ip().is_unspecified();
                let family = other.is_ipv4() == address.is_ipv4();
                let same = other.ip() == address.ip() || (family && anywhere);
                address.port() != 0 && other.port() == address.port() && same
            });
            if let Some((other, _)) = clash {
                self.error(
                    name,
                    format!("port {} conflicts with {other}", address.port()),
                );
            }
        }
    }
}

const ROUTERS: &[&str] = &[
    "radixtree_host_uri",
    "radixtree_uri",
    "radixtree_uri_with_parameter",
];
const HTTP_CLIENT: &str = "plugin_attr.ai-proxy.http_client";
const UNSUPPORTED_ROLE: &str = "only data_plane with role_data_plane.config_provider yaml or json \
                                is supported yet";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

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
    fn mistakes_are_errors_with_a_path() {
        refused("", "deployment.role");
        refused("deployment: {role: traditional}", "only data_plane");
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
}
