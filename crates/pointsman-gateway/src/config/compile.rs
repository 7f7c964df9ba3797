//! From configuration as written to configuration as it runs.
//!
//! Two passes over one list of places. The first collects every probe that upstreams and plugins
//! want and lets the monitor settle which targets exist; the second builds pools, plugins and
//! routes with the ids of those targets. An item that cannot be built is reported and left out
//! alone, its probes too; everything else goes on.

mod carriers;
mod consumers;
mod kept;
mod plugins;
mod probes;
mod references;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use self::{
    carriers::{Carrier, Carriers},
    kept::Kept,
    references::References,
};

use pointsman_balance::{Gate, GuardSpec, Loads, Tally, TargetId};

use crate::{
    config::{
        document::{Document, Item},
        problem::{Problem, Report, Spot},
        reference::Elsewhere,
        resource::{route::Route as WrittenRoute, service::Service},
        settings::Settings,
        snapshot::{Backend, PoolRef, Route, Snapshot},
        text::{Lines, join},
    },
    mtls::Demands,
    observe::metrics::MetricOptions,
    plugin::{chain::Chain, registry::Registry},
    ports::Sinks,
    router::{Entry, Router, RouterKind},
    secrets::Values,
    upstream::{
        Guarding, Predecessors, build,
        driver::{Health, SharedHealth},
        health::{Assigned, Checker},
    },
};

/// What compilation reads.
pub struct Input<'a> {
    /// The documents.
    pub document: Arc<Document>,
    /// Where everything in them stood.
    pub lines: &'a Lines,
    /// The program's settings.
    pub settings: &'a Arc<Settings>,
    /// The plugins of this build that are enabled.
    pub registry: &'a Registry,
    /// Where loggers get their sinks.
    pub sinks: &'a dyn Sinks,
    /// The environment, for `$env://`.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// What secret managers have said, for `$secret://`.
    pub secrets: &'a Arc<Values>,
    /// All targets; new ones are known to it when [`compile`] returns. Locked for moments only.
    pub health: &'a SharedHealth,
    /// The snapshot in force, whose balancing positions carry over.
    pub previous: Option<&'a Snapshot>,
    /// The new snapshot's number.
    pub generation: u64,
    /// The time.
    pub now: Instant,
}

impl<'a> Input<'a> {
    fn elsewhere(&self) -> Elsewhere<'a> {
        Elsewhere {
            env: self.env,
            secrets: self.secrets,
        }
    }
}

/// A snapshot and what was wrong on the way to it.
pub struct Compiled {
    /// Ready to publish.
    pub snapshot: Snapshot,
    /// What was left out, or is worth knowing.
    pub problems: Vec<Problem>,
}

/// Compiles a configuration.
pub fn compile(input: Input<'_>) -> Compiled {
    let document = Arc::clone(&input.document);
    let carriers = Carriers::of(&document);
    let references = References::of(&document);
    let checks_off = input.settings.disable_upstream_healthcheck;
    let mut plans = if checks_off {
        Vec::new()
    } else {
        probes::plan(&input, &carriers)
    };
    let mut ids = settle(&mut input.health.lock(), &plans, input.now);
    let assigned = if checks_off {
        Assigned::switched_off()
    } else {
        Assigned::new(plans.iter().map(|plan| &plan.checker).zip(&ids))
    };
    let loads = input
        .previous
        .map(|previous| Arc::clone(&previous.loads))
        .unwrap_or_default();
    loads.tidy();
    let mut report = Report::new(input.lines);
    references.tell_dangling(&document, &mut report);
    let guards = Guards {
        health: input.health,
        now: input.now,
    };
    let mut compiler = Compiler {
        guards: &guards,
        document: &document,
        carriers: &carriers,
        references: &references,
        settings: input.settings,
        registry: input.registry,
        sinks: input.sinks,
        elsewhere: input.elsewhere(),
        secrets: input.secrets,
        assigned: &assigned,
        previous: input.previous,
        kept: Kept::of(input.previous, &document, input.secrets),
        loads,
        report,
        told: HashSet::new(),
        pools: HashMap::new(),
        built: HashSet::new(),
        upstreams: HashMap::new(),
    };
    let mut snapshot = compiler.snapshot(input.generation);
    let Compiler {
        mut report, built, ..
    } = compiler;
    let mut health = input.health.lock();
    if probes::drop_unbuilt(&mut plans, &built) {
        ids = settle(&mut health, &plans, input.now);
    }
    health.add_names(input.now);
    drop(health);
    probes::remarks(&plans, &mut report);
    snapshot.checked = probes::report(plans, &ids);
    Compiled {
        snapshot,
        problems: report.into_problems(),
    }
}

/// Makes `plans` all that is probed, and returns their targets.
fn settle(health: &mut Health, plans: &[probes::Plan<'_>], now: Instant) -> Vec<Vec<TargetId>> {
    let checkers: Vec<&Checker> = plans.iter().map(|plan| &plan.checker).collect();
    health.reconcile(&checkers, now)
}

/// Where plugins get their guards, while the rest of a compilation only reads.
struct Guards<'a> {
    health: &'a SharedHealth,
    now: Instant,
}

