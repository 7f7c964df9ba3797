//! Loggers that send batches: what collectors get, and what becomes of what they do not take.

mod support;

use std::{
    io::Read,
    net::{TcpListener, UdpSocket},
};

use rustls::{ServerConnection, StreamOwned};
use serde_json::Value;
use support::{Answer, DEADLINE, Gateway, Upstream, get, secure::self_signed, wait_until};

/// A route `/x` called `r` with `plugins`, and `more` beside it.
fn logging(upstream: &Upstream, plugins: &str, more: &str) -> String {
    format!(
        "routes:\n- id: r\n  uri: /x\n  plugins: {{{plugins}}}\n  upstream: {{nodes: {{\"{}\": 1}}}}\n{more}",
        upstream.address
    )
}

/// An upstream whose answer is as long as the argument `n` asks for.
fn upstream() -> Upstream {
    Upstream::start(|request| {
        let length = request.target.split_once("n=").map(|(_, n)| n.parse());
        let length = length.and_then(Result::ok).unwrap_or(0);
        Answer::text(200, &"y".repeat(length))
    })
}

/// Waits until the logger `name` of the route `r` has lost `count` entries, and never more.
fn lost(gateway: &Gateway, name: &str, count: f64) {
    let series = format!("pointsman_log_dropped_total{{sink=\"{name}\",route_id=\"r\"}}");
    wait_until("the loss to be counted", || {
        let value = gateway.metric(&[&series]);
        assert!(value <= count, "{value} lost");
        ((value - count).abs() < f64::EPSILON).then_some(())
    });
}

/// What does not fit into the queue, and what a collector never takes, is dropped and counted; it is
/// told once, with the name of the logger and why.
#[test]
fn what_a_collector_does_not_take_is_counted() {
    let collector = Upstream::start(|_| Answer::text(500, ""));
    let plugins = format!(
        "http-logger: {{uri: \"http://{}/logs\", name: mine, batch_max_size: 3, inactive_timeout: 600, buffer_duration: 600, max_retry_count: 1, retry_delay: 0}}",
        collector.address
    );
    let upstream = upstream();
    let metadata = "plugin_metadata:\n- {id: http-logger, max_pending_entries: 2}\n";
    let mut gateway = Gateway::start(&logging(&upstream, &plugins, metadata));
    lost(&gateway, "mine", 0.0);
    for _ in 0..5 {
        assert_eq!(get(gateway.proxy, "/x", &[]).status, 200);
    }
    // No batch is ever full, so the rest waits for the end.
    lost(&gateway, "mine", 3.0);
    let waiting = "batch_process_entries{name=\"mine\",route_id=\"r\"";
    assert!((gateway.metric(&[waiting]) - 2.0).abs() < f64::EPSILON);
    assert_eq!(collector.hits(), 0);
    gateway.signal("TERM");
    assert_eq!(gateway.wait_for_exit().code(), Some(0));
    assert_eq!(collector.hits(), 2);
    let told = gateway.wait_for_line("log batch dropped");
    let parts = ["mine", "500 Internal Server Error", "entries=2"];
    assert!(parts.iter().all(|part| told.contains(part)), "{told}");
}

/// What arrives on the next connection to `listener` until that ends, over TLS if `secure`.
fn next_connection(listener: &TcpListener, secure: bool) -> String {
    let (mut tcp, _) = listener.accept().expect("a connection");
    tcp.set_read_timeout(Some(DEADLINE)).expect("a socket");
    let mut text = String::new();
    if secure {
        let connection = ServerConnection::new(self_signed()).expect("made");
        let mut stream = StreamOwned::new(connection, tcp);
        stream.read_to_string(&mut text).expect("to the end");
        assert_eq!(stream.conn.server_name(), Some("logs.test"));
    } else {
        tcp.read_to_string(&mut text).expect("to the end");
    }
    text
}

