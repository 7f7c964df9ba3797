//! Fields that say where a shared Redis is; the same for all plugins that count there (APISIX 3.18).

use std::{sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Policy;
use crate::{
    config::plugin_schema::Faults,
    limits::remote::{Address, Login, Place, Server, Verify},
};

/// As they are written. Has no `Debug`, as some are secret.
#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub(in crate::plugins) struct RedisConf {
    /// Host of the Redis.
    #[schemars(length(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    redis_host: Option<String>,
    /// Its port; 6379.
    #[schemars(range(min = 1, max = 65535))]
    #[serde(skip_serializing_if = "Option::is_none")]
    redis_port: Option<u16>,
    /// Name of the user.
    #[schemars(length(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    redis_username: Option<String>,
    /// Password.
    #[serde(skip_serializing_if = "Option::is_none")]
    redis_password: Option<String>,
    /// Number of the database; 0.
    #[schemars(range(min = 0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    redis_database: Option<u32>,
    /// Milliseconds for one decision; 1000.
    #[schemars(range(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    redis_timeout: Option<u64>,
    /// TLS to the Redis.
    #[serde(skip_serializing_if = "Option::is_none")]
    redis_ssl: Option<bool>,
    /// Its certificate must be good.
    #[serde(skip_serializing_if = "Option::is_none")]
    redis_ssl_verify: Option<bool>,
    /// Milliseconds after which an unused connection is closed; 10000, and 60000 with sentinels.
    #[schemars(range(min = 1000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    redis_keepalive_timeout: Option<u64>,
    /// Of no effect: each worker has one connection that all its requests share.
    #[schemars(range(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    redis_keepalive_pool: Option<u64>,
    /// Members of the cluster, `host:port`.
    #[schemars(length(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    redis_cluster_nodes: Option<Vec<String>>,
    /// Name of the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    redis_cluster_name: Option<String>,
    /// TLS to the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    redis_cluster_ssl: Option<bool>,
    /// Its certificates must be good.
    #[serde(skip_serializing_if = "Option::is_none")]
    redis_cluster_ssl_verify: Option<bool>,
    /// Sentinels.
    #[schemars(length(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    redis_sentinels: Option<Vec<SentinelConf>>,
    /// The master's name among sentinels.
    #[schemars(length(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    redis_master_name: Option<String>,
    /// Whom to count at; only masters can.
    #[serde(skip_serializing_if = "Option::is_none")]
    redis_role: Option<Role>,
    /// Milliseconds for connecting, with sentinels; 1000.
    #[schemars(range(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    redis_connect_timeout: Option<u64>,
    /// Milliseconds for one decision, with sentinels; 1000.
    #[schemars(range(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    redis_read_timeout: Option<u64>,
    /// Name of the user towards sentinels.
    #[serde(skip_serializing_if = "Option::is_none")]
    sentinel_username: Option<String>,
    /// Password towards sentinels.
    #[serde(skip_serializing_if = "Option::is_none")]
    sentinel_password: Option<String>,
}

