//! The health report: what is checked, and what is known of it.
//!
//! APISIX 3.18's shapes, and beside them what it leaves out: the instances of AI plugins appear
//! under `<resource>#plugins['ai-proxy-multi'].instances[i]` with a field `instance`.

use serde_json::{Map, Value, json};

use crate::{
    config::snapshot::{Checked, Snapshot},
    upstream::overview::Overview,
};

/// One object per checker; an empty list is `{}`, as APISIX has it.
pub fn all(snapshot: &Snapshot, seen: &Overview) -> Value {
    let list: Vec<Value> = snapshot
        .checked
        .iter()
        .map(|one| object(one, seen))
        .collect();
    if list.is_empty() {
        json!({})
    } else {
        Value::Array(list)
    }
}

/// The checkers of one resource: an object when there is one, else a list.
pub fn of(snapshot: &Snapshot, seen: &Overview, collection: &str, id: &str) -> Option<Value> {
    let mut list: Vec<Value> = snapshot
        .checked
        .iter()
        .filter(|one| one.collection == collection && one.id == id)
        .map(|one| object(one, seen))
        .collect();
    match list.len() {
        0 => None,
        1 => list.pop(),
        _ => Some(Value::Array(list)),
    }
}

fn object(checked: &Checked, seen: &Overview) -> Value {
    let nodes: Vec<Value> = checked
        .nodes(&seen.availability)
        .iter()
        .map(|(target, spec)| {
            let (status, counters) = seen.target(*target).map_or_else(
                || {
                    // A name without an answer, or what a new configuration no longer probes.
                    let usable = seen.availability.usable(*target);
                    let status = if usable { "healthy" } else { "unhealthy" };
                    (status, pointsman_balance::Counters::default())
                },
                |report| (report.status.as_str(), report.counters),
            );
            json!({
                "ip": spec.host,
                "port": spec.port,
                "hostname": spec.hostname,
                "status": status,
                "counter": {
                    "success": counters.success,
                    "http_failure": counters.http_failure,
                    "tcp_failure": counters.tcp_failure,
                    "timeout_failure": counters.timeout_failure,
                },
            })
        })
        .collect();
    let mut object = Map::new();
    object.insert("name".to_owned(), json!(checked.report.name));
    object.insert("type".to_owned(), json!(checked.kind));
    if let Some(instance) = &checked.report.instance {
        object.insert("instance".to_owned(), json!(instance));
    }
    let nodes = if nodes.is_empty() {
        json!({})
    } else {
        Value::Array(nodes)
    };
    object.insert("nodes".to_owned(), nodes);
    Value::Object(object)
}

/// The report as a page. Rows of nodes that may not be picked are red.
pub fn html(report: &Value) -> String {
    let mut rows = String::new();
    let mut index = 0;
    let single = std::slice::from_ref(report);
    let list = match report {
        Value::Array(list) => list.as_slice(),
        Value::Object(object) if object.contains_key("nodes") => single,
        _ => &[],
    };
    for checker in list {
        let Some(nodes) = checker["nodes"].as_array() else {
            continue;
        };
        for node in nodes {
            index += 1;
            rows.push_str(&row(index, checker, node));
        }
    }
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <!DOCTYPE html>\n\
         <html xmlns=\"http://www.w3.org/1999/xhtml\">\n\
         <head><title>Health of upstreams</title></head>\n\
         <body>\n<h1>Health of upstreams</h1>\n<table border=\"1\">\n\
         <tr bgcolor=\"#C0C0C0\"><th>Index</th><th>Upstream</th><th>Check type</th><th>Host</th>\
         <th>Status</th><th>Success counts</th><th>TCP Failures</th><th>HTTP Failures</th>\
         <th>TIMEOUT Failures</th></tr>\n{rows}</table>\n</body>\n</html>\n"
    )
}

fn row(index: usize, checker: &Value, node: &Value) -> String {
    let status = node["status"].as_str().unwrap_or_default();
    let usable = matches!(status, "healthy" | "mostly_healthy");
    let colour = if usable { "" } else { " bgcolor=\"#FF0000\"" };
    let counter = &node["counter"];
    let cells = [
        index.to_string(),
        plain(&checker["name"]),
        plain(&checker["type"]),
        format!("{}:{}", plain(&node["ip"]), plain(&node["port"])),
        status.to_owned(),
        plain(&counter["success"]),
        plain(&counter["tcp_failure"]),
        plain(&counter["http_failure"]),
        plain(&counter["timeout_failure"]),
    ];
    let cells: String = cells
        .iter()
        .map(|cell| format!("<td>{}</td>", escape(cell)))
        .collect();
    format!("<tr{colour}>{cells}</tr>\n")
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_one_row_a_node_and_escapes_what_configuration_says() {
        let report = json!([{
            "name": "/routes/<1>", "type": "http",
            "nodes": [{
                "ip": "127.0.0.1", "port": 1980, "hostname": "127.0.0.1", "status": "unhealthy",
                "counter": {"success": 0, "tcp_failure": 2, "http_failure": 0, "timeout_failure": 0}
            }]
        }]);
        let page = html(&report);
        assert!(page.contains(
            "<tr bgcolor=\"#FF0000\"><td>1</td><td>/routes/&lt;1&gt;</td><td>http</td>\
             <td>127.0.0.1:1980</td><td>unhealthy</td><td>0</td><td>2</td><td>0</td><td>0</td></tr>"
        ));
        assert!(html(&json!({})).contains("<table"));
    }
}
