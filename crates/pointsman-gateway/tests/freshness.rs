//! I-1, I-7, I-9: a pick that starts after a change was published obeys it, on every thread, while
//! verdicts flip and configurations come and go.

#![allow(
    clippy::disallowed_methods,
    reason = "an `Instant` to count from cannot be had otherwise"
)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use pointsman_balance::{Ask, ProbeOutcome, Tried};
use pointsman_gateway::{
    config::{
        compile::{Input, compile},
        document::{Document, Format},
        settings::Settings,
        snapshot::{PoolRef, Snapshot},
    },
    gateway::State,
    plugin::registry::Registry,
    ports::{Sink, SinkSpec, Sinks},
    upstream::driver::SharedHealth,
};
use serde_json::json;

const STEPS: u64 = 3_000;
const PICKERS: usize = 3;
const INSTANCES: u64 = 4;

/// The control thread's part: what it owns, and what it has published so far.
struct Control {
    health: Arc<SharedHealth>,
    settings: Arc<Settings>,
    registry: Registry,
    generation: u64,
    now: Instant,
    chance: u64,
}

impl Control {
    fn new() -> Self {
        let text = "deployment: {role: data_plane, role_data_plane: {config_provider: yaml}}";
        let (settings, _) = Settings::parse(text, &|_| None).expect("valid");
        Self {
            health: SharedHealth::new(),
            settings: Arc::new(settings),
            registry: Registry::new(),
            generation: 0,
            now: Instant::now(),
            chance: 7,
        }
    }

    /// The next configuration: instances in another order, one of them under another name.
    fn compile(&mut self, previous: Option<&Snapshot>) -> Arc<Snapshot> {
        self.generation += 1;
        let turn = self.generation;
        let instance = |number: u64| {
            let renamed = if number == 0 { turn } else { number };
            json!({
                "name": format!("{number}-{renamed}"), "provider": "openai-compatible", "weight": 1 + number,
                "auth": {}, "override": {"endpoint": format!("http://10.0.0.{number}:{}", 1000 + renamed)},
                "checks": {"active": {"type": "tcp", "healthy": {"successes": 1},
                    "unhealthy": {"tcp_failures": 1}}}
            })
        };
        let instances: Vec<_> = (0..INSTANCES)
            .map(|n| instance((n + turn) % INSTANCES))
            .collect();
        let text = json!({"routes": [{"id": 1, "uri": "/", "plugins": {"ai-proxy-multi": {"instances": instances}}}]});
        let parsed = Document::parse(&text.to_string(), Format::Json, &|_| None, &self.registry)
            .expect("readable");
        assert_eq!(parsed.problems, []);
        let compiled = compile(Input {
            document: Arc::new(parsed.document),
            lines: &parsed.lines,
            settings: &self.settings,
            registry: &self.registry,
            sinks: &NoSinks,
            env: &|_| None,
            secrets: &std::sync::Arc::default(),
            health: &self.health,
            previous,
            generation: self.generation,
            now: self.now,
        });
        assert_eq!(compiled.problems, []);
        Arc::new(compiled.snapshot)
    }

    /// Performs every probe that is due, with outcomes by chance.
    fn probe(&mut self, state: &State, visible: &AtomicU64) {
        self.now += Duration::from_secs(2);
        let mut health = self.health.lock();
        while let Some(probe) = health.poll_probe(self.now) {
            self.chance = self
                .chance
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let outcome = if self.chance >> 63 == 0 {
                ProbeOutcome::TcpOk
            } else {
                ProbeOutcome::TcpFailure
            };
            health.on_probe(probe.ticket, outcome, self.now, state);
            // The call has returned: from here on nobody may pick by older verdicts.
            visible.store(health.availability().epoch(), Ordering::SeqCst);
        }
    }
}

#[test]
fn i1_i7_i9_a_pick_is_never_older_than_what_was_published_before_it() {
    let mut control = Control::new();
    let first = control.compile(None);
    let state = State::new(Arc::clone(&first), control.health.lock().availability());
    (control.health.lock()).put_in_force(first, &state, control.now);
    let (epoch, generation) = (AtomicU64::new(0), AtomicU64::new(1));
    let done = AtomicBool::new(false);
    let picks: u64 = std::thread::scope(|scope| {
        let pickers: Vec<_> = (0..PICKERS)
            .map(|_| scope.spawn(|| pick_until(&done, &state, &epoch, &generation)))
            .collect();
        let ending = Ending(&done);
        for step in 0..STEPS {
            control.probe(&state, &epoch);
            if step % 50 == 49 {
                let next = control.compile(Some(&state.snapshot()));
                let mut health = control.health.lock();
                health.put_in_force(next, &state, control.now);
                epoch.store(health.availability().epoch(), Ordering::SeqCst);
                generation.store(control.generation, Ordering::SeqCst);
            }
        }
        drop(ending);
        pickers
            .into_iter()
            .map(|picker| picker.join().expect("no violation"))
            .sum()
    });
    assert!(picks > STEPS / 10, "{picks} picks");
    assert!(epoch.load(Ordering::SeqCst) > STEPS, "verdicts did flip");
}

/// Tells the pickers to end, also when the control thread's part fails.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Picks until told to end; returns how often.
fn pick_until(done: &AtomicBool, state: &State, epoch: &AtomicU64, generation: &AtomicU64) -> u64 {
    let (mut picks, mut last) = (0, 0);
    while !done.load(Ordering::SeqCst) {
        let floor = (
            epoch.load(Ordering::SeqCst),
            generation.load(Ordering::SeqCst),
        );
        // In the order of a request: configuration when it begins, verdicts when it picks.
        let snapshot = state.snapshot();
        let verdicts = state.availability();
        let Some(PoolRef::Ai(target)) = snapshot.pools.get("/routes/1#ai-proxy-multi") else {
            panic!("the pool is gone");
        };
        let pool = &target.pool;
        let ask = Ask {
            key: None,
            now: Duration::ZERO,
            tried: &Tried::new(),
        };
        // Panics in a test build if the verdicts do not know one of the pool's targets (I-9).
        let picked = pool.pick(&ask, &verdicts).expect("somebody");
        assert!(
            picked.epoch() >= floor.0,
            "{picked:?}, but {} was visible",
            floor.0
        );
        assert!(snapshot.generation >= floor.1);
        assert!(picked.epoch() >= last, "verdicts went back");
        last = picked.epoch();
        let usable = |member: usize| pool.targets(member).iter().any(|id| verdicts.usable(*id));
        let somebody_is = (0..pool.len()).any(usable);
        assert_eq!(usable(picked.member()), somebody_is, "{picked:?}");
        assert_eq!(picked.failed_open(), !somebody_is);
        picks += 1;
    }
    picks
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
