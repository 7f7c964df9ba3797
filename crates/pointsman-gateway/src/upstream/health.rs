//! What configuration asks of health checking, and which target each member got for it.
//!
//! Compilation runs in two passes. The first only collects the probes that upstreams and plugins
//! want; the monitor then settles, in one step, which targets exist. The second pass builds the
//! pools with the ids of those targets. So no pool can ever hold a target that the monitor does
//! not know, and a pick cannot depend on whether some checker has been created yet.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use pointsman_balance::{TargetId, Wanted};

use crate::{
    config::resource::checks::{self, Active},
    upstream::resolve,
};

/// A probe as it goes over the wire. Many hold it, so it is passed on in an `Arc`.
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

impl ProbeSpec {
    /// `host:port`, as logs and metrics name a target.
    pub fn address(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// The same at one of the addresses of its name.
    #[must_use]
    pub fn at(&self, ip: IpAddr) -> Self {
        Self {
            host: ip.to_string(),
            ..self.clone()
        }
    }

    /// The same without what says by which name it is asked: two probes that are equal without find out
    /// the same about an address, as far as that can be told beforehand.
    #[must_use]
    pub fn nameless(mut self) -> Self {
        self.hostname.clear();
        match &mut self.kind {
            ProbeKind::Tcp => {}
            ProbeKind::Http(request) => request.host.clear(),
            ProbeKind::Https {
                request,
                server_name,
                ..
            } => {
                request.host.clear();
                server_name.clear();
            }
        }
        self
    }
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
    /// Whether its connection may serve several probes.
    pub reuse: bool,
}

impl std::fmt::Debug for ProbeRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.target.split('?').next().unwrap_or_default();
        write!(f, "{} {} (Host: {})", self.method, path, self.host)
    }
}

/// One probe that the configuration wants.
pub struct Planned {
    /// Node or instance name.
    pub member: String,
    /// What to probe and how to judge it.
    pub wanted: Wanted<Arc<ProbeSpec>>,
}

/// What is checked together: the nodes of an upstream, or one AI instance. An entry of the health
/// report.
pub struct Checker {
    /// Key of the pool whose members are checked.
    pub owner: String,
    /// How the health report names it.
    pub report: ReportName,
    /// `checks.active.type`.
    pub kind: &'static str,
    /// Its probes; none for an upstream that has no nodes yet.
    pub probes: Vec<Planned>,
    /// What the operator should know about its `checks`: path from the resource or plugin, and
    /// text.
    pub remarks: Vec<(String, String)>,
}

/// How the health report names a checker.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReportName {
    /// `/routes/1`, or `/routes/1#plugins['ai-proxy-multi'].instances[0]`.
    pub name: String,
    /// The instance's name, for AI instances.
    pub instance: Option<String>,
}

impl std::fmt::Display for ReportName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)?;
        match &self.instance {
            Some(instance) => write!(f, " ({instance})"),
            None => Ok(()),
        }
    }
}

/// Where a member can be reached.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    /// A name or an IP address without brackets.
    pub host: &'a str,
    /// The port that its traffic goes to.
    pub port: u16,
}

/// The probe of `member` of the pool `owner`, which is at `node`. `host` is what the upstream
/// rewrites `Host` to; without it, a name is asked for as itself and an address as
/// `checks.active.host`.
///
/// The one place that decides what a target's identity is: member, address, probe port and
/// hostname name it, and together with an unchanged probe keep all that is known about it.
pub fn planned(
    owner: &str,
    member: &str,
    node: Node<'_>,
    active: &Active,
    host: Option<&str>,
) -> Planned {
    let port = active.port.unwrap_or(node.port);
    let configured = active.host.as_deref().unwrap_or(node.host);
    let is_name = resolve::is_name(node.host);
    let asked_for = host.unwrap_or(if is_name { node.host } else { configured });
    Planned {
        member: member.to_owned(),
        wanted: Wanted {
            probe: Arc::new(ProbeSpec {
                kind: kind_of(active, asked_for),
                host: node.host.to_owned(),
                port,
                hostname: configured.to_owned(),
            }),
            policy: active.policy(),
            // As a tuple, whose parts are quoted: no two of them can be written alike.
            lineage: format!("{:?}", (owner, member, node.host, port, configured)),
            checker: owner.to_owned(),
        },
    }
}

/// What is sent, by `checks.active.type`.
fn kind_of(active: &Active, host: &str) -> ProbeKind {
    let request = ProbeRequest {
        method: active.http_method.clone(),
        target: active.http_path.clone(),
        host: host.to_owned(),
        lines: active.req_headers.clone().unwrap_or_default(),
        body: active.http_req_body.clone(),
        reuse: active.reuse_connection,
    };
    match active.kind {
        checks::Kind::Tcp => ProbeKind::Tcp,
        checks::Kind::Http => ProbeKind::Http(request),
        checks::Kind::Https => ProbeKind::Https {
            request,
            server_name: active.https_sni.clone().unwrap_or_else(|| host.to_owned()),
            verify: active.https_verify_certificate,
        },
    }
}

