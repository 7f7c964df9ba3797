//! `referer-restriction`: from which pages requests may come.

use std::sync::Arc;

use http::{StatusCode, Uri, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::parse;
use crate::{
    config::{
        plugin_schema::{Faults, PluginSchema},
        resource::schema_of,
    },
    exchange::Exchange,
    plugin::{
        Flow, Phases, Plugin, Reply, Step,
        registry::{Building, PluginKind},
    },
};

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct Conf {
    /// Those without a `Referer`, or with one that is none, may.
    bypass_missing: bool,
    /// Hosts, or `*.` and a domain, from which requests may come.
    #[schemars(length(min = 1), inner(regex(pattern = r"^\*?[0-9a-zA-Z\-._\[\]:]+$")))]
    whitelist: Option<Vec<String>>,
    /// Those from which they may not.
    #[schemars(length(min = 1), inner(regex(pattern = r"^\*?[0-9a-zA-Z\-._\[\]:]+$")))]
    blacklist: Option<Vec<String>>,
    /// What others are told.
    #[schemars(length(min = 1, max = 1024))]
    message: String,
}

impl Default for Conf {
    fn default() -> Self {
        Self {
            bypass_missing: false,
            whitelist: None,
            blacklist: None,
            message: "Your referer host is not allowed".to_owned(),
        }
    }
}

struct RefererRestriction {
    /// In lower case.
    hosts: Vec<String>,
    listed_may: bool,
    missing_may: bool,
    refusal: Reply,
}

/// For the registry.
pub(crate) fn kind() -> PluginKind {
    PluginKind {
        schema: PluginSchema {
            name: "referer-restriction",
            priority: 2990,
            version: "0.1",
            schema: schema_of::<Conf>(),
            consumer_schema: None,
            metadata_schema: None,
            is_auth: false,
            check: |conf| compile(conf).map(drop),
        },
        build: |conf, _: &mut Building<'_>| Ok(Arc::new(compile(conf)?)),
        checkers: None,
        identity_field: None,
    }
}

fn compile(conf: &Value) -> Result<RefererRestriction, Faults> {
    let conf: Conf = parse(conf)?;
    let (list, listed_may) = match (conf.whitelist, conf.blacklist) {
        (Some(list), None) => (list, true),
        (None, Some(list)) => (list, false),
        _ => {
            let text = "value should match only one schema: give either a whitelist or a blacklist";
            return Err(Faults::at("", text));
        }
    };
    Ok(RefererRestriction {
        hosts: list.iter().map(|host| host.to_ascii_lowercase()).collect(),
        listed_may,
        missing_may: conf.bypass_missing,
        refusal: Reply::json(StatusCode::FORBIDDEN, json!({ "message": conf.message })),
    })
}

/// Whether `pattern` (a host, or `*` and how hosts end) covers `host`.
fn covers(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(end) => host.len() > end.len() && host.ends_with(end),
        None => host == pattern,
    }
}

impl Plugin for RefererRestriction {
    fn phases(&self) -> Phases {
        Phases::ACCESS
    }

    fn access<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        let host = exchange
            .header(header::REFERER.as_str())
            .and_then(|referer| referer.parse::<Uri>().ok())
            .and_then(|page| page.host().map(str::to_ascii_lowercase));
        let may = match host {
            None => self.missing_may,
            Some(host) => {
                let is_listed = self.hosts.iter().any(|pattern| covers(pattern, &host));
                is_listed == self.listed_may
            }
        };
        Step::Done(if may {
            Flow::Continue
        } else {
            Flow::Respond(self.refusal.clone())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_a_beginning() {
        assert!(covers("*.a.com", "x.a.com"));
        assert!(!covers("*.a.com", "a.com"));
        assert!(!covers("*.a.com", "x.b.com"));
        assert!(covers("a.com", "a.com"));
        assert!(!covers("a.com", "x.a.com"));
    }
}
