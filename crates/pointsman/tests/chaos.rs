//! Instances that flap, and configuration that is replaced all the time, under load: the stand-ins'
//! own logs say whether a request ever reached one that was known to be unhealthy.
//!
//! The judge uses no tolerance. An instance is *known unhealthy* from the end of an answer of the
//! Control API that shows it so, if the question was asked after a probe had arrived behind the switch
//! to unhealthy (all earlier answers of that instance are then taken in, and only failures follow), and
//! until the moment before the switch back. A request whose *cause* falls into that time must not arrive
//! there within it: its cause is the moment before the client sent it, or for a retry the moment when
//! the attempt before arrived somewhere. How long the gateway or this process were kept waiting in
//! between does not matter.

#![allow(
    clippy::disallowed_methods,
    reason = "tests measure and wait in real time"
)]

mod support;

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::SmallRng};
use serde_json::{Value, json};
use support::{Answer, CHAT, Gateway, Start, Upstream, client::Connection, run, wait_until};

const NAMES: [&str; 3] = ["ada", "bob", "cyd"];
const CLIENTS: usize = 8;

/// An instance that fails all of its requests while its probes fail.
struct Instance {
    name: &'static str,
    upstream: Upstream,
    is_down: Arc<AtomicBool>,
    /// The moments around each switch, and whether it went to healthy.
    switches: Mutex<Vec<Switch>>,
}

#[derive(Clone, Copy)]
struct Switch {
    before: Instant,
    after: Instant,
    to_healthy: bool,
}

impl Instance {
    fn new(name: &'static str) -> Self {
        let is_down = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&is_down);
        let upstream = Upstream::start(move |_| match theirs.load(Ordering::SeqCst) {
            true => Answer::status(500, "{}"),
            false => Answer::chat(name),
        });
        let now = Instant::now();
        let first = Switch {
            before: now,
            after: now,
            to_healthy: true,
        };
        Self {
            name,
            upstream,
            is_down,
            switches: Mutex::new(vec![first]),
        }
    }

    fn switch(&self, to_healthy: bool) {
        let before = Instant::now();
        if to_healthy {
            // Whoever is healthy answers: the client's requests depend on it.
            self.is_down.store(false, Ordering::SeqCst);
        }
        self.upstream.set_healthy(to_healthy);
        self.is_down.store(!to_healthy, Ordering::SeqCst);
        self.switches.lock().expect("not poisoned").push(Switch {
            before,
            after: Instant::now(),
            to_healthy,
        });
    }

    fn is_healthy(&self) -> bool {
        let switches = self.switches.lock().expect("not poisoned");
        switches.last().expect("the first one").to_healthy
    }

    fn config(&self, name: &str, weight: u32) -> Value {
        json!({
            "name": name, "provider": "openai-compatible", "weight": weight,
            "auth": {"header": {"Authorization": "Bearer token"}},
            "override": {"endpoint": format!("http://{}", self.upstream.address)},
            "checks": {"active": {
                "http_path": "/health",
                "healthy": {"interval": 1, "successes": 1},
                "unhealthy": {"interval": 1, "http_failures": 1}
            }}
        })
    }
}

/// Routes to the same instances, of which each request takes one.
fn document(instances: &[Value]) -> String {
    let plugin = |algorithm: &str| {
        json!({"ai-proxy-multi": {
            "instances": instances, "fallback_strategy": ["http_5xx"],
            "balancer": {"algorithm": algorithm, "hash_on": "header", "key": "x-id"}
        }})
    };
    let turns = json!({"id": "turns", "uri": "/turns", "plugins": plugin("roundrobin")});
    let ring = json!({"id": "ring", "uri": "/ring", "plugins": plugin("chash")});
    json!({"routes": [turns, ring]}).to_string()
}

/// What a client did: the moment before it sent, the moment after the answer, and its status.
struct Sent {
    before: Instant,
    after: Instant,
    status: u16,
}