/// The targets that members were given.
pub struct Assigned {
    /// By pool and member; `None` when health checking is switched off.
    targets: Option<HashMap<String, HashMap<String, Vec<TargetId>>>>,
}

impl Assigned {
    /// What became of checkers: each with the targets of its probes, in their order.
    pub fn new<'a>(settled: impl IntoIterator<Item = (&'a Checker, &'a Vec<TargetId>)>) -> Self {
        let mut targets: HashMap<String, HashMap<String, Vec<TargetId>>> = HashMap::new();
        for (checker, ids) in settled {
            let members = targets.entry(checker.owner.clone()).or_default();
            for (planned, id) in checker.probes.iter().zip(ids) {
                members.entry(planned.member.clone()).or_default().push(*id);
            }
        }
        Self {
            targets: Some(targets),
        }
    }

    /// Nothing is checked, whatever the configuration says (`disable_upstream_healthcheck`).
    pub const fn switched_off() -> Self {
        Self { targets: None }
    }

    /// The targets that judge `member` of `owner`, which has checks. An error means that the pass
    /// that plans probes does not know this place: a member that wants to be checked never passes
    /// for one that need not be.
    pub fn judges(&self, owner: &str, member: &str) -> Result<Vec<TargetId>, String> {
        let Some(targets) = &self.targets else {
            return Ok(Vec::new());
        };
        match targets.get(owner).and_then(|members| members.get(member)) {
            Some(ids) => Ok(ids.clone()),
            None => {
                debug_assert!(false, "{owner}: no probe was planned for {member}");
                Err(format!(
                    "no probe was planned for {member}, which has checks"
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "no probe was planned for a")]
    fn a_member_with_checks_is_never_without_a_target() {
        let _ = Assigned::new([]).judges("/consumer_groups/1#ai-proxy-multi", "a");
    }

    #[test]
    fn nothing_judges_when_checks_are_switched_off() {
        assert_eq!(
            Assigned::switched_off().judges("/routes/1", "a"),
            Ok(vec![])
        );
    }

    /// I-10: name, address, probe port and hostname make the identity, whoever carries the node.
    #[test]
    fn a_lineage_holds_all_that_identifies_a_target() {
        let active = Active::default();
        let lineage = |owner: &str, member: &str, host: &str, port: u16, active: &Active| {
            let node = Node { host, port };
            planned(owner, member, node, active, None).wanted.lineage
        };
        let base = lineage("/routes/1", "a", "10.0.0.1", 80, &active);
        assert_eq!(base, lineage("/routes/1", "a", "10.0.0.1", 80, &active));
        let hosted = Active {
            host: Some("foo.com".to_owned()),
            ..Active::default()
        };
        let ported = Active {
            port: Some(81),
            ..Active::default()
        };
        for other in [
            lineage("/routes/2", "a", "10.0.0.1", 80, &active),
            lineage("/routes/1", "b", "10.0.0.1", 80, &active),
            lineage("/routes/1", "a", "10.0.0.2", 80, &active),
            lineage("/routes/1", "a", "10.0.0.1", 81, &active),
            lineage("/routes/1", "a", "10.0.0.1", 80, &hosted),
            lineage("/routes/1", "a", "10.0.0.1", 80, &ported),
        ] {
            assert_ne!(base, other);
        }
        assert_ne!(
            lineage("/routes/1", "a\", \"b", "c", 80, &active),
            lineage("/routes/1", "a", "b\", \"c", 80, &active),
        );
    }

    #[test]
    fn host_is_the_name_unless_it_is_rewritten() {
        let check =
            |node: &str, configured: Option<&str>, rewritten: Option<&str>, expected: &str| {
                let active = Active {
                    host: configured.map(str::to_owned),
                    ..Active::default()
                };
                let node = Node {
                    host: node,
                    port: 80,
                };
                let spec = planned("o", "m", node, &active, rewritten).wanted.probe;
                let ProbeKind::Http(request) = &spec.kind else {
                    panic!("not http");
                };
                assert_eq!(
                    request.host, expected,
                    "{node:?} {configured:?} {rewritten:?}"
                );
                assert_eq!(spec.hostname, configured.unwrap_or(node.host));
            };
        check("10.0.0.1", None, None, "10.0.0.1");
        check("10.0.0.1", Some("foo.com"), None, "foo.com");
        check("a.com", Some("foo.com"), None, "a.com");
        check("a.com", Some("foo.com"), Some("bar.com"), "bar.com");
    }
}
