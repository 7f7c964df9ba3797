//! Races in which something passes for something else: by its place, by a number, by a digest.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
};

use serde_json::{Value, json};

use super::names::{
    changes, checked as checked_by, checks, instance, ip, slow_checks, start as start_with_names,
    wait_for, wait_for_changes,
};
use crate::{
    checked, document, route, start,
    support::{Answer, CHAT, NameServer, Received, Upstream, call, under_load, wait_until},
};

/// One that answers probes of a path with `bad` in it with a 500, and all others with a 200.
fn two_faced(address: SocketAddr) -> Upstream {
    Upstream::probed_at(
        address,
        |_| Answer::chat("two-faced"),
        |probe| {
            let is_bad = probe.target.contains("bad");
            Answer::text(if is_bad { 500 } else { 200 }, "")
        },
    )
}

/// How many requests came with this header.
pub(crate) fn with_header(upstream: &Upstream, name: &str, value: &str) -> usize {
    let requests = upstream.requests();
    let is_so = |one: &&Received| one.header(name) == Some(value);
    requests.iter().filter(is_so).count()
}

/// Its requests and probes carry its name.
pub(crate) fn as_itself(mut instance: Value) -> Value {
    let token = format!("Bearer {}", instance["name"].as_str().expect("a name"));
    instance["auth"]["header"]["Authorization"] = json!(token);
    instance
}

/// Checks of that path.
fn of_path(mut checks: Value, path: &str) -> Value {
    checks["active"]["http_path"] = json!(path);
    checks
}

/// R-7, I-11: instances at one address, of which one is down by its own probe, change places again and again,
/// and their thresholds with them, so that the verdicts are carried over: each by its name.
#[test]
fn r07_a_verdict_goes_with_the_name_and_not_with_the_place() {
    let shared = two_faced(([127, 0, 0, 1], 0).into());
    let other = Upstream::named("other");
    let (port, localhost) = (shared.port(), "127.0.0.1");
    let with = |turn: usize, checks: &Value| {
        let mut checks = checks.clone();
        checks["active"]["unhealthy"]["tcp_failures"] = json!(1 + turn % 2);
        let mut instances = [
            checked_by(
                "good",
                localhost,
                port,
                of_path(checks.clone(), "/health/good"),
            ),
            checked_by("bad", localhost, port, of_path(checks, "/health/bad")),
            instance("other", localhost, other.port()),
        ]
        .map(as_itself);
        instances.rotate_left(turn % 3);
        document(&[route("x", &instances)])
    };
    let gateway = start(&with(0, &checks()));
    wait_until("the verdict", || {
        let shown = gateway.control("/v1/targets").json();
        let mut all = shown.as_array()?.iter();
        all.find(|one| one["http_path"] == "/health/bad" && one["usable"] == false)?;
        Some(())
    });
    under_load(gateway.proxy, &[call("/x", &[], CHAT)], |load| {
        for turn in 0..12 {
            gateway.reload(&with(turn, &slow_checks()));
            load.pass(1);
            let before = with_header(&shared, "authorization", "Bearer good");
            load.pass(4);
            let after = with_header(&shared, "authorization", "Bearer good");
            assert!(after > before, "the good one is out, in turn {turn}");
        }
    });
    assert_eq!(with_header(&shared, "authorization", "Bearer bad"), 0);
    let verdicts = gateway.stderr().matches("health verdict changed").count();
    assert_eq!(verdicts, 1, "{}", gateway.stderr());
}

