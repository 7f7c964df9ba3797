//! Health checks, of upstreams and of AI instances alike.

use std::time::Duration;

use pointsman_balance::{Limits, Policy};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::snapshot::seconds;

/// `checks`.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, JsonSchema)]
#[schemars(extend("anyOf" = [{"required": ["active"]}, {"required": ["active", "passive"]}]))]
pub struct Checks {
    /// Probes.
    pub active: Option<Active>,
    /// Evidence from traffic. On AI instances it is our addition: APISIX accepts it there without
    /// effect.
    pub passive: Option<Passive>,
}

/// `checks.active`.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(default)]
pub struct Active {
    /// Kind of probe.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Seconds per operation on the socket.
    pub timeout: f64,
    /// Targets probed in parallel.
    pub concurrency: u32,
    /// Hostname part of the target's identity, and `Host` for nodes that are addresses.
    #[schemars(regex(pattern = super::shared::HOST_PATTERN))]
    pub host: Option<String>,
    /// Port to probe instead of the node's.
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// Method of the probe.
    #[schemars(extend("enum" = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "CONNECT", "TRACE", "PURGE"]))]
    pub http_method: String,
    /// Path and query of the probe. What would end the line or the head is refused: it is sent
    /// as it stands.
    #[schemars(regex(pattern = r"^[^\x00-\x20\x7f]*$"))]
    pub http_path: String,
    /// Body of the probe.
    pub http_req_body: String,
    /// Verify the certificate of an https target.
    pub https_verify_certificate: bool,
    /// SNI of an https probe; not documented by APISIX, honoured by it.
    pub https_sni: Option<String>,
    /// Further lines, `Name: value`.
    #[schemars(length(min = 1), extend("items" = {"type": "string", "pattern": HEADER_LINE}))]
    pub req_headers: Option<Vec<String>>,
    /// Ask on the connection of the probe before, for up to ten probes. Our addition: APISIX ignores
    /// it and opens a connection for each.
    pub reuse_connection: bool,
    /// When a target counts as healthy.
    pub healthy: Option<Healthy>,
    /// When it counts as unhealthy.
    pub unhealthy: Option<Unhealthy>,
}

/// `checks.passive`.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(default)]
pub struct Passive {
    /// Accepted; what is counted is what happens.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// What speaks for a target.
    pub healthy: Option<PassiveHealthy>,
    /// What speaks against it.
    pub unhealthy: Option<PassiveUnhealthy>,
}

/// `checks.passive.healthy`.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(default)]
pub struct PassiveHealthy {
    /// Statuses that are successes.
    #[schemars(length(min = 1), extend("uniqueItems" = true, "items" = {"type": "integer", "minimum": 200, "maximum": 599}))]
    pub http_statuses: Vec<u16>,
    /// Successes in a row until it is healthy; 0: they do not count.
    #[schemars(range(max = 254))]
    pub successes: u8,
}

/// `checks.passive.unhealthy`. A limit of 0 switches its kind of failure off.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(default)]
pub struct PassiveUnhealthy {
    /// Statuses that are failures.
    #[schemars(length(min = 1), extend("uniqueItems" = true, "items" = {"type": "integer", "minimum": 200, "maximum": 599}))]
    pub http_statuses: Vec<u16>,
    /// TCP failures in a row until it is unhealthy.
    #[schemars(range(max = 254))]
    pub tcp_failures: u8,
    /// Timeouts in a row until it is unhealthy.
    #[schemars(range(max = 254))]
    pub timeouts: u8,
    /// HTTP failures in a row until it is unhealthy.
    #[schemars(range(max = 254))]
    pub http_failures: u8,
}

/// Kind of probe.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// HTTP in plain text.
    #[default]
    Http,
    /// HTTP over TLS.
    Https,
    /// A connection.
    Tcp,
}

/// `checks.active.healthy`.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(default)]
pub struct Healthy {
    /// Seconds between probes of a usable target.
    #[schemars(range(min = 1))]
    pub interval: u32,
    /// Statuses that are successes.
    #[schemars(length(min = 1), extend("uniqueItems" = true, "items" = {"type": "integer", "minimum": 200, "maximum": 599}))]
    pub http_statuses: Vec<u16>,
    /// Successes in a row until it is healthy.
    #[schemars(range(min = 1, max = 254))]
    pub successes: u8,
}

/// `checks.active.unhealthy`.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(default)]
pub struct Unhealthy {
    /// Seconds between probes of an unusable target.
    #[schemars(range(min = 1))]
    pub interval: u32,
    /// Statuses that are failures.
    #[schemars(length(min = 1), extend("uniqueItems" = true, "items" = {"type": "integer", "minimum": 200, "maximum": 599}))]
    pub http_statuses: Vec<u16>,
    /// HTTP failures in a row until it is unhealthy.
    #[schemars(range(min = 1, max = 254))]
    pub http_failures: u8,
    /// TCP failures in a row until it is unhealthy.
    #[schemars(range(min = 1, max = 254))]
    pub tcp_failures: u8,
    /// Timeouts in a row until it is unhealthy.
    #[schemars(range(min = 1, max = 254))]
    pub timeouts: u8,
}

impl Default for Active {
    fn default() -> Self {
        Self {
            kind: Kind::Http,
            timeout: 1.0,
            concurrency: 10,
            host: None,
            port: None,
            http_method: "GET".to_owned(),
            http_path: "/".to_owned(),
            http_req_body: String::new(),
            https_verify_certificate: true,
            https_sni: None,
            req_headers: None,
            reuse_connection: false,
            healthy: None,
            unhealthy: None,
        }
    }
}

