//! `pointsman explain`: picks that real requests made, made again from the access log alone.

mod support;

use std::{
    fmt::Write as _,
    io::Write as _,
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use support::{
    Answer, CHAT, Gateway, Start, Upstream,
    embeddings::{Embeddings, Three},
    get, multi, post_json, request, run, wait_until,
};

fn instance(name: &str, upstream: &Upstream, priority: i32) -> Value {
    json!({
        "name": name, "provider": "openai-compatible", "weight": 1, "priority": priority,
        "auth": {"header": {"Authorization": format!("Bearer sesame-{name}")}},
        "override": {"endpoint": format!("http://{}", upstream.address)}
    })
}

fn checked(mut instance: Value) -> Value {
    instance["checks"] = json!({"active": {
        "http_path": "/health",
        "healthy": {"interval": 1, "successes": 1},
        "unhealthy": {"interval": 1, "http_failures": 1, "tcp_failures": 1}
    }});
    instance
}

fn route(id: &str, plugin: &Value) -> Value {
    json!({"id": id, "uri": format!("/{id}"), "plugins": {
        "ai-proxy-multi": plugin,
        "request-id": {"include_in_response": true}
    }})
}

/// What `explain` says of the access log of `gateway`, or of `lines` in its place.
fn explain(gateway: &Gateway, lines: Option<&[Value]>, more: &[&str]) -> (Option<i32>, String) {
    let folder = gateway.folder();
    let config = folder.join("config.yaml").display().to_string();
    let log = folder.join("some.log");
    let mut arguments = vec!["explain", "--config", &config];
    let path = log.display().to_string();
    if let Some(lines) = lines {
        let text = lines.iter().fold(String::new(), |mut text, line| {
            let _ = writeln!(text, "{line}");
            text
        });
        std::fs::write(&log, text).expect("written");
        arguments.extend(["--log", &path]);
    }
    arguments.extend(more);
    let (code, stdout, stderr) = run(&arguments);
    assert!(!stdout.contains("sesame"), "{stdout}");
    (code, stdout + &stderr)
}

fn explained(gateway: &Gateway, lines: &[Value]) -> Vec<Value> {
    let (code, text) = explain(gateway, Some(lines), &["--json"]);
    let all: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("a JSON line"))
        .collect();
    assert_eq!(code, Some(0), "{text}");
    all
}

/// All picks of all requests.
fn picks(explained: &[Value]) -> Vec<&Value> {
    let lists = explained.iter().filter_map(|one| one["picks"].as_array());
    lists.flatten().collect()
}

/// Requests by four clients at once, to four workers: whatever each pick saw of the others is in its line.
#[test]
fn concurrent_picks_of_every_algorithm_have_the_same_answer() {
    let [one, two, three] = ["one", "two", "three"].map(Upstream::named);
    let (failing, dead) = (Upstream::failing(500), Upstream::named("dead"));
    dead.set_healthy(false);
    let instances = [
        checked(instance("dead", &dead, 1)),
        instance("failing", &failing, 1),
        checked(instance("one", &one, 1)),
        instance("two", &two, 1),
        instance("three", &three, 0),
    ];
    let routes = ALGORITHMS.map(|algorithm| {
        let balancer = match algorithm {
            "chash" => json!({"algorithm": "chash", "hash_on": "header", "key": "x-user"}),
            _ => json!({"algorithm": algorithm}),
        };
        let plugin = json!({
            "instances": instances, "balancer": balancer, "fallback_strategy": ["http_5xx"],
            "retry": {"attempts": 1, "backoff_ms": 1}
        });
        route(algorithm, &plugin)
    });
    let document = json!({"routes": routes}).to_string();
    let gateway = Gateway::start_with(Start {
        document: &document,
        workers: 4,
        ..Start::default()
    });
    gateway.wait_for_status(dead.port(), "unhealthy");
    std::thread::scope(|scope| {
        for client in 0..4 {
            let proxy = gateway.proxy;
            scope.spawn(move || {
                for number in 0..15 {
                    let user = format!("sesame-{client}-{number}");
                    let headers = [("Content-Type", "application/json"), ("x-user", &*user)];
                    for algorithm in ALGORITHMS {
                        let path = format!("/{algorithm}");
                        let answer = request(proxy, "POST", &path, &headers, CHAT);
                        assert_eq!(answer.status, 200, "{}", answer.text());
                    }
                }
            });
        }
    });
    let log = gateway.access_log(4 * 15 * 4);
    let explained = explained(&gateway, &log);
    assert_eq!(explained.len(), log.len());
    for algorithm in ALGORITHMS {
        check_concurrent(&explained, algorithm);
    }
}