impl Guarding for Guards<'_> {
    fn guard(&self, spec: GuardSpec, name: &str) -> (TargetId, Option<Arc<Tally>>) {
        self.health.lock().guard(spec, name, self.now)
    }

    fn gate(&self, targets: &[TargetId], guards: Vec<TargetId>) -> Arc<Gate> {
        self.health.lock().gate(targets, guards)
    }

    fn name(&self, name: &str) -> TargetId {
        self.health.lock().name(name)
    }
}

/// The state of one compilation.
struct Compiler<'a> {
    guards: &'a Guards<'a>,
    document: &'a Arc<Document>,
    carriers: &'a Carriers<'a>,
    references: &'a References<'a>,
    settings: &'a Arc<Settings>,
    registry: &'a Registry,
    sinks: &'a dyn Sinks,
    elsewhere: Elsewhere<'a>,
    secrets: &'a Arc<Values>,
    assigned: &'a Assigned,
    previous: Option<&'a Snapshot>,
    kept: Kept<'a>,
    loads: Arc<Loads>,
    report: Report<'a>,
    /// Plugins, by the key of who carries them and their name, of which everything was told.
    told: HashSet<(String, String)>,
    /// Pools of what takes part in the snapshot.
    pools: HashMap<String, PoolRef>,
    /// Keys of the pools that exist, and of upstreams that are sound but have nobody to pick.
    built: HashSet<String>,
    /// Upstreams of their own and of services, built once however many routes use them.
    upstreams: HashMap<String, Backend>,
}

impl Predecessors for Compiler<'_> {
    fn pool(&self, key: &str) -> Option<&pointsman_balance::Pool> {
        self.previous?.pool(key)
    }

    fn loads(&self) -> &Loads {
        &self.loads
    }
}

impl<'a> Compiler<'a> {
    fn snapshot(&mut self, generation: u64) -> Snapshot {
        let document = Arc::clone(self.document);
        for item in &document.upstreams {
            if let Some(backend) = self.upstream(&item.key, item.spot()) {
                self.upstreams.insert(item.key.clone(), backend);
            }
        }
        for item in &document.services {
            if item.value.upstream.is_some()
                && let Some(backend) = self.upstream(&item.key, item.spot())
            {
                self.upstreams.insert(item.key.clone(), backend);
            }
        }
        let global = self.global_chain();
        self.keep_pools(&global);
        let consumers = self.kept.consumers(self.registry);
        let consumers = consumers.unwrap_or_else(|| Arc::new(self.consumers()));
        let mut routes = Vec::new();
        let mut entries = Vec::new();
        for item in document
            .routes
            .iter()
            .filter(|item| item.value.is_enabled())
        {
            match self.route(item) {
                Some((route, mut entry)) => {
                    self.keep_pools(&route.chain);
                    entry.index = routes.len();
                    routes.push(Arc::new(route));
                    entries.push(entry);
                }
                None => {
                    self.built.remove(&item.key);
                    self.pools.remove(&item.key);
                }
            }
        }
        let router = Router::compile(entries, self.router_kind());
        let metadata = document.metadata("prometheus");
        Snapshot {
            generation,
            settings: Arc::clone(self.settings),
            router,
            routes,
            global: Arc::new(global),
            no_plugins: Arc::new(Chain::default()),
            consumers,
            demands: Demands::of(&document.ssls),
            checked: Vec::new(),
            metrics: MetricOptions::new(
                &self.settings.prometheus,
                metadata,
                &self.settings.hostname,
            ),
            document,
            pools: std::mem::take(&mut self.pools),
            upstreams: std::mem::take(&mut self.upstreams),
            loads: Arc::clone(&self.loads),
            secrets: Arc::clone(self.secrets),
        }
    }

    fn router_kind(&self) -> RouterKind {
        match self.settings.router.as_str() {
            "radixtree_uri" => RouterKind::Uri,
            "radixtree_uri_with_parameter" => RouterKind::UriWithParameter,
            _ => RouterKind::HostUri,
        }
    }

