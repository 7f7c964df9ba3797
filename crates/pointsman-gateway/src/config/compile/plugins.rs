//! Plugins of a route, service, plugin_config, consumer or global rule: merged, then built.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::{Compiler, carriers::Carrier};
use crate::{
    config::{
        plugin_schema::Faults,
        problem::{Severity, Spot},
        reference::{self, Elsewhere},
        resource::plugins::{Plugins, Written},
        text::join,
    },
    plugin::{
        chain::{Chain, Entry, Origin},
        registry::Building,
    },
    router::Expr,
};

/// Plugins by name, each as a whole from the most specific place that has it.
#[derive(Default)]
pub(super) struct Merged<'a> {
    plugins: BTreeMap<&'a str, (&'a Written, &'a Carrier<'a>)>,
}

impl<'a> Merged<'a> {
    /// The plugins of all `layers`, the last of which is the most specific.
    pub(super) fn of(layers: &[&'a Carrier<'a>]) -> Self {
        let mut merged = Self::default();
        for layer in layers {
            merged.lay(layer);
        }
        merged
    }

    /// Lays the plugins of `carrier` over what is there.
    pub(super) fn lay(&mut self, carrier: &'a Carrier<'a>) {
        for (name, conf) in carrier.plugins.into_iter().flat_map(Plugins::iter) {
            self.plugins.insert(name, (conf, carrier));
        }
    }

    /// Without authentication plugins, which are identity material in a consumer.
    pub(super) fn without(mut self, is_auth: impl Fn(&str) -> bool) -> Self {
        self.plugins.retain(|name, _| !is_auth(name));
        self
    }
}

impl Compiler<'_> {
    /// The chain of `merged`, which takes effect at `spot`; `None` if a plugin of it cannot be
    /// built. Tells about each of those.
    pub(super) fn chain(&mut self, merged: &Merged<'_>, spot: Spot<'_>) -> Option<Chain> {
        let mut entries = Vec::new();
        let mut is_whole = true;
        for (name, (written, owner)) in &merged.plugins {
            let conf = written.value();
            if is_disabled(&conf) {
                continue;
            }
            match self.entry(name, &conf, owner) {
                Some(entry) => entries.push(entry),
                None => {
                    is_whole = false;
                    if owner.place != spot.place {
                        let message = format!(
                            "left out, because plugin {name} of {} is wrong",
                            owner.spot()
                        );
                        self.report.error(spot, "", message);
                    }
                }
            }
        }
        is_whole.then(|| Chain::new(entries))
    }

    /// All global rules folded into one chain; a plugin that two of them have runs in neither.
    pub(super) fn global_chain(&mut self) -> Chain {
        let carriers = self.carriers;
        let rules = || {
            carriers.in_collection("global_rules").flat_map(|rule| {
                let plugins = rule.plugins.into_iter().flat_map(Plugins::iter);
                plugins.map(move |(name, conf)| (rule, name, conf))
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
                self.report.error(rule.spot(), &path, message);
                continue;
            }
            let conf = conf.value();
            if is_disabled(&conf) {
                continue;
            }
            entries.extend(self.entry(name, &conf, rule));
        }
        Chain::new(entries)
    }

    /// The plugin `name` that `owner` carries, or `None` if it cannot be built, which is told once
    /// however many resources use it.
    fn entry(&mut self, name: &str, conf: &Value, owner: &Carrier<'_>) -> Option<Entry> {
        let path = join("plugins", name);
        let mut warnings = Vec::new();
        let built = self.build(name, conf, owner, &mut warnings);
        let is_new = self.told.insert((owner.key.to_owned(), name.to_owned()));
        if is_new {
            let mut unknown = Vec::new();
            reference::unknown(conf, self.elsewhere, &path, &mut unknown);
            self.report.issues(Severity::Warning, owner.spot(), unknown);
            for warning in warnings {
                self.report.warning(owner.spot(), &path, warning);
            }
        }
        match built {
            Ok(entry) => Some(entry),
            Err(faults) => {
                let issues = faults.under(&path).into_issues();
                if is_new {
                    self.report.issues(Severity::Error, owner.spot(), issues);
                }
                None
            }
        }
    }

    fn build(
        &self,
        name: &str,
        conf: &Value,
        owner: &Carrier<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<Entry, Faults> {
        let kind = self
            .registry
            .kind(name)
            .ok_or_else(|| format!("unknown plugin [{name}]"))?;
        let conf = resolved(conf, self.elsewhere);
        let meta = conf.get("_meta").cloned().unwrap_or_default();
        let filter = meta.get("filter").map(Expr::parse).transpose();
        let filter = filter.map_err(|error| Faults::at("_meta.filter", error.to_string()))?;
        let mut building = Building {
            owner: owner.key,
            metadata: self.document.metadata(name),
            sinks: self.sinks,
            env: self.elsewhere.env,
            assigned: self.assigned,
            guards: self.guards,
            has_upstream: &|key| self.upstreams.contains_key(key),
            previous: self,
            warnings,
        };
        let has_references = matches!(conf, Cow::Owned(_));
        let plugin = (kind.build)(&conf, &mut building);
        let plugin = plugin.map_err(|faults| match has_references {
            // What is wrong may be told in the words of a secret.
            true => faults.hidden(),
            false => faults,
        })?;
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

/// `conf` with its references replaced; one that cannot be resolved stays as it is.
pub(super) fn resolved<'c>(conf: &'c Value, elsewhere: Elsewhere<'_>) -> Cow<'c, Value> {
    let mut conf = Cow::Borrowed(conf);
    if reference::any(&conf) {
        reference::resolve(conf.to_mut(), elsewhere);
    }
    conf
}
