//! What the black-box tests share: the gateway as a process, scripted upstreams, a raw client.
//!
//! Nothing here sleeps and hopes: everything waits for a condition, with a deadline.

#![allow(dead_code, unused_imports, reason = "each test file uses a part of it")]
#![allow(
    clippy::disallowed_methods,
    reason = "tests measure and wait in real time"
)]

pub(crate) mod admin;
pub(crate) mod aws;
pub(crate) mod certificates;
pub(crate) mod client;
pub(crate) mod embeddings;
pub(crate) mod etcd;
pub(crate) mod held;
pub(crate) mod load;
pub(crate) mod movable_clock;
pub(crate) mod names;
pub(crate) mod packages;
pub(crate) mod redis;
pub(crate) mod secure;
pub(crate) mod skip;
pub(crate) mod tokens;
pub(crate) mod upstream;

use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::Value;

pub(crate) use self::{
    client::{Response, get, post_json, request},
    held::Held,
    load::{call, under_load},
    names::{NameServer, Zone},
    secure::SecureUpstream,
    upstream::{Answer, Received, Upstream},
};

/// Long enough for any machine; a test that waits this long has failed.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A running gateway. Ends with the value.
pub(crate) struct Gateway {
    child: Child,
    folder: tempfile::TempDir,
    lines: Lines,
    environment: Vec<(String, String)>,
    pub(crate) proxy: SocketAddr,
}

/// How a gateway is started.
pub(crate) struct Start<'a> {
    pub(crate) document: &'a str,
    /// `deployment`, in flow style; empty for a data plane that reads the document.
    pub(crate) deployment: &'a str,
    /// Further lines of the section `apisix`, indented by two.
    pub(crate) apisix: &'a str,
    /// Further sections of `config.yaml`.
    pub(crate) sections: &'a str,
    /// Further attributes of the plugin `prometheus`, in flow style.
    pub(crate) prometheus: &'a str,
    /// Whether the document has its end marker.
    pub(crate) is_finished: bool,
    /// `--workers`, unless it is 0.
    pub(crate) workers: usize,
    pub(crate) environment: &'a [(&'a str, &'a str)],
    /// Where the access log goes; a file in the folder unless it says so.
    pub(crate) access_log: Option<&'a str>,
    pub(crate) stdout: Stdio,
}

impl Default for Start<'_> {
    fn default() -> Self {
        Self {
            document: "",
            deployment: "",
            apisix: "",
            sections: "",
            prometheus: "",
            is_finished: true,
            workers: 1,
            environment: &[],
            access_log: None,
            stdout: Stdio::null(),
        }
    }
}

impl Gateway {
    /// A gateway with one worker that serves `document` (without the end marker).
    pub(crate) fn start(document: &str) -> Self {
        Self::start_with(Start {
            document,
            ..Start::default()
        })
    }

