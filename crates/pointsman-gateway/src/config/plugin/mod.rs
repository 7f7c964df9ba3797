//! Plugin configurations that more than their plugin must understand.

pub mod ai_proxy;
