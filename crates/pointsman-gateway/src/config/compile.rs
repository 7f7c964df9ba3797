//! From configuration as written to configuration as it runs.
//!
//! Two passes. The first collects every probe that upstreams and plugins want and lets the
//! monitor settle which targets exist; the second builds pools, plugins and routes with the ids
//! of those targets. An item that cannot be built is reported and left out alone; everything
//! else goes on.

mod consumers;
mod plugins;

use std::{collections::HashMap, sync::Arc, time::Instant};

use serde_json::Value;

use crate::{
    config::{
        document::{Document, Item, Problem},
        resource::{
            route::Route as WrittenRoute, service::Service, upstream::Upstream as WrittenUpstream,
        },
        settings::Settings,
        snapshot::{Backend, Checked, PoolRef, Route, Snapshot},
    },
    observe::metrics::MetricOptions,
    plugin::{chain::Chain, registry::Registry},
    ports::Sinks,
    router::{Entry, Expr, Router, RouterKind},
    upstream::{
        Predecessors, Upstream,
        build::{self, Built},
        driver::Health,
        health::{Assigned, Planned},
    },
};

/// What compilation reads.
pub struct Input<'a> {
    /// The documents.
    pub document: Arc<Document>,
    /// The program's settings.
    pub settings: &'a Arc<Settings>,
    /// The plugins of this build that are enabled.
    pub registry: &'a Registry,
    /// Where loggers get their sinks.
    pub sinks: &'a dyn Sinks,
    /// The environment, for `$env://`.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// All targets; new ones are known to it when [`compile`] returns.
    pub health: &'a mut Health,
    /// The snapshot in force, whose balancing positions carry over.
    pub previous: Option<&'a Snapshot>,
    /// The new snapshot's number.
    pub generation: u64,
    /// The time.
    pub now: Instant,
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
    let checks_off = input.settings.disable_upstream_healthcheck;
    let planned = if checks_off {
        Vec::new()
    } else {
        wanted_probes(&input)
    };
    let (assigned, targets) = input.health.reconcile(&planned, input.now);
    let checked = checkers(&planned, &targets);
    let mut compiler = Compiler {
        document: &input.document,
        settings: input.settings,
        registry: input.registry,
        sinks: input.sinks,
        env: input.env,
        assigned: &assigned,
        previous: input.previous,
        problems: Vec::new(),
        pools: HashMap::new(),
        upstreams: HashMap::new(),
    };
    let snapshot = compiler.snapshot(input.generation, checked);
    Compiled {
        snapshot,
        problems: compiler.problems,
    }
}

/// The state of one compilation.
struct Compiler<'a> {
    document: &'a Arc<Document>,
    settings: &'a Arc<Settings>,
    registry: &'a Registry,
    sinks: &'a dyn Sinks,
    env: &'a dyn Fn(&str) -> Option<String>,
    assigned: &'a Assigned,
    previous: Option<&'a Snapshot>,
    problems: Vec<Problem>,
    pools: HashMap<String, PoolRef>,
    /// Upstream resources, built once however many routes use them.
    upstreams: HashMap<String, UpstreamState>,
}

/// What became of an upstream resource.
#[derive(Clone)]
enum UpstreamState {
    Usable(Arc<Upstream>),
    NoNodes,
    NothingToPick,
    Broken,
}

impl Predecessors for Compiler<'_> {
    fn pool(&self, key: &str) -> Option<&pointsman_balance::Pool> {
        self.previous?.pool(key)
    }
}

