//! What should happen to a request: routing, plugins, the attempt loop, configuration, observation.
//!
//! Async, but this crate opens no socket, spawns no task and knows no HTTP server: the program
//! hands it requests and [`ports`]. Start reading at [`gateway`]: `serve` is the whole life of a
//! request, phase by phase.

pub mod body;
pub mod exchange;
pub mod failure;
pub mod gateway;

pub mod jws;
pub mod mtls;
pub mod router;
pub mod template;
mod variables;
pub mod vars;

pub mod plugin;
pub mod plugins;

pub mod forward;
pub mod limits;
pub mod oidc;
pub mod secrets;
pub mod semantic;
pub mod side_call;
pub mod tokens;
pub mod upstream;

pub mod admin;
pub mod admin_api;
pub mod config;
pub mod explain;
pub mod observe;

pub mod clock;
pub mod ports;
