//! Many names: an answer about one of them costs no more for all the others there are.

#![allow(
    clippy::disallowed_methods,
    reason = "an `Instant` to count from cannot be had otherwise"
)]

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use pointsman_balance::{Counters, Kept, Status};
use pointsman_gateway::{
    config::{
        compile::{Input, compile},
        document::{Document, Format},
        settings::Settings,
        snapshot::Snapshot,
    },
    gateway::State,
    plugin::registry::Registry,
    ports::{Sink, SinkSpec, Sinks},
    upstream::{driver::SharedHealth, resolve::Found},
};
use serde_json::{Value, json};

const NAMES: usize = 2_000;

/// What an earlier process knew is asked for once for each address, not for all of them at each answer.
#[test]
fn what_was_kept_is_looked_up_once_for_each_address() {
    let shared = SharedHealth::new();
    let now = Instant::now();
    let snapshot = compiled(&shared, now);
    let mut health = shared.lock();
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let known = move |_: &_, _: &_| {
        let asked = counter.fetch_add(1, Ordering::Relaxed) + 1;
        let down = asked.is_multiple_of(2);
        down.then_some(Kept {
            status: Status::Unhealthy,
            counters: Counters::default(),
            last: None,
        })
    };
    assert_eq!(health.restore(known, now), (0, 0));
    let state = State::new(snapshot, health.availability());
    let mut answered = 0;
    while let Some(lookup) = health.poll_lookup(now) {
        assert!(health.awaits_addresses(now));
        let number = u32::try_from(answered).expect("few");
        let found = Found {
            addresses: vec![IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + number))],
            ttl: Duration::from_secs(60),
            unknown: None,
        };
        assert!(health.on_lookup(&lookup, Ok(found), now, &state));
        answered += 1;
    }
    assert_eq!((answered, asked.load(Ordering::Relaxed)), (NAMES, NAMES));
    assert!(!health.awaits_addresses(now), "every name has an answer");
    let exported = health.monitor().export();
    let down = exported
        .iter()
        .filter(|(_, report)| !report.status.usable());
    assert_eq!((exported.len(), down.count()), (NAMES, NAMES / 2));
}

fn compiled(health: &SharedHealth, now: Instant) -> Arc<Snapshot> {
    let text = "deployment: {role: data_plane, role_data_plane: {config_provider: yaml}}";
    let (settings, _) = Settings::parse(text, &|_| None).expect("valid");
    let registry = Registry::new();
    let nodes = (0..NAMES).map(|number| (format!("n{number}.test:80"), json!(1)));
    let nodes = Value::Object(nodes.collect());
    let checks = json!({"active": {"type": "tcp", "healthy": {}, "unhealthy": {}}});
    let upstream = json!({"nodes": nodes, "checks": checks});
    let text = json!({"routes": [{"id": 1, "uri": "/", "upstream": upstream}]}).to_string();
    let parsed = Document::parse(&text, Format::Json, &|_| None, &registry).expect("readable");
    assert_eq!(parsed.problems, []);
    let compiled = compile(Input {
        document: Arc::new(parsed.document),
        lines: &parsed.lines,
        settings: &Arc::new(settings),
        registry: &registry,
        sinks: &NoSinks,
        env: &|_| None,
        secrets: &std::sync::Arc::default(),
        health,
        previous: None,
        generation: 1,
        now,
    });
    assert_eq!(compiled.problems, []);
    Arc::new(compiled.snapshot)
}

struct NoSinks;

impl Sinks for NoSinks {
    fn open(&self, _: &SinkSpec) -> Arc<dyn Sink> {
        panic!("no logger is configured");
    }

    fn problem(&self, _: &SinkSpec) -> Option<String> {
        None
    }
}
