//! Pointsman with the features that the budgets name: key-auth, ai-proxy-multi over three instances
//! with active health checks, usage, metrics and an access log.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use serde_json::{Value, json};

use super::child::{self, Child, Errors};
use super::gateway::{self, Gateway};
use super::interrupt::Interrupt;
use super::programs::Programs;

pub(super) fn start(
    programs: &Programs,
    folder: &Path,
    mocks: &[SocketAddr],
    protocol: Option<&str>,
    interrupt: &Interrupt,
) -> Result<Gateway, String> {
    let config = folder.join("config.yaml");
    let access_log = folder.join("access.log");
    gateway::write(
        &config,
        &yaml(&config_document(
            programs.pointsman_port.unwrap_or(0),
            &access_log,
        )),
    )?;
    gateway::write(
        &folder.join("apisix.yaml"),
        &format!("{}\n#END\n", yaml(&routes_document(mocks, protocol))),
    )?;
    let program = programs
        .pointsman
        .as_deref()
        .ok_or("pointsman was not looked for")?;
    let mut command = child::command(programs.gateway_core, program);
    command
        .arg("run")
        .arg("--config")
        .arg(config)
        .args(["--workers", "1"])
        .current_dir(folder);
    let mut process = Child::start("pointsman", &mut command, folder, Errors::ToFile)?;
    let address = match programs.pointsman_port {
        None => process.wait_for(interrupt, proxy_address_once_ready)?,
        Some(port) => {
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            process.wait_for(interrupt, |_| TcpStream::connect(address).ok())?;
            address
        }
    };
    Ok(Gateway {
        address,
        process: Some(process),
    })
}

/// Reads `listening proxy=ADDRESS` from what the gateway printed, once a line `ready` has followed.
fn proxy_address_once_ready(printed: &str) -> Option<SocketAddr> {
    printed
        .lines()
        .any(|line| line.trim() == "ready")
        .then_some(())?;
    printed
        .lines()
        .find_map(|line| line.trim().strip_prefix("listening proxy=")?.parse().ok())
}

/// The system chooses every port, so that a gateway already on this machine is not in the way.
fn config_document(proxy_port: u16, access_log: &Path) -> Value {
    json!({
        "apisix": {
            "node_listen": [{ "ip": "127.0.0.1", "port": proxy_port }],
            "enable_control": true,
            "control": { "ip": "127.0.0.1", "port": 0 },
            "ssl": { "enable": false },
        },
        "deployment": {
            "role": "data_plane",
            "role_data_plane": { "config_provider": "yaml" },
        },
        "nginx_config": { "http": { "enable_access_log": true, "access_log": access_log } },
        "plugin_attr": { "prometheus": { "export_addr": { "ip": "127.0.0.1", "port": 0 } } },
        "pointsman": { "health_state_file": false },
    })
}

/// `protocol` is what the instances speak, if not the client's.
fn routes_document(mocks: &[SocketAddr], protocol: Option<&str>) -> Value {
    let instances: Vec<Value> = mocks
        .iter()
        .enumerate()
        .map(|(index, mock)| instance(index, *mock, protocol))
        .collect();
    json!({
        "routes": [{
            "id": "chat",
            "uri": "/v1/chat/completions",
            "plugins": {
                "key-auth": {},
                "prometheus": {},
                "ai-proxy-multi": {
                    "balancer": { "algorithm": "roundrobin" },
                    "instances": instances,
                },
            },
        }],
        "consumers": [{ "username": "bench", "plugins": { "key-auth": { "key": "bench-key" } } }],
    })
}

fn instance(index: usize, mock: SocketAddr, protocol: Option<&str>) -> Value {
    let path = match protocol {
        Some(_) => "/v1/messages",
        None => "/v1/chat/completions",
    };
    let mut instance = json!({
        "name": format!("mock-{index}"),
        "provider": "openai-compatible",
        "weight": 1,
        "auth": { "header": { "Authorization": format!("Bearer upstream-key-{index}") } },
        "options": { "model": "bench-large" },
        "override": { "endpoint": format!("http://{mock}{path}") },
        "checks": { "active": {
            "type": "http",
            "http_path": "/health",
            "timeout": 1,
            "healthy": { "interval": 1, "successes": 1 },
            "unhealthy": { "interval": 1, "http_failures": 3 },
        }},
    });
    if let Some(protocol) = protocol {
        instance["protocol"] = protocol.into();
    }
    instance
}

/// JSON is YAML, apart from the end mark that a standalone document needs.
fn yaml(document: &Value) -> String {
    format!("{document:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxy_address_counts_once_the_gateway_is_ready() {
        let check = |printed: &str, port: Option<u16>| {
            assert_eq!(
                proxy_address_once_ready(printed).map(|address| address.port()),
                port,
                "{printed:?}"
            );
        };
        check("", None);
        check("listening proxy=127.0.0.1:41234\n", None);
        check(
            "listening control=127.0.0.1:1\nlistening proxy=127.0.0.1:41234\nready\n",
            Some(41234),
        );
        check("ready\n", None);
    }

    #[test]
    fn three_instances_are_health_checked() {
        let mocks = [1, 2, 3].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let document = routes_document(&mocks, None);
        let instances = document["routes"][0]["plugins"]["ai-proxy-multi"]["instances"]
            .as_array()
            .unwrap();
        assert_eq!(instances.len(), 3);
        for (instance, mock) in instances.iter().zip(mocks) {
            assert_eq!(
                instance["override"]["endpoint"],
                format!("http://{mock}/v1/chat/completions")
            );
            assert_eq!(instance["checks"]["active"]["http_path"], "/health");
        }
    }
}
