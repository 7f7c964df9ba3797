//! Where log lines go: files that are not there, full disks, and the process's own streams.
#![cfg(target_os = "linux")]

mod support;

use std::{
    io::{BufRead, BufReader, Read},
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::Stdio,
};

use serde_json::Value;
use support::{Answer, DEADLINE, Gateway, Start, Upstream, get, run, wait_until, write_config};

/// A route `/x` that logs to `path`.
fn logging_to(upstream: &Upstream, path: &str) -> String {
    format!(
        "routes:\n- {{id: r, uri: /x, plugins: {{file-logger: {{path: \"{path}\"}}}}, upstream: {{nodes: {{\"{}\": 1}}}}}}\n",
        upstream.address
    )
}

fn upstream() -> Upstream {
    Upstream::start(|_| Answer::text(200, ""))
}

fn lost(gateway: &Gateway, path: &str, count: f64) {
    wait_until("the loss to be counted", || {
        let start = format!("pointsman_log_dropped_total{{sink=\"{path}\",route_id=\"\"}}");
        let value = gateway.metric(&[&start]);
        assert!(value <= count, "{value} lost");
        ((value - count).abs() < f64::EPSILON).then_some(())
    });
}

/// Under systemd standard output is a socket, under a shell a pipe: neither is opened by its name.
#[test]
fn standard_output_may_be_a_socket_or_a_pipe() {
    let (socket, theirs) = UnixStream::pair().expect("sockets");
    socket.set_read_timeout(Some(DEADLINE)).expect("a socket");
    let (pipe, end) = std::io::pipe().expect("a pipe");
    let streams: [(Box<dyn Read>, OwnedFd); 2] = [
        (Box::new(socket), theirs.into()),
        (Box::new(pipe), end.into()),
    ];
    let upstream = upstream();
    for (stream, theirs) in streams {
        let gateway = Gateway::start_with(Start {
            document: &logging_to(&upstream, "/proc/self/fd/1"),
            access_log: Some("/dev/stdout"),
            stdout: Stdio::from(theirs),
            ..Start::default()
        });
        assert_eq!(get(gateway.proxy, "/x", &[]).status, 200);
        let mut lines = BufReader::new(stream).lines();
        let mut next = || -> Value {
            let line = lines.next().expect("a line").expect("readable");
            serde_json::from_str(&line).expect("JSON")
        };
        let logged = [next(), next()];
        let is_access = |line: &&Value| line["uri"] == "/x";
        let is_entry = |line: &&Value| line["route_id"] == "r" && line["request"].is_object();
        assert!(logged.iter().any(|line| is_access(&line)), "{logged:?}");
        assert!(logged.iter().any(|line| is_entry(&line)), "{logged:?}");
        assert!(!gateway.stderr().contains("cannot open"));
    }
}

#[test]
fn entries_may_go_to_standard_error() {
    let upstream = upstream();
    let gateway = Gateway::start(&logging_to(&upstream, "/dev/stderr"));
    assert_eq!(get(gateway.proxy, "/x", &[]).status, 200);
    let line = gateway.wait_for_line("{\"request\"");
    let entry: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(entry["response"]["status"], 200);
}

/// A missing folder is told when it is configured, with the place in the document and what to do.
/// The route works all the same, what it loses is counted, and nothing need be reloaded once the
/// folder is there.
#[test]
fn a_missing_folder_is_told_at_once() {
    let upstream = upstream();
    let files = tempfile::tempdir().expect("a folder");
    let folder = files.path().join("missing");
    let log = folder.join("log.json").display().to_string();
    let gateway = Gateway::start(&logging_to(&upstream, &log));
    let place = gateway.wait_for_line("plugins.file-logger");
    assert!(
        place.contains("(id r)") && place.contains("create it") && place.contains(&log),
        "{place}"
    );
    let why = gateway.wait_for_line("cannot open log file");
    assert!(
        why.contains(&format!("create the folder {}", folder.display())),
        "{why}"
    );
    lost(&gateway, &log, 0.0);
    assert_eq!(get(gateway.proxy, "/x", &[]).status, 200);
    lost(&gateway, &log, 1.0);
    std::fs::create_dir(&folder).expect("made");
    assert_eq!(get(gateway.proxy, "/x", &[]).status, 200);
    gateway.wait_for_line("is written again");
    let text = std::fs::read_to_string(&log).expect("written");
    assert_eq!(text.lines().count(), 1, "{text}");
    lost(&gateway, &log, 1.0);
}

/// What a full disk loses is counted, and told without a line for every request.
#[test]
fn a_full_disk_is_counted_and_told_once() {
    let upstream = upstream();
    let gateway = Gateway::start_with(Start {
        document: &logging_to(&upstream, "/dev/null"),
        access_log: Some("/dev/full"),
        ..Start::default()
    });
    for _ in 0..3 {
        assert_eq!(get(gateway.proxy, "/x", &[]).status, 200);
        // Each in a write of its own.
        let before = gateway.metric(&["pointsman_log_dropped_total{sink=\"/dev/full\""]);
        get(gateway.proxy, "/nowhere", &[]);
        wait_until("another loss", || {
            let now = gateway.metric(&["pointsman_log_dropped_total{sink=\"/dev/full\""]);
            (now > before).then_some(())
        });
    }
    lost(&gateway, "/dev/full", 6.0);
    lost(&gateway, "/dev/null", 0.0);
    let told = gateway.wait_for_line("log entries were dropped");
    assert!(told.contains("sink=\"/dev/full\""), "{told}");
    let stderr = gateway.stderr();
    for part in [
        "cannot write log file /dev/full",
        "log entries were dropped",
    ] {
        let lines = stderr.lines().filter(|line| line.contains(part));
        assert_eq!(lines.count(), 1, "{stderr}");
    }
    let page = gateway.metrics();
    assert!(page.contains("# TYPE pointsman_log_dropped_total counter"));
}

/// Without the access log that is asked for, the gateway does not start; `check` knows beforehand.
#[test]
fn an_access_log_that_cannot_be_opened_prevents_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    write_config(folder.path(), "", "");
    support::set_access_log(folder.path(), "/nonexistent/folder/access.log");
    std::fs::write(folder.path().join("apisix.yaml"), "routes: []\n#END\n").expect("written");
    let config = folder.path().join("config.yaml").display().to_string();
    let (code, _, stderr) = run(&["run", "--config", &config]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains("cannot open log file /nonexistent/folder/access.log")
            && stderr.contains("create the folder /nonexistent/folder"),
        "{stderr}"
    );
    let (code, _, stderr) = run(&["check", "--config", &config]);
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains("the folder /nonexistent/folder of this log"),
        "{stderr}"
    );
}

/// A pipe that nobody reads holds the last entries up, but not the end of the program.
#[test]
fn a_full_pipe_does_not_keep_the_program_from_ending() {
    let (reader, end) = std::io::pipe().expect("a pipe");
    let upstream = upstream();
    let mut gateway = Gateway::start_with(Start {
        document: &logging_to(&upstream, "/dev/null"),
        access_log: Some("/dev/stdout"),
        stdout: Stdio::from(OwnedFd::from(end)),
        ..Start::default()
    });
    // A pipe holds 64 KiB, a line at least the target.
    let long = format!("/{}", "x".repeat(8 << 10));
    for _ in 0..16 {
        assert_eq!(get(gateway.proxy, &long, &[]).status, 404);
    }
    gateway.signal("TERM");
    assert_eq!(gateway.wait_for_exit().code(), Some(0));
    gateway.wait_for_line("log entries were lost");
    drop(reader);
}
