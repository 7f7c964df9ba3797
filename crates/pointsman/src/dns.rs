//! Names to addresses, with the records' own lifetime.
//!
//! The hosts file comes first, then the servers of `apisix.dns_resolver` or, without it, the
//! system's. The names of targets are looked up in the background ([`Lookups`]), each answer for
//! its TTL (or `dns_resolver_valid`). What else has a name (collectors of logs, targets before
//! the first answer) is resolved when a connection is opened ([`Resolver`]); when such a name
//! cannot be resolved any more, the addresses that it had stay in force: an outage of DNS must
//! not take down what works.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use hickory_resolver::{
    Hosts, TokioResolver,
    config::{LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts},
    lookup::Lookup,
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::Query,
        rr::{Name, RecordType},
    },
    system_conf,
};
use pointsman_gateway::{
    clock,
    config::settings::Settings,
    upstream::resolve::{Family, Found},
};

/// Resolves names; cheap to clone.
#[derive(Clone)]
pub(crate) struct Resolver {
    inner: Arc<Inner>,
}

struct Inner {
    asker: Asker,
    last_good: Mutex<HashMap<String, Vec<IpAddr>>>,
}

impl Resolver {
    /// A resolver that asks as `settings` say.
    pub(crate) fn new(settings: &Arc<Settings>) -> Self {
        Self {
            inner: Arc::new(Inner {
                asker: Asker::new(settings, None),
                last_good: Mutex::default(),
            }),
        }
    }

    /// The addresses of `name`, in the order in which the answer had them.
    pub(crate) async fn look_up(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        let found = self.inner.asker.get()?.lookup_ip(name).await;
        let mut last_good = self
            .inner
            .last_good
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match found {
            Ok(answer) => {
                let mut addresses: Vec<IpAddr> = answer.iter().collect();
                addresses.truncate(ADDRESSES_MAX);
                if last_good.get(name) != Some(&addresses) {
                    if last_good.len() >= NAMES_MAX {
                        last_good.clear();
                    }
                    last_good.insert(name.to_owned(), addresses.clone());
                }
                Ok(addresses)
            }
            Err(error) => match last_good.get(name) {
                Some(addresses) => {
                    tracing::warn!(name, "cannot be resolved, its last addresses stay: {error}");
                    Ok(addresses.clone())
                }
                None => Err(format!("{name}: {error}")),
            },
        }
    }
}

/// Performs look-ups of all addresses of a name; keeps nothing, since whoever asks does.
pub(crate) struct Lookups {
    asker: Asker,
    hosts: OnceLock<Hosts>,
    ipv6: bool,
}

impl Lookups {
    /// Look-ups that ask as `settings` say.
    pub(crate) fn new(settings: &Arc<Settings>) -> Self {
        Self {
            asker: Asker::new(settings, Some(0)),
            hosts: OnceLock::new(),
            ipv6: settings.ipv6,
        }
    }

    fn hosts(&self) -> &Hosts {
        self.hosts.get_or_init(|| {
            Hosts::from_system().unwrap_or_else(|error| {
                tracing::warn!("the hosts file: {error}");
                Hosts::default()
            })
        })
    }

    /// All addresses of `name`: those of the hosts file if it is there, and nobody is asked then.
    pub(crate) async fn perform(&self, name: &str) -> Result<Found, String> {
        if let Some(found) = self.in_hosts(name) {
            return Ok(found);
        }
        let resolver = self.asker.get()?;
        let four = resolver.lookup(name, RecordType::A);
        if !self.ipv6 {
            return self.found(&[four.await], None);
        }
        let six = resolver.lookup(name, RecordType::AAAA);
        let answers = <[_; 2]>::from(tokio::join!(four, six));
        let has_failed = |answer: &Result<Lookup, NetError>| match answer {
            Ok(_) => false,
            Err(error) => !error.is_no_records_found(),
        };
        let unknown = match (has_failed(&answers[0]), has_failed(&answers[1])) {
            (true, false) => Some(Family::V4),
            (false, true) => Some(Family::V6),
            (false, false) | (true, true) => None,
        };
        self.found(&answers, unknown)
    }

