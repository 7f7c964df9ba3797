//! What is known of a request once it is over: metrics, the access log, the loggers.

pub mod access_log;
pub(crate) mod date;
pub mod entry;
pub mod metrics;
pub(crate) mod otlp;
pub(crate) mod secrets;
pub(crate) mod trace;

use crate::{
    exchange::Exchange,
    forward::evidence,
    plugin::chain::{self, Which},
};

/// Runs the log phase. Called once per exchange, by [`Exchange::finish`].
pub fn finished(exchange: &mut Exchange) {
    let gateway = std::rc::Rc::clone(exchange.gateway());
    gateway.metrics().request_ended();
    evidence::of_end(exchange);
    chain::log(exchange, Which::Global);
    chain::log(exchange, Which::Route);
    if let Some(sink) = gateway.access_log() {
        sink.push(access_log::line(exchange));
    }
}
