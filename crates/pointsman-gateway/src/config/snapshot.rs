//! Configuration as it runs: immutable, complete, replaced as a whole.
//!
//! A request takes one snapshot when its head arrives and keeps it to its end, so instances,
//! credentials, checks and addresses always come from one generation. Health verdicts are not in
//! here: they are read anew at every pick.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use http::HeaderValue;
use pointsman_balance::{Availability, Loads, Pool, TargetId};
use rustc_hash::FxHashMap;
use subtle::ConstantTimeEq;

use crate::{
    config::{document::Document, settings::Settings},
    mtls::Demands,
    observe::metrics::MetricOptions,
    plugin::{chain::Chain, registry::Prepared},
    router::Router,
    secrets::Values,
    upstream::{
        Predecessors, Upstream,
        build::Built,
        destination::Timeouts,
        health::{ProbeSpec, ReportName},
    },
};

/// One generation of configuration, ready to serve.
pub struct Snapshot {
    /// Grows with every snapshot; never reused while the process lives.
    pub generation: u64,
    /// The program's settings.
    pub settings: Arc<Settings>,
    /// Finds routes; indexes into `routes`.
    pub router: Router,
    /// Routes in their run form.
    pub routes: Vec<Arc<Route>>,
    /// Plugins of all global rules, folded into one chain.
    pub global: Arc<Chain>,
    /// A chain without plugins, for exchanges that have no route.
    pub no_plugins: Arc<Chain>,
    /// Who may be authenticated.
    pub consumers: Arc<Consumers>,
    /// Who must show a certificate.
    pub demands: Demands,
    /// What is checked, for the health report.
    pub checked: Vec<Checked>,
    /// Options of the metrics that come from plugin metadata and settings.
    pub metrics: MetricOptions,
    /// The documents that this was compiled from, for dumps.
    pub document: Arc<Document>,
    /// Pools by the resource that they belong to.
    pub pools: HashMap<String, PoolRef>,
    /// Upstreams of their own, and those of services, by their keys.
    pub upstreams: HashMap<String, Backend>,
    /// The load of all pools, which every snapshot of a process has in common.
    pub loads: Arc<Loads>,
    /// What references to secrets stood for.
    pub secrets: Arc<Values>,
}

/// A pool wherever it lives.
pub enum PoolRef {
    /// Of an upstream.
    Upstream(Arc<Upstream>),
    /// Of an AI plugin.
    Ai(Arc<crate::plugins::ai_proxy::AiTarget>),
}

impl PoolRef {
    /// It.
    pub fn pool(&self) -> &Pool {
        match self {
            Self::Upstream(upstream) => &upstream.pool,
            Self::Ai(target) => &target.pool,
        }
    }

    /// What must be usable of a member besides its targets.
    pub fn guards(&self, member: usize) -> Vec<TargetId> {
        match self {
            Self::Upstream(_) => Vec::new(),
            Self::Ai(target) => {
                let watch = target.instances[member].watch.as_ref();
                watch.map_or_else(Vec::new, |watch| watch.guards())
            }
        }
    }

    /// Whether nobody is asked while nobody is usable.
    pub fn rejects(&self) -> bool {
        match self {
            Self::Upstream(_) => false,
            Self::Ai(target) => target.rejects,
        }
    }
}

impl Predecessors for Snapshot {
    fn pool(&self, key: &str) -> Option<&Pool> {
        Some(self.pools.get(key)?.pool())
    }

    fn loads(&self) -> &Loads {
        &self.loads
    }
}

/// A route as it runs: merged with its service and plugin_config.
pub struct Route {
    /// Its id.
    pub id: String,
    /// Its name, or empty.
    pub name: String,
    /// Id of its service.
    pub service_id: Option<String>,
    /// Name of its service.
    pub service_name: Option<String>,
    /// Its effective plugins, by descending priority.
    pub chain: Arc<Chain>,
    /// Where requests go when no plugin says otherwise.
    pub backend: Backend,
    /// Limits that override the upstream's.
    pub timeouts: Option<Timeouts>,
    /// Whether a WebSocket handshake is passed on as such.
    pub enable_websocket: bool,
}