/// All picks of 60 requests past `dead`, some of which went to `failing` first.
fn check_concurrent(explained: &[Value], algorithm: &str) {
    let of_it = explained.iter().filter(|one| one["algorithm"] == algorithm);
    let of_it: Vec<Value> = of_it.cloned().collect();
    assert_eq!(of_it.len(), 60, "{algorithm}");
    let picks = picks(&of_it);
    // Those that went to `failing` were repeated there, and then tried elsewhere.
    assert!(picks.len() > 60, "{algorithm}");
    let again = picks
        .iter()
        .filter(|pick| pick["decided"].to_string().contains("once more"));
    assert!(again.count() > 0, "{algorithm}");
    assert!(
        picks.iter().any(|pick| pick["tried"] == json!(["failing"])),
        "{algorithm}"
    );
    for pick in picks {
        assert_eq!(pick["same"], true, "{algorithm}: {pick}");
        assert_eq!(
            pick["excluded"],
            json!([{"member": "dead", "reasons": ["unhealthy"]}]),
            "{algorithm}: {pick}"
        );
        assert_eq!(pick["tier"]["priority"], 1, "{algorithm}: {pick}");
    }
}

const ALGORITHMS: [&str; 4] = ["roundrobin", "chash", "least_conn", "ewma"];

/// What an operator reads: who was eligible, who was left out and why, what decided.
#[test]
fn a_person_is_told_why() {
    let [one, two] = ["one", "two"].map(Upstream::named);
    let dead = Upstream::nobody();
    let nodes = json!([
        {"host": "127.0.0.1", "port": dead.port(), "weight": 1, "priority": 5},
        {"host": "127.0.0.1", "port": one.port(), "weight": 2, "priority": -1},
        {"host": "127.0.0.1", "port": two.port(), "weight": 0, "priority": -1},
    ]);
    let upstream = json!({"type": "roundrobin", "nodes": nodes, "checks": {"active": {
        "http_path": "/health",
        "healthy": {"interval": 1},
        "unhealthy": {"interval": 1, "tcp_failures": 1}
    }}});
    let routes = json!([{"id": "r", "uri": "/*", "upstream": upstream}]);
    let gateway = Gateway::start(&json!({"routes": routes}).to_string());
    gateway.wait_for_status(dead.port(), "unhealthy");
    assert_eq!(get(gateway.proxy, "/x?y=1", &[]).status, 200);
    gateway.access_log(1);
    // Its own access log, when none is named.
    let (code, text) = explain(&gateway, None, &[]);
    assert_eq!(code, Some(0), "{text}");
    for part in [
        "line 1: 2",
        " GET /x?y=1: 200, route r\n",
        "  pool /routes/r: roundrobin, 3 member(s)\n",
        &format!(
            "  attempt 1 went to {}, by the verdicts of epoch ",
            one.address
        ),
        "; answered 200\n",
        &format!("    left out: {dead} (unhealthy)\n"),
        &format!("    eligible at priority -1: {}\n", one.address),
        &format!("    eligible at priority -1, weight 0: {}\n", two.address),
        "    picked at priority -1\n",
        "    decided by: the next eligible one in turn, from position 0 of the cycle on\n",
        &format!("    replayed: {}; same answer: yes\n", one.address),
        "1 line(s): 1 pick(s) replayed with the same answer, 0 with another, 0 not replayable; \
         0 line(s) without picks, 0 not explained\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

/// Guards, trials, and picks that ignore health.
#[test]
fn traffic_that_spoke_against_a_member_is_a_reason() {
    let limited = Upstream::start(|_| Answer::Whole {
        status: 429,
        kind: "application/json",
        body: "{}".to_owned(),
        headers: vec![("Retry-After", "60".to_owned())],
    });
    let (failing, fine) = (Upstream::failing(500), Upstream::named("fine"));
    let plugin = json!({
        "instances": [
            instance("limited", &limited, 3),
            instance("failing", &failing, 2),
            instance("fine", &fine, 1)
        ],
        "fallback_strategy": ["http_429", "http_5xx"],
        "cooldown": {},
        "circuit_breaker": {"failures": 1, "open_ms": 10}
    });
    let alone = json!({
        "instances": [instance("limited", &limited, 0)],
        "cooldown": {}
    });
    let routes = json!({"routes": [route("some", &plugin), route("alone", &alone)]});
    let gateway = Gateway::start(&routes.to_string());
    let send = |path: &str| post_json(gateway.proxy, path, CHAT).status;
    assert_eq!(send("/some"), 200);
    wait_until("the circuit to ask for a trial", || {
        let all = gateway.control("/v1/targets").json();
        let mut all = all.as_array().cloned()?.into_iter();
        all.find(|one| one["circuit"] == "half_open")
    });
    assert_eq!(send("/some"), 200);
    // The same address, credential and model: what is known of it holds here, too.
    assert_eq!(send("/alone"), 429);
    let explained = explained(&gateway, &gateway.access_log(3));
    let all = picks(&explained);
    let told = |pick: &Value| {
        (
            pick["member"].clone(),
            pick["trial"].clone(),
            pick["failed_open"].clone(),
        )
    };
    let members: Vec<_> = all.iter().map(|pick| pick["member"].as_str()).collect();
    let expected = ["limited", "failing", "fine", "failing", "fine", "limited"].map(Some);
    assert_eq!(members, expected, "{all:#?}");
    assert!(all.iter().all(|pick| pick["same"] == true), "{all:#?}");
    assert_eq!(told(all[3]), (json!("failing"), json!(true), json!(false)));
    let reasons = |pick: &Value, member: &str| {
        let excluded = pick["excluded"].as_array().cloned().unwrap_or_default();
        let found = excluded.into_iter().find(|one| one["member"] == member);
        found.map(|one| one["reasons"].clone())
    };
    assert_eq!(reasons(all[3], "limited"), Some(json!(["cooldown"])));
    assert_eq!(reasons(all[3], "failing"), Some(json!(["circuit"])));
    assert_eq!(told(all[5]), (json!("limited"), json!(false), json!(true)));
    assert_eq!(reasons(all[5], "limited"), Some(json!(["cooldown"])));
}

#[test]
fn an_order_of_likeness_is_replayed() {
    let (embeddings, three) = (Embeddings::start(), Three::start());
    let options = embeddings.options(", threshold: 0.9, fallback: default", "");
    let gateway = Gateway::start(&multi(&three.instances(""), &options));
    gateway.wait_for_line("the examples have their vectors");
    for prompt in ["fix my code", "please translate", "what is the weather"] {
        let messages = json!([{"role": "user", "content": prompt}]);
        let body = json!({"model": "m", "messages": messages}).to_string();
        assert_eq!(
            post_json(gateway.proxy, "/v1/chat/completions", &body).status,
            200
        );
    }
    let explained = explained(&gateway, &gateway.access_log(3));
    let told = |pick: &&Value| (pick["member"].clone(), pick["same"].clone());
    let told: Vec<_> = picks(&explained).iter().map(told).collect();
    let expected = ["code", "cheap", "default"].map(|name| (json!(name), json!(true)));
    assert_eq!(told, expected);
    assert_eq!(explained[0]["algorithm"], "semantic");
    let decided = explained[0]["picks"][0]["decided"]
        .as_str()
        .expect("a text");
    assert!(decided.contains("likeness: code, "), "{decided}");
}

/// A line that was changed is not what the pool says.
#[test]
fn what_is_not_so_is_told() {
    let [one, two] = ["one", "two"].map(Upstream::named);
    let plugin = json!({"instances": [instance("one", &one, 0), instance("two", &two, 0)]});
    let gateway = Gateway::start(&json!({"routes": [route("r", &plugin)]}).to_string());
    assert_eq!(post_json(gateway.proxy, "/r", CHAT).status, 200);
    let log = gateway.access_log(1);
    let picked = log[0]["picks"][0]["member"].clone();
    let other = if picked == "one" { "two" } else { "one" };
    let with = |change: &dyn Fn(&mut Value)| {
        let mut line = log[0].clone();
        change(&mut line);
        explain(&gateway, Some(&[line]), &[])
    };
    let expect = |(code, text): (Option<i32>, String), part: &str| {
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    };
    expect(
        with(&|line| line["picks"][0]["member"] = json!(other)),
        &format!(
            "replayed: {}; same answer: no: it was `{other}`",
            picked.as_str().expect("a name")
        ),
    );
    expect(
        with(&|line| line["picks"][0]["failed_open"] = json!(true)),
        "same answer: no: failed_open was true and is false",
    );
    expect(
        with(&|line| line["picks"][0]["excluded_count"] = json!(1)),
        "same answer: no: excluded_count was 1 and is 0",
    );
    expect(
        with(&|line| line["picks"][0]["member"] = json!("nobody")),
        "line 1: cannot be explained: picks[0]: the pool has no member `nobody`",
    );
    expect(
        with(&|line| line["picks"][0]["replay"]["position"] = json!("x")),
        "picks[0]: replay.position is missing or wrong",
    );
    expect(
        with(&|line| line["picks"][0]["replay"]["out"] = json!({"circuit": "01"})),
        "picks[0]: `one` cannot be out for `circuit`: nothing of it is checked for that",
    );
    expect(
        with(&|line| line["pool"] = json!("/routes/gone#ai-proxy-multi")),
        "the pool /routes/gone#ai-proxy-multi is not in this configuration",
    );
}

/// Between lines that are cut off, no JSON, of another log or of an earlier version stand those that are
/// fine.
#[test]
fn a_broken_line_stops_no_other() {
    let [one, two] = ["one", "two"].map(Upstream::named);
    let plugin = json!({"instances": [instance("one", &one, 0), instance("two", &two, 0)]});
    let gateway = Gateway::start(&json!({"routes": [route("r", &plugin)]}).to_string());
    assert_eq!(post_json(gateway.proxy, "/r", CHAT).status, 200);
    assert_eq!(get(gateway.proxy, "/nowhere", &[]).status, 404);
    let log = gateway.access_log(2);
    let whole = log[0].to_string();
    let text = format!(
        "{}\nnonsense\n[1]\n{{\"a\":1}}\n{whole}\n{}\n\u{0}\n",
        &whole[..90],
        log[1]
    );
    let path = gateway.folder().join("mixed.log");
    std::fs::write(&path, text).expect("written");
    let (code, text) = explain(&gateway, None, &["--log", &path.display().to_string()]);
    assert_eq!(code, Some(1), "{text}");
    for part in [
        "line 1: cannot be explained: it is cut off",
        "line 2: cannot be explained: it is no JSON",
        "line 3: cannot be explained: it is no JSON object",
        "line 4: cannot be explained: it is no line of the access log",
        "same answer: yes",
        "nothing to explain: it reached no target: the gateway answered it",
        "line 7: cannot be explained",
        "7 line(s): 1 pick(s) replayed with the same answer, 0 with another, 0 not replayable; \
         1 line(s) without picks, 5 not explained",
    ] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }

    // Of an earlier version: no mistake, and nothing to say.
    let mut old = log[0].clone();
    old.as_object_mut().expect("an object").remove("pool");
    let (code, text) = explain(&gateway, Some(&[old]), &[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("nothing to explain: the line is of an earlier version"),
        "{text}"
    );
}

/// What would be too much for a line is left out of it, and that is said.
#[test]
fn what_is_not_logged_cannot_be_replayed() {
    let port = Upstream::nobody().port();
    let route = |id: &str, kind: &str, count: u32| {
        let address = |n: u32| format!("127.0.{}.{}:{port}", 1 + n / 250, 1 + n % 250);
        let nodes: serde_json::Map<_, _> = (0..count).map(|n| (address(n), json!(1))).collect();
        let upstream = json!({"type": kind, "nodes": nodes, "retries": 1});
        json!({"id": id, "uri": format!("/{id}"), "upstream": upstream})
    };
    let routes = [
        route("least", "least_conn", 257),
        route("turns", "roundrobin", 1025),
    ];
    let gateway = Gateway::start(&json!({"routes": routes}).to_string());
    assert_eq!(get(gateway.proxy, "/least", &[]).status, 502);
    assert_eq!(get(gateway.proxy, "/turns", &[]).status, 502);
    let explained = explained(&gateway, &gateway.access_log(2));
    let told = |pick: &&Value| (pick["same"].clone(), pick["not_replayable"].clone());
    let told: Vec<_> = picks(&explained).iter().map(told).collect();
    let impossible = |why: &str| (Value::Null, json!(why));
    let counts = "the tier is too large to log what was under way";
    let expected = [
        impossible(counts),
        impossible(counts),
        (json!(true), Value::Null),
        impossible("the pool is too large to log whom a pick left out"),
    ];
    assert_eq!(told, expected, "{explained:#?}");
}

/// One request by its id, lines from a pipe, and files that are not there.
#[test]
fn lines_come_from_where_they_are_asked_for() {
    let [one, two] = ["one", "two"].map(Upstream::named);
    let plugin = json!({"instances": [instance("one", &one, 0), instance("two", &two, 0)]});
    let gateway = Gateway::start(&json!({"routes": [route("r", &plugin)]}).to_string());
    for _ in 0..3 {
        assert_eq!(post_json(gateway.proxy, "/r", CHAT).status, 200);
    }
    let log = gateway.access_log(3);
    let id = log[1]["request_id"].as_str().expect("an id");
    let (code, text) = explain(&gateway, None, &["--request-id", id, "--json"]);
    assert_eq!(code, Some(0), "{text}");
    let only: Value = serde_json::from_str(&text).expect("one line");
    assert_eq!(
        (&only["line"], &only["request_id"]),
        (&json!(2), &json!(id))
    );
    let (code, text) = explain(&gateway, None, &["--request-id", "other"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("no line has the request_id `other`"),
        "{text}"
    );
    let (code, text) = explain(&gateway, None, &["--log", "/nonexistent/access.log"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("cannot read /nonexistent/access.log"),
        "{text}"
    );

    let mut child = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(["explain", "--log", "-", "--config"])
        .arg(gateway.folder().join("config.yaml"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut stdin = child.stdin.take().expect("piped");
    writeln!(stdin, "{}", log[2]).expect("written");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(
        text.contains("standard input: 1 line(s): 1 pick(s)"),
        "{text}"
    );
}

/// What a pick goes by must be as it was then; all else may change.
#[test]
fn a_changed_configuration_is_told() {
    let [one, two] = ["one", "two"].map(Upstream::named);
    let both = [instance("one", &one, 0), instance("two", &two, 0)];
    let document = |plugin: &Value| json!({"routes": [route("r", plugin)]}).to_string();
    let gateway = Gateway::start(&document(&json!({"instances": both})));
    assert_eq!(post_json(gateway.proxy, "/r", CHAT).status, 200);
    let log = gateway.access_log(1);
    gateway.reload(&document(&json!({"instances": both, "timeout": 1234})));
    let (code, text) = explain(&gateway, Some(&log), &[]);
    assert_eq!(code, Some(0), "{text}");
    let mut heavier = both.clone();
    heavier[1]["weight"] = json!(2);
    for changed in [
        json!({"instances": heavier}),
        json!({"instances": both, "balancer": {"algorithm": "ewma"}}),
        json!({"instances": both, "circuit_breaker": {}}),
        json!({"instances": [both[1], both[0]]}),
    ] {
        gateway.reload(&document(&changed));
        let (code, text) = explain(&gateway, Some(&log), &[]);
        assert_eq!(code, Some(1), "{text}");
        let part = "the configuration of the pool /routes/r#ai-proxy-multi has changed since";
        assert!(text.contains(part), "{text}");
    }
}
