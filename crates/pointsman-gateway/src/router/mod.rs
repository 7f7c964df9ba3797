//! Which route does a request belong to? Pure and synchronous: paths and hosts are normalised
//! first ([`path`], [`host`]), then [`Router::find`] picks the route by host, path, priority and
//! the route's own conditions ([`Expr`]).
//!
//! The order of preference is that of APISIX 3.18, because a configuration written for it must
//! send every request to the same place here.

mod condition;
pub mod expr;
pub mod host;
mod matcher;
pub mod path;
pub mod pattern;
pub mod server_names;
mod uri;

pub use expr::{EvalError, Expr, ExprError};
pub use matcher::{Entry, Found, Query, Router, RouterKind};