/// Where a route sends requests.
#[derive(Clone)]
pub enum Backend {
    /// A usable upstream.
    Upstream(Arc<Upstream>),
    /// None is configured, or it has no node: 503.
    None,
    /// `upstream_id` names nothing: 502.
    UpstreamMissing,
    /// `service_id` names nothing: 404.
    ServiceMissing,
    /// `plugin_config_id` names nothing: 503.
    PluginConfigMissing,
    /// Every weight of a hash ring is 0: 502.
    NothingToPick,
}

impl Backend {
    /// What an upstream comes to.
    pub fn of(built: Built) -> Self {
        match built {
            Built::Usable(upstream) => Self::Upstream(upstream),
            Built::NoNodes => Self::None,
            Built::NothingToPick => Self::NothingToPick,
        }
    }
}

/// A consumer as it runs.
pub struct Consumer {
    /// Its name.
    pub username: String,
    /// `X-Consumer-Username`.
    pub username_header: HeaderValue,
    /// `X-Consumer-Custom-ID`, from the label `custom_id`.
    pub custom_id: Option<HeaderValue>,
    /// Its group.
    pub group_id: Option<String>,
    /// The group does not exist: 503.
    pub group_missing: bool,
    /// Labels.
    pub labels: HashMap<String, String>,
    /// Plugins that it brings along, its group's included; authentication plugins excluded.
    pub chain: Arc<Chain>,
}

/// All consumers, by name and by what they authenticate with.
#[derive(Default)]
pub struct Consumers {
    by_name: HashMap<String, Arc<Consumer>>,
    /// By a hash under a secret of its own, so that nobody can guess values that share a place.
    by_identity: FxHashMap<u64, Vec<Known>>,
    secret: RandomState,
}

/// An identity and the value that proves it. No `Debug`: the value is a secret.
struct Known {
    plugin: &'static str,
    value: Box<str>,
    identity: Identity,
}

/// What an authentication plugin finds.
#[derive(Clone)]
pub struct Identity {
    /// Who it is.
    pub consumer: Arc<Consumer>,
    /// The credential resource, if it is one.
    pub credential_id: Option<Arc<str>>,
    /// The consumer's configuration of the plugin, references resolved.
    pub conf: Arc<serde_json::Value>,
    /// What the plugin has made of it.
    pub prepared: Option<Prepared>,
}

impl Consumers {
    /// Adds a consumer.
    pub fn add(&mut self, consumer: Arc<Consumer>) {
        self.by_name.insert(consumer.username.clone(), consumer);
    }

    /// Adds a way to authenticate. Returns the consumer that already has this identity, if any;
    /// the first one keeps it.
    pub fn add_identity(
        &mut self,
        plugin: &'static str,
        value: &str,
        identity: Identity,
    ) -> Option<Arc<Consumer>> {
        if let Some(known) = self.identify(plugin, value) {
            return Some(Arc::clone(&known.consumer));
        }
        let hash = self.secret.hash_one((plugin, value));
        self.by_identity.entry(hash).or_default().push(Known {
            plugin,
            value: value.into(),
            identity,
        });
        None
    }

    /// What consumers bring along.
    pub fn chains(&self) -> impl Iterator<Item = &Chain> {
        self.by_name.values().map(|consumer| &*consumer.chain)
    }

    /// The consumer called `username`.
    pub fn named(&self, username: &str) -> Option<&Arc<Consumer>> {
        self.by_name.get(username)
    }

    /// Who has the identity `value` under `plugin`.
    ///
    /// The time that it takes says nothing about how much of a guessed value is right: the hash
    /// under an unknown secret is unrelated for values that differ anywhere, and what shares a
    /// hash is compared in constant time.
    pub fn identify(&self, plugin: &'static str, value: &str) -> Option<&Identity> {
        let hash = self.secret.hash_one((plugin, value));
        let known = self.by_identity.get(&hash)?.iter().find(|known| {
            known.plugin == plugin && bool::from(known.value.as_bytes().ct_eq(value.as_bytes()))
        })?;
        Some(&known.identity)
    }
}

