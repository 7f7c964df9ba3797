//! Resources as written: what an operator may say, with APISIX's names, bounds and defaults.
//!
//! One typed source gives the parser, the JSON Schema and, through it, the errors. Nothing here
//! runs; `compile` turns it into what does.

pub mod checks;
pub mod consumer;
pub mod plugins;
pub mod route;
pub mod secret;
pub mod service;
pub mod shared;
pub mod ssl;
pub mod upstream;

use std::sync::OnceLock;

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use self::plugins::Plugins;
pub use self::shared::{Id, Timeout};
use super::schema::Schema;

/// What the items of a collection are read into.
pub trait Resource: DeserializeOwned + JsonSchema {
    /// What APISIX calls one, such as `route`.
    const NAME: &'static str;

    /// Its schema, made once.
    fn schema() -> &'static Schema;

    /// Its plugins, if it can have any.
    fn plugins_mut(&mut self) -> Option<&mut Plugins> {
        None
    }
}

/// Implements [`Resource`], for what has a field `plugins` and for what has none.
macro_rules! resources {
    (plain $($plain:ty = $plain_name:literal),*; plugins $($carrier:ty = $name:literal),*) => {
        $(impl Resource for $plain {
            const NAME: &'static str = $plain_name;
            resources!(@schema);
        })*
        $(impl Resource for $carrier {
            const NAME: &'static str = $name;
            resources!(@schema);

            fn plugins_mut(&mut self) -> Option<&mut Plugins> {
                Some(&mut self.plugins)
            }
        })*
    };
    (@schema) => {
        fn schema() -> &'static Schema {
            static SCHEMA: OnceLock<Schema> = OnceLock::new();
            SCHEMA.get_or_init(schema_of::<Self>)
        }
    };
}

resources!(
    plain upstream::Upstream = "upstream", ssl::Ssl = "ssl";
    plugins route::Route = "route",
    service::Service = "service",
    consumer::Consumer = "consumer",
    consumer::CredentialBody = "credential",
    consumer::PluginSet = "plugin_config"
);

/// The JSON Schema of `T`.
pub fn schema_of<T: JsonSchema>() -> Schema {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.meta_schema = None);
    let schema = SchemaGenerator::new(settings).into_root_schema_for::<T>();
    Schema::new(schema.to_value())
}

/// The schemas of all resources, for the Control API.
pub fn schemas() -> Value {
    let mut schemas = Map::new();
    for name in NAMES {
        let written = schema_named(name).map(|schema| schema.written().clone());
        schemas.extend(written.map(|schema| (name.to_owned(), schema)));
    }
    Value::Object(schemas)
}

/// The schema of the resources that APISIX calls `name`.
pub fn schema_named(name: &str) -> Option<&'static Schema> {
    Some(match name {
        "route" => route::Route::schema(),
        "service" => service::Service::schema(),
        "upstream" => upstream::Upstream::schema(),
        "consumer" => consumer::Consumer::schema(),
        "credential" => consumer::CredentialBody::schema(),
        "consumer_group" | "plugin_config" | "global_rule" => consumer::PluginSet::schema(),
        "ssl" => ssl::Ssl::schema(),
        _ => return None,
    })
}

/// What the Control API shows.
const NAMES: [&str; 8] = [
    "route",
    "service",
    "upstream",
    "consumer",
    "consumer_group",
    "plugin_config",
    "global_rule",
    "ssl",
];
