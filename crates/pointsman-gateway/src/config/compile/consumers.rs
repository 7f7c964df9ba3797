//! Consumers and what they authenticate with.

use std::{collections::HashMap, sync::Arc};

use http::HeaderValue;
use serde_json::Value;

use super::{
    Compiler,
    plugins::{self, Merged},
};
use crate::{
    config::{
        document::Item,
        problem::Spot,
        reference,
        resource::{consumer::Consumer as Written, plugins::Plugins},
        snapshot::{Consumer, Consumers, Identity},
    },
    plugin::chain::Chain,
};

impl Compiler<'_> {
    /// All consumers. One whose plugins cannot be built is reported and left out.
    pub(super) fn consumers(&mut self) -> Consumers {
        let document = Arc::clone(self.document);
        let mut consumers = Consumers::default();
        for item in &document.consumers {
            let written = &item.value;
            let group = written
                .group_id
                .as_ref()
                .map(|id| self.references.consumer_group(id));
            let group_key = group.flatten().map(|group| group.key.as_str());
            // Why there is none was told.
            let Some(chain) = self.consumer_chain(group_key, item) else {
                continue;
            };
            let Ok(username_header) = HeaderValue::from_str(&written.username) else {
                continue;
            };
            let labels: HashMap<String, String> = written.labels();
            let custom_id = labels
                .get("custom_id")
                .and_then(|value| HeaderValue::from_str(value).ok());
            self.keep_pools(&chain);
            let consumer = Arc::new(Consumer {
                username: written.username.clone(),
                username_header,
                custom_id,
                group_id: written.group_id.as_ref().map(ToString::to_string),
                group_missing: matches!(group, Some(None)),
                labels,
                chain: Arc::new(chain),
            });
            consumers.add(Arc::clone(&consumer));
            self.identities(
                &mut consumers,
                &consumer,
                None,
                &written.plugins,
                item.spot(),
            );
        }
        for item in &document.credentials {
            let Some(consumer) = consumers.named(&item.value.username).cloned() else {
                let message = format!("consumer {} does not exist", item.value.username);
                self.report.error(item.spot(), "id", message);
                continue;
            };
            let id: Arc<str> = item.value.credential_id.as_str().into();
            self.identities(
                &mut consumers,
                &consumer,
                Some(id),
                &item.value.plugins,
                item.spot(),
            );
        }
        consumers
    }

    /// The plugins that a consumer brings along, laid over its group's.
    fn consumer_chain(&mut self, group_key: Option<&str>, item: &Item<Written>) -> Option<Chain> {
        let mut merged = Merged::default();
        if let Some(key) = group_key {
            merged.lay(self.carrier(key, item.spot())?);
        }
        merged.lay(self.carrier(&item.key, item.spot())?);
        let registry = self.registry;
        let merged =
            merged.without(|name| registry.kind(name).is_some_and(|kind| kind.schema.is_auth));
        self.chain(&merged, item.spot())
    }

    fn identities(
        &mut self,
        consumers: &mut Consumers,
        consumer: &Arc<Consumer>,
        credential_id: Option<Arc<str>>,
        written: &Plugins,
        spot: Spot<'_>,
    ) {
        for (name, conf) in written.iter() {
            let Some(kind) = self.registry.kind(name) else {
                continue;
            };
            let Some(by) = kind.identity_field else {
                continue;
            };
            let field = by.field;
            let path = format!("plugins.{name}.{field}");
            let conf = conf.value();
            let conf = plugins::resolved(&conf, self.elsewhere);
            let Some(value) = conf.get(field).and_then(Value::as_str) else {
                continue;
            };
            let parts = conf.as_object().into_iter().flatten();
            let mut texts = parts.filter_map(|(part, value)| Some((part, value.as_str()?)));
            if let Some((part, text)) = texts.find(|(_, text)| reference::is_reference(text)) {
                // Fail closed: the literal text of a reference must never work as a key.
                let problem = reference::problem(text, self.elsewhere);
                let problem = problem.unwrap_or_else(|| "it refers to a reference".to_owned());
                let message = format!("{problem}; this {part} does not work");
                let path = format!("plugins.{name}.{part}");
                self.report.warning(spot, &path, message);
                continue;
            }
            let parts = conf.as_object().into_iter().flatten();
            let mut empty = parts.filter(|(_, value)| value.as_str() == Some(""));
            if let Some((part, _)) = empty.next() {
                // The schema did not see what a reference stands for.
                let path = format!("plugins.{name}.{part}");
                let message = format!("an empty text stands there; this {part} does not work");
                self.report.warning(spot, &path, message);
                continue;
            }
            let prepared = match (by.prepare)(&conf) {
                Ok(prepared) => prepared,
                Err(faults) => {
                    for issue in faults.into_issues() {
                        let path = format!("plugins.{name}.{}", issue.path);
                        self.report.error(spot, &path, issue.message);
                    }
                    continue;
                }
            };
            let value = value.to_owned();
            let identity = Identity {
                consumer: Arc::clone(consumer),
                credential_id: credential_id.clone(),
                conf: Arc::new(conf.into_owned()),
                prepared,
            };
            if let Some(other) = consumers.add_identity(kind.schema.name, &value, identity) {
                let message = format!(
                    "duplicate {field} of plugin {name} found with consumer: {}",
                    other.username
                );
                self.report.error(spot, &path, message);
            }
        }
    }
}