impl Compiler<'_> {
    fn snapshot(&mut self, generation: u64, checked: Vec<Checked>) -> Snapshot {
        let document = Arc::clone(self.document);
        for item in &document.upstreams {
            let state = self.upstream(&item.key, &item.value, &item.label());
            self.upstreams.insert(item.id.clone(), state);
        }
        let global = self.global_chain();
        let consumers = self.consumers();
        let mut routes = Vec::new();
        let mut entries = Vec::new();
        for item in document
            .routes
            .iter()
            .filter(|item| item.value.is_enabled())
        {
            match self.route(item) {
                Ok((route, mut entry)) => {
                    entry.index = routes.len();
                    routes.push(Arc::new(route));
                    entries.push(entry);
                }
                Err(error) => self
                    .problems
                    .push(Problem::error(&item.label(), "", &error)),
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
            checked,
            metrics: MetricOptions::new(
                &self.settings.prometheus,
                metadata,
                &self.settings.hostname,
            ),
            document,
            pools: std::mem::take(&mut self.pools),
        }
    }

    fn router_kind(&self) -> RouterKind {
        match self.settings.router.as_str() {
            "radixtree_uri" => RouterKind::Uri,
            "radixtree_uri_with_parameter" => RouterKind::UriWithParameter,
            _ => RouterKind::HostUri,
        }
    }

    /// A route merged with its service and plugin_config, and its entry for the router.
    fn route(&mut self, item: &Item<WrittenRoute>) -> Result<(Route, Entry), String> {
        let written = &item.value;
        let document = Arc::clone(self.document);
        let service = written.service_id.as_ref().map(|id| document.service(id));
        let plugin_config = written
            .plugin_config_id
            .as_ref()
            .map(|id| document.plugin_config(id));
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
        let mut plugins = plugins::Merged::default();
        if let Some(service) = service {
            plugins.lay(&service.value.plugins, &service.key);
        }
        if let Some(config) = plugin_config {
            plugins.lay(&config.value.plugins, &config.key);
        }
        plugins.lay(&written.plugins, &item.key);
        let chain = self.chain(&plugins, &item.label())?;
        let wants = chain.wants();
        let hosts = match (written.hosts(), service) {
            (hosts, _) if !hosts.is_empty() => hosts,
            (_, Some(service)) => service.value.hosts.clone().unwrap_or_default(),
            (hosts, None) => hosts,
        };
        let vars = written
            .vars
            .as_ref()
            .map(Expr::parse)
            .transpose()
            .map_err(|error| format!("failed to validate the 'vars' expression: {error}"))?;
        let entry = Entry {
            index: 0,
            uris: written.uris(),
            hosts,
            methods: written.methods(),
            remote_addrs: written.remote_addrs(),
            vars,
            priority: written.priority,
        };
        let route = Route {
            id: item.id.clone(),
            name: written.name.clone().unwrap_or_default(),
            service_id: written.service_id.as_ref().map(ToString::to_string),
            service_name: service.and_then(|service| service.value.name.clone()),
            chain: Arc::new(chain),
            backend,
            timeouts: written.timeout.as_ref().map(build::timeouts),
            enable_websocket: written
                .enable_websocket
                .or_else(|| service.and_then(|service| service.value.enable_websocket))
                .unwrap_or(false),
            keep_response_headers: wants.response_headers,
            keep_response_body: wants.response_body_bytes,
            keep_llm_text: wants.llm_text,
        };
        Ok((route, entry))
    }

    /// Where a route sends requests: its own upstream over its service's, ids over inline ones.
    fn backend(&mut self, item: &Item<WrittenRoute>, service: Option<&Item<Service>>) -> Backend {
        let route = &item.value;
        if let Some(id) = &route.upstream_id {
            return self.referenced(&id.to_string());
        }
        if let Some(upstream) = &route.upstream {
            let state = self.upstream(&item.key, upstream, &item.label());
            return backend_of(&state);
        }
        let Some(service) = service else {
            return Backend::None;
        };
        if let Some(id) = &service.value.upstream_id {
            return self.referenced(&id.to_string());
        }
        match &service.value.upstream {
            Some(upstream) => {
                let known = self.upstreams.get(&service.key).cloned();
                let state = known
                    .unwrap_or_else(|| self.upstream(&service.key, upstream, &service.label()));
                self.upstreams.insert(service.key.clone(), state.clone());
                backend_of(&state)
            }
            None => Backend::None,
        }
    }

    fn referenced(&self, id: &str) -> Backend {
        self.upstreams
            .get(id)
            .map_or(Backend::UpstreamMissing, backend_of)
    }

    fn upstream(&mut self, key: &str, written: &WrittenUpstream, label: &str) -> UpstreamState {
        match build::upstream(key, written, self.assigned, &*self) {
            Ok(Built::Usable(upstream)) => {
                self.pools
                    .insert(key.to_owned(), PoolRef::Upstream(Arc::clone(&upstream)));
                UpstreamState::Usable(upstream)
            }
            Ok(Built::NoNodes) => UpstreamState::NoNodes,
            Ok(Built::NothingToPick) => UpstreamState::NothingToPick,
            Err(error) => {
                self.problems
                    .push(Problem::error(label, "upstream", &error));
                UpstreamState::Broken
            }
        }
    }
}

