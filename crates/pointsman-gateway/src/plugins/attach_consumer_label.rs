//! `attach-consumer-label`: tells the target what the consumer is labelled with.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::parse;
use crate::{
    config::{
        plugin_schema::{Faults, PluginSchema},
        resource::schema_of,
        text::join,
    },
    exchange::Exchange,
    plugin::{
        Flow, Phases, Plugin, Step,
        registry::{Building, PluginKind},
    },
};

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
struct Conf {
    /// Headers, and `$label` for each.
    #[schemars(extend("minProperties" = 1))]
    headers: Map<String, Value>,
}

struct AttachConsumerLabel {
    /// Header, and the name of the label.
    headers: Vec<(HeaderName, String)>,
}

/// For the registry.
pub(crate) fn kind() -> PluginKind {
    PluginKind {
        schema: PluginSchema {
            name: "attach-consumer-label",
            priority: 2399,
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

fn compile(conf: &Value) -> Result<AttachConsumerLabel, Faults> {
    let conf: Conf = parse(conf)?;
    let headers = Faults::collect(conf.headers.iter().map(|(name, label)| {
        let path = join("headers", name);
        let header = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| Faults::at(&path, format!("headers: `{name}` is not a header name")))?;
        let label = label
            .as_str()
            .and_then(|text| text.strip_prefix('$'))
            .filter(|label| !label.is_empty())
            .ok_or_else(|| {
                let text = format!("headers.{name}: must be `$` and the name of a label");
                Faults::at(&path, text)
            })?;
        Ok((header, label.to_owned()))
    }))?;
    Ok(AttachConsumerLabel { headers })
}

impl Plugin for AttachConsumerLabel {
    fn phases(&self) -> Phases {
        Phases::ACCESS
    }

    /// What the client sent under such a name never passes: the target would believe it.
    fn access<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        for (header, label) in &self.headers {
            let value = exchange
                .consumer()
                .and_then(|consumer| consumer.labels.get(label))
                .and_then(|text| HeaderValue::from_str(text).ok());
            match value {
                Some(value) => drop(exchange.request.headers.insert(header, value)),
                None => drop(exchange.request.headers.remove(header)),
            }
        }
        Step::Done(Flow::Continue)
    }
}
