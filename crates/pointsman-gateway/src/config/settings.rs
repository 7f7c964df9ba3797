//! `config.yaml`: the program's settings, under APISIX's names.
//!
//! What exists here is read; any other key is named in a warning and changes nothing. A value of
//! the wrong type is an error, with its path.

mod read;
mod units;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use http::HeaderValue;
use ipnet::{IpNet, Ipv4Net};

pub use self::read::{SettingError, Warning};
use crate::{
    admin_api::{
        access::{KeyDigest, Role},
        store::DEFAULT_PREFIX,
    },
    config::{document::Format, text::Env},
    router::path::PathOptions,
};

/// The program's settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `apisix.node_listen`.
    pub node_listen: Vec<SocketAddr>,
    /// `apisix.enable_http2`.
    pub http2: bool,
    /// `apisix.ssl`.
    pub ssl: SslSettings,
    /// `apisix.control`, unless it is off.
    pub control: Option<SocketAddr>,
    /// `apisix.status`, if it is on.
    pub status: Option<SocketAddr>,
    /// `apisix.router.http`.
    pub router: String,
    /// What `Server` says.
    pub server_header: HeaderValue,
    /// `apisix.show_upstream_status_in_response_header`.
    pub show_upstream_status: bool,
    /// How paths are read.
    pub path_options: PathOptions,
    /// `apisix.disable_upstream_healthcheck`.
    pub disable_upstream_healthcheck: bool,
    /// `apisix.lru.secret`.
    pub secret_cache: SecretCache,
    /// `apisix.data_encryption`.
    pub data_encryption: DataEncryption,
    /// `apisix.trusted_addresses`; `None` when there is no list.
    pub trusted_addresses: Option<Vec<IpNet>>,
    /// `apisix.max_post_args_readable_size`, bytes.
    pub post_args_bytes_max: u64,
    /// `apisix.dns_resolver`; empty: the system's.
    pub dns_servers: Vec<SocketAddr>,
    /// `apisix.dns_resolver_valid`.
    pub dns_valid: Option<Duration>,
    /// `apisix.enable_ipv6`: names may stand for IPv6 addresses.
    pub ipv6: bool,
    /// `apisix.enable_resolv_search_opt`: short names are looked for in the system's search domains.
    pub dns_search: bool,
    /// `deployment.role` is `control_plane`: there is an Admin API, and no proxy.
    pub is_control_plane: bool,
    /// Where configuration comes from, by `deployment`.
    pub provider: Provider,
    /// `deployment.admin`, unless there is no Admin API.
    pub admin: Option<AdminSettings>,
    /// `deployment.etcd`.
    pub etcd: EtcdSettings,
    /// `pointsman.store_file`; `None` for the usual place.
    pub store_file: Option<String>,
    /// `plugins`, if the list is given.
    pub plugins: Option<Vec<String>>,
    /// `plugin_attr.redirect.https_port`.
    pub redirect_https_port: Option<u16>,
    /// `plugin_attr.prometheus`.
    pub prometheus: PrometheusSettings,
    /// `pointsman.workers`, or `nginx_config.worker_processes`.
    pub workers: Option<usize>,
    /// `pointsman.access_log.path`, unless it is off.
    pub access_log: Option<String>,
    /// `pointsman.health_state_file`.
    pub health_state_file: HealthStateFile,
    /// `pointsman.drain_timeout`.
    pub drain_timeout: Duration,
    /// `pointsman.max_header_bytes`.
    pub max_header_bytes: usize,
    /// `pointsman.max_headers`.
    pub max_headers: usize,
    /// `pointsman.max_connections` per worker.
    pub max_connections: Option<usize>,
    /// `nginx_config.http.client_max_body_size`, bytes; `None` for no limit.
    pub client_max_body_size: Option<u64>,
    /// `nginx_config.http.client_header_timeout`, and how long an idle connection waits.
    pub client_header_timeout: Duration,
    /// `nginx_config.http.client_body_timeout`.
    pub client_body_timeout: Duration,
    /// `nginx_config.http.send_timeout`.
    pub send_timeout: Duration,
    /// The machine's name, for logs.
    pub hostname: String,
}

/// `apisix.lru.secret`: how long what secret managers have said counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecretCache {
    /// `ttl`: of a value.
    pub lifetime: Duration,
    /// `neg_ttl`: of an answer without one.
    pub failure_lifetime: Duration,
}

impl Default for SecretCache {
    fn default() -> Self {
        Self {
            lifetime: Duration::from_secs(300),
            failure_lifetime: Duration::from_secs(60),
        }
    }
}

