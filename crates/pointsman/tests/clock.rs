//! A gateway whose wall clock is set while it runs: two hours ahead, or back. Whatever it waits for, it waits
//! for as long as it would have.

#![allow(
    clippy::disallowed_methods,
    reason = "from outside, there is no clock but the real one"
)]

mod support;

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use support::{
    Answer, CHAT, Gateway, NameServer, Start, Upstream, Zone, chat, chat_until, flow_route, get,
    instance, movable_clock::MovableClock, post_json, skip, wait_until,
};

const HOUR: i64 = 3600;

/// Ahead, then back behind where it was.
const JUMPS: [i64; 2] = [2 * HOUR, -2 * HOUR];

fn movable() -> Option<MovableClock> {
    let clock = MovableClock::new();
    if clock.is_none() {
        skip::loudly(
            "a clock that jumps",
            "no library can be put before that of C",
        );
    }
    clock
}

fn start(clock: &MovableClock, document: &str, apisix: &str) -> Gateway {
    let environment = clock.environment();
    let environment = environment
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    Gateway::start_with(Start {
        document,
        apisix,
        environment: &environment,
        ..Start::default()
    })
}

/// Sets the clock, and sees that the gateway goes by it.
fn jump(clock: &MovableClock, gateway: &Gateway, ahead: i64) {
    clock.set(ahead);
    let answer = get(gateway.proxy, "/no/such/route", &[]);
    let date = httpdate::parse_http_date(answer.header("date").expect("a date")).expect("a date");
    let off = seconds(date) - (seconds(SystemTime::now()) + ahead);
    assert!(off.abs() < HOUR / 2, "{off} s off, set to {ahead}");
}

fn seconds(at: SystemTime) -> i64 {
    let since = at.duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_secs()).expect("small")
}

fn checked(name: &str, upstream: &Upstream) -> String {
    let checks = ", checks: {active: {type: http, http_path: /health, healthy: {interval: 1, successes: 1}, \
                  unhealthy: {interval: 1, http_failures: 2}}}";
    instance(name, upstream.address, checks)
}

/// The route of all tests; anything else is a 404.
fn route(instances: &[String], more: &str) -> String {
    flow_route(instances, more).replace("uri: /*", "uri: /x")
}

/// Verdicts stay, probes go on in time, and verdicts change as ever.
#[test]
fn a_jump_of_the_clock_changes_no_verdict() {
    let Some(clock) = movable() else { return };
    let (alive, other) = (Upstream::named("alive"), Upstream::named("other"));
    let pair = [checked("alive", &alive), checked("other", &other)];
    let gateway = start(&clock, &route(&pair, ""), "");
    for ahead in JUMPS {
        other.set_healthy(false);
        gateway.wait_for_status(other.port(), "unhealthy");
        jump(&clock, &gateway, ahead);
        let before = other.hits();
        let probed = [&alive, &other].map(|one| one.probes().len());
        for one in [(&alive, probed[0]), (&other, probed[1])] {
            one.0.wait_for_probes(one.1 + 2);
        }
        for _ in 0..10 {
            assert_eq!(chat(&gateway), 200);
        }
        assert_eq!(other.hits(), before, "{ahead}");
        other.set_healthy(true);
        gateway.wait_for_status(other.port(), "healthy");
        chat_until("its turn", &gateway, || other.hits() > before);
    }
}

/// A 429 with a date `wait` ahead by that clock, once; then answers.
fn busy_once(ahead: i64, wait: Duration) -> Upstream {
    let said = std::sync::atomic::AtomicBool::new(false);
    Upstream::start(move |_| {
        if said.swap(true, std::sync::atomic::Ordering::SeqCst) {
            return Answer::chat("busy");
        }
        let now = SystemTime::now() + wait;
        let shift = Duration::from_secs(ahead.unsigned_abs());
        let date = if ahead < 0 { now - shift } else { now + shift };
        Answer::Whole {
            status: 429,
            kind: "application/json",
            body: "{}".to_owned(),
            headers: vec![("retry-after", httpdate::fmt_http_date(date))],
        }
    })
}

