//! From a request to its route, in APISIX's order of preference.
//!
//! Host first (in the default router): the exact name, then wildcards by the longest suffix, then
//! routes without a host. Within those, the exact path, then prefixes from the longest to the
//! shortest; within one literal, priority, then the longer pattern, then the order in the
//! document. A candidate whose other conditions fail is passed over and the search goes on.

use std::{borrow::Cow, cmp::Reverse, net::IpAddr, sync::Arc};

use http::Method;
use ipnet::IpNet;
use rustc_hash::FxHashMap;

use super::{
    Expr,
    uri::{Params, UriPattern},
};
use crate::vars::Lookup;

/// `apisix.router.http`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RouterKind {
    /// `radixtree_host_uri`.
    #[default]
    HostUri,
    /// `radixtree_uri`.
    Uri,
    /// `radixtree_uri_with_parameter`.
    UriWithParameter,
}

/// A route as the router sees it.
#[derive(Debug)]
pub struct Entry {
    /// The caller's index of the route.
    pub index: usize,
    /// Path patterns.
    pub uris: Vec<String>,
    /// Hosts; none for any.
    pub hosts: Vec<String>,
    /// Methods; `None` for any.
    pub methods: Option<Vec<Method>>,
    /// Client addresses; none for any.
    pub remote_addrs: Vec<IpNet>,
    /// Further conditions.
    pub vars: Option<Expr>,
    /// Among routes with the same literal path.
    pub priority: i64,
}

/// What is known of a request.
pub struct Query<'a> {
    /// Normalised path.
    pub path: &'a str,
    /// Normalised host.
    pub host: &'a str,
    /// `Host` as received.
    pub raw_host: Option<&'a [u8]>,
    /// Method.
    pub method: &'a Method,
    /// The client's address.
    pub remote_addr: IpAddr,
    /// Variables.
    pub vars: &'a dyn Lookup,
}

/// The route of a request.
#[derive(Debug, PartialEq, Eq)]
pub struct Found<'r> {
    /// The caller's index of the route.
    pub index: usize,
    /// The pattern that matched, as configured.
    pub matched_uri: &'r Arc<str>,
    /// The host pattern that matched, as configured.
    pub matched_host: Option<&'r Arc<str>>,
    /// Path parameters.
    pub params: Params,
}

/// Finds routes.
#[derive(Debug, Default)]
pub struct Router {
    conditions: Vec<Conditions>,
    hosts: FxHashMap<String, Group>,
    /// Suffixes such as `.foo.com`, by length from the longest.
    wildcards: Vec<(String, Group)>,
    any_host: Group,
    len: usize,
    has_vars: bool,
}

/// What a route demands beside its path.
#[derive(Debug)]
struct Conditions {
    index: usize,
    hosts: Vec<Arc<str>>,
    methods: Option<Vec<Method>>,
    remote_addrs: Vec<IpNet>,
    vars: Option<Expr>,
}

/// Candidates by path.
#[derive(Debug, Default)]
struct Group {
    exact: FxHashMap<String, Vec<Candidate>>,
    prefixes: FxHashMap<String, Vec<Candidate>>,
    /// Lengths of the keys of `prefixes`, from the longest.
    lengths: Vec<usize>,
}

#[derive(Debug)]
struct Candidate {
    conditions: usize,
    pattern: UriPattern,
    uri: Arc<str>,
    host: Option<Arc<str>>,
    priority: i64,
}

impl Router {
    /// A router over `entries`.
    pub fn compile(entries: Vec<Entry>, kind: RouterKind) -> Self {
        let mut router = Self {
            len: entries.len(),
            ..Self::default()
        };
        let mut wildcards: FxHashMap<String, Group> = FxHashMap::default();
        for entry in entries {
            let place = router.conditions.len();
            let hosts: Vec<Option<&String>> = match kind {
                RouterKind::HostUri if !entry.hosts.is_empty() => {
                    entry.hosts.iter().map(Some).collect()
                }
                _ => vec![None],
            };
            for host in hosts {
                let lower = host.map(|host| host.to_ascii_lowercase());
                let group = match lower.as_deref() {
                    None => &mut router.any_host,
                    Some(name) => match name.strip_prefix('*') {
                        Some(suffix) => wildcards.entry(suffix.to_owned()).or_default(),
                        None => router.hosts.entry(name.to_owned()).or_default(),
                    },
                };
                for uri in &entry.uris {
                    group.add(Candidate::new(place, uri, host, entry.priority, kind));
                }
            }
            router.conditions.push(Conditions {
                index: entry.index,
                hosts: if kind == RouterKind::HostUri {
                    Vec::new()
                } else {
                    entry.hosts.into_iter().map(Arc::from).collect()
                },
                methods: entry.methods,
                remote_addrs: entry.remote_addrs,
                vars: entry.vars.filter(|vars| !vars.is_empty()),
            });
        }
        router.has_vars = router.conditions.iter().any(|c| c.vars.is_some());
        router.wildcards = wildcards.into_iter().collect();
        router
            .wildcards
            .sort_by_key(|(suffix, _)| Reverse(suffix.len()));
        let groups = router
            .hosts
            .values_mut()
            .chain(router.wildcards.iter_mut().map(|(_, g)| g));
        for group in groups.chain(std::iter::once(&mut router.any_host)) {
            group.settle();
        }
        router
    }