fn backend_of(state: &UpstreamState) -> Backend {
    match state {
        UpstreamState::Usable(upstream) => Backend::Upstream(Arc::clone(upstream)),
        UpstreamState::NoNodes => Backend::None,
        UpstreamState::NothingToPick => Backend::NothingToPick,
        UpstreamState::Broken => Backend::UpstreamMissing,
    }
}

/// Every probe that the documents want, in their order.
fn wanted_probes(input: &Input<'_>) -> Vec<Planned> {
    let document = &input.document;
    let mut planned = Vec::new();
    for item in &document.upstreams {
        planned.extend(build::probes(&item.key, &item.value));
    }
    let mut plugins = |map: &serde_json::Map<String, Value>, owner: &str| {
        for (name, conf) in map {
            let probes = input.registry.kind(name).and_then(|kind| kind.probes);
            if let Some(probes) = probes
                && !plugins::is_disabled(conf)
            {
                let conf = plugins::resolved(conf, input.env);
                planned.extend(probes(&conf, owner));
            }
        }
    };
    for item in &document.services {
        plugins(&item.value.plugins, &item.key);
    }
    for item in document
        .routes
        .iter()
        .filter(|item| item.value.is_enabled())
    {
        plugins(&item.value.plugins, &item.key);
    }
    for item in &document.plugin_configs {
        plugins(&item.value.plugins, &item.key);
    }
    for item in &document.global_rules {
        plugins(&item.value.plugins, &item.key);
    }
    for item in &document.consumers {
        plugins(&item.value.plugins, &item.key);
    }
    let inline = document
        .services
        .iter()
        .filter_map(|item| Some((&item.key, item.value.upstream.as_ref()?)))
        .chain(
            document
                .routes
                .iter()
                .filter_map(|item| Some((&item.key, item.value.upstream.as_ref()?))),
        );
    for (key, upstream) in inline {
        planned.extend(build::probes(key, upstream));
    }
    planned
}

/// The health report's view of what is checked, one entry per checker.
fn checkers(planned: &[Planned], targets: &[pointsman_balance::TargetId]) -> Vec<Checked> {
    let mut checkers: Vec<Checked> = Vec::new();
    for (plan, target) in planned.iter().zip(targets) {
        let probe = plan.wanted.probe.clone();
        if let Some(last) = checkers.last_mut()
            && last.report == plan.report
        {
            // Two nodes that share address and probe port are one target.
            if !last.targets.iter().any(|(id, _)| id == target) {
                last.targets.push((*target, probe));
            }
            continue;
        }
        let path = plan.report.name.trim_start_matches('/');
        let resource = path.split('#').next().unwrap_or_default();
        let (collection, id) = resource.split_once('/').unwrap_or((resource, ""));
        checkers.push(Checked {
            collection: match collection {
                "services" => "services",
                "upstreams" => "upstreams",
                "plugin_configs" => "plugin_configs",
                "global_rules" => "global_rules",
                "consumers" => "consumers",
                _ => "routes",
            },
            id: id.to_owned(),
            report: plan.report.clone(),
            kind: probe.kind.as_str(),
            targets: vec![(*target, probe)],
        });
    }
    checkers
}
