//! What health costs and how quickly it acts: `verdict` and `probes`.
//!
//! Both start a gateway of their own on ports of the system's choice, in front of a server of this
//! process that answers probes and requests and notes when they came.

pub(crate) mod probes;
pub(crate) mod server;
pub(crate) mod verdict;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::clock;
use crate::procfs::Pid;

/// Which gateway is measured.
#[derive(Debug, Clone, Args)]
pub(crate) struct Program {
    /// The program; a release build, or the figures mean little.
    #[arg(long, default_value = "target/release/pointsman")]
    pointsman: PathBuf,
    /// Its worker threads.
    #[arg(long, default_value_t = 2)]
    workers: usize,
}

/// A gateway that ends with the value.
struct Gateway {
    process: Child,
    proxy: SocketAddr,
    folder: TempDir,
}

impl Gateway {
    /// Starts it with `document` and waits until it is ready.
    fn start(program: &Program, document: &Value) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let path = |name: &str| folder.path().join(name);
        let write = |name: &str, text: &str| {
            fs::write(path(name), text).map_err(|error| format!("{name}: {error}"))
        };
        write(
            "config.yaml",
            &settings(&path("access.log").display().to_string()),
        )?;
        write_document(&path("apisix.yaml"), document)?;
        let log = fs::File::create(path("log")).map_err(|error| error.to_string())?;
        let other = log.try_clone().map_err(|error| error.to_string())?;
        let process = Command::new(&program.pointsman)
            .args(["run", "--workers", &program.workers.to_string(), "--config"])
            .arg(path("config.yaml"))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(other)
            .spawn()
            .map_err(|error| {
                let name = program.pointsman.display();
                format!("cannot start {name}: {error}; build it with `cargo build --release -p pointsman`")
            })?;
        let mut gateway = Self {
            process,
            proxy: SocketAddr::from(([127, 0, 0, 1], 0)),
            folder,
        };
        let log = gateway.folder.path().join("log");
        let give_up = clock::now() + Duration::from_secs(60);
        loop {
            let text = fs::read_to_string(&log).unwrap_or_default();
            if let Some(proxy) = proxy_once_ready(&text) {
                gateway.proxy = proxy;
                return Ok(gateway);
            }
            let ended = gateway.process.try_wait();
            if clock::now() > give_up || !matches!(ended, Ok(None)) {
                return Err(format!("the gateway is not ready:\n{text}"));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The file that its configuration is in.
    fn document(&self) -> PathBuf {
        self.folder.path().join("apisix.yaml")
    }

    /// What it has written to its log.
    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn pid(&self) -> Pid {
        Pid(self.process.id())
    }
}

/// Replaces the configuration at `path` as a whole.
fn write_document(path: &Path, document: &Value) -> Result<(), String> {
    let next = path.with_extension("next");
    fs::write(&next, format!("{document}\n#END\n"))
        .and_then(|()| fs::rename(&next, path))
        .map_err(|error| format!("{}: {error}", path.display()))
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn proxy_once_ready(text: &str) -> Option<SocketAddr> {
    text.lines()
        .any(|line| line.trim() == "ready")
        .then_some(())?;
    text.lines()
        .find_map(|line| line.trim().strip_prefix("listening proxy=")?.parse().ok())
}

fn settings(access_log: &str) -> String {
    json!({
        "apisix": {
            "node_listen": [{ "ip": "127.0.0.1", "port": 0 }],
            "control": { "ip": "127.0.0.1", "port": 0 },
            "ssl": { "enable": false },
        },
        "deployment": { "role": "data_plane", "role_data_plane": { "config_provider": "yaml" } },
        "plugin_attr": { "prometheus": { "export_addr": { "ip": "127.0.0.1", "port": 0 } } },
        "pointsman": { "health_state_file": false, "access_log": { "path": access_log } },
    })
    .to_string()
}

/// An instance that is probed once a second, whose verdict follows each probe.
fn instance(name: &str, address: SocketAddr, is_checked: bool) -> Value {
    let mut instance = json!({
        "name": name, "provider": "openai-compatible", "weight": 1,
        "auth": { "header": { "Authorization": "Bearer token" } },
        "override": { "endpoint": format!("http://{address}/v1/chat/completions") },
    });
    if is_checked {
        instance["checks"] = json!({ "active": {
            "http_path": "/health",
            "healthy": { "interval": 1, "successes": 1 },
            "unhealthy": { "interval": 1, "http_failures": 1 },
        }});
    }
    instance
}

fn route(id: usize, uri: &str, instances: &[Value]) -> Value {
    json!({ "id": id, "uri": uri, "plugins": { "ai-proxy-multi": { "instances": instances } } })
}
