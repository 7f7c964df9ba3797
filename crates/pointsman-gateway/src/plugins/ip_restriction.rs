//! `ip-restriction`: only these addresses, or all but these.

use std::sync::Arc;

use http::StatusCode;
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{networks, parse};
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
    /// Addresses and networks that may; all others may not.
    #[schemars(length(min = 1))]
    whitelist: Option<Vec<String>>,
    /// Addresses and networks that may not.
    #[schemars(length(min = 1))]
    blacklist: Option<Vec<String>>,
    /// What others are told.
    #[schemars(length(min = 1, max = 1024))]
    message: String,
    /// Status of that.
    #[schemars(range(min = 403, max = 404))]
    response_code: u16,
}

impl Default for Conf {
    fn default() -> Self {
        Self {
            whitelist: None,
            blacklist: None,
            message: "Your IP address is not allowed".to_owned(),
            response_code: 403,
        }
    }
}

struct IpRestriction {
    list: Vec<IpNet>,
    /// Whether those on the list may; else those who are not.
    listed_may: bool,
    refusal: Reply,
}

/// For the registry.
pub(crate) fn kind() -> PluginKind {
    PluginKind {
        schema: PluginSchema {
            name: "ip-restriction",
            priority: 3000,
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

fn compile(conf: &Value) -> Result<IpRestriction, Faults> {
    let conf: Conf = parse(conf)?;
    let (path, list, listed_may) = match (&conf.whitelist, &conf.blacklist) {
        (Some(list), None) => ("whitelist", list, true),
        (None, Some(list)) => ("blacklist", list, false),
        (None, None) => {
            let text = "value should match only one schema, but matches none: give a whitelist \
                        or a blacklist";
            return Err(Faults::at("", text));
        }
        (Some(_), Some(_)) => {
            let text = "value should match only one schema, but matches both schemas 1 and 2: \
                        give either a whitelist or a blacklist";
            return Err(Faults::at("", text));
        }
    };
    let status = StatusCode::from_u16(conf.response_code).unwrap_or(StatusCode::FORBIDDEN);
    Ok(IpRestriction {
        list: networks(path, list)?,
        listed_may,
        refusal: Reply::json(status, json!({ "message": conf.message })),
    })
}

impl Plugin for IpRestriction {
    fn phases(&self) -> Phases {
        Phases::ACCESS
    }

    fn access<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        // A listener on `[::]` sees IPv4 clients as mapped addresses.
        let client = exchange.peer.client.ip().to_canonical();
        let is_listed = self.list.iter().any(|net| net.contains(&client));
        Step::Done(if is_listed == self.listed_may {
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
    fn exactly_one_list_of_valid_addresses() {
        for wrong in [
            json!({}),
            json!({"whitelist": ["10.0.0.0/8"], "blacklist": ["10.0.0.1"]}),
            json!({"whitelist": ["10.0.0.0/33"]}),
            json!({"blacklist": ["localhost"]}),
        ] {
            assert!(compile(&wrong).is_err(), "{wrong}");
        }
        assert!(compile(&json!({"whitelist": ["10.0.0.0/8", "::1"]})).is_ok());
    }
}
