//! Names to addresses, with the records' own lifetime.
//!
//! The hosts file comes first, then the servers of `apisix.dns_resolver` or, without it, the
//! system's. Answers are kept for their TTL (or `dns_resolver_valid`). When a name cannot be
//! resolved any more, the addresses that it had stay in force: an outage of DNS must not take
//! down targets that work.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use hickory_resolver::{
    TokioResolver,
    config::{NameServerConfig, ResolverConfig, ResolverOpts},
    net::runtime::TokioRuntimeProvider,
};

/// Resolves names; cheap to clone.
#[derive(Clone)]
pub(crate) struct Resolver {
    inner: Arc<Inner>,
}

struct Inner {
    resolver: TokioResolver,
    last_good: Mutex<HashMap<String, Vec<IpAddr>>>,
}

impl Resolver {
    /// A resolver that asks `servers`, or the system's when there are none.
    pub(crate) fn new(servers: &[SocketAddr], valid: Option<Duration>) -> Result<Self, String> {
        let mut options = ResolverOpts::default();
        let config = if servers.is_empty() {
            match hickory_resolver::system_conf::read_system_conf() {
                Ok((config, system)) => {
                    options = system;
                    config
                }
                Err(error) => {
                    tracing::warn!("the system's resolver configuration: {error}");
                    ResolverConfig::default()
                }
            }
        } else {
            let servers = servers.iter().map(|address| {
                let mut server = NameServerConfig::udp_and_tcp(address.ip());
                for connection in &mut server.connections {
                    connection.port = address.port();
                }
                server
            });
            ResolverConfig::from_name_servers(servers.collect())
        };
        options.timeout = QUERY_TIMEOUT;
        options.attempts = 2;
        if let Some(valid) = valid {
            options.positive_min_ttl = Some(valid);
            options.positive_max_ttl = Some(valid);
        }
        let resolver = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            .with_options(options)
            .build()
            .map_err(|error| format!("DNS resolver: {error}"))?;
        Ok(Self {
            inner: Arc::new(Inner {
                resolver,
                last_good: Mutex::default(),
            }),
        })
    }

    /// The addresses of `name`, in the order in which the answer had them.
    pub(crate) async fn look_up(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        let found = self.inner.resolver.lookup_ip(name).await;
        let mut last_good = self
            .inner
            .last_good
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match found {
            Ok(answer) => {
                let mut addresses: Vec<IpAddr> = answer.iter().collect();
                addresses.truncate(ADDRESSES_MAX);
                if last_good.get(name) != Some(&addresses) {
                    if last_good.len() >= NAMES_MAX {
                        last_good.clear();
                    }
                    last_good.insert(name.to_owned(), addresses.clone());
                }
                Ok(addresses)
            }
            Err(error) => match last_good.get(name) {
                Some(addresses) => {
                    tracing::warn!(name, "cannot be resolved, its last addresses stay: {error}");
                    Ok(addresses.clone())
                }
                None => Err(format!("{name}: {error}")),
            },
        }
    }
}

/// One query to one server.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);
/// Addresses of one name that are used.
const ADDRESSES_MAX: usize = 64;
/// Names whose last good answer is kept.
const NAMES_MAX: usize = 10_000;