#[derive(Deserialize, Serialize, JsonSchema)]
struct SentinelConf {
    /// Its host.
    #[schemars(length(min = 1))]
    host: String,
    /// Its port.
    #[schemars(range(min = 1, max = 65535))]
    port: u16,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Role {
    Master,
    Slave,
}

impl RedisConf {
    /// The servers that `policy` means, if it means any.
    pub(in crate::plugins) fn server(&self, policy: Policy) -> Result<Option<Arc<Server>>, Faults> {
        let place = match policy {
            Policy::Local => return Ok(None),
            Policy::Redis => Place::One(Address {
                host: needed(policy, "redis_host", self.redis_host.as_ref())?.clone(),
                port: self.redis_port.unwrap_or(PORT),
            }),
            Policy::RedisCluster => self.cluster()?,
            Policy::RedisSentinel => self.sentinels()?,
        };
        let has_sentinels = policy == Policy::RedisSentinel;
        let timeout = self.redis_timeout.filter(|_| !has_sentinels);
        let keepalive = self.redis_keepalive_timeout;
        let (ssl, verify) = match policy {
            Policy::RedisCluster => (self.redis_cluster_ssl, self.redis_cluster_ssl_verify),
            _ => (self.redis_ssl, self.redis_ssl_verify),
        };
        let verify = if verify == Some(true) {
            Verify::Certificates
        } else {
            Verify::Nothing
        };
        Ok(Some(Arc::new(Server {
            place,
            login: login(self.redis_username.as_ref(), self.redis_password.as_ref()),
            // A cluster has no other.
            database: self
                .redis_database
                .filter(|_| policy != Policy::RedisCluster)
                .unwrap_or(0),
            tls: (ssl == Some(true)).then_some(verify),
            connect_timeout: millis(
                timeout.or_else(|| self.redis_connect_timeout.filter(|_| has_sentinels)),
            ),
            timeout: millis(timeout.or_else(|| self.redis_read_timeout.filter(|_| has_sentinels))),
            keepalive: Duration::from_millis(keepalive.unwrap_or(if has_sentinels {
                60_000
            } else {
                10_000
            })),
        })))
    }

    fn cluster(&self) -> Result<Place, Faults> {
        let policy = Policy::RedisCluster;
        let nodes = needed(
            policy,
            "redis_cluster_nodes",
            self.redis_cluster_nodes.as_ref(),
        )?;
        needed(
            policy,
            "redis_cluster_name",
            self.redis_cluster_name.as_ref(),
        )?;
        let nodes = nodes.iter().enumerate().map(|(index, text)| {
            let found = text.rsplit_once(':').and_then(|(host, port)| {
                let host = host
                    .trim_start_matches('[')
                    .trim_end_matches(']')
                    .to_owned();
                let port = port.parse().ok().filter(|port| *port > 0)?;
                (!host.is_empty()).then_some(Address { host, port })
            });
            found.ok_or_else(|| {
                let path = format!("redis_cluster_nodes[{index}]");
                let text = format!("{path}: `{text}` is no `host:port`");
                Faults::at(&path, text)
            })
        });
        Ok(Place::Cluster(Faults::collect(nodes)?))
    }

    fn sentinels(&self) -> Result<Place, Faults> {
        let policy = Policy::RedisSentinel;
        if self.redis_role == Some(Role::Slave) {
            let text = "redis_role: nothing can be counted at a replica; use \"master\"";
            return Err(Faults::at("redis_role", text));
        }
        let sentinels = needed(policy, "redis_sentinels", self.redis_sentinels.as_ref())?;
        let sentinels = sentinels.iter().map(|sentinel| Address {
            host: sentinel.host.clone(),
            port: sentinel.port,
        });
        Ok(Place::Sentinels {
            sentinels: sentinels.collect(),
            master: needed(policy, "redis_master_name", self.redis_master_name.as_ref())?.clone(),
            login: login(
                self.sentinel_username.as_ref(),
                self.sentinel_password.as_ref(),
            ),
        })
    }
}

fn needed<'a, T>(policy: Policy, name: &str, value: Option<&'a T>) -> Result<&'a T, Faults> {
    value.ok_or_else(|| {
        let policy = policy.name();
        let text = format!(
            "then clause did not match: property \"{name}\" is required with policy \"{policy}\""
        );
        Faults::at(name, text)
    })
}

fn login(username: Option<&String>, password: Option<&String>) -> Login {
    let said = |text: Option<&String>| text.filter(|text| !text.is_empty()).cloned();
    Login {
        username: said(username),
        password: said(password),
    }
}

fn millis(millis: Option<u64>) -> Duration {
    Duration::from_millis(millis.unwrap_or(1_000).min(MILLIS_MAX))
}

/// Where Redis listens.
const PORT: u16 = 6379;
/// An hour: nobody waits longer.
const MILLIS_MAX: u64 = 3_600_000;
