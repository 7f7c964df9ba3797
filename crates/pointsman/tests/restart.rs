//! Health over a restart: what one process knew, the next one knows before its first request.

mod support;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use support::{
    Answer, CHAT, Gateway, Start, Upstream, ask, client::Connection, post_json, replace,
    wait_until, write_config, write_document,
};

/// A target is found out only after three probes, one a second: long after the first requests.
fn checked(name: &str, upstream: &Upstream, path: &str, interval: u64) -> Value {
    json!({
        "name": name, "provider": "openai-compatible", "weight": 1,
        "auth": {"header": {"Authorization": "Bearer sesame"}},
        "override": {"endpoint": format!("http://{}", upstream.address)},
        "checks": {"active": {
            "http_path": path,
            "healthy": {"interval": 1, "successes": 1},
            "unhealthy": {"interval": interval, "http_failures": 3}
        }}
    })
}

/// A gateway in front of two, of which one is known to be dead, and that is written down.
struct Outage {
    alive: Upstream,
    dead: Upstream,
    gateway: Gateway,
}

impl Outage {
    fn new() -> Self {
        Self::every(1)
    }

    /// One that probes an unhealthy target once in that many seconds.
    fn every(interval: u64) -> Self {
        Self::with(Upstream::named("alive"), interval)
    }

    fn with(alive: Upstream, interval: u64) -> Self {
        let dead = Upstream::named("dead");
        dead.set_healthy(false);
        let document = document(&alive, &dead, "/health", interval);
        let gateway = Gateway::start_with(Start {
            document: &document,
            workers: 4,
            ..Start::default()
        });
        gateway.wait_for_status(dead.port(), "unhealthy");
        let outage = Self {
            alive,
            dead,
            gateway,
        };
        outage.wait_for_file();
        outage
    }

    fn path(&self) -> PathBuf {
        self.gateway.folder().join("logs/health.state")
    }

    fn file(&self) -> String {
        std::fs::read_to_string(self.path()).unwrap_or_default()
    }

    fn wait_for_file(&self) -> String {
        wait_until("the verdict to be written down", || {
            Some(self.file()).filter(|text| text.contains(" unhealthy "))
        })
    }

    fn end(&mut self, signal: &str) {
        self.gateway.signal(signal);
        self.gateway.wait_for_exit();
    }

    /// Ends it without a word, changes the file, and starts again.
    fn restart_with(&mut self, file: &[u8]) {
        self.end("KILL");
        std::fs::write(self.path(), file).expect("written");
        self.gateway.start_again(4);
    }

    /// How many of 20 requests the dead one received.
    fn hammer(&self) -> usize {
        let before = (self.alive.hits(), self.dead.hits());
        for _ in 0..20 {
            let response = post_json(self.gateway.proxy, "/v1/chat/completions", CHAT);
            assert_eq!(response.status, 200, "{}", response.text());
        }
        let dead = self.dead.hits() - before.1;
        assert_eq!(self.alive.hits() - before.0 + dead, 20);
        dead
    }

    /// The one line of the log that says why the file is of no use.
    fn complaint(&self) -> String {
        self.gateway.wait_for_line("ready");
        let log = self.gateway.stderr();
        let about = |line: &&str| line.contains("WARN") && line.contains("health.state");
        let lines: Vec<&str> = log.lines().filter(about).collect();
        assert_eq!(lines.len(), 1, "{log}");
        lines[0].to_owned()
    }
}

fn document(alive: &Upstream, dead: &Upstream, path: &str, interval: u64) -> String {
    let instances = [
        checked("alive", alive, path, interval),
        checked("dead", dead, path, interval),
    ];
    let plugins = json!({"ai-proxy-multi": {"instances": instances}});
    json!({"routes": [{"id": 1, "uri": "/*", "plugins": plugins}]}).to_string()
}