/// Requests without a pause, on connections that stay for a while, until `done`.
fn load(proxy: SocketAddr, done: &AtomicBool) -> HashMap<String, Sent> {
    let next = AtomicUsize::new(0);
    let client = || {
        let mut sent = Vec::new();
        while !done.load(Ordering::SeqCst) {
            // Which worker serves it is settled when it connects.
            let mut connection = Connection::open(proxy);
            for _ in 0..50 {
                let number = next.fetch_add(1, Ordering::SeqCst);
                let (id, route) = (format!("r{number}"), ["turns", "ring"][number % 2]);
                let length = CHAT.len();
                let head = format!(
                    "POST /{route}?id={id} HTTP/1.1\r\nHost: gateway\r\nX-Id: {id}\r\n\
                     Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
                );
                let before = Instant::now();
                connection.send(format!("{head}{CHAT}").as_bytes());
                let status = connection.response(false).status;
                let after = Instant::now();
                sent.push((
                    id,
                    Sent {
                        before,
                        after,
                        status,
                    },
                ));
                // Two cores serve everybody here, probes included.
                std::thread::park_timeout(Duration::from_micros(500));
            }
        }
        sent
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        let ended = clients.into_iter().map(|client| client.join());
        ended
            .flat_map(|sent| sent.expect("a client ended well"))
            .collect()
    })
}

/// Ends the load, also when the part of the test that it goes with fails.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// What the Control API showed: when it was asked, when its answer was here, and the answer.
struct Shown {
    asked: Instant,
    answered: Instant,
    epoch: u64,
    /// By instance; `None` for one that was not shown.
    usable: Vec<Option<bool>>,
}

fn watch(control: SocketAddr, instances: &[Instance], done: &AtomicBool) -> Vec<Shown> {
    let mut connection = Connection::open(control);
    let mut shown = Vec::new();
    while !done.load(Ordering::SeqCst) {
        let asked = Instant::now();
        connection.send(b"GET /v1/targets HTTP/1.1\r\nHost: control\r\n\r\n");
        let response = connection.response(false);
        let answered = Instant::now();
        let targets = response.json();
        let targets = targets.as_array().expect("a list");
        let usable = instances.iter().map(|instance| {
            let port = instance.upstream.port();
            let target = targets.iter().find(|target| target["port"] == port)?;
            target["usable"].as_bool()
        });
        shown.push(Shown {
            asked,
            answered,
            epoch: targets[0]["epoch"].as_u64().expect("a number"),
            usable: usable.collect(),
        });
        std::thread::park_timeout(Duration::from_millis(2));
    }
    shown
}

/// From the one moment to the other.
#[derive(Clone, Copy)]
struct Span(Instant, Instant);

impl Span {
    fn holds(self, from: Instant, to: Instant) -> bool {
        self.0 < from && to < self.1
    }
}

/// When an instance was known to be healthy, or unhealthy: see the top of this file.
fn known(instance: &Instance, at: usize, shown: &[Shown], healthy: bool) -> Vec<Span> {
    let switches = instance.switches.lock().expect("not poisoned").clone();
    let probes = instance.upstream.probes();
    let end = shown.last().expect("it was watched").answered;
    let span = |(index, switch): (usize, &Switch)| {
        let over = switches.get(index + 1).map_or(end, |next| next.before);
        let probe = probes.iter().find(|probe| probe.at > switch.after)?.at;
        let known = shown
            .iter()
            .find(|shown| shown.asked > probe && shown.usable[at] == Some(healthy))?;
        (known.answered < over).then_some(Span(known.answered, over))
    };
    let to = |(_, switch): &(usize, &Switch)| switch.to_healthy == healthy;
    switches
        .iter()
        .enumerate()
        .filter(to)
        .filter_map(span)
        .collect()
}

/// What the judge found.
#[derive(Debug, Default)]
struct Verdict {
    violations: Vec<String>,
    /// Requests that arrived where they may, while somebody else was known to be unhealthy.
    passed: usize,
    /// Times in which somebody was known to be unhealthy.
    outages: usize,
}

