//! Who may use the Admin API: addresses, keys and roles.

use std::{borrow::Cow, net::IpAddr};

use http::{HeaderMap, Method, header};
use ipnet::IpNet;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::variables::query_arg;

/// What a key allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Admin,
    /// To look.
    Viewer,
}

/// A key, as what it is compared by: nobody can read it out of this.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyDigest(pub [u8; 32]);

impl std::fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyDigest")
    }
}

impl KeyDigest {
    /// That of `key`.
    pub fn of(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }
}

/// Who is let in.
pub struct Access {
    /// Addresses that may ask; `None` for any.
    pub allow: Option<Vec<IpNet>>,
    /// The keys and their roles; `None` if no key is asked for.
    pub keys: Option<Vec<(KeyDigest, Role)>>,
}

/// Why a request is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// Its address may not ask.
    Address,
    /// With what is wrong with its key.
    Key(&'static str),
}

impl Access {
    /// Whether a request is let in.
    pub(super) fn check(&self, ask: &super::Ask<'_>) -> Result<(), Denied> {
        let mut allowed = self.allow.iter().flatten();
        let peer = canonical(ask.peer);
        if self.allow.is_some() && !allowed.any(|net| net.contains(&peer)) {
            return Err(Denied::Address);
        }
        let (Some(keys), false) = (&self.keys, ask.method == Method::OPTIONS) else {
            return Ok(());
        };
        let given = given(ask).ok_or(Denied::Key("missing apikey"))?;
        let given = KeyDigest::of(&given);
        // All are compared, and each in constant time: how long it takes tells nothing.
        let mut role = None;
        for (key, of_key) in keys {
            if bool::from(key.0.ct_eq(&given.0)) {
                role = Some(*of_key);
            }
        }
        match role {
            None => Err(Denied::Key("wrong apikey")),
            Some(Role::Viewer) if ask.method != Method::GET => {
                Err(Denied::Key("invalid method for role viewer"))
            }
            Some(_) => Ok(()),
        }
    }
}

/// An IPv4 address that came over an IPv6 socket is one.
fn canonical(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

/// The key of a request: argument, header or cookie, in APISIX's order.
fn given<'a>(ask: &super::Ask<'a>) -> Option<Cow<'a, str>> {
    let argument = query_arg(ask.query, "api_key");
    let in_header = || {
        let value = ask.headers.get("x-api-key")?.to_str().ok()?;
        Some(Cow::Borrowed(value))
    };
    argument
        .or_else(in_header)
        .or_else(|| cookie(ask.headers, "x_api_key"))
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<Cow<'a, str>> {
    let lines = headers.get_all(header::COOKIE).iter();
    let pairs = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    let mut values = pairs.filter(|(key, _)| *key == name);
    values.next().map(|(_, value)| Cow::Borrowed(value))
}
