//! Loggers that send batches: what collectors get, and what becomes of what they do not take.

mod support;

use support::{Answer, Gateway, Upstream, get, wait_until};

/// A route `/x` called `r` with `plugins`, and `more` beside it.
fn logging(upstream: &Upstream, plugins: &str, more: &str) -> String {
    format!(
        "routes:\n- id: r\n  uri: /x\n  plugins: {{{plugins}}}\n  upstream: {{nodes: {{\"{}\": 1}}}}\n{more}",
        upstream.address
    )
}

fn upstream() -> Upstream {
    Upstream::start(|_| Answer::text(200, ""))
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