    /// The route of a request.
    pub fn find(&self, query: &Query<'_>) -> Option<Found<'_>> {
        if let Some(group) = self.hosts.get(query.host)
            && let Some(found) = group.find(query, self)
        {
            return Some(found);
        }
        for (suffix, group) in &self.wildcards {
            let below = query.host.len() > suffix.len() || suffix.is_empty();
            if below
                && query.host.ends_with(suffix.as_str())
                && let Some(found) = group.find(query, self)
            {
                return Some(found);
            }
        }
        self.any_host.find(query, self)
    }

    /// How many routes it knows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether any route has conditions on variables.
    pub fn has_vars(&self) -> bool {
        self.has_vars
    }
}

impl Group {
    fn add(&mut self, candidate: Candidate) {
        let map = match candidate.pattern.rest {
            super::uri::Rest::Nothing => &mut self.exact,
            _ => &mut self.prefixes,
        };
        map.entry(candidate.pattern.literal.clone())
            .or_default()
            .push(candidate);
    }

    fn settle(&mut self) {
        for list in self.exact.values_mut().chain(self.prefixes.values_mut()) {
            // Stable: candidates that are equal otherwise keep the document's order.
            list.sort_by_key(|candidate| {
                (Reverse(candidate.priority), Reverse(candidate.uri.len()))
            });
        }
        let mut lengths: Vec<usize> = self.prefixes.keys().map(String::len).collect();
        lengths.sort_unstable_by_key(|length| Reverse(*length));
        lengths.dedup();
        self.lengths = lengths;
    }

    fn find<'r>(&'r self, query: &Query<'_>, router: &'r Router) -> Option<Found<'r>> {
        let exact = self.exact.get(query.path).into_iter().flatten();
        let first = exact
            .filter_map(|candidate| candidate.accept(query, router))
            .next();
        if first.is_some() {
            return first;
        }
        for length in &self.lengths {
            let Some(prefix) = query.path.get(..*length) else {
                continue;
            };
            let candidates = self.prefixes.get(prefix).into_iter().flatten();
            let found = candidates
                .filter_map(|candidate| candidate.accept(query, router))
                .next();
            if found.is_some() {
                return found;
            }
        }
        None
    }
}

impl Candidate {
    fn new(
        conditions: usize,
        uri: &str,
        host: Option<&String>,
        priority: i64,
        kind: RouterKind,
    ) -> Self {
        let pattern = match kind {
            RouterKind::UriWithParameter => UriPattern::with_parameters(uri),
            RouterKind::HostUri | RouterKind::Uri => UriPattern::parse(uri),
        };
        Self {
            conditions,
            pattern,
            uri: uri.into(),
            host: host.map(|host| host.as_str().into()),
            priority,
        }
    }

    fn accept<'r>(&'r self, query: &Query<'_>, router: &'r Router) -> Option<Found<'r>> {
        let params = self.pattern.matches_rest(query.path)?;
        let conditions = &router.conditions[self.conditions];
        let host = conditions.accept(query)?;
        Some(Found {
            index: conditions.index,
            matched_uri: &self.uri,
            matched_host: self.host.as_ref().or(host),
            params,
        })
    }
}

impl Conditions {
    /// Whether the request meets them; `Some` carries the host pattern that was met, if any.
    fn accept(&self, query: &Query<'_>) -> Option<Option<&Arc<str>>> {
        let method = self
            .methods
            .as_ref()
            .is_none_or(|methods| methods.contains(query.method));
        let address = self.remote_addrs.is_empty()
            || self
                .remote_addrs
                .iter()
                .any(|network| network.contains(&query.remote_addr));
        if !method || !address {
            return None;
        }
        let host = if self.hosts.is_empty() {
            None
        } else {
            Some(self.hosts.iter().find(|host| host_matches(host, query))?)
        };
        match &self.vars {
            None => Some(host),
            // A condition that cannot be evaluated does not hold.
            Some(vars) => vars.eval(query.vars).unwrap_or(false).then_some(host),
        }
    }
}

/// A host as a plain condition; one with a port is compared to `Host` as received.
fn host_matches(pattern: &str, query: &Query<'_>) -> bool {
    let host: Cow<'_, str> = if pattern.contains(':') {
        let raw = std::str::from_utf8(query.raw_host.unwrap_or_default());
        Cow::Owned(raw.unwrap_or_default().to_ascii_lowercase())
    } else {
        Cow::Borrowed(query.host)
    };
    let pattern = pattern.to_ascii_lowercase();
    match pattern.strip_prefix('*') {
        Some("") => true,
        Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
        None => *host == pattern,
    }
}

#[cfg(test)]
mod tests;