    pub(crate) fn start_with(start: Start<'_>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        write_config_with(
            folder.path(),
            start.apisix,
            start.sections,
            start.prometheus,
        );
        if !start.deployment.is_empty() {
            set_config(folder.path(), DATA_PLANE, start.deployment);
        }
        if let Some(path) = start.access_log {
            set_access_log(folder.path(), path);
        }
        if start.is_finished {
            write_document(folder.path(), start.document);
        } else {
            replace(&folder.path().join("apisix.yaml"), start.document);
        }
        let (child, lines) = launch(
            folder.path(),
            start.workers,
            start.environment,
            start.stdout,
        );
        let environment = start.environment.iter();
        let environment =
            environment.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut gateway = Self {
            child,
            folder,
            lines,
            environment: environment.collect(),
            proxy: nowhere,
        };
        gateway.wait_for_line("ready");
        if !start.deployment.contains("role: control_plane") {
            gateway.proxy = gateway.address("proxy");
        }
        gateway
    }

    /// Starts it once more in its folder, with the configuration as it stands there, after its
    /// process has ended. Returns as soon as it listens.
    pub(crate) fn start_again(&mut self, workers: usize) {
        let environment = self.environment.iter();
        let environment: Vec<(&str, &str)> = environment
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        (self.child, self.lines) = launch(self.folder.path(), workers, &environment, Stdio::null());
        self.proxy = self.address("proxy");
    }

    /// A gateway with one worker on the files in `folder`, which stays.
    pub(crate) fn start_in(folder: &Path) -> Self {
        let (child, lines) = launch(folder, 1, &[], Stdio::null());
        let mut gateway = Self {
            child,
            folder: tempfile::tempdir().expect("a folder"),
            lines,
            environment: Vec::new(),
            proxy: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        gateway.wait_for_line("ready");
        gateway.proxy = gateway.address("proxy");
        gateway
    }

    /// The id of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The address that was announced under `name`.
    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        let start = format!("listening {name}=");
        let line = self.wait_for_line(&start);
        line[start.len()..].trim().parse().expect("an address")
    }

    /// The first line on stderr that contains `part`.
    pub(crate) fn wait_for_line(&self, part: &str) -> String {
        self.wait_for_lines(part, 1).remove(0)
    }

    /// The first `count` lines on stderr that contain `part`.
    pub(crate) fn wait_for_lines(&self, part: &str, count: usize) -> Vec<String> {
        let (lines, changed) = &*self.lines;
        let deadline = Instant::now() + DEADLINE;
        let mut lines = lines.lock().expect("not poisoned");
        loop {
            let found: Vec<String> = lines
                .iter()
                .filter(|line| line.contains(part))
                .take(count)
                .cloned()
                .collect();
            if found.len() == count {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no `{part}` on stderr: {lines:#?}");
            lines = changed.wait_timeout(lines, left).expect("not poisoned").0;
        }
    }

    /// Everything on stderr so far.
    pub(crate) fn stderr(&self) -> String {
        self.lines.0.lock().expect("not poisoned").join("\n")
    }

    /// Replaces the document and waits until it is in force.
    pub(crate) fn reload(&self, document: &str) {
        let before = self.count("configuration applied");
        write_document(self.folder.path(), document);
        self.wait_for_lines("configuration applied", before + 1);
    }

    /// Replaces the document with one that will be refused, and waits for that.
    pub(crate) fn reload_refused(&self, text: &str) -> String {
        let before = self.count("configuration refused");
        replace(&self.folder.path().join("apisix.yaml"), text);
        self.wait_for_lines("configuration refused", before + 1)
            .pop()
            .expect("a line")
    }

    fn count(&self, part: &str) -> usize {
        let lines = self.lines.0.lock().expect("not poisoned");
        lines.iter().filter(|line| line.contains(part)).count()
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Lines of the access log once there are `count`.
    pub(crate) fn access_log(&self, count: usize) -> Vec<Value> {
        let path = self.folder.path().join("access.log");
        wait_until("the access log", || {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            // The last line may be half written.
            let (text, _) = text.rsplit_once('\n').unwrap_or_default();
            let lines: Vec<Value> = text
                .lines()
                .map(|line| serde_json::from_str(line).expect("a JSON line"))
                .collect();
            (lines.len() >= count).then_some(lines)
        })
    }

    /// The metrics page.
    pub(crate) fn metrics(&self) -> String {
        let response = get(self.address("metrics"), "/apisix/prometheus/metrics", &[]);
        assert_eq!(response.status, 200);
        response.text()
    }

    /// Waits for a metrics line that contains all of `parts`; returns its value.
    pub(crate) fn metric(&self, parts: &[&str]) -> f64 {
        wait_until(&format!("a metric with {parts:?}"), || {
            let page = self.metrics();
            let line = page
                .lines()
                .filter(|line| !line.starts_with('#'))
                .find(|line| parts.iter().all(|part| line.contains(part)))?;
            line.rsplit(' ').next()?.parse().ok()
        })
    }

    /// Waits until nothing is under way any more.
    pub(crate) fn wait_until_idle(&self) {
        wait_until("all requests to end", || {
            let page = self.metrics();
            let is_idle = page.contains("\npointsman_requests_in_flight 0\n")
                && page
                    .lines()
                    .filter(|line| line.starts_with("apisix_llm_active_connections{"))
                    .all(|line| line.ends_with(" 0"));
            is_idle.then_some(())
        });
    }

    /// A page of the Control API.
    pub(crate) fn control(&self, path: &str) -> Response {
        get(self.address("control"), path, &[])
    }

    /// Waits until the health report says `status` of the target with that port.
    pub(crate) fn wait_for_status(&self, port: u16, status: &str) {
        wait_until(&format!("port {port} to be {status}"), || {
            let report = self.control("/v1/healthcheck").json();
            let checkers = report.as_array()?;
            let nodes = checkers
                .iter()
                .filter_map(|one| one["nodes"].as_array())
                .flatten();
            let mut at_port = nodes.filter(|node| node["port"] == port).peekable();
            at_port.peek()?;
            at_port.all(|node| node["status"] == status).then_some(())
        });
    }

    /// Every checker of the health report.
    pub(crate) fn checkers(&self) -> Vec<Value> {
        let report = self.control("/v1/healthcheck").json();
        report.as_array().cloned().unwrap_or_default()
    }

    /// The names in the health report, with the instance's where it has one.
    pub(crate) fn checked(&self) -> Vec<String> {
        let name = |one: &Value| match one["instance"].as_str() {
            Some(instance) => format!("{} {instance}", one["name"].as_str().unwrap_or_default()),
            None => one["name"].as_str().unwrap_or_default().to_owned(),
        };
        self.checkers().iter().map(name).collect()
    }

    /// Waits until the first node of an instance's checker satisfies `is_so`; returns that node.
    pub(crate) fn wait_for_node(&self, instance: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        wait_until(&format!("the node of {instance}"), || {
            let checkers = self.checkers();
            let checker = checkers.iter().find(|one| one["instance"] == instance)?;
            Some(checker["nodes"][0].clone()).filter(|node| is_so(node))
        })
    }

    /// The most memory that it has had so far, in KiB.
    pub(crate) fn peak_memory_kib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("the process runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let size = line.and_then(|line| line.trim().strip_suffix(" kB"));
        size.expect("a size").trim().parse().expect("a number")
    }

    /// Sends a signal, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status()
            .expect("kill runs");
        assert!(status.success());
    }

    /// Waits for the process to end.
    pub(crate) fn wait_for_exit(&mut self) -> ExitStatus {
        let child = &mut self.child;
        wait_until("the gateway to end", || child.try_wait().expect("a child"))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

type Lines = Arc<(Mutex<Vec<String>>, Condvar)>;

/// Starts the program on the `config.yaml` in `folder`, and collects what it says on stderr.
fn launch(
    folder: &Path,
    workers: usize,
    environment: &[(&str, &str)],
    stdout: Stdio,
) -> (Child, Lines) {
    let count = workers.to_string();
    let count = ["--workers", &count];
    let mut child = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .arg("run")
        .arg("--config")
        .arg(folder.join("config.yaml"))
        .args(count.iter().filter(|_| workers > 0))
        .args(["--log-level", "debug"])
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn()
        .expect("the gateway starts");
    let stderr = child.stderr.take().expect("stderr is piped");
    let lines = Lines::default();
    let theirs = Arc::clone(&lines);
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            theirs.0.lock().expect("not poisoned").push(line);
            theirs.1.notify_all();
        }
    });
    (child, lines)
}

