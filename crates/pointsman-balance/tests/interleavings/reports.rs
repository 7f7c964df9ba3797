//! Evidence comes in while one request picks and a configuration comes into force.
//!
//! The monitor is the real one, behind a lock as `SharedHealth` of `pointsman-gateway` is: whoever brings
//! evidence locks it, publishes what that changes and lets go; a reload locks it twice, to settle targets and
//! guards and to put the configuration in force, and builds its pool in between. A request takes the pool that is
//! in force, picks, and looks again before it would send.
//!
//! What is known: once the call that took `a` out has returned, no request that looks after that is sent to `a`, by
//! whatever configuration it goes; `b` is always usable.

use loom::sync::Mutex;
use loom::sync::atomic::AtomicBool;

use super::*;

/// All health, as its owner has it.
struct Health {
    monitor: Monitor<&'static str>,
    /// How many verdicts were published.
    published: usize,
}

struct World {
    health: Mutex<Health>,
    pool: Swap<Pool>,
    availability: Swap<Availability>,
    /// Whoever took `a` out has been told that it is out.
    is_a_out: AtomicBool,
    now: Instant,
}

/// When verdicts are published.
#[derive(Clone, Copy)]
enum Publish {
    Locked,
    /// After the lock was given back: what must be noticed.
    Late,
}

impl World {
    fn new(mut monitor: Monitor<&'static str>, pool: Pool, now: Instant) -> Arc<Self> {
        monitor.release(now);
        let availability = monitor.availability();
        Arc::new(Self {
            health: Mutex::new(Health {
                monitor,
                published: 0,
            }),
            pool: Swap::new(Arc::new(pool)),
            availability: Swap::new(availability),
            is_a_out: AtomicBool::new(false),
            now,
        })
    }

    fn publish(&self, health: &mut Health) {
        health.published += 1;
        let availability = health.monitor.availability();
        self.availability.store(health.published, availability);
    }

    /// Evidence against `a`; `tell` hands it in.
    fn report(
        &self,
        publish: Publish,
        tell: impl FnOnce(&mut Monitor<&'static str>) -> Option<Change>,
    ) {
        let mut health = self.health.lock().expect("nobody panics");
        let before = health.monitor.availability();
        let change = tell(&mut health.monitor);
        let after = health.monitor.availability();
        if !Arc::ptr_eq(&before, &after) {
            match publish {
                Publish::Locked => self.publish(&mut health),
                Publish::Late => {
                    health.published += 1;
                    let number = health.published;
                    drop(health);
                    self.availability.store(number, after);
                }
            }
        }
        if change.is_some_and(|change| change.usable_changed && !change.to.usable()) {
            self.is_a_out.store(true, Ordering::Release);
        }
    }

    /// The next configuration: `settle` says what it wants and returns its members.
    fn reload(&self, settle: impl FnOnce(&mut Monitor<&'static str>) -> Vec<MemberSpec>) {
        let mut health = self.health.lock().expect("nobody panics");
        let members = settle(&mut health.monitor);
        drop(health);
        let next = Pool::new(members, Algorithm::Chash, 0).expect("these are a pool");
        let next = Arc::new(next.succeeding(&self.pool.load()));
        let mut health = self.health.lock().expect("nobody panics");
        health.monitor.inherit_circuits(self.now);
        self.publish(&mut health);
        self.pool.store(1, next);
        health.monitor.release(self.now);
        health.monitor.sweep_guards();
        self.publish(&mut health);
    }

    /// One request. `None`: its pick was overtaken before it was sent.
    fn request(&self) -> Option<Picked> {
        let pool = self.pool.load();
        let was_out = self.is_a_out.load(Ordering::Acquire);
        let availability = self.availability.load();
        let ask = Ask {
            key: Some(KEY_OF_A),
            now: Duration::ZERO,
            tried: &Tried::new(),
        };
        let picked = pool.pick(&ask, &availability).expect("b is always up");
        assert!(!picked.failed_open());
        let is_a = |picked: &Picked| pool.name(picked.member()) == "a";
        assert!(
            picked.is_trial() || !was_out || !is_a(&picked),
            "{picked:?}"
        );
        // Time passes, and then it looks once more.
        let is_out = self.is_a_out.load(Ordering::Acquire);
        let newest = self.availability.load();
        if !pool.holds(&picked, &newest) {
            return None;
        }
        assert!(picked.is_trial() || !is_out || !is_a(&picked), "{picked:?}");
        Some(picked)
    }

    /// Everybody is done: what is published is what is known.
    fn check_end(&self, is_out: bool) {
        let health = self.health.lock().expect("nobody panics");
        let known = health.monitor.availability();
        assert!(Arc::ptr_eq(&known, &self.availability.load()), "overtaken");
        let pool = self.pool.load();
        let a = pool.member_by_name("a");
        let a_usable = a.is_some_and(|a| pool.usable(a, &known));
        assert_eq!(a_usable, a.is_some() && !is_out, "{known:?}");
    }
}

fn wanted(probe: &'static str, successes: u8) -> Wanted<&'static str> {
    Wanted {
        probe,
        policy: Policy {
            tcp_failures: 1,
            successes,
            ..Policy::default()
        },
        lineage: probe.to_owned(),
        checker: String::new(),
    }
}

/// What the next configuration has in the place of `a`.
#[derive(Clone, Copy, PartialEq)]
enum Next {
    /// The same, and somebody new before it.
    Keeps,
    /// The same at which other limits apply.
    Redefines,
    /// Nothing.
    Drops,
}

/// A probe or a request finds `a` down while the next configuration comes into force and a request picks.
fn evidence_and_reload(next: Next, by_probe: bool, publish: Publish) {
    loom::model(move || {
        let now = start();
        let mut monitor = Monitor::new();
        let ids = monitor.reconcile(vec![wanted("a", 2), wanted("b", 2)], now);
        let first = pool(
            Algorithm::Chash,
            &[("a", 1, Some(ids[0])), ("b", 1, Some(ids[1]))],
        );
        let ticket = monitor.poll_probe(now).expect("due at once").ticket;
        assert_eq!(ticket.target(), ids[0]);
        let world = World::new(monitor, first, now);
        let reporter = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                let passive = Passive {
                    limits: Limits {
                        successes: 1,
                        http_failures: 1,
                        tcp_failures: 1,
                        timeouts: 1,
                    },
                    ..Passive::default()
                };
                let down = ProbeOutcome::TcpFailure;
                world.report(publish, |monitor| match by_probe {
                    true => monitor.on_probe(ticket, down, now),
                    false => monitor.on_traffic(ids[0], down, &passive, now, now),
                });
            })
        };
        // What is to be noticed needs no request, and is noticed sooner without.
        let picker = matches!(publish, Publish::Locked).then(|| {
            let world = Arc::clone(&world);
            thread::spawn(move || drop(world.request()))
        });
        world.reload(|monitor| {
            let wishes = match next {
                Next::Keeps => vec![wanted("c", 2), wanted("b", 2), wanted("a", 2)],
                Next::Redefines => vec![wanted("c", 2), wanted("b", 2), wanted("a", 3)],
                Next::Drops => vec![wanted("c", 2), wanted("b", 2)],
            };
            let names: Vec<&str> = wishes.iter().map(|wish| wish.probe).collect();
            let (ids, _) = monitor.prepare_with(wishes, Vec::new(), now);
            let members: Vec<_> = (names.iter().zip(ids))
                .map(|(name, id)| (*name, 1, Some(id)))
                .collect();
            super::members(&members)
        });
        reporter.join().expect("no violation");
        if let Some(picker) = picker {
            picker.join().expect("no violation");
        }
        let is_out = world.is_a_out.load(Ordering::Acquire);
        assert!(is_out || next != Next::Keeps, "its evidence was lost");
        world.check_end(is_out);
    });
}