/// Looks at every arrival at every instance.
fn judge(instances: &[Instance], shown: &[Shown], sent: &HashMap<String, Sent>) -> Verdict {
    let of = |healthy: bool| -> Vec<Vec<Span>> {
        let each = instances.iter().enumerate();
        each.map(|(at, instance)| known(instance, at, shown, healthy))
            .collect()
    };
    let (bad, good) = (of(false), of(true));
    let mut arrivals: HashMap<String, Vec<(Instant, usize)>> = HashMap::new();
    for (at, instance) in instances.iter().enumerate() {
        for received in instance.upstream.requests() {
            let id = received.header("x-id").expect("sent by us").to_owned();
            arrivals.entry(id).or_default().push((received.at, at));
        }
    }
    let mut verdict = Verdict {
        outages: bad.iter().map(Vec::len).sum(),
        ..Verdict::default()
    };
    let within = |spans: &[Span], from, to| spans.iter().any(|span| span.holds(from, to));
    for (id, sent) in sent {
        let mut of_request = arrivals.remove(id).unwrap_or_default();
        of_request.sort_unstable();
        let mut cause = sent.before;
        for &(arrived, at) in &of_request {
            let mut others = (0..instances.len()).filter(|&other| other != at);
            let is_bad = within(&bad[at], cause, arrived);
            if is_bad && (others.clone()).any(|other| within(&good[other], cause, arrived)) {
                let name = instances[at].name;
                let story = format!("{id} to {name}, {:?} after its cause", arrived - cause);
                verdict.violations.push(story);
            }
            verdict.passed +=
                usize::from(!is_bad && others.any(|other| within(&bad[other], cause, arrived)));
            cause = arrived;
        }
        // With somebody who answers all the time there is an answer.
        let was_good = |spans: &Vec<Span>| within(spans, sent.before, sent.after);
        if sent.status != 200 && good.iter().any(was_good) {
            verdict
                .violations
                .push(format!("{id} got {}: {of_request:?}", sent.status));
        }
    }
    assert!(arrivals.is_empty(), "nobody sent these: {arrivals:?}");
    verdict
}

/// What the access log tells of picks agrees with itself, with the Control API and with what was
/// received: by one epoch, all workers leave out the same instances.
fn check_told(gateway: &Gateway, shown: &[Shown], sent: usize) {
    let mut left_out: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for shown in shown {
        let names = NAMES.iter().zip(&shown.usable);
        let out = names.filter(|(_, usable)| **usable == Some(false));
        let out: Vec<String> = out.map(|(name, _)| (*name).to_owned()).collect();
        let known = left_out.entry(shown.epoch).or_insert_with(|| out.clone());
        assert_eq!(*known, out, "epoch {} has two meanings", shown.epoch);
    }
    let mut compared = 0;
    for line in gateway.access_log(sent) {
        for pick in line["picks"].as_array().into_iter().flatten() {
            let names = pick["excluded"].as_array().expect("a list").iter();
            let mut names: Vec<String> =
                (names.filter_map(Value::as_str).map(str::to_owned)).collect();
            names.sort_unstable();
            let member = pick["member"].as_str().expect("a name");
            let is_out = names.iter().any(|name| name == member);
            assert_eq!(pick["failed_open"] == true, is_out, "{line}");
            assert_eq!(names.len() == NAMES.len(), is_out, "{line}");
            if let Some(known) = left_out.get(&pick["epoch"].as_u64().expect("a number")) {
                assert_eq!(*known, names, "{line}");
                compared += 1;
            }
        }
    }
    assert!(compared > 0, "no pick was told of");
    check_explained(gateway);
}

/// Each pick that was told of is made again from its line, with the same answer.
fn check_explained(gateway: &Gateway) {
    let config = gateway.folder().join("config.yaml").display().to_string();
    let (code, text, errors) = run(&["explain", "--config", &config]);
    let other: Vec<&str> = (text.lines())
        .filter(|line| line.contains("same answer: no") || line.contains("not replayable:"))
        .collect();
    assert_eq!((code, other), (Some(0), vec![]), "{errors}");
    let same = text.matches("same answer: yes").count();
    assert!(same > 0, "{text}");
}

/// The seed of this run: of the environment, or of the clock.
fn seed() -> u64 {
    let given = std::env::var("POINTSMAN_CHAOS_SEED").ok();
    let given = given.map(|seed| seed.parse().expect("POINTSMAN_CHAOS_SEED is a number"));
    given.unwrap_or_else(|| rand::rng().random_range(0..1_000_000))
}

/// How long the instances flap: `POINTSMAN_CHAOS_SECONDS`; a long run takes 60 or more.
fn length() -> Duration {
    let given = std::env::var("POINTSMAN_CHAOS_SECONDS").ok();
    let given = given.map(|seconds| {
        seconds
            .parse()
            .expect("POINTSMAN_CHAOS_SECONDS is a number")
    });
    Duration::from_secs(given.unwrap_or(8))
}