/// Whichever way it ends, and again and again.
#[test]
fn a_restart_in_an_outage_sends_nothing_to_the_dead() {
    let mut outage = Outage::new();
    for signal in ["KILL", "TERM", "INT", "KILL", "KILL"] {
        outage.end(signal);
        outage.gateway.start_again(4);
        let probes = outage.dead.probes().len();
        assert_eq!(outage.hammer(), 0, "{signal}");
        // What was counted is known, too, and the dead one is probed at once.
        let node = outage.gateway.wait_for_node("dead", |_| true);
        assert_eq!(node["status"], "unhealthy", "{signal}");
        assert_eq!(node["counter"]["http_failure"], 3, "{signal}");
        outage
            .gateway
            .wait_for_line("health verdict kept from before the restart");
        outage.dead.wait_for_probes(probes + 1);
        assert_eq!(outage.hammer(), 0, "{signal}");
    }
    // It is out until its probes succeed, and no longer.
    outage.dead.set_healthy(true);
    outage
        .gateway
        .wait_for_status(outage.dead.port(), "healthy");
    assert_eq!(outage.hammer(), 10);
    // That is remembered as well: the file says nothing against anybody.
    wait_until("the recovery to be written down", || {
        (!outage.file().contains(" unhealthy ")).then_some(())
    });
    outage.end("KILL");
    outage.gateway.start_again(4);
    assert_eq!(outage.hammer(), 10);
}

/// The same with clients that never stop asking: whoever is served, from the very first request of a process on,
/// is served by the one that is alive.
#[test]
fn a_restart_under_load_sends_nothing_to_the_dead() {
    let mut outage = Outage::new();
    let proxy = Mutex::new(outage.gateway.proxy);
    let (done, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let client = || {
        while !done.load(Ordering::SeqCst) {
            let address = *proxy.lock().expect("not poisoned");
            match try_chat(address) {
                Some(text) => {
                    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
                    answered.fetch_add(1, Ordering::SeqCst);
                }
                // There is no process just now, or it has ended in the middle.
                None => std::thread::park_timeout(Duration::from_millis(1)),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(client);
        }
        let ending = Ending(&done);
        for signal in ["KILL", "TERM", "INT", "KILL", "KILL"] {
            outage.end(signal);
            outage.gateway.start_again(4);
            let before = answered.load(Ordering::SeqCst);
            *proxy.lock().expect("not poisoned") = outage.gateway.proxy;
            wait_until("requests to be answered", || {
                let now = answered.load(Ordering::SeqCst);
                (now > before + 100).then_some(())
            });
            assert_eq!(outage.dead.hits(), 0, "{signal}");
        }
        drop(ending);
    });
    assert_eq!(outage.dead.hits(), 0);
    assert!(outage.alive.hits() > 500);
}

/// Ends the load, also when the part of the test that it goes with fails.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A chat request to who may be gone: all that came back, if that is a whole head.
fn try_chat(proxy: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(proxy).ok()?;
    stream.set_read_timeout(Some(support::DEADLINE)).ok()?;
    let length = CHAT.len();
    let head = format!(
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nConnection: close\r\n\
         Content-Length: {length}\r\n\r\n{CHAT}"
    );
    stream.write_all(head.as_bytes()).ok()?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text).into_owned();
    text.contains("\r\n\r\n").then_some(text)
}

/// The guard of an instance, once that is out.
fn out(gateway: &Gateway, instance: &str) -> Value {
    let end = format!("({instance})");
    wait_until(&format!("{instance} to be out"), || {
        let all = gateway.control("/v1/targets");
        assert!(!all.text().contains("sesame"), "{}", all.text());
        let is_guard = |one: &Value| {
            let name = one["name"].as_str().unwrap_or_default();
            let is_credential = name.starts_with("the credential");
            name.contains("/routes/1") && name.ends_with(&end) && !is_credential
        };
        let mut all = all.json().as_array().cloned()?.into_iter();
        all.find(|one| is_guard(one) && one["usable"] == false)
    })
}

