//! Configuration: as written, and as it runs.
//!
//! `text` reads YAML and JSON and remembers where everything stood, `problem` is what tells of it; `document` and `settings`
//! turn that into typed resources, reporting every error with its place; `compile` makes a
//! `snapshot` of it, which is what requests see.

pub mod plugin_schema;
pub mod problem;
pub mod reference;
pub mod schema;
mod similar;
pub mod text;

pub mod at_rest;
pub mod collection;
pub mod document;
pub mod items;
pub mod plugin;
pub mod resource;
pub mod settings;

pub mod compile;
pub mod snapshot;
