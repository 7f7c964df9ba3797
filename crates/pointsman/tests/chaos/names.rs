//! Addresses of names that flap, move to another name, and leave, under load.
//!
//! What is known of an address stays known wherever it moves: see the top of `chaos.rs`. Besides, an address
//! is *known to be gone* from the end of an answer of the Control API that does not show it, if the question
//! was asked after every name had been looked up anew, and that again, behind the change; until the moment
//! before it is listed anew.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Mutex, atomic::AtomicBool},
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::SmallRng};
use serde_json::{Value, json};

use super::{
    judge::{Span, judge, known_of_all},
    load::{Ending, Instance, Shown, Verdicts, alone, flap, length, load, seed, verdicts, watch},
};
use crate::support::{Answer, CHAT, Gateway, NameServer, Start, wait_until};

/// Three behind names, and one that never fails and is nowhere else: somebody is always usable.
const NAMES: [&str; 4] = ["127.0.0.2", "127.0.0.3", "127.0.0.4", "rest"];
const HOSTS: [&str; 2] = ["one.test", "two.test"];
const ALGORITHMS: [&str; 2] = ["roundrobin", "chash"];

/// The name server, and what it said: the moments around each change, with who was listed from then on.
struct Book {
    servers: NameServer,
    changes: Mutex<Vec<(Instant, Instant, Vec<usize>)>>,
}

impl Book {
    fn list(&self, by_host: [&[usize]; HOSTS.len()]) {
        let before = Instant::now();
        let mut changes = self.changes.lock().expect("not poisoned");
        for (host, addresses) in HOSTS.iter().zip(by_host) {
            let addresses: Vec<Ipv4Addr> = addresses.iter().map(|&at| ip(at)).collect();
            self.servers.point(host, &addresses);
        }
        changes.push((before, Instant::now(), by_host.concat()));
    }

    /// When an address was known to be gone.
    fn gone(&self, at: usize, shown: &[Shown<Verdicts>]) -> Vec<Span> {
        let changes = self.changes.lock().expect("not poisoned");
        let end = shown.last().expect("it was watched").answered;
        let mut spans = Vec::new();
        let mut since = None;
        for (before, after, listed) in &*changes {
            match (listed.contains(&at), since) {
                (true, Some(left)) => spans.extend(self.known_gone(at, left, *before, shown)),
                (false, None) => {
                    since = Some(*after);
                    continue;
                }
                _ => {}
            }
            if listed.contains(&at) {
                since = None;
            }
        }
        spans.extend(since.and_then(|left| self.known_gone(at, left, end, shown)));
        spans
    }

    fn known_gone(
        &self,
        at: usize,
        left: Instant,
        over: Instant,
        shown: &[Shown<Verdicts>],
    ) -> Option<Span> {
        let again = |host: &&str| {
            let asked = self.servers.asked(host);
            let later = asked.iter().filter(|one| one.kind == 1 && one.at > left);
            later.map(|one| one.at).nth(1)
        };
        let known: Option<Vec<Instant>> = HOSTS.iter().map(again).collect();
        let known = known?.into_iter().max()?;
        let is_gone = |one: &&Shown<Verdicts>| one.asked > known && one.what.usable[at].is_none();
        let known = shown.iter().find(is_gone)?.answered;
        (known < over).then_some(Span(known, over))
    }
}

fn ip(at: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, u8::try_from(at + 2).expect("few"))
}

/// Upstreams at one port of several addresses; the last one has another port.
fn instances() -> [Instance; NAMES.len()] {
    let mut port = 0;
    let mut at = 0;
    NAMES.map(|name| {
        let ip = if name == "rest" {
            Ipv4Addr::LOCALHOST
        } else {
            ip(at)
        };
        let here = SocketAddr::from((ip, if name == "rest" { 0 } else { port }));
        let instance = Instance::at(name, here, Answer::status(500, "{}"));
        (port, at) = (instance.upstream.port(), at + 1);
        instance
    })
}

/// Routes to both names and to the last one.
fn document(instances: &[Instance]) -> String {
    let at_name = |host: &&str| {
        let mut config = instances[0].config(host, 2);
        let endpoint = format!("http://{host}:{}", instances[0].upstream.port());
        config["override"]["endpoint"] = json!(endpoint);
        config
    };
    let mut all: Vec<Value> = HOSTS.iter().map(at_name).collect();
    all.push(instances[3].config("rest", 1));
    let route = |algorithm: &&str| {
        let plugin = json!({
            "instances": all, "fallback_strategy": ["http_5xx"],
            "balancer": {"algorithm": algorithm, "hash_on": "header", "key": "x-id"}
        });
        json!({"id": algorithm, "uri": format!("/{algorithm}"), "plugins": {"ai-proxy-multi": plugin}})
    };
    json!({"routes": ALGORITHMS.iter().map(route).collect::<Vec<Value>>()}).to_string()
}