/// Instances go down and come back at random, together or not, sometimes before anybody noticed.
#[test]
fn flapping_instances_get_nothing_while_they_are_known_to_be_unhealthy() {
    let seed = seed();
    println!("POINTSMAN_CHAOS_SEED={seed}");
    let instances = NAMES.map(Instance::new);
    let configs: Vec<Value> = (instances.iter().map(|one| one.config(one.name, 1))).collect();
    let gateway = Gateway::start_with(Start {
        document: &document(&configs),
        workers: 4,
        ..Start::default()
    });
    let done = AtomicBool::new(false);
    let control = gateway.address("control");
    let (shown, sent) = std::thread::scope(|scope| {
        let watched = scope.spawn(|| watch(control, &instances, &done));
        let loaded = scope.spawn(|| load(gateway.proxy, &done));
        let ending = Ending(&done);
        flap(&instances, &mut SmallRng::seed_from_u64(seed));
        for instance in &instances {
            // All come back in the end, and are used again.
            let before = instance.upstream.hits();
            wait_until("traffic to come back", || {
                (instance.upstream.hits() > before + 20).then_some(())
            });
        }
        drop(ending);
        let watched = watched.join().expect("it watched");
        (watched, loaded.join().expect("there was load"))
    });
    let verdict = judge(&instances, &shown, &sent);
    println!(
        "{} requests, {} of them past one of {} outages",
        sent.len(),
        verdict.passed,
        verdict.outages
    );
    assert!(verdict.violations.is_empty(), "{:#?}", verdict.violations);
    assert!(
        verdict.outages > 1 && verdict.passed > 100,
        "too little was tried"
    );
    check_told(&gateway, &shown, sent.len());
}

/// One that goes down stays so for up to three intervals of its probes; at the end all are well.
fn flap(instances: &[Instance], random: &mut SmallRng) {
    let end = Instant::now() + length();
    let mut next = [Instant::now(); NAMES.len()];
    while Instant::now() < end {
        for (instance, due) in instances.iter().zip(&mut next) {
            if Instant::now() < *due {
                continue;
            }
            instance.switch(!instance.is_healthy());
            let stays = if random.random_ratio(1, 4) {
                random.random_range(1..300)
            } else {
                random.random_range(1_000..3_000)
            };
            *due = Instant::now() + Duration::from_millis(stays);
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    for instance in instances {
        instance.switch(true);
    }
}

/// Instances change names, places and weights a thousand times while one is dead: the dead one stays
/// out (I-10, I-11), and no request fails of it.
#[test]
fn a_thousand_reloads_in_an_outage_send_nothing_to_the_dead() {
    let instances = NAMES.map(Instance::new);
    let dead = &instances[1];
    let variant = |turn: usize| {
        let config = |(at, instance): (usize, &Instance)| {
            // One in three changes its name, and so takes another's place on the ring.
            let name = format!(
                "{}{}",
                instance.name,
                if at == turn % 3 { "-2" } else { "" }
            );
            instance.config(&name, [1, 7, 3][(turn + at) % 3])
        };
        let mut configs: Vec<Value> = instances.iter().enumerate().map(config).collect();
        configs.rotate_left(turn / 3 % 3);
        document(&configs)
    };
    let gateway = Gateway::start_with(Start {
        document: &variant(0),
        workers: 4,
        ..Start::default()
    });
    dead.switch(false);
    gateway.wait_for_status(dead.upstream.port(), "unhealthy");
    let before = dead.upstream.hits();
    let done = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let loaded = scope.spawn(|| load(gateway.proxy, &done));
        let ending = Ending(&done);
        for turn in 1..=RELOADS {
            gateway.reload(&variant(turn));
        }
        drop(ending);
        loaded.join().expect("there was load")
    });
    assert_eq!(dead.upstream.hits(), before, "of {} requests", sent.len());
    let failed = sent.values().filter(|sent| sent.status != 200).count();
    assert_eq!(failed, 0, "of {}", sent.len());
    assert!(sent.len() > 100, "{} requests are no load", sent.len());
    // It was probed all the while, and comes back.
    dead.switch(true);
    gateway.wait_for_status(dead.upstream.port(), "healthy");
    let answered = || support::post_json(gateway.proxy, "/turns", CHAT).status == 200;
    wait_until("traffic to come back", || {
        (answered() && dead.upstream.hits() > before).then_some(())
    });
}

const RELOADS: usize = 1_000;