/// Writes a `config.yaml` whose listeners are on ports of the system's choice.
pub(crate) fn write_config(folder: &Path, apisix: &str, sections: &str) {
    write_config_with(folder, apisix, sections, "");
}

fn write_config_with(folder: &Path, apisix: &str, sections: &str, prometheus: &str) {
    let log = folder.join("access.log");
    let logs = folder.join("logs");
    std::fs::create_dir_all(&logs).expect("made");
    let ssl = if apisix.contains("ssl:") {
        ""
    } else {
        "  ssl: {enable: false}\n"
    };
    let listen = if apisix.contains("node_listen:") {
        ""
    } else {
        "  node_listen: [{ip: 127.0.0.1, port: 0}]\n"
    };
    let text = format!(
        "deployment: {DATA_PLANE}\n\
         apisix:\n{listen}{ssl}  \
         control: {{ip: 127.0.0.1, port: 0}}\n{apisix}\n\
         plugin_attr: {{prometheus: {{export_addr: {{ip: 127.0.0.1, port: 0}}, {prometheus}}}}}\n\
         pointsman:\n  access_log: {{path: \"{}\"}}\n  health_state_file: \"{}/health.state\"\n  \
         store_file: \"{}/store.redb\"\n\
         {sections}\n",
        log.display(),
        logs.display(),
        logs.display(),
    );
    std::fs::write(folder.join("config.yaml"), text).expect("written");
}

/// Lets the `config.yaml` of `folder` name another access log.
pub(crate) fn set_access_log(folder: &Path, path: &str) {
    let own = folder.join("access.log").display().to_string();
    set_config(folder, &own, path);
}