/// Waits that an instance asked for, and circuits that are open, go on to their end.
#[test]
fn cool_downs_and_open_circuits_survive() {
    let limited = Upstream::start(|_| Answer::Whole {
        status: 429,
        kind: "application/json",
        body: "{}".to_owned(),
        headers: vec![("Retry-After", "60".to_owned())],
    });
    let (failing, fine) = (Upstream::failing(500), Upstream::named("fine"));
    let at = |name: &str, upstream: &Upstream, priority: i32| {
        json!({
            "name": name, "provider": "openai-compatible", "weight": 1, "priority": priority,
            "auth": {"header": {"Authorization": "Bearer sesame"}},
            "override": {"endpoint": format!("http://{}", upstream.address)}
        })
    };
    let plugin = json!({
        "instances": [at("limited", &limited, 2), at("failing", &failing, 1), at("fine", &fine, 0)],
        "fallback_strategy": ["http_429", "http_5xx"],
        "cooldown": {}, "circuit_breaker": {"failures": 1, "open_ms": 60_000}
    });
    let route = json!({"id": 1, "uri": "/*", "plugins": {"ai-proxy-multi": plugin}});
    let mut gateway = Gateway::start(&json!({"routes": [route]}).to_string());
    for round in 0..3 {
        for _ in 0..10 {
            let response = post_json(gateway.proxy, "/x", CHAT);
            assert_eq!(response.status, 200, "{}", response.text());
            if round == 0 {
                // Once is what it takes to learn it.
                out(&gateway, "limited");
                out(&gateway, "failing");
            }
        }
        assert_eq!((limited.hits(), failing.hits()), (1, 1), "round {round}");
        let cools = out(&gateway, "limited")["cools_until"]["seconds"].clone();
        assert!(
            cools
                .as_f64()
                .is_some_and(|left| left > 1.0 && left <= 60.0),
            "{cools}"
        );
        let guard = out(&gateway, "failing");
        assert_eq!(guard["circuit"], "open", "{guard}");
        let path = gateway.folder().join("logs/health.state");
        let file = wait_until("both to be written down", || {
            let text = std::fs::read_to_string(&path).ok()?;
            (text.matches("\nguard ").count() == 2).then_some(text)
        });
        assert!(!file.contains("sesame"), "{file}");
        gateway.signal(["KILL", "TERM", "KILL"][round]);
        gateway.wait_for_exit();
        gateway.start_again(2);
    }
    gateway.metric(&[
        "pointsman_health_changes_total{",
        "(limited)",
        "to=\"unhealthy\"",
    ]);
}

/// I-28: without a file, everything is healthy until it is probed.
#[test]
fn without_a_file_everything_begins_healthy() {
    let mut outage = Outage::new();
    outage.end("KILL");
    std::fs::remove_file(outage.path()).expect("there was one");
    outage.gateway.start_again(4);
    assert!(outage.hammer() > 0);
}

/// What is written before the end holds what was found out last.
#[test]
fn a_drain_writes_it_down_once_more() {
    let silent = Upstream::start(|_| Answer::Silence);
    let mut outage = Outage::with(silent, 1);
    // A request that does not end, so that evidence comes after the drain's beginning, which writes, too.
    let mut client = Connection::open(outage.gateway.proxy);
    ask(&mut client, CHAT);
    wait_until("the request to arrive", || {
        (outage.alive.hits() == 1).then_some(())
    });
    outage.gateway.signal("TERM");
    outage.gateway.wait_for_line("draining");
    // A regular write, one in five seconds, may come in between: then once more.
    let before = wait_until("evidence that is not in the file", || {
        let (file, before) = (outage.file(), now_ms());
        outage.dead.wait_for_probes(outage.dead.probes().len() + 2);
        (outage.file() == file).then_some(before)
    });
    outage.end("INT");
    let file = outage.file();
    let line = file.lines().find(|line| line.contains(" unhealthy "));
    let (_, at) = line.and_then(|line| line.rsplit_once(' ')).expect("a time");
    let at: i64 = at.parse().expect("a number");
    assert!(at >= before, "{at} is before {before}: {file}");
}

