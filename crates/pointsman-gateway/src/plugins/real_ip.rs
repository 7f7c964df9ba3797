//! `real-ip`: the client's address as somebody in front of the gateway tells it.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{networks, parse};
use crate::{
    config::{
        plugin_schema::{Faults, PluginSchema},
        resource::schema_of,
    },
    exchange::Exchange,
    forward::forwarded,
    plugin::{
        Flow, Phases, Plugin, Step,
        registry::{Building, PluginKind},
    },
    variables,
};

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
struct Conf {
    /// Variable that holds the address, such as `http_x_forwarded_for` or `arg_realip`.
    #[schemars(length(min = 1))]
    source: String,
    /// Only peers from here are believed; without the list, all are.
    #[schemars(length(min = 1))]
    trusted_addresses: Option<Vec<String>>,
    /// In `X-Forwarded-For`, go on leftwards past addresses that are trusted.
    #[serde(default)]
    recursive: bool,
}

struct RealIp {
    conf: Conf,
    trusted: Option<Vec<IpNet>>,
}

/// For the registry.
pub(crate) fn kind() -> PluginKind {
    PluginKind {
        schema: PluginSchema {
            name: "real-ip",
            priority: 23000,
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

fn compile(conf: &Value) -> Result<RealIp, Faults> {
    let conf: Conf = parse(conf)?;
    let trusted = conf
        .trusted_addresses
        .as_deref()
        .map(|list| networks("trusted_addresses", list))
        .transpose()?;
    Ok(RealIp { conf, trusted })
}

impl RealIp {
    fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let trusted = self.trusted.iter().flatten();
        trusted.into_iter().any(|net| net.contains(&address))
    }

    /// The address that the request tells; `None` where there is none to believe.
    fn told(&self, exchange: &Exchange) -> Option<Told> {
        if self.conf.source != FORWARDED_FOR {
            return Told::parse(&exchange.text(&self.conf.source)?);
        }
        // Several lines are one list (RFC 9110 §5.3).
        let lines = exchange.request.headers.get_all("x-forwarded-for");
        let lines: Vec<&str> = lines.iter().filter_map(|line| line.to_str().ok()).collect();
        let mut addresses = lines.iter().flat_map(|line| line.split(',')).rev();
        let last = Told::parse(addresses.next()?)?;
        if !self.conf.recursive {
            return Some(last);
        }
        let mut found = last;
        while self.trusts(found.address) {
            // What cannot be read ends the list: nobody trusted has written it.
            match addresses.next().map(Told::parse) {
                Some(Some(further)) => found = further,
                Some(None) | None => break,
            }
        }
        Some(found)
    }
}

impl Plugin for RealIp {
    fn phases(&self) -> Phases {
        Phases::REWRITE
    }

    fn reads_body(&self) -> Phases {
        Phases::REWRITE.when(variables::reads_body(&self.conf.source))
    }

    fn rewrite<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        let is_believed = self.trusted.is_none() || self.trusts(exchange.connected());
        if let Some(told) = is_believed.then(|| self.told(exchange)).flatten() {
            let port = told.port.unwrap_or_else(|| exchange.peer.client.port());
            exchange.set_client(SocketAddr::new(told.address, port));
            forwarded::client_changed(exchange);
        }
        Step::Done(Flow::Continue)
    }
}

/// `address`, `[address]`, or either with a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    address: IpAddr,
    port: Option<u16>,
}

impl Told {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Ok(address) = text.parse() {
            return Some(Self {
                address,
                port: None,
            });
        }
        if let Ok(both) = text.parse::<SocketAddr>() {
            let port = Some(both.port());
            return Some(Self {
                address: both.ip(),
                port,
            });
        }
        let inside = text.strip_prefix('[')?.strip_suffix(']')?;
        let address = inside.parse().ok()?;
        Some(Self {
            address,
            port: None,
        })
    }
}

const FORWARDED_FOR: &str = "http_x_forwarded_for";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_may_have_ports() {
        let parsed =
            |text: &str| Told::parse(text).map(|told| (told.address.to_string(), told.port));
        let is = |address: &str, port| Some((address.to_owned(), port));
        assert_eq!(parsed(" 1.2.3.4"), is("1.2.3.4", None));
        assert_eq!(parsed("1.2.3.4:80"), is("1.2.3.4", Some(80)));
        assert_eq!(parsed("::1"), is("::1", None));
        assert_eq!(parsed("[::1]"), is("::1", None));
        assert_eq!(parsed("[::1]:80"), is("::1", Some(80)));
        for wrong in ["", "a", "1.2.3", "1.2.3.4:", "1.2.3.4:99999", "[::1]:x"] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
    }
}
