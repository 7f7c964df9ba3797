//! Plugins of a route, service, plugin_config, consumer or global rule: merged, then built.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::{Compiler, carriers::Carrier};
use crate::{
    config::{document::Problem, reference},
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
    /// Lays the plugins of `carrier` over what is there.
    pub(super) fn lay(&mut self, carrier: &Carrier<'a>) {
        for (name, conf) in carrier.plugins.into_iter().flatten() {
            self.plugins.insert(name, (conf, carrier.key));
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
        let carriers = self.carriers;
        let rules = || {
            carriers.in_collection("global_rules").flat_map(|rule| {
                let plugins = rule.plugins.into_iter().flatten();
                plugins.map(move |(name, conf)| (rule, name.as_str(), conf))
            })
        };
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, name, _) in rules() {
            *seen.entry(name).or_default() += 1;
        }
        let mut entries = Vec::new();
        for (rule, name, conf) in rules() {
            let path = format!("plugins.{name}");
            if seen.get(name).is_some_and(|count| *count > 1) {
                let message = "more than one global rule has this plugin; it runs in none";
                self.problems
                    .push(Problem::error(&rule.label(), &path, message));
                continue;
            }
            if is_disabled(conf) {
                continue;
            }
            match self.entry(name, conf, rule.key, &rule.label()) {
                Ok(entry) => entries.push(entry),
                Err(error) => self
                    .problems
                    .push(Problem::error(&rule.label(), &path, &error)),
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
            assigned: self.assigned,
            previous: &*self,
            warnings: &mut warnings,
        };
        let plugin = (kind.build)(&conf, &mut building)?;
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
pub(super) fn resolved<'c>(
    conf: &'c Value,
    env: &dyn Fn(&str) -> Option<String>,
) -> Cow<'c, Value> {
    let mut conf = Cow::Borrowed(conf);
    if reference::any(&conf) {
        reference::resolve(conf.to_mut(), env);
    }
    conf
}