impl Default for Healthy {
    fn default() -> Self {
        Self {
            interval: 1,
            http_statuses: vec![200, 302],
            successes: 2,
        }
    }
}

impl Default for Unhealthy {
    fn default() -> Self {
        Self {
            interval: 1,
            http_statuses: vec![429, 404, 500, 501, 502, 503, 504, 505],
            http_failures: 5,
            tcp_failures: 2,
            timeouts: 3,
        }
    }
}

impl Active {
    /// The thresholds and intervals. A missing `healthy` or `unhealthy` means the documented
    /// defaults; APISIX 3.18 would never probe in that state.
    pub fn policy(&self) -> Policy {
        let healthy = self.healthy.clone().unwrap_or_default();
        let unhealthy = self.unhealthy.clone().unwrap_or_default();
        Policy {
            healthy_interval: Duration::from_secs(u64::from(healthy.interval)),
            healthy_statuses: healthy.http_statuses,
            successes: healthy.successes,
            unhealthy_interval: Duration::from_secs(u64::from(unhealthy.interval)),
            unhealthy_statuses: unhealthy.http_statuses,
            http_failures: unhealthy.http_failures,
            tcp_failures: unhealthy.tcp_failures,
            timeouts: unhealthy.timeouts,
            timeout: seconds(self.timeout).max(TIMEOUT_MIN),
            concurrency: self.concurrency.max(1),
        }
    }

    /// What APISIX takes and cannot be meant: path, and what is done instead.
    fn corrections(&self) -> Vec<(String, String)> {
        let mut corrections = Vec::new();
        let mut say = |field: &str, text: String| {
            corrections.push((format!("checks.active.{field}"), text));
        };
        if self.timeout < TIMEOUT_MIN.as_secs_f64() {
            let text = format!("no probe is that quick: {TIMEOUT_MIN:?} apply; give it seconds");
            say("timeout", text);
        }
        if self.concurrency == 0 {
            say(
                "concurrency",
                "nothing could be probed: 1 applies".to_owned(),
            );
        }
        let policy = self.policy();
        let is_both = |status: &&u16| policy.unhealthy_statuses.contains(status);
        if let Some(status) = policy.healthy_statuses.iter().find(is_both) {
            let text = format!("{status} stands in both lists: it counts as healthy");
            say("healthy.http_statuses", text);
        }
        corrections
    }
}

impl Default for Passive {
    fn default() -> Self {
        Self {
            kind: Kind::Http,
            healthy: None,
            unhealthy: None,
        }
    }
}

impl Default for PassiveHealthy {
    fn default() -> Self {
        let passive = pointsman_balance::Passive::default();
        Self {
            http_statuses: passive.healthy_statuses,
            successes: passive.limits.successes,
        }
    }
}

impl Default for PassiveUnhealthy {
    fn default() -> Self {
        let passive = pointsman_balance::Passive::default();
        Self {
            http_statuses: passive.unhealthy_statuses,
            tcp_failures: passive.limits.tcp_failures,
            timeouts: passive.limits.timeouts,
            http_failures: passive.limits.http_failures,
        }
    }
}

impl Passive {
    /// The lists and limits, defaults filled in.
    pub fn rules(&self) -> pointsman_balance::Passive {
        let healthy = self.healthy.clone().unwrap_or_default();
        let unhealthy = self.unhealthy.clone().unwrap_or_default();
        pointsman_balance::Passive {
            healthy_statuses: healthy.http_statuses,
            unhealthy_statuses: unhealthy.http_statuses,
            limits: Limits {
                successes: healthy.successes,
                http_failures: unhealthy.http_failures,
                tcp_failures: unhealthy.tcp_failures,
                timeouts: unhealthy.timeouts,
            },
        }
    }
}

impl Kind {
    /// As written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Tcp => "tcp",
        }
    }
}

/// Whose checks they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// A plain upstream's.
    Plain,
    /// An AI instance's.
    Ai,
}

impl Checks {
    /// What an operator coming from APISIX should know about these checks: path and text.
    pub fn remarks(&self, traffic: Traffic) -> Vec<(String, String)> {
        let mut remarks = Vec::new();
        let active = self.active.iter().flat_map(|active| {
            [
                ("healthy", active.healthy.is_none()),
                ("unhealthy", active.unhealthy.is_none()),
            ]
        });
        for (name, _) in active.filter(|(_, is_missing)| *is_missing) {
            let text = format!(
                "`{name}` is missing: its documented defaults apply (APISIX would not probe in \
                 that state)"
            );
            remarks.push((format!("checks.active.{name}"), text));
        }
        remarks.extend(self.active.iter().flat_map(Active::corrections));
        if self.passive.is_some() && traffic == Traffic::Ai {
            let text =
                "passive checks count the traffic of AI instances (APISIX ignores them there)";
            remarks.push(("checks.passive".to_owned(), text.to_owned()));
        }
        remarks
    }
}

/// A header's name, a colon, and a value that ends with the line.
const HEADER_LINE: &str = r"^[0-9A-Za-z!#$%&'*+.^_`|~-]+:[^\x00-\x08\x0a-\x1f\x7f]*$";
/// A probe gets at least this long.
const TIMEOUT_MIN: Duration = Duration::from_millis(10);