/// Writes `new` in place of `old` in the `config.yaml` of `folder`.
pub(crate) fn set_config(folder: &Path, old: &str, new: &str) {
    let config = folder.join("config.yaml");
    let text = std::fs::read_to_string(&config).expect("written before");
    assert!(text.contains(old), "{old} is not in {text}");
    std::fs::write(config, text.replace(old, new)).expect("written");
}

/// What a gateway is that reads the document beside its settings.
pub(crate) const DATA_PLANE: &str = "{role: data_plane, role_data_plane: {config_provider: yaml}}";

pub(crate) fn write_document(folder: &Path, document: &str) {
    replace(&folder.join("apisix.yaml"), &format!("{document}\n#END\n"));
}

/// Replaces a file at once, as careful editors do.
pub(crate) fn replace(path: &Path, text: &str) {
    let next: PathBuf = path.with_extension("next");
    std::fs::write(&next, text).expect("written");
    std::fs::rename(&next, path).expect("renamed");
}

/// Runs `pointsman` with `arguments` to its end, which must come by itself: exit code, stdout, stderr.
pub(crate) fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    fn collect(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = pipe.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        })
    }
    let stdout = collect(child.stdout.take().expect("stdout is piped"));
    let stderr = collect(child.stderr.take().expect("stderr is piped"));
    let deadline = Instant::now() + DEADLINE;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break Some(status);
        }
        if Instant::now() >= deadline {
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    };
    let (stdout, stderr) = (
        stdout.join().expect("no panic"),
        stderr.join().expect("no panic"),
    );
    let status = status.unwrap_or_else(|| panic!("{arguments:?} did not end: {stderr}"));
    (status.code(), stdout, stderr)
}

/// Asks again and again until there is an answer.
pub(crate) fn wait_until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// A document with one route `/*` to the instances given, as flow maps, and further fields.
pub(crate) fn multi(instances: &[String], more: &str) -> String {
    let list = instances
        .iter()
        .map(|instance| format!("          - {instance}\n"));
    format!(
        "routes:\n  - id: 1\n    uri: /*\n    plugins:\n      prometheus: {{}}\n      \
         ai-proxy-multi:\n        instances:\n{}{more}",
        list.collect::<String>()
    )
}

/// Sends a request to `/x` over a connection that stays open, and reads nothing.
pub(crate) fn ask(stream: &mut client::Connection, body: &str) {
    let head = format!(
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.send(head.as_bytes());
}

/// A chat request to `/x`; its status.
pub(crate) fn chat(gateway: &Gateway) -> u16 {
    post_json(gateway.proxy, "/x", CHAT).status
}

/// Sends requests until `is_so`; returns how many.
pub(crate) fn chat_until(what: &str, gateway: &Gateway, is_so: impl Fn() -> bool) -> usize {
    let mut sent = 0;
    wait_until(what, || {
        chat(gateway);
        sent += 1;
        is_so().then_some(())
    });
    sent
}

/// A document with one route to the instances given; `more` goes on with the plugin, in flow style.
pub(crate) fn flow_route(instances: &[String], more: &str) -> String {
    let instances = instances.join(", ");
    format!(
        "routes: [{{id: 1, uri: /*, plugins: {{prometheus: {{}}, ai-proxy-multi: {{instances: [{instances}]{more}}}}}}}]"
    )
}

/// An instance of provider openai-compatible at `address`.
pub(crate) fn instance(name: &str, address: SocketAddr, more: &str) -> String {
    format!(
        "{{name: {name}, provider: openai-compatible, weight: 1, auth: {{header: {{Authorization: \
         Bearer token}}}}, override: {{endpoint: \"http://{address}\"}}{more}}}"
    )
}

/// A document with `ai-proxy` on `/*`, of that provider, at `address`.
pub(crate) fn single(provider: &str, address: SocketAddr, more: &str) -> String {
    format!(
        "routes:\n  - id: 1\n    uri: /*\n    plugins:\n      prometheus: {{}}\n      ai-proxy:\n        \
         provider: {provider}\n        auth: {{header: {{Authorization: Bearer token}}}}\n        \
         override: {{endpoint: \"http://{address}\"}}\n{more}"
    )
}

/// A chat request.
pub(crate) const CHAT: &str = r#"{"model":"gpt-4","messages":[{"role":"user","content":"Hi"}]}"#;
