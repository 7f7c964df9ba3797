//! Plugins of a route, service, plugin_config, consumer or global rule: merged, then built.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value};

use super::Compiler;
use crate::{
    config::{document::Problem, reference, snapshot::PoolRef},
    plugin::{
        chain::{Chain, Entry, Origin},
        registry::Building,
    },
    router::Expr,
};

/// Plugins by name, each as a whole from the most specific place that has it.
#[derive(Default)]
pub(super) struct Merged<'a> {
    plugins: BTreeMap<&'a str, (&'a Value, &'a str)>,
}

impl<'a> Merged<'a> {
    /// Lays the plugins of `owner` over what is there.
    pub(super) fn lay(&mut self, plugins: &'a Map<String, Value>, owner: &'a str) {
        for (name, conf) in plugins {
            self.plugins.insert(name, (conf, owner));
        }
    }

    /// Without authentication plugins, which are identity material in a consumer.
    pub(super) fn without(mut self, is_auth: impl Fn(&str) -> bool) -> Self {
        self.plugins.retain(|name, _| !is_auth(name));
        self
    }
}

impl Compiler<'_> {
    /// The chain of `merged`. An error names the plugin that cannot be built.
    pub(super) fn chain(&mut self, merged: &Merged<'_>, label: &str) -> Result<Chain, String> {
        let mut entries = Vec::new();
        for (name, (conf, owner)) in &merged.plugins {
            if is_disabled(conf) {
                continue;
            }
            let entry = self
                .entry(name, conf, owner, label)
                .map_err(|error| format!("plugin {name}: {error}"))?;
            entries.push(entry);
        }
        Ok(Chain::new(entries))
    }

    /// All global rules folded into one chain; a plugin that two of them have runs in neither.
    pub(super) fn global_chain(&mut self) -> Chain {
        let document = Arc::clone(self.document);
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        for rule in &document.global_rules {
            for name in rule.value.plugins.keys() {
                *seen.entry(name).or_default() += 1;
            }
        }
        let mut entries = Vec::new();
        for rule in &document.global_rules {
            for (name, conf) in &rule.value.plugins {
                if seen.get(name.as_str()).is_some_and(|count| *count > 1) {
                    let message = "more than one global rule has this plugin; it runs in none";
                    let path = format!("plugins.{name}");
                    self.problems
                        .push(Problem::error(&rule.label(), &path, message));
                    continue;
                }
                if is_disabled(conf) {
                    continue;
                }
                match self.entry(name, conf, &rule.key, &rule.label()) {
                    Ok(entry) => entries.push(entry),
                    Err(error) => {
                        let path = format!("plugins.{name}");
                        self.problems
                            .push(Problem::error(&rule.label(), &path, &error));
                    }
                }
            }
        }
        Chain::new(entries)
    }

    fn entry(
        &mut self,
        name: &str,
        conf: &Value,
        owner: &str,
        label: &str,
    ) -> Result<Entry, String> {
        let kind = self
            .registry
            .kind(name)
            .ok_or_else(|| format!("unknown plugin [{name}]"))?;
        let conf = resolved(conf, self.env);
        let meta = conf.get("_meta").cloned().unwrap_or_default();
        let filter = meta
            .get("filter")
            .map(Expr::parse)
            .transpose()
            .map_err(|error| format!("_meta.filter: {error}"))?;
        let document = Arc::clone(self.document);
        let mut warnings = Vec::new();
        let mut building = Building {
            owner,
            metadata: document.metadata(name),
            sinks: self.sinks,
            health: self.assigned,
            previous: &*self,
            warnings: &mut warnings,
        };
        let plugin = (kind.build)(&conf, &mut building)?;
        if let Some(target) = plugin.ai_target() {
            self.pools
                .insert(target.key.clone(), PoolRef::Ai(Arc::clone(target)));
        }
        for warning in warnings {
            self.problems.push(Problem::warning(
                label,
                &format!("plugins.{name}"),
                &warning,
            ));
        }
        let priority = meta.get("priority").and_then(Value::as_i64);
        Ok(Entry {
            name: kind.schema.name,
            priority: priority
                .and_then(|p| i32::try_from(p).ok())
                .unwrap_or(kind.schema.priority),
            plugin,
            filter: filter.map(Arc::new),
            error_response: meta.get("error_response").cloned().map(Arc::new),
            origin: Origin::Route,
        })
    }
}

/// `_meta.disable`.
pub(super) fn is_disabled(conf: &Value) -> bool {
    conf.get("_meta")
        .and_then(|meta| meta.get("disable"))
        .and_then(Value::as_bool)
        == Some(true)
}

/// `conf` with its `$env://` references replaced; one that cannot be resolved stays as it is.
pub(super) fn resolved(conf: &Value, env: &dyn Fn(&str) -> Option<String>) -> Value {
    let mut conf = conf.clone();
    reference::resolve(&mut conf, env);
    conf
}
