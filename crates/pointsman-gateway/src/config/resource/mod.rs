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
use serde_json::{Value, json};

pub use self::shared::{Id, Timeout};

/// The JSON Schema of `T`.
pub fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.meta_schema = None);
    let schema = SchemaGenerator::new(settings).into_root_schema_for::<T>();
    schema.to_value()
}

/// The schemas of all resources, for the Control API.
pub fn schemas() -> Value {
    json!({
        "route": schema_of::<route::Route>(),
        "service": schema_of::<service::Service>(),
        "upstream": schema_of::<upstream::Upstream>(),
        "consumer": schema_of::<consumer::Consumer>(),
        "consumer_group": schema_of::<consumer::PluginSet>(),
        "plugin_config": schema_of::<consumer::PluginSet>(),
        "global_rule": schema_of::<consumer::PluginSet>(),
        "ssl": schema_of::<ssl::Ssl>(),
    })
}
