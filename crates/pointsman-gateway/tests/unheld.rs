//! Health while a configuration is compiled: whoever publishes verdicts never waits for that.

#![allow(
    clippy::disallowed_methods,
    reason = "an `Instant` to count from cannot be had otherwise"
)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use pointsman_gateway::{
    config::{
        compile::{Input, compile},
        document::{Document, Format},
        settings::Settings,
    },
    plugin::registry::Registry,
    ports::{Sink, SinkSpec, Sinks},
    upstream::driver::SharedHealth,
};
use serde_json::json;

/// Looks, in the middle of the compilation, whether another thread could have the health.
struct Watching {
    health: Arc<SharedHealth>,
    looked: AtomicUsize,
}

impl Sinks for Watching {
    fn open(&self, _: &SinkSpec) -> Arc<dyn Sink> {
        self.look();
        Arc::new(Nowhere)
    }

    fn problem(&self, _: &SinkSpec) -> Option<String> {
        self.look();
        None
    }
}

impl Watching {
    fn look(&self) {
        let health = Arc::clone(&self.health);
        let is_free = std::thread::spawn(move || health.try_lock().is_some());
        assert!(is_free.join().expect("looked"), "health is held");
        self.looked.fetch_add(1, Ordering::Relaxed);
    }
}

struct Nowhere;

impl Sink for Nowhere {
    fn push(&self, _: Bytes) {}

    fn dropped(&self) -> u64 {
        0
    }

    fn pending(&self) -> u64 {
        0
    }
}

#[test]
fn a_compilation_holds_health_for_moments_only() {
    let text = "deployment: {role: data_plane, role_data_plane: {config_provider: yaml}}";
    let (settings, _) = Settings::parse(text, &|_| None).expect("valid");
    let registry = Registry::new();
    let instance = |number: u16| {
        json!({
            "name": number.to_string(), "provider": "openai-compatible", "weight": 1,
            "auth": {"header": {"Authorization": "Bearer x"}},
            "override": {"endpoint": format!("http://10.0.0.1:{}", 1000 + number)},
            "checks": {"active": {"type": "tcp", "healthy": {}, "unhealthy": {}}}
        })
    };
    let route = |id: u16| {
        let plugins = json!({
            "ai-proxy-multi": {
                "instances": [instance(2 * id), instance(2 * id + 1)], "cooldown": {}, "circuit_breaker": {}
            },
            "file-logger": {"path": "logs/x.log"}
        });
        json!({"id": id, "uri": format!("/{id}"), "plugins": plugins})
    };
    let routes: Vec<_> = (1..=ROUTES).map(route).collect();
    let document = json!({ "routes": routes }).to_string();
    let parsed = Document::parse(&document, Format::Json, &|_| None, &registry).expect("readable");
    assert_eq!(parsed.problems, []);
    let health = SharedHealth::new();
    let sinks = Watching {
        health: Arc::clone(&health),
        looked: AtomicUsize::new(0),
    };
    let compiled = compile(Input {
        document: Arc::new(parsed.document),
        lines: &parsed.lines,
        settings: &Arc::new(settings),
        registry: &registry,
        sinks: &sinks,
        env: &|_| None,
        secrets: &std::sync::Arc::default(),
        health: &health,
        previous: None,
        generation: 1,
        now: Instant::now(),
    });
    assert_eq!(compiled.problems, []);
    assert!(sinks.looked.load(Ordering::Relaxed) >= usize::from(ROUTES));
}

const ROUTES: u16 = 20;