    fn found(
        &self,
        answers: &[Result<Lookup, NetError>],
        unknown: Option<Family>,
    ) -> Result<Found, String> {
        let now = clock::now();
        let lookups = || answers.iter().flatten();
        let ttls = lookups().map(|lookup| lookup.valid_until().saturating_duration_since(now));
        let records = lookups().flat_map(|lookup| lookup.answers());
        let addresses: Vec<IpAddr> = records.filter_map(|record| record.data.ip_addr()).collect();
        match ttls.min() {
            Some(ttl) if !addresses.is_empty() => Ok(Found {
                addresses,
                ttl,
                unknown,
            }),
            _ => Err(answers
                .iter()
                .find_map(|answer| answer.as_ref().err())
                .map_or_else(|| "no address".to_owned(), ToString::to_string)),
        }
    }

    /// What the hosts file says, which nothing but a restart changes.
    fn in_hosts(&self, name: &str) -> Option<Found> {
        let mut name = Name::from_utf8(name).ok()?;
        name.set_fqdn(true);
        let kinds = [RecordType::A, RecordType::AAAA];
        let kinds = kinds.into_iter().take(if self.ipv6 { 2 } else { 1 });
        let lookups = kinds.filter_map(|kind| {
            let query = Query::query(name.clone(), kind);
            self.hosts().lookup_static_host(&query)
        });
        let found: Vec<Lookup> = lookups.collect();
        let records = found.iter().flat_map(|lookup| lookup.answers());
        let addresses: Vec<IpAddr> = records.filter_map(|record| record.data.ip_addr()).collect();
        (!addresses.is_empty()).then_some(Found {
            addresses,
            ttl: Duration::MAX,
            unknown: None,
        })
    }
}

/// Asks name servers. Made when the first name comes up: there is one on each thread, and most
/// configurations name few hosts, or none.
struct Asker {
    settings: Arc<Settings>,
    /// Answers that are kept; as many as the library does without.
    cache_size: Option<u64>,
    made: OnceLock<Result<TokioResolver, String>>,
}

impl Asker {
    fn new(settings: &Arc<Settings>, cache_size: Option<u64>) -> Self {
        Self {
            settings: Arc::clone(settings),
            cache_size,
            made: OnceLock::new(),
        }
    }

    fn get(&self) -> Result<&TokioResolver, String> {
        let make = || {
            let (config, mut options) = configured(system(), &self.settings);
            options.cache_size = self.cache_size.unwrap_or(options.cache_size);
            build(config, options)
        };
        self.made.get_or_init(make).as_ref().map_err(String::clone)
    }
}

fn system() -> (ResolverConfig, ResolverOpts) {
    system_conf::read_system_conf().unwrap_or_else(|error| {
        tracing::warn!("the system's resolver configuration: {error}");
        (ResolverConfig::default(), ResolverOpts::default())
    })
}

fn build(config: ResolverConfig, options: ResolverOpts) -> Result<TokioResolver, String> {
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        .with_options(options)
        .build()
        .map_err(|error| format!("DNS resolver: {error}"))
}

/// Whom to ask and how: what the `system` says, as far as `settings` do not say otherwise.
fn configured(
    system: (ResolverConfig, ResolverOpts),
    settings: &Settings,
) -> (ResolverConfig, ResolverOpts) {
    let (config, mut options) = system;
    let (domain, search, mut servers) = config.into_parts();
    if !settings.dns_servers.is_empty() {
        let named = settings.dns_servers.iter().map(|address| {
            let mut server = NameServerConfig::udp_and_tcp(address.ip());
            for connection in &mut server.connections {
                connection.port = address.port();
            }
            server
        });
        servers = named.collect();
    }
    // The search domains apply whoever is asked, as in APISIX.
    let (domain, search) = if settings.dns_search {
        (domain, search)
    } else {
        (None, Vec::new())
    };
    if !settings.ipv6 {
        options.ip_strategy = LookupIpStrategy::Ipv4Only;
    }
    options.timeout = QUERY_TIMEOUT;
    options.attempts = 2;
    if let Some(valid) = settings.dns_valid {
        options.positive_min_ttl = Some(valid);
        options.positive_max_ttl = Some(valid);
    }
    (ResolverConfig::from_parts(domain, search, servers), options)
}