/// the eleventh change of addresses under the tenth configuration, and the first one under the hundred
/// and first: `10` and `11` read like `101` and `1`. What is probed, known and listed is of the newer one.
#[test]
fn r09_numbers_that_read_alike_are_not_mixed_up() {
    let names = NameServer::start();
    let picky = two_faced((ip(3), 0).into());
    let port = picky.port();
    let at = SocketAddr::from((ip(2), port));
    let fine = Upstream::start_at(at, |_| Answer::chat("fine"));
    let other = Upstream::named("other");
    let mut now: [&[Ipv4Addr]; 2] = [&[ip(2)], &[ip(3)]];
    names.point("one.test", now[0]);
    let with = |path: &str, weight: usize| {
        let mut beside = instance("other", "127.0.0.1", other.port());
        beside["weight"] = json!(1 + weight % 2);
        let one = checked_by("one", "one.test", port, of_path(checks(), path));
        document(&[route("ai", &[one, beside])])
    };
    let gateway = start_with_names(&names, &with("/health/old", 1));
    under_load(gateway.proxy, &[call("/ai", &[], CHAT)], |load| {
        for generation in 2..=10 {
            gateway.reload(&with("/health/old", generation));
        }
        gateway.wait_for_line("generation=10");
        for _ in 0..11 {
            now.reverse();
            let known = changes(&gateway);
            names.point("one.test", now[0]);
            wait_for_changes(&gateway, known, 1);
            let used = if now[0] == [ip(3)] { &picky } else { &fine };
            let before = used.hits();
            load.pass(2);
            assert!(used.hits() > before);
        }
        for generation in 11..=101 {
            gateway.reload(&with("/health/bad", generation));
        }
        gateway.wait_for_line("generation=101");
        let old = |upstream: &Upstream| {
            let probes = upstream.probes();
            let of_old = probes.iter().filter(|probe| probe.target == "/health/old");
            of_old.count()
        };
        wait_for(&gateway, 3, false);
        load.pass(1);
        let (dead, left) = (picky.hits(), old(&fine) + old(&picky));
        let known = changes(&gateway);
        names.point("one.test", &[ip(2), ip(3)]);
        wait_for_changes(&gateway, known, 1);
        wait_for(&gateway, 3, false);
        let before = fine.hits();
        load.pass(10);
        let probes = fine.probes().len();
        fine.wait_for_probes(probes + 2);
        load.pass(1);
        assert!(fine.hits() > before);
        assert_eq!(picky.hits(), dead);
        assert_eq!(old(&fine) + old(&picky), left, "probes of what was before");
    });
}

/// names that read alike once they are put together, at one address. The verdict about the one is not
/// carried over to the other.
#[test]
fn r09_names_that_read_alike_are_not_mixed_up() {
    let names = NameServer::start();
    let shared = two_faced((ip(3), 0).into());
    let (port, other) = (shared.port(), Upstream::named("other"));
    for host in ["yz.test", "z.test"] {
        names.point(host, &[ip(3)]);
    }
    let with = |mut checks: Value| {
        // What is asked for is the same, too.
        checks["active"]["host"] = json!("probe.test");
        let instances = [
            checked_by(
                "x",
                "yz.test",
                port,
                of_path(checks.clone(), "/health/good"),
            ),
            checked_by("xy", "z.test", port, of_path(checks, "/health/bad")),
            instance("other", "127.0.0.1", other.port()),
        ];
        document(&[route("ai", &instances.map(as_itself))])
    };
    let gateway = start_with_names(&names, &with(checks()));
    wait_until("the verdict", || {
        let shown = gateway.control("/v1/targets").json();
        let mut all = shown.as_array()?.iter();
        all.find(|one| one["http_path"] == "/health/bad" && one["usable"] == false)?;
        Some(())
    });
    under_load(gateway.proxy, &[call("/ai", &[], CHAT)], |load| {
        for turn in 1..=6 {
            let mut checks = slow_checks();
            checks["active"]["unhealthy"]["tcp_failures"] = json!(turn);
            gateway.reload(&with(checks));
            load.pass(1);
            let before = with_header(&shared, "authorization", "Bearer x");
            load.pass(4);
            let after = with_header(&shared, "authorization", "Bearer x");
            assert!(after > before, "the good one is out, in turn {turn}");
        }
    });
    assert_eq!(with_header(&shared, "authorization", "Bearer xy"), 0);
    let verdicts = gateway.stderr().matches("health verdict changed").count();
    assert_eq!(verdicts, 1, "{}", gateway.stderr());
}

