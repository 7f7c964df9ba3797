//! `ua-restriction`: which user agents may.

use std::sync::Arc;

use http::{StatusCode, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{parse, patterns};
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
    router::pattern::{Case, Pattern},
};

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct Conf {
    /// Those without a `User-Agent` may.
    bypass_missing: bool,
    /// Patterns of those who may; all others may not.
    #[schemars(length(min = 1))]
    allowlist: Option<Vec<String>>,
    /// Patterns of those who may not.
    #[schemars(length(min = 1))]
    denylist: Option<Vec<String>>,
    /// What they are told.
    #[schemars(length(min = 1, max = 1024))]
    message: String,
}

impl Default for Conf {
    fn default() -> Self {
        Self {
            bypass_missing: false,
            allowlist: None,
            denylist: None,
            message: "Not allowed".to_owned(),
        }
    }
}

struct UaRestriction {
    patterns: Vec<Pattern>,
    /// Whether those who match may; else those who don't.
    listed_may: bool,
    missing_may: bool,
    refusal: Reply,
}

/// For the registry.
pub(crate) fn kind() -> PluginKind {
    PluginKind {
        schema: PluginSchema {
            name: "ua-restriction",
            priority: 2999,
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

fn compile(conf: &Value) -> Result<UaRestriction, Faults> {
    let conf: Conf = parse(conf)?;
    let (path, list, listed_may) = match (&conf.allowlist, &conf.denylist) {
        (Some(list), None) => ("allowlist", list, true),
        (None, Some(list)) => ("denylist", list, false),
        _ => {
            let text = "value should match only one schema: give either an allowlist or a denylist";
            return Err(Faults::at("", text));
        }
    };
    Ok(UaRestriction {
        patterns: patterns(path, list, Case::Sensitive)?,
        listed_may,
        missing_may: conf.bypass_missing,
        refusal: Reply::json(StatusCode::FORBIDDEN, json!({ "message": conf.message })),
    })
}

impl UaRestriction {
    fn may(&self, agent: &str) -> bool {
        // One on which a pattern gives up is refused, whichever list it is.
        let matches = |pattern: &Pattern| pattern.is_match(agent).unwrap_or(!self.listed_may);
        self.patterns.iter().any(matches) == self.listed_may
    }
}

impl Plugin for UaRestriction {
    fn phases(&self) -> Phases {
        Phases::ACCESS
    }

    fn access<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        let mut agents = exchange.request.headers.get_all(header::USER_AGENT).iter();
        let may = match agents.next() {
            None => self.missing_may,
            Some(first) => std::iter::once(first)
                .chain(agents)
                .all(|agent| self.may(&String::from_utf8_lossy(agent.as_bytes()))),
        };
        Step::Done(if may {
            Flow::Continue
        } else {
            Flow::Respond(self.refusal.clone())
        })
    }
}
