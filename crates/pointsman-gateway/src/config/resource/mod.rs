//! Resources as written: what an operator may say, with APISIX's names, bounds and defaults.
//!
//! One typed source gives the parser, the JSON Schema and, through it, the errors. Nothing here
//! runs; `compile` turns it into what does.

pub mod checks;
pub mod consumer;
pub mod route;
pub mod service;
pub mod shared;
pub mod ssl;
pub mod upstream;

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

pub use self::shared::{Id, Timeout};
use super::schema::Schema;

/// What the items of a collection are read into.
pub trait Resource: DeserializeOwned + JsonSchema {
    /// Its plugins, if it can have any.
    fn plugins_mut(&mut self) -> Option<&mut Map<String, Value>> {
        None
    }
}

impl Resource for upstream::Upstream {}
impl Resource for ssl::Ssl {}

/// Implements [`Resource`] for what has a field `plugins`.
macro_rules! carries_plugins {
    ($($resource:ty),*) => {$(
        impl Resource for $resource {
            fn plugins_mut(&mut self) -> Option<&mut Map<String, Value>> {
                Some(&mut self.plugins)
            }
        }
    )*};
}

carries_plugins!(
    route::Route,
    service::Service,
    consumer::Consumer,
    consumer::CredentialBody,
    consumer::PluginSet
);

/// The JSON Schema of `T`.
pub fn schema_of<T: JsonSchema>() -> Schema {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.meta_schema = None);
    let schema = SchemaGenerator::new(settings).into_root_schema_for::<T>();
    Schema::new(schema.to_value())
}

/// The schemas of all resources, for the Control API.
pub fn schemas() -> Value {
    json!({
        "route": written::<route::Route>(),
        "service": written::<service::Service>(),
        "upstream": written::<upstream::Upstream>(),
        "consumer": written::<consumer::Consumer>(),
        "consumer_group": written::<consumer::PluginSet>(),
        "plugin_config": written::<consumer::PluginSet>(),
        "global_rule": written::<consumer::PluginSet>(),
        "ssl": written::<ssl::Ssl>(),
    })
}

fn written<T: JsonSchema>() -> Value {
    schema_of::<T>().written().clone()
}