fn read(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// As APISIX sends them: an object when batches hold one entry, otherwise an array, and the end of
/// the connection.
#[test]
fn tcp_logger_sends_each_batch_over_a_connection() {
    let upstream = upstream();
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let plugins = |more: &str| {
        let logger = format!("tcp-logger: {{host: 127.0.0.1, port: {port}, {more}}}");
        logging(&upstream, &logger, "")
    };
    let gateway = Gateway::start(&plugins("batch_max_size: 1"));
    get(gateway.proxy, "/x?n=1", &[]);
    let entry = read(&next_connection(&listener, false));
    assert_eq!(
        (&entry["route_id"], &entry["request"]["uri"]),
        (&"r".into(), &"/x?n=1".into())
    );
    gateway.reload(&plugins(
        "batch_max_size: 2, tls: true, tls_options: logs.test, log_format: {n: $arg_n}",
    ));
    for target in ["/x?n=2", "/x?n=3"] {
        get(gateway.proxy, target, &[]);
    }
    let entries = read(&next_connection(&listener, true));
    let expected = r#"[{"n":"2","route_id":"r"},{"n":"3","route_id":"r"}]"#;
    assert_eq!(entries, read(expected));
    lost(&gateway, "tcp-logger", 0.0);
}

/// A collector that is not there is told with its address, and what it would have got is counted.
#[test]
fn tcp_logger_tells_of_a_collector_that_is_not_there() {
    let upstream = upstream();
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let logger = format!(
        "tcp-logger: {{host: 127.0.0.1, port: {}, batch_max_size: 1}}",
        address.port()
    );
    let gateway = Gateway::start(&logging(&upstream, &logger, ""));
    get(gateway.proxy, "/x", &[]);
    lost(&gateway, "tcp-logger", 1.0);
    let told = gateway.wait_for_line("log batch dropped");
    let parts = ["tcp-logger", &address.to_string(), "refused"];
    assert!(parts.iter().all(|part| told.contains(part)), "{told}");
}

/// Batches that do not fit into a datagram go in several, and an entry that alone does not is counted.
#[test]
fn udp_logger_sends_datagrams() {
    let upstream = upstream();
    let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("a port");
    socket.set_read_timeout(Some(DEADLINE)).expect("a socket");
    let port = socket.local_addr().expect("bound").port();
    let plugins = |more: &str| {
        let logger = format!("udp-logger: {{host: 127.0.0.1, port: {port}, {more}}}");
        logging(&upstream, &logger, "")
    };
    let next = || {
        let mut datagram = vec![0; 1 << 16];
        let length = socket.recv(&mut datagram).expect("a datagram");
        read(std::str::from_utf8(&datagram[..length]).expect("UTF-8"))
    };
    let gateway = Gateway::start(&plugins("batch_max_size: 1"));
    get(gateway.proxy, "/x?n=1", &[]);
    assert_eq!(next()["request"]["uri"], "/x?n=1");
    gateway.reload(&plugins(
        "batch_max_size: 4, include_resp_body: true, log_format: {n: $arg_n}",
    ));
    for target in ["/x?n=20000", "/x?n=40000", "/x?n=30000", "/x?n=70000"] {
        get(gateway.proxy, target, &[]);
    }
    let sizes = || -> Vec<Value> {
        let entries = next();
        let entries = entries.as_array().expect("an array").iter();
        entries.map(|entry| entry["n"].clone()).collect()
    };
    assert_eq!(sizes(), ["20000", "40000"]);
    assert_eq!(sizes(), ["30000"]);
    lost(&gateway, "udp-logger", 1.0);
    let told = gateway.wait_for_line("log batch dropped");
    assert!(told.contains("longer than"), "{told}");
}

/// A message of RFC 5424: what stands before the entry, with the time and the process left out, and
/// the entry.
fn taken_apart(message: &str, gateway: &Gateway) -> (String, Value) {
    let mut parts = message.splitn(8, ' ');
    let mut next = || {
        parts
            .next()
            .unwrap_or_else(|| panic!("too short: {message}"))
    };
    let (start, time, host) = (next(), next(), next());
    assert!(time.len() == 24 && time.ends_with('Z'), "{message}");
    let (name, process, id, data) = (next(), next(), next(), next());
    assert_eq!(process, gateway.pid().to_string());
    (
        format!("{start} {host} {name} {id} {data}"),
        read(next().strip_suffix('\n').expect("a line end")),
    )
}

/// Messages as APISIX makes them: lines over TCP, each in a datagram over UDP.
#[test]
fn syslog_sends_messages_of_rfc_5424() {
    let upstream = upstream();
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("a port");
    socket.set_read_timeout(Some(DEADLINE)).expect("a socket");
    let plugins = |port: u16, more: &str| {
        let logger = format!(
            "syslog: {{host: 127.0.0.1, port: {port}, batch_max_size: 2, log_format: {{n: $arg_n}}, {more}}}"
        );
        logging(&upstream, &logger, "")
    };
    let port = listener.local_addr().expect("bound").port();
    let gateway = Gateway::start(&plugins(port, "flush_limit: 1"));
    let send = || {
        for target in ["/x?n=1", "/x?n=2"] {
            get(gateway.proxy, target, &[("Host", "api.test")]);
        }
    };
    send();
    let text = next_connection(&listener, false);
    let messages: Vec<&str> = text.split_inclusive('\n').collect();
    assert_eq!(messages.len(), 2, "{text}");
    let port = socket.local_addr().expect("bound").port();
    gateway.reload(&plugins(port, "sock_type: udp"));
    send();
    let datagrams = [0; 2].map(|_| {
        let mut datagram = [0; 1 << 10];
        let length = socket.recv(&mut datagram).expect("a datagram");
        String::from_utf8_lossy(&datagram[..length]).into_owned()
    });
    let datagrams = datagrams.iter().map(String::as_str);
    let ids = ["1", "2", "1", "2"];
    for (message, n) in messages.into_iter().chain(datagrams).zip(ids) {
        let (head, entry) = taken_apart(message, &gateway);
        assert_eq!(head, "<46>1 api.test apisix - -");
        assert_eq!(entry["n"], n);
    }
    // As many bytes may wait as `drop_limit` says.
    gateway.reload(&plugins(port, "sock_type: udp, drop_limit: 10"));
    get(gateway.proxy, "/x", &[]);
    lost(&gateway, "syslog", 1.0);
}

/// G-206, and several servers of which one is asked each time.
#[test]
fn clickhouse_logger_inserts_rows() {
    let upstream = upstream();
    let servers = [upstream_of_logs(), upstream_of_logs()];
    let plugins = |endpoint: &str, more: &str| {
        let logger = format!(
            "clickhouse-logger: {{{endpoint}, user: u, password: sesame, database: d, logtable: t, log_format: {{n: $arg_n}}, {more}}}"
        );
        logging(&upstream, &logger, "")
    };
    let endpoint = |index: usize| format!("http://{}/?a=b", servers[index].address);
    let one = format!("endpoint_addr: \"{}\"", endpoint(0));
    let gateway = Gateway::start(&plugins(&one, "batch_max_size: 2"));
    for target in ["/x?n=1", "/x?n=2"] {
        get(gateway.proxy, target, &[]);
    }
    let insert = wait_until("an insert", || {
        (servers[0].hits() == 1).then(|| servers[0].last())
    });
    assert_eq!((&*insert.method, &*insert.target), ("POST", "/?a=b"));
    for (name, value) in [("User", "u"), ("Key", "sesame"), ("Database", "d")] {
        let header = insert.header(&format!("X-ClickHouse-{name}"));
        assert_eq!(header, Some(value));
    }
    let rows = r#"{"n":"1","route_id":"r"} {"n":"2","route_id":"r"}"#;
    let expected = format!("INSERT INTO t FORMAT JSONEachRow {rows}");
    assert_eq!(insert.text(), expected);

    let both = format!("endpoint_addrs: [\"{}\", \"{}\"]", endpoint(0), endpoint(1));
    gateway.reload(&plugins(&both, "batch_max_size: 1"));
    wait_until("both servers to be asked", || {
        get(gateway.proxy, "/x?n=3", &[]);
        let asked = servers.iter().map(Upstream::hits);
        asked
            .zip([2, 1])
            .all(|(hits, least)| hits >= least)
            .then_some(())
    });
    // What cannot be is told when it is loaded, without the password.
    gateway.reload(&plugins(&format!("{one}, {both}"), ""));
    gateway.wait_for_line("either \"endpoint_addr\" or");
    gateway.reload(&plugins(&one, "").replace("sesame", "\"ses\\name\""));
    gateway.wait_for_line("password: it cannot stand");
    assert!(!gateway.stderr().contains("ses\\n"));
}

/// A collector that takes everything.
fn upstream_of_logs() -> Upstream {
    Upstream::start(|_| Answer::text(200, ""))
}