/// A date is as far off as it was when it came, whatever the clock says later: neither does a jump ahead end a
/// cool-down, nor does one back draw it out.
#[test]
fn cool_downs_until_a_date_outlast_jumps_and_are_not_drawn_out() {
    let Some(clock) = movable() else { return };
    for (first, then) in [(0, 2 * HOUR), (0, -2 * HOUR), (-2 * HOUR, 0)] {
        let good = Upstream::named("good");
        let long = busy_once(first, Duration::from_secs(1800));
        let short = busy_once(first, Duration::from_secs(4));
        let three = [
            instance("good", good.address, ""),
            instance("long", long.address, ""),
            instance("short", short.address, ""),
        ];
        let more = ", fallback_strategy: [http_429], cooldown: {max_ms: 3600000}";
        clock.set(first);
        let gateway = start(&clock, &route(&three, more), "");
        jump(&clock, &gateway, first);
        chat_until("both to be busy", &gateway, || {
            long.hits() == 1 && short.hits() == 1
        });
        gateway.wait_for_lines("its quota is used up", 2);
        jump(&clock, &gateway, then);
        chat_until("the short one to be back", &gateway, || short.hits() > 1);
        assert_eq!(long.hits(), 1, "{first} {then}");
    }
}

/// The lifetime of records is kept: what lasts is not asked for again, and what does not is.
#[test]
fn names_live_as_long_as_they_do() {
    let Some(clock) = movable() else { return };
    let names = NameServer::start();
    let at = |last: u8, port: u16| SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), port));
    let a = Upstream::start_at(at(2, 0), |_| Answer::chat("a"));
    let b = Upstream::start_at(at(3, a.port()), |_| Answer::chat("b"));
    let port = a.port();
    let [of_a, of_b] = [2, 3].map(|last| Ipv4Addr::new(127, 0, 0, last));
    names.set("long.test", Zone::Records(vec![of_a], 3600));
    names.set("short.test", Zone::Records(vec![of_a], 1));
    let document = format!(
        "routes: [{{id: 1, uri: /long, upstream: {{nodes: {{\"long.test:{port}\": 1}}}}}}, \
         {{id: 2, uri: /short, upstream: {{nodes: {{\"short.test:{port}\": 1}}}}}}]"
    );
    let gateway = start(&clock, &document, &names.settings());
    let asked = |name: &str| names.asked(name).len();
    for (ahead, to, there) in [(JUMPS[0], of_b, &b), (JUMPS[1], of_a, &a)] {
        jump(&clock, &gateway, ahead);
        let before = (asked("long.test"), asked("short.test"));
        // A for both families.
        wait_until("more questions", || {
            (asked("short.test") >= before.1 + 6).then_some(())
        });
        names.set("short.test", Zone::Records(vec![to], 1));
        let hits = there.hits();
        wait_until("the other address", || {
            assert_eq!(post_json(gateway.proxy, "/short", CHAT).status, 200);
            (there.hits() > hits).then_some(())
        });
        assert_eq!(get(gateway.proxy, "/long", &[]).status, 200);
        assert_eq!(asked("long.test"), before.0, "{ahead}");
    }
}

/// What is written down is of the time that the clock shows, soon after it was set: the next process, which goes
/// by that, finds it neither too old nor from the future.
#[test]
fn the_health_file_follows_the_clock() {
    let Some(clock) = movable() else { return };
    let (alive, dead) = (Upstream::named("alive"), Upstream::named("dead"));
    dead.set_healthy(false);
    let pair = [checked("alive", &alive), checked("dead", &dead)];
    let mut gateway = start(&clock, &route(&pair, ""), "");
    gateway.wait_for_status(dead.port(), "unhealthy");
    let file = gateway.folder().join("logs/health.state");
    for ahead in JUMPS {
        jump(&clock, &gateway, ahead);
        wait_until("the file to be of this time", || {
            let text = std::fs::read_to_string(&file).ok()?;
            let saved = text.lines().find_map(|line| line.strip_prefix("saved "))?;
            let saved: i64 = saved.parse().expect("milliseconds");
            let off = saved / 1000 - (seconds(SystemTime::now()) + ahead);
            (off.abs() < HOUR / 2 && text.contains(" unhealthy ")).then_some(())
        });
        gateway.signal("KILL");
        gateway.wait_for_exit();
        let before = dead.hits();
        gateway.start_again(1);
        for _ in 0..10 {
            assert_eq!(chat(&gateway), 200);
        }
        assert_eq!(dead.hits(), before, "{ahead}");
        let log = gateway.stderr();
        assert!(log.contains("health restored"), "{log}");
    }
}