#[test]
fn i1_i2_i9_a_probe_finds_out_during_a_reload() {
    evidence_and_reload(Next::Keeps, true, Publish::Locked);
}

#[test]
fn i1_i2_i14_a_probe_finds_out_while_its_target_is_redefined() {
    evidence_and_reload(Next::Redefines, true, Publish::Locked);
}

#[test]
fn i1_i2_traffic_finds_out_while_its_target_goes() {
    evidence_and_reload(Next::Drops, false, Publish::Locked);
}

/// The models above would notice verdicts that are overtaken by older ones.
#[test]
#[should_panic(expected = "overtaken")]
fn verdicts_published_without_the_lock_would_be_noticed() {
    evidence_and_reload(Next::Keeps, true, Publish::Late);
}

fn spec(trials: u32) -> GuardSpec {
    let open = Duration::from_secs(1);
    GuardSpec {
        key: "a".to_owned(),
        breaker: Some(Breaker {
            failures: 1,
            error_percent: 0,
            min_attempts: 0,
            window: open,
            open,
            open_max: open,
            trials,
        }),
    }
}

/// Members `a`, behind a guard, and `b`.
fn guarded(monitor: &mut Monitor<&'static str>, trials: u32, now: Instant) -> Vec<MemberSpec> {
    let (guard, _) = monitor.guard(spec(trials), now);
    let mut members = super::members(&[("a", 1, None), ("b", 1, None)]);
    members[0].gate = Some(monitor.gate(&[], vec![guard]));
    members
}

/// `tell` takes `a` out while the next configuration, in which its circuit needs `trials`, comes into force and a
/// request picks.
fn guard_and_reload(
    trials: u32,
    tell: fn(&mut Monitor<&'static str>, TargetId, Instant) -> Option<Change>,
) {
    loom::model(move || {
        let (mut monitor, now) = (Monitor::new(), start());
        let members = guarded(&mut monitor, 1, now);
        let guard = members[0].gate.as_ref().expect("it has one").guards()[0];
        let first = Pool::new(members, Algorithm::Chash, 0).expect("these are a pool");
        monitor.sweep_guards();
        let world = World::new(monitor, first, now);
        let reporter = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                world.report(Publish::Locked, |monitor| tell(monitor, guard, now));
            })
        };
        let picker = {
            let world = Arc::clone(&world);
            thread::spawn(move || drop(world.request()))
        };
        world.reload(|monitor| guarded(monitor, trials, now));
        reporter.join().expect("no violation");
        picker.join().expect("no violation");
        // Of a circuit that has another's settings by now, its old requests say nothing any more.
        let is_out = world.is_a_out.load(Ordering::Acquire);
        assert!(is_out || trials != 1, "its evidence was lost");
        world.check_end(is_out);
    });
}

#[test]
fn i1_i2_a_cool_down_begins_during_a_reload() {
    guard_and_reload(1, |monitor, guard, now| {
        monitor.cool_down(guard, now + Duration::from_secs(9), now)
    });
}

#[test]
fn i1_i2_a_circuit_opens_while_its_settings_change() {
    guard_and_reload(2, |monitor, guard, now| monitor.trip(guard, now));
}
