//! Pools at work: the run form of an upstream, its nodes and how requests reach them.

pub mod build;
pub mod destination;
pub mod driver;
pub mod evidence;
pub mod fingerprint;
pub mod health;
pub mod overview;
pub mod resolve;

use std::{sync::Arc, time::Duration};

use http::HeaderValue;
use pointsman_balance::{Gate, GuardSpec, Loads, Passive, Pool, Tally, TargetId};

use crate::{
    exchange::Exchange,
    template::Template,
    upstream::{
        destination::{Destination, Keepalive, Timeouts},
        resolve::Named,
    },
    variables,
};

/// An upstream that can take requests.
pub struct Upstream {
    /// Resource key, such as `/upstreams/1`; the identity that its balancing position has.
    pub key: String,
    /// Who may be picked.
    pub pool: Pool,
    /// One destination per member of the pool, in the same order.
    pub nodes: Vec<Arc<Destination>>,
    /// Where those that are at a name find their addresses, in the same order.
    pub names: Vec<Option<Named>>,
    /// What a hash ring hashes.
    pub hash_key: Option<HashKey>,
    /// `Host` and TLS name of its requests.
    pub pass_host: PassHost,
    /// Attempts after the first.
    pub retries: usize,
    /// No further attempt after this; `None` for no limit.
    pub retry_timeout: Option<Duration>,
    /// Limits of an attempt.
    pub timeouts: Timeouts,
    /// Re-use of connections.
    pub keepalive: Keepalive,
    /// What its traffic says about its nodes.
    pub passive: PassiveChecks,
}

/// `checks.passive` of a plain upstream that has active checks (APISIX 3.18).
#[derive(Clone, Debug, Default)]
pub struct PassiveChecks {
    /// What the final status of a request means; `None` unless configured.
    pub at_end: Option<Arc<Passive>>,
    /// What a failed try means that another one follows: with the library's defaults also when
    /// passive checks are not configured. `None` without active checks.
    pub at_retry: Option<Arc<Passive>>,
}

/// Which `Host` a plain upstream receives (APISIX `pass_host`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PassHost {
    /// The client's.
    Pass,
    /// The node's own, with its port unless that is the scheme's.
    Node,
    /// A fixed one.
    Rewrite(HeaderValue),
}

/// What a hash ring hashes (APISIX `hash_on` and `key`).
#[derive(Debug)]
pub enum HashKey {
    /// A request variable.
    Var(String),
    /// A request header.
    Header(String),
    /// A cookie.
    Cookie(String),
    /// The authenticated consumer's name.
    Consumer,
    /// A template; counts as missing when none of its variables resolves.
    Combination(Template),
}

impl HashKey {
    /// Whether the key comes out of the request's body, in part or as a whole.
    pub fn reads_body(&self) -> bool {
        match self {
            Self::Var(name) => variables::reads_body(name),
            Self::Combination(template) => template.variables().any(variables::reads_body),
            Self::Header(_) | Self::Cookie(_) | Self::Consumer => false,
        }
    }

    /// The key of this request; the client's address when what is configured is missing.
    pub fn of(&self, exchange: &Exchange) -> String {
        let found = match self {
            Self::Var(name) => exchange.text(name),
            // APISIX looks headers up as variables, where `-` and `_` are one.
            Self::Header(name) => exchange.text(&format!(
                "http_{}",
                name.to_ascii_lowercase().replace('-', "_")
            )),
            Self::Cookie(name) => exchange.text(&format!("cookie_{name}")),
            Self::Consumer => exchange
                .consumer()
                .map(|consumer| consumer.username.to_string()),
            Self::Combination(template) => {
                let rendered = template.render(exchange);
                (rendered.resolved > 0).then_some(rendered.text)
            }
        };
        match found {
            Some(key) if !key.is_empty() => key,
            _ => exchange.peer.client.ip().to_string(),
        }
    }
}

/// Gives out guards, and groups of names, while configuration is compiled.
pub trait Guarding {
    /// The guard of `spec`, and what counts its attempts if it has a circuit. `name` says in the log
    /// what it stands for.
    fn guard(&self, spec: GuardSpec, name: &str) -> (TargetId, Option<Arc<Tally>>);

    /// The gate of members with these targets and guards.
    fn gate(&self, targets: &[TargetId], guards: Vec<TargetId>) -> Arc<Gate>;

    /// The group of the addresses of `name`, for a member that nobody checks.
    fn name(&self, name: &str) -> TargetId;
}

/// Where a member at `host` finds its addresses; `None` if that is an address. `targets` are what
/// judges it: of a name that is checked, its group.
pub(crate) fn named(host: &str, targets: &[TargetId], guarding: &dyn Guarding) -> Option<Named> {
    resolve::is_name(host).then(|| {
        let group = targets.first().copied();
        let group = group.unwrap_or_else(|| guarding.name(host));
        Named::new(group, rand::random_range(0..usize::from(u16::MAX)))
    })
}

/// What earlier configurations leave behind: pools, by the resource that they belong to, and load.
pub trait Predecessors {
    /// The pool that `key` had, whose balancing position a new one takes over.
    fn pool(&self, key: &str) -> Option<&Pool>;

    /// The load of all pools there are or have been, as far as anything of it is under way.
    fn loads(&self) -> &Loads;
}
