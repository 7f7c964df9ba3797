//! What of the snapshot in force is taken over as it is.
//!
//! A store changes resource by resource, and what a change leaves alone is the same object in the
//! documents before and after. What was made of the same objects alone is not made again: the chain
//! of a route, all consumers, and an upstream that nobody checks and that stands at addresses. What
//! looks at the health of targets, or brings names to be resolved, is made anew, for both are
//! settled with every compilation. A file is read anew as a whole, so nothing of it is taken over.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use rustc_hash::FxHashMap;

use super::carriers::Carrier;
use crate::{
    config::{
        document::Document,
        resource::{plugins::Plugins, upstream as written},
        snapshot::{Consumers, PoolRef, Snapshot},
    },
    plugin::{chain::Chain, registry::Registry},
    secrets::Values,
    upstream::Upstream,
};

/// The snapshot in force, by what it was made of.
#[derive(Default)]
pub(super) struct Kept<'a> {
    /// By the key of who carries them.
    plugins: FxHashMap<&'a str, &'a Plugins>,
    upstreams: FxHashMap<&'a str, &'a written::Upstream>,
    pools: Option<&'a HashMap<String, PoolRef>>,
    /// By the id of the route.
    chains: FxHashMap<&'a str, &'a Arc<Chain>>,
    consumers: Option<&'a Arc<Consumers>>,
}

impl<'a> Kept<'a> {
    /// What of `previous` may be taken over into what is made of `document`.
    pub(super) fn of(
        previous: Option<&'a Snapshot>,
        document: &Document,
        secrets: &Arc<Values>,
    ) -> Self {
        let Some(previous) = previous else {
            return Self::default();
        };
        let before = &previous.document;
        let mut kept = Self {
            pools: Some(&previous.pools),
            ..Self::default()
        };
        for item in &before.upstreams {
            kept.upstreams.insert(&item.key, &item.value);
        }
        for item in &before.services {
            kept.plugins.insert(&item.key, &item.value.plugins);
            let upstream = item.value.upstream.as_ref();
            kept.upstreams
                .extend(upstream.map(|upstream| (item.key.as_str(), upstream)));
        }
        for item in &before.plugin_configs {
            kept.plugins.insert(&item.key, &item.value.plugins);
        }
        for item in &before.routes {
            kept.plugins.insert(&item.key, &item.value.plugins);
            let upstream = item.value.upstream.as_ref();
            kept.upstreams
                .extend(upstream.map(|upstream| (item.key.as_str(), upstream)));
        }
        // Plugins look at their metadata while they are built.
        if before.metadata == document.metadata {
            let chains = previous.routes.iter();
            kept.chains = chains
                .map(|route| (route.id.as_str(), &route.chain))
                .collect();
            let is_same = same(&before.consumers, &document.consumers)
                && same(&before.credentials, &document.credentials)
                && same(&before.consumer_groups, &document.consumer_groups)
                && (Arc::ptr_eq(&previous.secrets, secrets) || !consumers_refer(document));
            kept.consumers = Some(&previous.consumers).filter(|_| is_same);
        }
        kept
    }

    /// The chain of the route `id`, if it was made of the same `layers`.
    pub(super) fn chain(
        &self,
        id: &str,
        layers: &[&Carrier<'_>],
        registry: &Registry,
    ) -> Option<Arc<Chain>> {
        let chain = *self.chains.get(id)?;
        let is_same = |layer: &&Carrier<'_>| {
            let before = self.plugins.get(layer.key).copied();
            before.is_some_and(|before| {
                layer
                    .plugins
                    .is_some_and(|plugins| std::ptr::eq(before, plugins))
            })
        };
        // What a secret stands for may have changed, and that nothing does is told with every compilation.
        let mut plugins = layers.iter().filter_map(|layer| layer.plugins);
        let is_kept = layers.iter().all(is_same)
            && stands_alone(chain, registry)
            && !plugins.any(Plugins::may_refer_to_secrets);
        is_kept.then(|| Arc::clone(chain))
    }

    /// All consumers, if nothing about any of them has changed.
    pub(super) fn consumers(&self, registry: &Registry) -> Option<Arc<Consumers>> {
        let mut chains = self.consumers?.chains();
        let is_kept = chains.all(|chain| stands_alone(chain, registry));
        self.consumers.filter(|_| is_kept).cloned()
    }

    /// What was made of `upstream`, which `key` is or has.
    pub(super) fn upstream(
        &self,
        key: &str,
        upstream: &written::Upstream,
    ) -> Option<Arc<Upstream>> {
        let before = *self.upstreams.get(key)?;
        let has_addresses = || {
            let nodes = upstream.nodes();
            let mut hosts = nodes.iter().map(|node| &node.host);
            let is_address =
                |host: &String| host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
            // A certificate of another resource may have changed.
            let tls = upstream.tls.as_ref();
            let is_certified = tls.is_some_and(|tls| tls.certificate().is_some());
            upstream.active_checks().is_none() && !is_certified && hosts.all(is_address)
        };
        if !(std::ptr::eq(before, upstream) && has_addresses()) {
            return None;
        }
        match self.pools?.get(key)? {
            PoolRef::Upstream(made) => Some(Arc::clone(made)),
            PoolRef::Ai(_) => None,
        }
    }
}

/// Whether nothing in `chain` has targets: those are settled with the health of this compilation, and their names
/// are asked for by it.
fn stands_alone(chain: &Chain, registry: &Registry) -> bool {
    chain.entries().iter().all(|entry| {
        let kind = registry.kind(entry.name);
        let has_targets =
            entry.plugin.ai_target().is_some() || !entry.plugin.upstreams().is_empty();
        !has_targets && kind.is_some_and(|kind| kind.checkers.is_none())
    })
}

/// Whether what consumers bring along may refer to secrets.
fn consumers_refer(document: &Document) -> bool {
    let own = document.consumers.iter().map(|item| &item.value.plugins);
    let credentials = document.credentials.iter().map(|item| &item.value.plugins);
    let groups = document.consumer_groups.iter();
    let groups = groups.map(|item| &item.value.plugins);
    let mut all = own.chain(credentials).chain(groups);
    all.any(Plugins::may_refer_to_secrets)
}

/// Whether both lists hold the same objects.
fn same<T>(before: &[Arc<T>], now: &[Arc<T>]) -> bool {
    let mut pairs = before.iter().zip(now);
    before.len() == now.len() && pairs.all(|(before, now)| Arc::ptr_eq(before, now))
}