/// One query to one server.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);
/// Addresses of one name that are used.
const ADDRESSES_MAX: usize = 64;
/// Names whose last good answer is kept.
const NAMES_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    const SYSTEM: &str = "search ns.svc.local svc.local\nnameserver 10.0.0.2\noptions ndots:5\n";

    /// What `configured` makes of the text: server and port, search domains, IPv4 only, dots.
    fn check(settings: Settings, expected: (&str, &[&str], bool, usize)) {
        let system = system_conf::parse_resolv_conf(SYSTEM).expect("valid");
        let (config, options) = configured(system, &settings);
        let server = &config.name_servers()[0];
        let address = format!("{}:{}", server.ip, server.connections[0].port);
        let search: Vec<String> = config.search().iter().map(ToString::to_string).collect();
        let only_4 = options.ip_strategy == LookupIpStrategy::Ipv4Only;
        assert_eq!(
            (address.as_str(), search.len(), only_4, options.ndots),
            (expected.0, expected.1.len(), expected.2, expected.3)
        );
        for (found, expected) in search.iter().zip(expected.1) {
            assert_eq!(found.trim_end_matches('.'), *expected);
        }
        assert!(config.domain().is_none() || settings.dns_search);
    }

    /// `enable_ipv6`, `enable_resolv_search_opt`, `dns_resolver`
    #[test]
    fn settings_come_before_the_system() {
        let domains = ["ns.svc.local", "svc.local"];
        check(Settings::default(), ("10.0.0.2:53", &domains, false, 5));
        let own = Settings {
            dns_servers: vec!["10.0.0.9:5353".parse().expect("an address")],
            ipv6: false,
            ..Settings::default()
        };
        check(own.clone(), ("10.0.0.9:5353", &domains, true, 5));
        let without_search = Settings {
            dns_search: false,
            ..own
        };
        check(without_search, ("10.0.0.9:5353", &[], true, 5));
    }

    /// B-102: what the hosts file has is all there is, and nobody is asked for more: not for the
    /// other kind of address either.
    #[tokio::test]
    async fn b102_a_name_in_the_hosts_file_is_not_asked_for() {
        let settings = Settings {
            // Nobody answers there.
            dns_servers: vec!["127.0.0.1:1".parse().expect("an address")],
            dns_search: false,
            ..Settings::default()
        };
        let mut lookups = Lookups::new(&Arc::new(settings));
        let file = "10.1.2.3 one.test\n10.1.2.4 one.test\nfd00::1 six.test\n";
        let mut hosts = Hosts::default();
        hosts.read_hosts_conf(file.as_bytes()).expect("readable");
        lookups.hosts = OnceLock::from(hosts);
        let of = |found: Result<Found, String>| found.map(|found| (found.addresses, found.unknown));
        let one = ["10.1.2.3", "10.1.2.4"].map(|ip| ip.parse().expect("an address"));
        assert_eq!(
            of(lookups.perform("one.test").await),
            Ok((one.to_vec(), None))
        );
        assert!(lookups.perform("two.test").await.is_err());
        let six = "fd00::1".parse().expect("an address");
        assert_eq!(of(lookups.perform("six.test").await), Ok((vec![six], None)));
        // `enable_ipv6: false`
        lookups.ipv6 = false;
        assert!(lookups.perform("six.test").await.is_err());
    }
}
