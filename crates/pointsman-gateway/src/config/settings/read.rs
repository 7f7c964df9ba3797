//! Reading `config.yaml`, key by key.

mod deployment;
mod etcd;
mod nginx;
mod prometheus;
mod section;

use std::net::SocketAddr;

use http::HeaderValue;
use serde_json::{Map, Value};

use self::section::{Section, server_address};
use super::{HealthStateFile, Provider, SERVER_PLAIN, Settings};
use crate::config::{
    at_rest,
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
        self.deployment(&mut root, env, &mut settings);
        self.apisix(&mut root, &mut settings);
        if let Some((path, value)) = root.take("plugins") {
            settings.plugins = self.texts(&path, value);
        }
        self.plugin_attr(&mut root, &mut settings);
        self.nginx(&mut root, &mut settings);
        self.worker_processes(env, &mut settings);
        self.own(&mut root, &mut settings);
        if settings.is_control_plane {
            // Nobody is proxied for, so nobody is probed.
            settings.node_listen.clear();
            settings.ssl.listen.clear();
            settings.disable_upstream_healthcheck = true;
        }
        self.leftover(&root);
        self.conflicts(&settings);
        settings
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
        self.data_encryption(&mut apisix, settings);
        self.lru(&mut apisix, settings);
        self.addresses(&mut apisix, settings);
        if let Some(megabytes) = self.number(&mut apisix, "max_post_args_readable_size") {
            settings.post_args_bytes_max = megabytes.saturating_mul(1 << 20);
        }
        let mut enabled = true;
        self.flag(&mut apisix, "enable_admin", &mut enabled);
        if !enabled {
            settings.admin = None;
            // Without the API, there is the file after all, as in APISIX.
            if settings.provider == Provider::Api {
                settings.provider = Provider::File(Format::Yaml);
            }
        }
        self.leftover(&apisix);
    }

    fn lru(&mut self, apisix: &mut Section, settings: &mut Settings) {
        let Some(mut lru) = self.section(apisix, "lru") else {
            return;
        };
        if let Some(mut secret) = self.section(&mut lru, "secret") {
            let cache = &mut settings.secret_cache;
            self.time(&mut secret, "ttl", &mut cache.lifetime);
            self.time(&mut secret, "neg_ttl", &mut cache.failure_lifetime);
            // What is kept is what configuration refers to, so it needs no bound.
            for bound in ["count", "neg_count"] {
                let _ = secret.take(bound);
            }
            self.leftover(&secret);
        }
        self.leftover(&lru);
    }

    fn data_encryption(&mut self, apisix: &mut Section, settings: &mut Settings) {
        let Some(mut section) = self.section(apisix, "data_encryption") else {
            return;
        };
        let on = &mut settings.data_encryption.is_enabled;
        self.flag(&mut section, "enable_encrypt_fields", on);
        if let Some((path, value)) = section.take("keyring") {
            // A single text as APISIX once had it. What is wrong is told without the keys.
            let keys = match value {
                Value::Array(keys) => keys,
                other => vec![other],
            };
            let keys: Option<Vec<String>> = keys
                .into_iter()
                .map(|key| key.as_str().map(str::to_owned))
                .collect();
            let wrong = match &keys {
                None => Some("must be a list of texts (quote those that look like numbers)".into()),
                Some(keys) => keys.iter().find_map(|key| at_rest::unusable(key)),
            };
            settings.data_encryption.keyring = keys.unwrap_or_default();
            if let Some(wrong) = wrong {
                self.error(&path, wrong);
            }
        }
        self.leftover(&section);
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
        if let Some(mut section) = self.section(&mut attributes, "redirect") {
            let port = self.number(&mut section, "https_port");
            settings.redirect_https_port = port.and_then(|port| u16::try_from(port).ok());
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
        match own.take("store_file") {
            None => {}
            Some((_, Value::String(path))) if !path.is_empty() => settings.store_file = Some(path),
            Some((path, other)) => self.wrong_type(&path, "a path", &other),
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
        let admin = settings.admin.as_ref();
        all.extend(admin.map(|admin| ("deployment.admin.admin_listen", admin.listen)));
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

#[cfg(test)]
mod tests;