    /// A route merged with its service and plugin_config, and its entry for the router. `None`
    /// when that cannot be done, which is told.
    fn route(&mut self, item: &Item<WrittenRoute>) -> Option<(Route, Entry)> {
        let written = &item.value;
        let references = self.references;
        let service = written.service_id.as_ref().map(|id| references.service(id));
        let plugin_config = written
            .plugin_config_id
            .as_ref()
            .map(|id| references.plugin_config(id));
        let mut backend = match (&service, &plugin_config) {
            (_, Some(None)) => Backend::PluginConfigMissing,
            (Some(None), _) => Backend::ServiceMissing,
            _ => Backend::None,
        };
        let service = service.flatten();
        let plugin_config = plugin_config.flatten();
        if matches!(backend, Backend::None) {
            backend = self.backend(item, service);
        }
        let mut layers = Vec::with_capacity(3);
        if let Some(service) = service {
            layers.push(self.carrier(&service.key, item.spot())?);
        }
        if let Some(config) = plugin_config {
            layers.push(self.carrier(&config.key, item.spot())?);
        }
        layers.push(self.carrier(&item.key, item.spot())?);
        // A layer that is gone leaves no trace among those that are there.
        let named = [&written.service_id, &written.plugin_config_id];
        let is_whole = layers.len() == 1 + named.into_iter().flatten().count();
        let kept = self.kept.chain(&item.id, &layers, self.registry);
        let chain = match kept.filter(|_| is_whole) {
            Some(chain) => chain,
            None => Arc::new(self.chain(&plugins::Merged::of(&layers), item.spot())?),
        };
        let hosts = match (written.hosts(), service) {
            (hosts, _) if !hosts.is_empty() => hosts,
            (_, Some(service)) => service.value.hosts.clone().unwrap_or_default(),
            (hosts, None) => hosts,
        };
        // A route whose `vars` are none did not pass the check of the document.
        let vars = written.vars.as_ref().and_then(|vars| vars.expr().ok());
        let entry = Entry {
            index: 0,
            uris: written.uris(),
            hosts,
            methods: written.methods(),
            remote_addrs: written.remote_addrs(),
            vars: vars.cloned(),
            priority: written.priority,
        };
        let route = Route {
            id: item.id.clone(),
            name: written.name.clone().unwrap_or_default(),
            service_id: written.service_id.as_ref().map(ToString::to_string),
            service_name: service.and_then(|service| service.value.name.clone()),
            chain,
            backend,
            timeouts: written.timeout.as_ref().map(build::timeouts),
            enable_websocket: written
                .enable_websocket
                .or_else(|| service.and_then(|service| service.value.enable_websocket))
                .unwrap_or(false),
        };
        Some((route, entry))
    }

    /// Where a route sends requests: its own upstream over its service's, ids over inline ones.
    fn backend(&mut self, item: &Item<WrittenRoute>, service: Option<&Item<Service>>) -> Backend {
        let route = &item.value;
        if let Some(id) = &route.upstream_id {
            return self.at(&format!("/upstreams/{id}"));
        }
        if route.upstream.is_some() {
            let built = self.upstream(&item.key, item.spot());
            return built.unwrap_or(Backend::UpstreamMissing);
        }
        let Some(service) = service else {
            return Backend::None;
        };
        match (&service.value.upstream_id, &service.value.upstream) {
            (Some(id), _) => self.at(&format!("/upstreams/{id}")),
            (None, Some(_)) => self.at(&service.key),
            (None, None) => Backend::None,
        }
    }

    /// The upstream with that key, which was built before.
    fn at(&self, key: &str) -> Backend {
        self.upstreams
            .get(key)
            .cloned()
            .unwrap_or(Backend::UpstreamMissing)
    }

    /// Builds the upstream that the carrier `key` is or has; `None` if it is wrong, which is told.
    fn upstream(&mut self, key: &str, spot: Spot<'_>) -> Option<Backend> {
        let (written, path) = self.carrier(key, spot)?.upstream?;
        if let Some(upstream) = self.kept.upstream(key, written) {
            let pool = PoolRef::Upstream(Arc::clone(&upstream));
            self.pools.insert(key.to_owned(), pool);
            return Some(Backend::Upstream(upstream));
        }
        let certified = match self.references.certified(written, self.elsewhere) {
            Ok(certified) => certified,
            Err(error) => {
                let field = join(path, "tls.client_cert_id");
                self.report.error(spot, &field, error);
                // As APISIX: whoever comes to it is told that it is not there.
                return Some(Backend::UpstreamMissing);
            }
        };
        let built = match build::upstream(key, &certified, self.assigned, &*self, self.guards) {
            Ok(built) => built,
            Err((field, error)) => {
                self.report.error(spot, &join(path, field), error);
                return None;
            }
        };
        self.built.insert(key.to_owned());
        let backend = Backend::of(built);
        if let Backend::Upstream(upstream) = &backend {
            let pool = PoolRef::Upstream(Arc::clone(upstream));
            self.pools.insert(key.to_owned(), pool);
        }
        Some(backend)
    }

    /// The carrier with that key, for what stands at `spot`. Should the list lack it, that is told,
    /// and nothing is served without its plugins.
    fn carrier(&mut self, key: &str, spot: Spot<'_>) -> Option<&'a Carrier<'a>> {
        let found = self.carriers.at(key);
        if let Err(error) = &found {
            self.report.error(spot, "", error.clone());
        }
        found.ok()
    }

    /// Notes the pools of `chain`, which takes part in the snapshot.
    fn keep_pools(&mut self, chain: &Chain) {
        let targets = chain.entries().iter();
        for target in targets.filter_map(|entry| entry.plugin.ai_target()) {
            self.built.insert(target.key.clone());
            self.pools
                .insert(target.key.clone(), PoolRef::Ai(Arc::clone(target)));
        }
        let upstreams = chain.entries().iter();
        for upstream in upstreams.flat_map(|entry| entry.plugin.upstreams()) {
            let pool = PoolRef::Upstream(Arc::clone(upstream));
            self.pools.insert(upstream.key.clone(), pool);
        }
    }
}
