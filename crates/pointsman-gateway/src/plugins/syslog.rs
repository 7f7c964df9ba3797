//! `syslog`: entries as messages of RFC 5424, in batches over TCP or as datagrams.
//!
//! Messages are those of APISIX 3.18. Over TCP they end with a line feed, as most servers read them
//! (RFC 6587 §3.4.2); each datagram holds one, as RFC 5426 wants it (APISIX joins them there, too).

use std::sync::Arc;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    logging::{self, Batch, Outlet},
    parse,
};
use crate::{
    config::{
        plugin_schema::{Faults, PluginSchema},
        resource::schema_of,
        snapshot::millis,
    },
    exchange::Exchange,
    observe::{
        date,
        entry::{LogConf, LogMetadata, Writer},
    },
    plugin::{
        Plugin,
        registry::{Building, PluginKind},
    },
    ports::{Join, TcpWire, UdpWire, Wire},
};

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
struct Conf {
    /// Name or address of the collector.
    host: String,
    /// Its port.
    port: u16,
    /// No effect: each batch is sent at once.
    #[serde(default = "flush_limit")]
    #[schemars(range(min = 1))]
    flush_limit: u64,
    /// Bytes that may wait.
    #[serde(default = "drop_limit")]
    drop_limit: usize,
    /// Milliseconds for a delivery.
    #[serde(default = "timeout")]
    #[schemars(range(min = 1))]
    timeout: u64,
    /// What messages are sent over.
    #[serde(default)]
    sock_type: Transport,
    /// No effect: each batch has a connection of its own.
    #[serde(default = "pool_size")]
    #[schemars(range(min = 5))]
    pool_size: u64,
    /// Over TLS, for `tcp`.
    #[serde(default)]
    tls: bool,
    /// How entries are gathered.
    #[serde(flatten)]
    batch: Batch,
    /// What is logged.
    #[serde(flatten)]
    common: LogConf,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Transport {
    #[default]
    Tcp,
    Udp,
}

/// For the registry.
pub(crate) fn kind() -> PluginKind {
    PluginKind {
        schema: PluginSchema {
            name: NAME,
            priority: 401,
            version: "0.1",
            schema: schema_of::<Conf>(),
            consumer_schema: None,
            metadata_schema: Some(schema_of::<LogMetadata>()),
            is_auth: false,
            check: |conf| logging::check(parse::<Conf>(conf)?.common),
        },
        build,
        checkers: None,
        identity_field: None,
    }
}

fn build(conf: &Value, building: &mut Building<'_>) -> Result<Arc<dyn Plugin>, Faults> {
    let conf: Conf = parse(conf)?;
    let timeout = millis(conf.timeout);
    let (join, wire) = match conf.sock_type {
        Transport::Tcp => {
            let join = Join::Separated {
                before: String::new(),
                between: "",
            };
            let wire = TcpWire {
                tls: conf.tls.then(|| conf.host.clone()),
                host: conf.host,
                port: conf.port,
                timeout,
            };
            (join, Wire::Tcp(wire))
        }
        Transport::Udp => {
            let wire = UdpWire {
                host: conf.host,
                port: conf.port,
                timeout,
            };
            (Join::Single, Wire::Udp(wire))
        }
    };
    let outlet = Outlet {
        entry: message,
        pending_bytes_max: conf.drop_limit,
        ..Outlet::new(NAME, join, wire)
    };
    logging::build(outlet, conf.common, conf.batch, building)
}

/// `<46>1 TIME HOST apisix PID - - ENTRY`: facility `syslog`, severity `info`.
fn message(writer: &Writer, exchange: &Exchange) -> Bytes {
    let mut message = b"<46>1 ".to_vec();
    let took = u64::try_from(exchange.took().as_millis()).unwrap_or(u64::MAX);
    let ended = exchange.started_unix_ms.saturating_add(took);
    date::rfc_3339(ended, &mut message);
    message.push(b' ');
    message.extend_from_slice(host_name(&exchange.received.host).as_bytes());
    message.extend_from_slice(format!(" apisix {} - - ", std::process::id()).as_bytes());
    message.extend_from_slice(&writer.entry(exchange));
    message.push(b'\n');
    message.into()
}

/// `host` as a message may name it: up to 255 printable characters, or `-`.
fn host_name(host: &str) -> &str {
    let is_fine = (1..=HOST_NAME_MAX).contains(&host.len());
    if is_fine && host.bytes().all(|byte| byte.is_ascii_graphic()) {
        host
    } else {
        "-"
    }
}

fn flush_limit() -> u64 {
    4096
}

fn drop_limit() -> usize {
    1 << 20
}

fn timeout() -> u64 {
    3000
}

fn pool_size() -> u64 {
    5
}

const NAME: &str = "syslog";
const HOST_NAME_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_no_message_may_name_is_left_out() {
        let long = "x".repeat(256);
        let check = |host: &str, expected: &str| assert_eq!(host_name(host), expected);
        check("api.test", "api.test");
        check("[::1]", "[::1]");
        for host in ["", "a b", "h\u{f6}st", "a\nb", &long] {
            check(host, "-");
        }
    }
}
