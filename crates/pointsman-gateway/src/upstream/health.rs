//! What configuration asks of health checking, and which target each member got for it.
//!
//! Compilation runs in two passes. The first only collects the probes that upstreams and plugins
//! want; the monitor then settles, in one step, which targets exist. The second pass builds the
//! pools with the ids of those targets. So no pool can ever hold a target that the monitor does
//! not know, and a pick cannot depend on whether some checker has been created yet.

use std::collections::HashMap;

use pointsman_balance::{TargetId, Wanted};

/// A probe as it goes over the wire.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProbeSpec {
    /// What is probed.
    pub kind: ProbeKind,
    /// Address to dial: a name or an IP address without brackets.
    pub host: String,
    /// Port to dial.
    pub port: u16,
    /// Hostname part of the target's identity, as the health report shows it.
    pub hostname: String,
}

/// The three kinds of probe.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ProbeKind {
    /// A connection, nothing more.
    Tcp,
    /// A request in plain text.
    Http(ProbeRequest),
    /// A request over TLS.
    Https {
        /// The request.
        request: ProbeRequest,
        /// Name for SNI and for the certificate check.
        server_name: String,
        /// Verify the certificate.
        verify: bool,
    },
}

impl ProbeKind {
    /// `http`, `https` or `tcp`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http(_) => "http",
            Self::Https { .. } => "https",
        }
    }
}

/// The request of an HTTP probe. `Debug` shows no header values: they may be credentials.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ProbeRequest {
    /// Its method.
    pub method: String,
    /// Path and query, credentials of `auth.query` included.
    pub target: String,
    /// `Host`.
    pub host: String,
    /// Further lines, `Name: value`, in order.
    pub lines: Vec<String>,
    /// Its body; `Content-Length` is sent only when it is not empty.
    pub body: String,
}

impl std::fmt::Debug for ProbeRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.target.split('?').next().unwrap_or_default();
        write!(f, "{} {} (Host: {})", self.method, path, self.host)
    }
}

/// One probe that the configuration wants.
pub struct Planned {
    /// The resource and, for an AI instance, the plugin: unique with `member`.
    pub owner: String,
    /// Node or instance name.
    pub member: String,
    /// How the health report names the checker.
    pub report: ReportName,
    /// What to probe and how to judge it.
    pub wanted: Wanted<ProbeSpec>,
}

/// How the health report names a checker.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReportName {
    /// `/routes/1`, or `/routes/1#plugins['ai-proxy-multi'].instances[0]`.
    pub name: String,
    /// The instance's name, for AI instances.
    pub instance: Option<String>,
}

/// The targets that members were given.
#[derive(Default)]
pub struct Assigned {
    targets: HashMap<(String, String), Vec<TargetId>>,
}

impl Assigned {
    /// Notes that `member` of `owner` is judged by `target`.
    pub fn note(&mut self, owner: &str, member: &str, target: TargetId) {
        self.targets
            .entry((owner.to_owned(), member.to_owned()))
            .or_default()
            .push(target);
    }

    /// The targets of `member` of `owner`; empty when it is not checked.
    pub fn targets(&self, owner: &str, member: &str) -> Vec<TargetId> {
        self.targets
            .get(&(owner.to_owned(), member.to_owned()))
            .cloned()
            .unwrap_or_default()
    }
}
