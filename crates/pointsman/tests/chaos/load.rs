//! Instances that flap, and clients that give them no rest: what both did, and when.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rand::{Rng, rngs::SmallRng};
use serde_json::{Value, json};

use crate::support::{Answer, Upstream, client::Connection};

/// An instance that fails all of its requests while its probes fail.
pub(crate) struct Instance {
    pub(crate) name: &'static str,
    pub(crate) upstream: Upstream,
    is_down: Arc<AtomicBool>,
    /// The moments around each switch, and whether it went to healthy.
    pub(crate) switches: Mutex<Vec<Switch>>,
}

#[derive(Clone, Copy)]
pub(crate) struct Switch {
    pub(crate) before: Instant,
    pub(crate) after: Instant,
    pub(crate) to_healthy: bool,
}

impl Instance {
    /// One that answers with a 500 while it is down.
    pub(crate) fn new(name: &'static str) -> Self {
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::at(name, anywhere, Answer::status(500, "{}"))
    }

    /// One at that address, with what it answers while it is down.
    pub(crate) fn at(name: &'static str, address: SocketAddr, down: Answer) -> Self {
        let is_down = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&is_down);
        let upstream = Upstream::start_at(address, move |_| match theirs.load(Ordering::SeqCst) {
            true => down.clone(),
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

    pub(crate) fn switch(&self, to_healthy: bool) {
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

    pub(crate) fn is_healthy(&self) -> bool {
        let switches = self.switches.lock().expect("not poisoned");
        switches.last().expect("the first one").to_healthy
    }

    pub(crate) fn config(&self, name: &str, weight: u32) -> Value {
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

/// Clients at once.
pub(crate) const CLIENTS: usize = 8;

/// What a client did: the moment before it sent, the moment after the answer, and its status.
pub(crate) struct Sent {
    pub(crate) before: Instant,
    pub(crate) after: Instant,
    pub(crate) status: u16,
}

/// Requests to these routes in turn, without a pause, on connections that stay for a while, until `done`.
/// With no body they are GETs, with one POSTs.
pub(crate) fn load(
    proxy: SocketAddr,
    routes: &[&str],
    body: &str,
    done: &AtomicBool,
) -> HashMap<String, Sent> {
    let method = if body.is_empty() { "GET" } else { "POST" };
    let next = AtomicUsize::new(0);
    let client = || {
        let mut sent = Vec::new();
        while !done.load(Ordering::SeqCst) {
            // Which worker serves it is settled when it connects.
            let mut connection = Connection::open(proxy);
            for _ in 0..50 {
                let number = next.fetch_add(1, Ordering::SeqCst);
                let (id, route) = (format!("r{number}"), routes[number % routes.len()]);
                let length = body.len();
                let head = format!(
                    "{method} /{route}?id={id} HTTP/1.1\r\nHost: gateway\r\nX-Id: {id}\r\n\
                     Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
                );
                let before = Instant::now();
                connection.send(format!("{head}{body}").as_bytes());
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
pub(crate) struct Ending<'a>(pub(crate) &'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// What the Control API showed: when it was asked, when its answer was here, and the answer.
pub(crate) struct Shown<T> {
    pub(crate) asked: Instant,
    pub(crate) answered: Instant,
    pub(crate) what: T,
}

/// Verdicts by one epoch.
pub(crate) struct Verdicts {
    pub(crate) epoch: u64,
    /// By instance; `None` for one that was not shown.
    pub(crate) usable: Vec<Option<bool>>,
}

/// Asks for the targets all the time, until `done`, and keeps what `see` makes of them.
pub(crate) fn watch<T>(
    control: SocketAddr,
    done: &AtomicBool,
    see: impl Fn(&[Value]) -> T,
) -> Vec<Shown<T>> {
    let mut connection = Connection::open(control);
    let mut shown = Vec::new();
    while !done.load(Ordering::SeqCst) {
        let asked = Instant::now();
        connection.send(b"GET /v1/targets HTTP/1.1\r\nHost: control\r\n\r\n");
        let response = connection.response(false);
        let answered = Instant::now();
        let targets = response.json();
        let what = see(targets.as_array().expect("a list"));
        shown.push(Shown {
            asked,
            answered,
            what,
        });
        std::thread::park_timeout(Duration::from_millis(2));
    }
    shown
}

/// What is shown of each instance by its address; of several targets there, if any is usable.
pub(crate) fn verdicts(instances: &[Instance], targets: &[Value]) -> Verdicts {
    let usable = instances.iter().map(|instance| {
        let (host, port) = (
            instance.upstream.address.ip().to_string(),
            instance.upstream.port(),
        );
        let at = |target: &&Value| target["host"] == host.as_str() && target["port"] == port;
        let usable = targets
            .iter()
            .filter(at)
            .map(|target| target["usable"] == true);
        usable.reduce(|one, other| one || other)
    });
    Verdicts {
        epoch: targets[0]["epoch"].as_u64().expect("a number"),
        usable: usable.collect(),
    }
}

/// One that goes down stays so for up to three intervals of its probes; at the end all are well.
pub(crate) fn flap(instances: &[Instance], length: Duration, random: &mut SmallRng) {
    let end = Instant::now() + length;
    let mut next = vec![Instant::now(); instances.len()];
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

/// The seed of this run: of the environment, or of the clock.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("POINTSMAN_CHAOS_SEED").ok();
    let given = given.map(|seed| seed.parse().expect("POINTSMAN_CHAOS_SEED is a number"));
    given.unwrap_or_else(|| rand::rng().random_range(0..1_000_000))
}

/// How long the instances flap: `POINTSMAN_CHAOS_SECONDS`, or as long as is given here; a long run takes 60
/// or more.
pub(crate) fn length(default: u64) -> Duration {
    let given = std::env::var("POINTSMAN_CHAOS_SECONDS").ok();
    let given = given.map(|seconds| {
        seconds
            .parse()
            .expect("POINTSMAN_CHAOS_SECONDS is a number")
    });
    Duration::from_secs(given.unwrap_or(default))
}

/// One world at a time has the cores of this machine.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