/// two instances whose texts have one CRC-32, wherever they stand, and so have the plugins, routes and
/// documents around them. They take each other's place again and again; nobody takes the one for the other.
#[test]
fn r10_contents_with_one_digest_are_not_mixed_up() {
    let (dead, alive) = (Upstream::named("dead"), Upstream::named("alive"));
    let other = Upstream::named("other");
    dead.set_healthy(false);
    let begin = |upstream: &Upstream| format!("http://{}/", upstream.address);
    let ends = collision(&begin(&dead), &begin(&alive));
    let texts = [
        format!("{}{}", begin(&dead), ends.0),
        format!("{}{}", begin(&alive), ends.1),
    ];
    let with = |turn: usize| {
        let to = |endpoint: &String| {
            let mut moving = checked("moving", &alive, "/health");
            moving["override"]["endpoint"] = json!(endpoint);
            let beside = instance("other", "127.0.0.1", other.port());
            [moving, beside]
        };
        let (here, there) = (&texts[turn % 2], &texts[(turn + 1) % 2]);
        document(&[route("here", &to(here)), route("there", &to(there))])
    };
    let digests = [with(0), with(1)].map(|text| crc32(!0, text.as_bytes()));
    assert!(with(0) != with(1) && digests[0] == digests[1]);
    let gateway = start(&with(0));
    gateway.wait_for_status(dead.port(), "unhealthy");
    let routes = ["here", "there"];
    let calls = routes.map(|name| call(&format!("/{name}"), &[("X-Route", name)], CHAT));
    under_load(gateway.proxy, &calls, |load| {
        for turn in 1..=12 {
            gateway.reload(&with(turn));
            load.pass(1);
            let count = || routes.map(|name| with_header(&alive, "x-route", name));
            let before = count();
            load.pass(6);
            let after = count();
            // Who is alive stands in the route whose turn it is.
            let used = [0, 1].map(|at| after[at] > before[at]);
            assert_eq!(used, [turn % 2 == 1, turn % 2 == 0], "turn {turn}");
        }
    });
    assert_eq!(dead.hits(), 0);
    let target = format!("/{}", ends.1);
    assert!(alive.requests().iter().all(|one| one.target == target));
}

/// Two ends of equal length that give the two beginnings, whose lengths are equal too, one CRC-32. As that is
/// linear, so have all texts around them that are equal otherwise.
fn collision(one: &str, other: &str) -> (String, String) {
    assert_eq!(one.len(), other.len());
    let (one, other) = (crc32(!0, one.as_bytes()), crc32(!0, other.as_bytes()));
    // All of its digits change with the number, so that the digests are as good as random: some 100,000 do.
    let end = |number: u64| format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut seen = HashMap::new();
    for number in 0..10_000_000 {
        let text = end(number);
        seen.insert(crc32(one, text.as_bytes()), number);
        if let Some(before) = seen.get(&crc32(other, text.as_bytes())) {
            return (end(*before), text);
        }
    }
    panic!("no collision, which is as good as impossible");
}

/// What `state`, which is `!0` at first, is after these bytes (without the complement at the end).
fn crc32(state: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(state, |state, byte| {
        (0..8).fold(state ^ u32::from(*byte), |state, _| {
            let is_odd = state & 1 == 1;
            (state >> 1) ^ if is_odd { 0xedb8_8320 } else { 0 }
        })
    })
}

/// a route that shares a target with another one drops it and takes it back, again and again. What the
/// other one knows of it, which is more than whether it is usable, is not overwritten.
#[test]
fn r15_who_takes_a_target_back_overwrites_nothing() {
    let (alive, dead) = (Upstream::named("alive"), Upstream::named("dead"));
    dead.set_healthy(false);
    // One good probe makes it mostly unhealthy, and far more would make it healthy.
    let mut careful = checked("dead", &dead, "/health");
    careful["checks"]["active"]["healthy"]["successes"] = json!(200);
    let pair = [checked("alive", &alive, "/health"), careful];
    let stays = route("stays", &pair);
    let with = |count: usize| document(&[stays.clone(), route("comes", &pair[..count])]);
    let gateway = start(&with(2));
    gateway.wait_for_status(dead.port(), "unhealthy");
    dead.set_healthy(true);
    gateway.wait_for_status(dead.port(), "mostly_unhealthy");
    let shown = || {
        let all = gateway.control("/v1/targets").json();
        let of_dead = |one: &&Value| one["port"] == dead.port();
        let all = all.as_array().expect("a list").iter().filter(of_dead);
        let all: Vec<Value> = all.cloned().collect();
        assert_eq!(all.len(), 1, "one target, whoever asks for it: {all:?}");
        let successes = all[0]["counter"]["success"].as_u64();
        (
            all[0]["id"].clone(),
            all[0]["state"].clone(),
            successes.expect("a number"),
        )
    };
    let first = shown();
    let calls = ["/stays", "/comes"].map(|path| call(path, &[], CHAT));
    under_load(gateway.proxy, &calls, |load| {
        let mut last = first.clone();
        let enough = dead.probes().len() + 3;
        for turn in 0.. {
            gateway.reload(&with(1 + turn % 2));
            let now = shown();
            assert_eq!((&now.0, &now.1), (&first.0, &first.1), "turn {turn}");
            assert!(now.2 >= last.2, "{now:?} after {last:?}");
            last = now;
            load.pass(1);
            if turn > 20 && dead.probes().len() >= enough {
                break;
            }
        }
        assert!(last.2 > first.2, "it went on being counted");
    });
    assert_eq!(dead.hits(), 0);
}