/// A checker of the health report.
pub struct Checked {
    /// Collection of the resource: `routes`, `services`, `upstreams`.
    pub collection: &'static str,
    /// Its id.
    pub id: String,
    /// How the report names it.
    pub report: ReportName,
    /// `http`, `https` or `tcp`.
    pub kind: &'static str,
    /// Its targets; of what is at a name, the group of its addresses.
    pub targets: Vec<(TargetId, Arc<ProbeSpec>)>,
}

impl Checked {
    /// What is checked at this moment: of what is at a name, each of its addresses. A name without
    /// an answer stands for itself.
    pub fn nodes(&self, availability: &Availability) -> Vec<(TargetId, Arc<ProbeSpec>)> {
        let mut nodes = Vec::with_capacity(self.targets.len());
        for (target, spec) in &self.targets {
            let before = nodes.len();
            for address in availability.addresses(*target) {
                let spec = address
                    .ip
                    .map_or_else(|| Arc::clone(spec), |ip| Arc::new(spec.at(ip)));
                nodes.extend(address.target.map(|target| (target, spec)));
            }
            if nodes.len() == before {
                nodes.push((*target, Arc::clone(spec)));
            }
        }
        nodes
    }
}

/// `Duration` of APISIX's fractional seconds: negative values become zero, and those above
/// [`DURATION_MAX`] become that.
pub fn seconds(value: f64) -> Duration {
    let value = value.clamp(0.0, DURATION_MAX.as_secs_f64());
    Duration::try_from_secs_f64(value).unwrap_or(Duration::ZERO)
}

/// `Duration` of whole seconds, at most [`DURATION_MAX`].
pub fn whole_seconds(value: u64) -> Duration {
    Duration::from_secs(value).min(DURATION_MAX)
}

/// `Duration` of milliseconds, at most [`DURATION_MAX`].
pub fn millis(value: u64) -> Duration {
    Duration::from_millis(value).min(DURATION_MAX)
}

/// As long as any wait may be configured to be, a hundred years: a point in time that is further
/// away cannot be told on every system.
pub const DURATION_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_ones_that_a_clock_can_add() {
        for (value, expected) in [
            (1.5, Duration::from_millis(1500)),
            (-1.0, Duration::ZERO),
            (f64::NAN, Duration::ZERO),
            (1.0e19, DURATION_MAX),
            (f64::INFINITY, DURATION_MAX),
        ] {
            assert_eq!(seconds(value), expected, "{value}");
        }
        assert_eq!(whole_seconds(u64::MAX), DURATION_MAX);
    }

    fn identity(username: &str) -> Identity {
        Identity {
            consumer: Arc::new(Consumer {
                username: username.to_owned(),
                username_header: HeaderValue::from_static("x"),
                custom_id: None,
                group_id: None,
                group_missing: false,
                labels: HashMap::new(),
                chain: Arc::default(),
            }),
            credential_id: None,
            conf: Arc::default(),
            prepared: None,
        }
    }

    #[test]
    fn a_value_identifies_under_its_plugin_only() {
        let mut consumers = Consumers::default();
        for number in 0..1000 {
            let name = format!("consumer-{number}");
            let taken = consumers.add_identity("key-auth", &name, identity(&name));
            assert!(taken.is_none());
        }
        let who = |plugin, value| {
            let identity = consumers.identify(plugin, value)?;
            Some(identity.consumer.username.as_str())
        };
        assert_eq!(who("key-auth", "consumer-7"), Some("consumer-7"));
        for wrong in [
            "",
            "consumer-",
            "consumer-70000",
            "Consumer-7",
            "consumer-7\0",
        ] {
            assert_eq!(who("key-auth", wrong), None, "{wrong:?}");
        }
        assert_eq!(who("basic-auth", "consumer-7"), None);
        let taken = consumers.add_identity("key-auth", "consumer-7", identity("late"));
        assert_eq!(
            taken.map(|who| who.username.clone()).as_deref(),
            Some("consumer-7")
        );
    }
}