/// A document that is still being written does not cost the verdicts.
#[test]
fn verdicts_wait_for_the_document() {
    let mut outage = Outage::new();
    outage.end("KILL");
    let path = outage.gateway.folder().join("apisix.yaml");
    let document = std::fs::read_to_string(&path).expect("written before");
    replace(&path, &document.replace("#END", ""));
    outage.gateway.start_again(4);
    let log = outage.gateway.wait_for_line("waiting for it");
    assert!(log.contains("apisix.yaml"), "{log}");
    // A second end in this state loses nothing either.
    outage.gateway.wait_for_line("ready");
    outage.end("TERM");
    outage.gateway.start_again(4);
    outage.gateway.wait_for_line("ready");
    outage.gateway.reload(&document.replace("#END", ""));
    assert_eq!(outage.hammer(), 0);
}

#[test]
fn a_damaged_file_is_one_warning_and_a_fresh_start() {
    let mut outage = Outage::new();
    let good = outage.file();
    let half = good.as_bytes()[..good.len() / 2].to_vec();
    let flipped = good.replace(" unhealthy ", " mostly_healthy ");
    for damaged in [half, flipped.into_bytes(), vec![0xff; 300], Vec::new()] {
        outage.restart_with(&damaged);
        let complaint = outage.complaint();
        assert!(complaint.contains("damaged or cut off"), "{complaint}");
        assert!(outage.hammer() > 0);
        // It goes on as if there had been none, and replaces the file.
        outage
            .gateway
            .wait_for_status(outage.dead.port(), "unhealthy");
        outage.wait_for_file();
    }
    outage.restart_with(sealed(&good, "pointsman-health 1", "pointsman-health 2").as_bytes());
    let complaint = outage.complaint();
    assert!(complaint.contains("another version"), "{complaint}");
    assert!(outage.hammer() > 0);
}

/// Evidence counts for ten intervals, and for a minute at least.
#[test]
fn an_old_file_is_not_used() {
    for (interval, age, is_used) in [(1, 50, true), (1, 62, false), (9, 80, true), (9, 95, false)] {
        let mut outage = Outage::every(interval);
        let aged = aged(&outage.file(), age);
        outage.restart_with(aged.as_bytes());
        assert_eq!(outage.hammer() == 0, is_used, "{age} s at {interval} s");
    }
}

#[test]
fn a_file_from_the_future_is_one_warning_and_a_fresh_start() {
    let mut outage = Outage::new();
    let future = aged(&outage.file(), -60);
    outage.restart_with(future.as_bytes());
    let complaint = outage.complaint();
    assert!(complaint.contains("s in the future"), "{complaint}");
    assert!(outage.hammer() > 0);
}

/// What is probed in another way is another target: it begins healthy (I-10).
#[test]
fn another_configuration_finds_nothing_of_its_own() {
    let mut outage = Outage::new();
    outage.end("KILL");
    let document = document(&outage.alive, &outage.dead, "/health?other", 1);
    write_document(outage.gateway.folder(), &document);
    outage.gateway.start_again(4);
    assert!(outage.hammer() > 0);
}

/// No credential, no address, no path: and not what the next process writes of the same target.
#[test]
fn the_file_says_nothing_to_others() {
    let mut outage = Outage::new();
    let first = outage.wait_for_file();
    for word in ["sesame", "Bearer", "Authorization", "127.0.0.1", "/health"] {
        assert!(!first.contains(word), "{word} in {first}");
    }
    let name = |text: &str| {
        let line = text.lines().find(|line| line.starts_with("target "));
        line.expect("a target").split(' ').nth(1).map(str::to_owned)
    };
    outage.end("KILL");
    outage.gateway.start_again(1);
    let second = wait_until("the next process to write it", || {
        Some(outage.file()).filter(|text| *text != first && text.contains(" unhealthy "))
    });
    assert_ne!(name(&first), name(&second));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let metadata = std::fs::metadata(outage.path()).expect("it is there");
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    }
    // Nothing is left beside it.
    let logs = outage.gateway.folder().join("logs");
    let names = std::fs::read_dir(logs).expect("a folder");
    let names = names.map(|entry| entry.expect("an entry").file_name());
    assert_eq!(names.collect::<Vec<_>>(), ["health.state"]);
}

