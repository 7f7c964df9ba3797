//! One resource, whoever brings it: a document, or the Admin API.
//!
//! This is the one place that says whether a resource is sound. What is wrong is told with the step
//! that found it, since APISIX's Admin API words those differently.

use serde_json::Value;

use crate::config::{
    plugin_schema::{self, Place, PluginCatalog},
    reference,
    resource::{
        Resource,
        consumer::{Consumer, Credential, CredentialBody, PluginSet},
        route::Route,
        secret::{self, Secret},
        service::Service,
        ssl::Ssl,
        upstream::Upstream,
    },
    schema::{self, Issue},
    text::{Env, join},
};

/// Reads resources one by one.
#[derive(Clone, Copy)]
pub struct ItemReader<'a> {
    /// The plugins that resources may name.
    pub catalog: &'a dyn PluginCatalog,
    /// The environment that they may refer to.
    pub env: Env<'a>,
}

/// What was found in a resource.
pub struct Found<T> {
    /// It, if it is sound.
    pub value: Option<T>,
    /// What is wrong with it.
    pub faults: Vec<Fault>,
    /// What is worth knowing.
    pub warnings: Vec<Issue>,
}

/// Something that is wrong with a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What found it.
    pub step: Step,
    /// It.
    pub issue: Issue,
}

/// What finds faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The resource's schema.
    Schema,
    /// What plugins say of their configuration.
    Plugins,
    /// Rules across fields.
    Rules,
}

impl Step {
    fn faults(self, issues: Vec<Issue>) -> impl Iterator<Item = Fault> {
        issues
            .into_iter()
            .map(move |issue| Fault { step: self, issue })
    }
}