/// Moves addresses between the names until `end`; each is at one of them at most.
fn shuffle(book: &Book, length: Duration, random: &mut SmallRng) {
    let end = Instant::now() + length;
    let mut due = Instant::now();
    while Instant::now() < end {
        if Instant::now() >= due {
            let mut by_host = [Vec::new(), Vec::new()];
            for at in 0..3 {
                if random.random_ratio(3, 4) {
                    by_host[random.random_range(0..2)].push(at);
                }
            }
            // A name without addresses keeps those it had: that is another test.
            if by_host.iter().all(|addresses| !addresses.is_empty()) {
                book.list([&by_host[0], &by_host[1]]);
                due = Instant::now() + Duration::from_millis(random.random_range(500..3_000));
            }
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// Whatever happens in between, at the end: one that is known to be down moves to the other name and gets
/// nothing there; one leaves and gets nothing; all come back.
fn settle(gateway: &Gateway, book: &Book, all: &[Instance]) {
    let [mover, stays, leaver, rest] = all else {
        unreachable!("there are four")
    };
    let verdict = |instance: &Instance| {
        let targets = gateway.control("/v1/targets").json();
        verdicts(
            std::slice::from_ref(instance),
            targets.as_array().expect("a list"),
        )
        .usable[0]
    };
    let wait_for = |instance: &Instance, usable: Option<bool>| {
        wait_until(&format!("{} to be {usable:?}", instance.name), || {
            (verdict(instance) == usable).then_some(())
        });
    };
    let pass = || {
        let before = rest.upstream.hits();
        wait_until("others to serve", || {
            (rest.upstream.hits() > before + 100).then_some(())
        });
    };
    book.list([&[0], &[1, 2]]);
    for instance in [mover, stays, leaver] {
        wait_for(instance, Some(true));
    }
    mover.switch(false);
    wait_for(mover, Some(false));
    pass();
    // It changes its name, and the other way round; the leaver is gone.
    book.list([&[1], &[0]]);
    wait_for(leaver, None);
    let looked_up = |host: &str| book.servers.asked(host).len();
    let before = HOSTS.map(looked_up);
    wait_until("two look-ups of each", || {
        let all = HOSTS.iter().zip(before);
        all.into_iter()
            .all(|(host, before)| looked_up(host) >= before + 6)
            .then_some(())
    });
    pass();
    book.list([&[1, 2], &[0]]);
    mover.switch(true);
    for instance in [mover, stays, leaver] {
        let before = instance.upstream.hits();
        wait_until("traffic to come back", || {
            (instance.upstream.hits() > before + 20).then_some(())
        });
    }
}

#[test]
fn addresses_get_nothing_while_they_are_known_to_be_down_or_gone() {
    let _alone = alone();
    let seed = seed();
    println!("POINTSMAN_CHAOS_SEED={seed}");
    let book = Book {
        servers: NameServer::start(),
        changes: Mutex::default(),
    };
    book.list([&[0, 1], &[2]]);
    let all = instances();
    let gateway = Gateway::start_with(Start {
        document: &document(&all),
        apisix: &book.servers.settings(),
        workers: 4,
        ..Start::default()
    });
    let done = AtomicBool::new(false);
    let control = gateway.address("control");
    let began = Instant::now();
    let (shown, sent) = std::thread::scope(|scope| {
        let watched = scope.spawn(|| watch(control, &done, |targets| verdicts(&all, targets)));
        let loaded = scope.spawn(|| load(gateway.proxy, &ALGORITHMS, CHAT, &done));
        let ending = Ending(&done);
        let moving = scope.spawn(|| {
            shuffle(&book, length(5), &mut SmallRng::seed_from_u64(seed + 1));
        });
        flap(&all[..3], length(5), &mut SmallRng::seed_from_u64(seed));
        moving.join().expect("they moved");
        settle(&gateway, &book, &all);
        drop(ending);
        let watched = watched.join().expect("it watched");
        (watched, loaded.join().expect("there was load"))
    });
    let mut bad = known_of_all(&all, &shown, false);
    let mut gone = 0;
    for (at, spans) in bad.iter_mut().enumerate().take(3) {
        let more = book.gone(at, &shown);
        gone += more.len();
        spans.extend(more);
    }
    println!("{gone} times an address was gone");
    assert!(gone > 0, "nobody was ever gone");
    let always = vec![Span(began, Instant::now())];
    let good = vec![Vec::new(), Vec::new(), Vec::new(), always];
    judge(&all, &bad, &good, &sent).check(&sent);
}