/// `apisix.data_encryption`. `Debug` shows no key.
#[derive(Clone, PartialEq, Eq)]
pub struct DataEncryption {
    /// `enable_encrypt_fields`.
    pub is_enabled: bool,
    /// `keyring`, each of 16 or 32 bytes; the first encrypts.
    pub keyring: Vec<String>,
}

impl std::fmt::Debug for DataEncryption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataEncryption")
            .field("is_enabled", &self.is_enabled)
            .finish_non_exhaustive()
    }
}

impl Default for DataEncryption {
    /// APISIX's, which everybody knows.
    fn default() -> Self {
        Self {
            is_enabled: true,
            keyring: ["qeddd145sfvddff3", "edd1c9f0985e76a2"]
                .map(str::to_owned)
                .into(),
        }
    }
}

/// Where configuration comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// The standalone document beside `config.yaml`.
    File(Format),
    /// The embedded store, which the Admin API writes.
    Store,
    /// The standalone Admin API, which is given documents as a whole.
    Api,
    /// etcd, which other gateways may share.
    Etcd,
}

/// `deployment.etcd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdSettings {
    /// `host`: any of them may be asked.
    pub hosts: Vec<EtcdHost>,
    /// `prefix`, with a slash at the start and none at the end.
    pub prefix: String,
    /// `timeout`: of one call.
    pub timeout: Duration,
    /// `watch_timeout`: a watch that tells nothing for so long is begun anew.
    pub watch_timeout: Duration,
    /// `startup_retry`: how often all hosts are asked once more at the start.
    pub startup_retry: u64,
    /// `user` and `password`.
    pub login: Option<EtcdLogin>,
    /// `tls.cert` and `tls.key`, paths of PEM files.
    pub certificate: Option<(String, String)>,
    /// `tls.verify`.
    pub verify: bool,
    /// `tls.sni`; `None` for the host's own name.
    pub sni: Option<String>,
}

/// A member of etcd, or what stands before some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdHost {
    /// A name or an address without brackets.
    pub name: String,
    /// Its port.
    pub port: u16,
    /// It is spoken to over TLS.
    pub is_secure: bool,
}

/// Who a gateway is to etcd. `Debug` shows no password.
#[derive(Clone, PartialEq, Eq)]
pub struct EtcdLogin {
    /// `user`.
    pub user: String,
    /// `password`.
    pub password: String,
}

impl std::fmt::Debug for EtcdLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdLogin")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl Default for EtcdSettings {
    fn default() -> Self {
        Self {
            hosts: vec![EtcdHost {
                name: "127.0.0.1".to_owned(),
                port: 2379,
                is_secure: false,
            }],
            prefix: DEFAULT_PREFIX.to_owned(),
            timeout: Duration::from_secs(30),
            watch_timeout: Duration::from_secs(50),
            startup_retry: 2,
            login: None,
            certificate: None,
            verify: true,
            sni: None,
        }
    }
}

/// `deployment.admin`.
#[derive(Clone, Debug)]
pub struct AdminSettings {
    /// `admin_listen`.
    pub listen: SocketAddr,
    /// `allow_admin`; `None` for any address.
    pub allow: Option<Vec<IpNet>>,
    /// `admin_key`; `None` if no key is asked for.
    pub keys: Option<Vec<AdminKey>>,
    /// `enable_admin_cors`.
    pub cors: bool,
    /// `https_admin` with `admin_api_mtls`; `None` for an Admin API without TLS.
    pub tls: Option<AdminTls>,
}

/// Paths of PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminTls {
    /// `admin_ssl_cert`.
    pub cert: String,
    /// `admin_ssl_cert_key`.
    pub key: String,
    /// `admin_ssl_ca_cert`: who vouches for clients; `None` if they need no certificate.
    pub ca: Option<String>,
}

/// An entry of `deployment.admin.admin_key`.
#[derive(Clone, Debug)]
pub struct AdminKey {
    /// Whose it is.
    pub name: String,
    /// It; `None` if one has to be made.
    pub key: Option<KeyDigest>,
    /// What it allows.
    pub role: Role,
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9180)),
            allow: Some(vec![IpNet::V4(Ipv4Net::new_assert(
                Ipv4Addr::new(127, 0, 0, 0),
                24,
            ))]),
            keys: Some(vec![AdminKey {
                name: "admin".to_owned(),
                key: None,
                role: Role::Admin,
            }]),
            cors: true,
            tls: None,
        }
    }
}

/// `pointsman.health_state_file`: where health is kept over a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthStateFile {
    /// `health.state` in the folder `logs` beside that of `config.yaml`.
    Default,
    /// This file; a relative path counts from the folder of `config.yaml`.
    At(String),
    /// Nowhere.
    Off,
}