impl ItemReader<'_> {
    /// A route.
    pub fn route(&self, value: Value) -> Found<Route> {
        self.read(value, Place::Traffic, Route::check)
    }

    /// A service.
    pub fn service(&self, value: Value) -> Found<Service> {
        self.read(value, Place::Traffic, Service::check)
    }

    /// An upstream.
    pub fn upstream(&self, value: Value) -> Found<Upstream> {
        self.read(value, Place::Traffic, Upstream::check)
    }

    /// A plugin_config or global rule.
    pub fn plugins(&self, value: Value) -> Found<PluginSet> {
        self.read(value, Place::Traffic, no_rules)
    }

    /// A consumer group.
    pub fn group(&self, value: Value) -> Found<PluginSet> {
        self.read(value, Place::Consumer, no_rules)
    }

    /// A certificate.
    pub fn ssl(&self, value: Value) -> Found<Ssl> {
        self.read(value, Place::Traffic, Ssl::check)
    }

    /// A consumer.
    pub fn consumer(&self, value: Value) -> Found<Consumer> {
        self.read(value, Place::Consumer, no_rules)
    }

    /// A credential, whose id is `<username>/credentials/<id>`.
    pub fn credential(&self, value: Value) -> Found<Credential> {
        let Found {
            value,
            mut faults,
            warnings,
        } = self.read(value, Place::Consumer, credential_rules);
        let value = value.and_then(|body: CredentialBody| {
            let (username, credential_id) = body.id.split_once("/credentials/")?;
            if let Some(other) = body.plugins.names().find(|name| !self.is_auth(name)) {
                let message = "only supports auth type plugins in consumer credential";
                let issue = Issue::new(&join("plugins", other), message);
                faults.extend(Step::Rules.faults(vec![issue]));
                return None;
            }
            Some(Credential {
                username: username.to_owned(),
                credential_id: credential_id.to_owned(),
                plugins: body.plugins,
            })
        });
        Found {
            value,
            faults,
            warnings,
        }
    }

    /// The metadata of `plugin`, without its id; `None` if there is no such plugin.
    pub fn metadata(&self, plugin: &str, mut value: Value) -> Option<Found<Value>> {
        let plugin = self.catalog.plugin(plugin)?;
        if let Some(map) = value.as_object_mut() {
            map.shift_remove("id");
        }
        let schema = plugin.metadata_schema.as_ref();
        let issues = schema.map_or_else(Vec::new, |schema| schema.validate(&value));
        let faults: Vec<Fault> = Step::Schema.faults(issues).collect();
        Some(Found {
            value: faults.is_empty().then_some(value),
            faults,
            warnings: Vec::new(),
        })
    }

    /// The secret manager whose id is `<manager>/<id>`; `None` if there is no such manager.
    pub fn secret(&self, id: &str, value: Value) -> Option<Found<Secret>> {
        let kind = id.split('/').next().unwrap_or_default();
        let mut issues = secret::schema(kind)?.validate(&value);
        let read = Secret::read(kind, value)?;
        if let (Err(error), true) = (&read, issues.is_empty()) {
            issues.push(Issue::new("", error.to_string()));
        }
        Some(Found {
            value: read.ok().filter(|_| issues.is_empty()),
            faults: Step::Schema.faults(issues).collect(),
            warnings: Vec::new(),
        })
    }

    fn read<T: Resource>(
        &self,
        mut value: Value,
        place: Place,
        rules: fn(&T) -> Vec<Issue>,
    ) -> Found<T> {
        let broken = T::schema().validate(&value);
        let mut faults: Vec<Fault> = Step::Schema.faults(broken.clone()).collect();
        let mut warnings = Vec::new();
        if let Some(plugins) = value.get("plugins").and_then(Value::as_object) {
            let (wrong, odd) = plugin_schema::check(plugins, place, self.catalog);
            faults.extend(Step::Plugins.faults(wrong));
            warnings = odd;
        }
        warnings.extend(self.unresolved(T::NAME, &value, place));
        // Plugins stay as they are: reading them with the rest would build each of them anew.
        let plugins = value.get_mut("plugins").and_then(Value::as_object_mut);
        let plugins = plugins.map(std::mem::take);
        let parsed = if broken.is_empty() {
            T::deserialize(value)
        } else {
            T::deserialize(&value).or_else(|_| T::deserialize(schema::without(&value, &broken)))
        };
        let parsed = match parsed {
            Ok(mut parsed) => {
                if let (Some(place), Some(plugins)) = (parsed.plugins_mut(), plugins) {
                    *place = plugins.into();
                }
                // A rule must not complain of the absence of what was left out.
                let counts = |issue: &Issue| {
                    broken.is_empty()
                        || !(issue.path.is_empty() || broken.iter().any(|b| b.is_in(&issue.path)))
                };
                let found = rules(&parsed).into_iter().filter(counts).collect();
                faults.extend(Step::Rules.faults(found));
                Some(parsed)
            }
            Err(error) => {
                if faults.is_empty() {
                    let issue = Issue::new("", error.to_string());
                    faults.extend(Step::Schema.faults(vec![issue]));
                }
                None
            }
        };
        Found {
            value: parsed.filter(|_| faults.is_empty()),
            faults,
            warnings,
        }
    }

    /// The references in a resource that nothing will stand for.
    fn unresolved(&self, kind: &str, value: &Value, place: Place) -> Vec<Issue> {
        let mut found = Vec::new();
        let plugins = value.get("plugins").and_then(Value::as_object);
        for (name, conf) in plugins.into_iter().flatten() {
            // What identifies a consumer is compiled with care, and told there.
            if !(place == Place::Consumer && self.is_auth(name)) {
                let path = join("plugins", name);
                reference::unresolved(conf, self.env, &path, &mut found);
            }
        }
        match kind {
            "ssl" => {
                for field in ["cert", "key", "certs", "keys"] {
                    if let Some(value) = value.get(field) {
                        reference::unresolved(value, self.env, field, &mut found);
                    }
                }
            }
            "upstream" => reference::ineffective(value, "", &mut found),
            _ => {
                if let Some(upstream) = value.get("upstream") {
                    reference::ineffective(upstream, "upstream", &mut found);
                }
            }
        }
        found
    }

    fn is_auth(&self, name: &str) -> bool {
        self.catalog
            .plugin(name)
            .is_some_and(|plugin| plugin.is_auth)
    }
}

fn no_rules<T>(_: &T) -> Vec<Issue> {
    Vec::new()
}

fn credential_rules(body: &CredentialBody) -> Vec<Issue> {
    let id_is_fine = body
        .id
        .split_once("/credentials/")
        .is_some_and(|(user, id)| {
            let name = |text: &str, more: &[u8]| {
                !text.is_empty()
                    && text
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
            };
            name(user, b"-_") && name(id, b"-_.")
        });
    let mut wrong = Vec::new();
    if !id_is_fine {
        let text = "must look like `<username>/credentials/<id>`";
        wrong.push(Issue::new("id", text));
    }
    if body.plugins.len() > 1 {
        let text = "expect object to have at most 1 properties";
        wrong.push(Issue::new("plugins", text));
    }
    wrong
}