/// Where nothing can be written, one line says so, and all else works.
#[test]
fn a_folder_that_cannot_be_written_to_is_one_warning() {
    let alive = Upstream::named("alive");
    let dead = Upstream::named("dead");
    dead.set_healthy(false);
    let folder = tempfile::tempdir().expect("a folder");
    let config = config_of(folder.path(), "health_state_file: ../missing/health.state");
    let document = document(&alive, &dead, "/health", 1);
    let gateway = Gateway::start(&document);
    // The same settings but for the file; and then a start with them.
    let own = gateway.folder().join("config.yaml");
    let mut outage = Outage {
        alive,
        dead,
        gateway,
    };
    outage.end("KILL");
    std::fs::write(own, config).expect("written");
    outage.gateway.start_again(1);
    outage
        .gateway
        .wait_for_line("`pointsman.health_state_file`");
    outage
        .gateway
        .wait_for_status(outage.dead.port(), "unhealthy");
    assert_eq!(outage.hammer(), 0);
    outage.end("TERM");
    let complaint = outage.complaint();
    assert!(complaint.contains("missing/health.state"), "{complaint}");
    assert!(complaint.contains("cannot be written"), "{complaint}");
}

/// By default, in the folder `logs` beside that of `config.yaml`; or nowhere.
#[test]
fn the_default_place_is_the_folder_logs() {
    let root = tempfile::tempdir().expect("a folder");
    let (conf, logs) = (root.path().join("conf"), root.path().join("logs"));
    for folder in [&conf, &logs] {
        std::fs::create_dir(folder).expect("made");
    }
    let document = format!(
        "routes: [{{id: 1, uri: /*, upstream: {{nodes: {{\"{}\": 1}}, checks: {{active: {{type: tcp}}}}}}}}]",
        Upstream::nobody()
    );
    let start = |setting: &str| {
        std::fs::write(conf.join("config.yaml"), config_of(&conf, setting)).expect("written");
        write_document(&conf, &document);
        Gateway::start_in(&conf)
    };
    let gateway = start("");
    wait_until("the file", || {
        logs.join("health.state").exists().then_some(())
    });
    assert!(!gateway.stderr().contains("cannot be written"));
    drop(gateway);
    std::fs::remove_file(logs.join("health.state")).expect("removed");
    let mut gateway = start("health_state_file: false");
    gateway.wait_for_line("health verdict changed");
    gateway.signal("TERM");
    gateway.wait_for_exit();
    assert!(!logs.join("health.state").exists());
}

/// A `config.yaml` of the usual kind, with another line about the file.
fn config_of(folder: &std::path::Path, line: &str) -> String {
    write_config(folder, "", "");
    let text = std::fs::read_to_string(folder.join("config.yaml")).expect("written");
    let other = |own: &str| {
        let about = own.trim_start().starts_with("health_state_file");
        if about {
            format!("  {line}\n")
        } else {
            format!("{own}\n")
        }
    };
    text.lines().map(other).collect()
}

/// The file as it would be had it been written that many seconds earlier.
fn aged(file: &str, seconds: i64) -> String {
    let then = now_ms() - seconds * 1000;
    let mut text = String::new();
    for line in file.lines().filter(|line| !line.starts_with("sha256 ")) {
        let mut words: Vec<&str> = line.split(' ').collect();
        let then = then.to_string();
        if matches!(words[0], "saved" | "target") {
            words.pop();
            words.push(&then);
        }
        text.push_str(&words.join(" "));
        text.push('\n');
    }
    seal(&text)
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(now.expect("after 1970").as_millis()).expect("small")
}

/// The file with other words, and a sum that is right.
fn sealed(file: &str, from: &str, to: &str) -> String {
    let (body, _) = file.rsplit_once("sha256 ").expect("it ends in a sum");
    assert!(body.contains(from), "{body}");
    seal(&body.replace(from, to))
}

fn seal(body: &str) -> String {
    let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body.as_bytes());
    let sum: String = (sum.as_ref().iter())
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{body}sha256 {sum}\n")
}