/// `apisix.ssl`.
#[derive(Clone, Debug)]
pub struct SslSettings {
    /// Where TLS is terminated; empty when it is off.
    pub listen: Vec<SocketAddr>,
    /// `ssl_protocols`.
    pub protocols: Vec<String>,
    /// `ssl_trusted_certificate`, a path; `None` for the system's roots alone.
    pub trusted_certificate: Option<String>,
    /// `fallback_sni`.
    pub fallback_sni: Option<String>,
}

/// `plugin_attr.prometheus`.
#[derive(Clone, Debug, PartialEq)]
pub struct PrometheusSettings {
    /// Path of the metrics.
    pub export_uri: String,
    /// Where they are served, unless that is off.
    pub export_addr: Option<SocketAddr>,
    /// Start of every name.
    pub metric_prefix: String,
    /// Bounds of `http_latency`, ms.
    pub default_buckets: Option<Vec<f64>>,
    /// Bounds of `llm_latency`, ms.
    pub llm_latency_buckets: Option<Vec<f64>>,
    /// Bounds of `llm_prompt_tokens_dist`.
    pub llm_prompt_tokens_buckets: Option<Vec<f64>>,
    /// Bounds of `llm_completion_tokens_dist`.
    pub llm_completion_tokens_buckets: Option<Vec<f64>>,
    /// What is said of single metrics, by their names without the prefix.
    pub metrics: BTreeMap<String, MetricSettings>,
}

/// `plugin_attr.prometheus.metrics.<name>`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetricSettings {
    /// Further labels: name, and a text with variables.
    pub extra_labels: Vec<(String, String)>,
    /// After what time without a request a series is no longer shown; `None` for never.
    pub expire: Option<Duration>,
}

impl Settings {
    /// Reads `config.yaml`. An empty text gives the defaults.
    pub fn parse(text: &str, env: Env<'_>) -> Result<(Self, Vec<Warning>), Vec<SettingError>> {
        read::parse(text, env)
    }
}

impl Default for Settings {
    fn default() -> Self {
        let everywhere = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
        let local = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        Self {
            node_listen: vec![everywhere(9080)],
            http2: true,
            ssl: SslSettings {
                listen: vec![everywhere(9443)],
                protocols: vec!["TLSv1.2".to_owned(), "TLSv1.3".to_owned()],
                trusted_certificate: None,
                fallback_sni: None,
            },
            control: Some(local(9090)),
            status: None,
            router: "radixtree_host_uri".to_owned(),
            server_header: HeaderValue::from_static(SERVER),
            show_upstream_status: false,
            path_options: PathOptions::default(),
            disable_upstream_healthcheck: false,
            secret_cache: SecretCache::default(),
            data_encryption: DataEncryption::default(),
            trusted_addresses: None,
            post_args_bytes_max: 64 << 20,
            dns_servers: Vec::new(),
            dns_valid: None,
            ipv6: true,
            dns_search: true,
            is_control_plane: false,
            provider: Provider::Store,
            admin: Some(AdminSettings::default()),
            etcd: EtcdSettings::default(),
            store_file: None,
            plugins: None,
            redirect_https_port: None,
            prometheus: PrometheusSettings {
                export_uri: "/apisix/prometheus/metrics".to_owned(),
                export_addr: Some(local(9091)),
                metric_prefix: "apisix_".to_owned(),
                default_buckets: None,
                llm_latency_buckets: None,
                llm_prompt_tokens_buckets: None,
                llm_completion_tokens_buckets: None,
                metrics: BTreeMap::new(),
            },
            workers: None,
            access_log: Some("/dev/stdout".to_owned()),
            health_state_file: HealthStateFile::Default,
            drain_timeout: Duration::from_secs(30),
            max_header_bytes: 64 << 10,
            max_headers: 100,
            max_connections: None,
            client_max_body_size: None,
            client_header_timeout: Duration::from_secs(60),
            client_body_timeout: Duration::from_secs(60),
            send_timeout: Duration::from_secs(10),
            hostname: hostname(),
        }
    }
}

/// The name that the environment or the system gives this machine.
fn hostname() -> String {
    std::env::var("HOSTNAME")
        .ok()
        .or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}

/// `Server`: what APISIX's users look for first, and then the truth.
pub const SERVER: &str = concat!("APISIX/3.18 (Pointsman/", env!("CARGO_PKG_VERSION"), ")");
/// `Server` without versions.
pub const SERVER_PLAIN: &str = "APISIX";
