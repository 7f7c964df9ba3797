//! A real etcd, which the test starts and ends, and a line to it that can be cut.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{client, skip, wait_until};

/// An etcd of one member. Ends with the value.
pub(crate) struct Etcd {
    child: Child,
    folder: tempfile::TempDir,
    pub(crate) address: SocketAddr,
    /// Further arguments.
    arguments: Vec<String>,
    token: Mutex<Option<String>>,
}

/// What is under a key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) value: String,
    pub(crate) created: u64,
    pub(crate) modified: u64,
    pub(crate) lease: Option<String>,
}

impl Entry {
    /// The value, which is JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.value).expect("JSON")
    }
}

impl Etcd {
    /// Starts one, if there is any on this machine; else that is told loudly, and an error under CI.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with("http", Vec::new())
    }

    /// The same, with `arguments`, for clients that speak `scheme`.
    pub(crate) fn start_with(scheme: &str, arguments: Vec<String>) -> Option<Self> {
        let found = Command::new("etcd").arg("--version").output();
        if let Err(error) = found {
            let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
            assert!(!is_ci, "etcd must be there under CI: {error}");
            skip::loudly("etcd", &format!("no `etcd` can be run: {error}"));
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        // It must come back at its port, so the system cannot choose one each time.
        let free = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let address = free.local_addr().expect("bound");
        drop(free);
        let url = format!("{scheme}://{address}");
        let mut all = vec![
            format!("--listen-client-urls={url}"),
            format!("--advertise-client-urls={url}"),
        ];
        all.extend(arguments);
        let child = launch(folder.path(), &all);
        let etcd = Self {
            child,
            folder,
            address,
            arguments: all,
            token: Mutex::default(),
        };
        etcd.wait_for_port();
        Some(etcd)
    }

    /// `deployment` of a gateway on it, in flow style; `more` goes on with `deployment.etcd`.
    pub(crate) fn deployment(&self, more: &str) -> String {
        deployment(&format!("http://{}", self.address), more)
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }

    /// Starts it again, with what it had.
    pub(crate) fn start_again(&mut self) {
        self.child = launch(self.folder.path(), &self.arguments);
        self.wait_for_port();
    }

    /// Throws away what it had. It must have ended.
    pub(crate) fn forget(&self) {
        std::fs::remove_dir_all(self.folder.path().join("data")).expect("removed");
    }

    /// Sends a signal, such as `STOP`.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status()
            .expect("kill runs");
        assert!(status.success());
    }

    /// Asks as `user` from now on.
    pub(crate) fn log_in(&self, user: &str, password: &str) {
        self.token.lock().expect("not poisoned").take();
        let ask = json!({ "name": user, "password": password });
        let answer = self.ask("/v3/auth/authenticate", &ask);
        let token = answer["token"].as_str().expect("a token").to_owned();
        *self.token.lock().expect("not poisoned") = Some(token);
    }

    /// What its API answers.
    pub(crate) fn ask(&self, path: &str, ask: &Value) -> Value {
        let token = self.token.lock().expect("not poisoned").clone();
        let token = token.unwrap_or_default();
        let headers = [("Authorization", token.as_str())];
        let headers = if token.is_empty() {
            &headers[..0]
        } else {
            &headers
        };
        let response = client::request(self.address, "POST", path, headers, &ask.to_string());
        assert_eq!(response.status, 200, "{path} {ask}: {}", response.text());
        response.json()
    }

    /// Writes as another client would.
    pub(crate) fn put(&self, key: &str, value: &str) -> u64 {
        let ask = json!({ "key": text(key), "value": text(value) });
        number(&self.ask("/v3/kv/put", &ask)["header"]["revision"])
    }

    pub(crate) fn delete(&self, key: &str) {
        self.ask("/v3/kv/deleterange", &json!({ "key": text(key) }));
    }

    pub(crate) fn get(&self, key: &str) -> Option<Entry> {
        let answer = self.ask("/v3/kv/range", &json!({ "key": text(key) }));
        let found = answer["kvs"].get(0)?;
        let value = found["value"].as_str().unwrap_or_default();
        let value = STANDARD.decode(value).expect("Base64");
        Some(Entry {
            value: String::from_utf8(value).expect("text"),
            created: number(&found["create_revision"]),
            modified: number(&found["mod_revision"]),
            lease: found["lease"].as_str().map(str::to_owned),
        })
    }

    /// Forgets what was before the last change.
    pub(crate) fn compact(&self) {
        let revision = self.put("/elsewhere", "x");
        let ask = json!({ "revision": revision.to_string() });
        self.ask("/v3/kv/compaction", &ask);
    }

    fn wait_for_port(&self) {
        wait_until("etcd to listen", || TcpStream::connect(self.address).ok());
        if self.arguments[0].contains("=http:") {
            wait_until("etcd to be well", || {
                let health = client::get(self.address, "/health", &[]);
                health.text().contains("true").then_some(())
            });
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `deployment` of a gateway on the etcd at `url`, in flow style.
pub(crate) fn deployment(url: &str, more: &str) -> String {
    format!(
        "{{admin: {{admin_listen: {{ip: 127.0.0.1, port: 0}}, admin_key: [{{name: a, key: test-admin, \
         role: admin}}]}}, etcd: {{host: [\"{url}\"]{more}}}}}"
    )
}

fn launch(folder: &Path, arguments: &[String]) -> Child {
    let log = std::fs::File::create(folder.join("log")).expect("a log");
    Command::new("etcd")
        .arg("--data-dir")
        .arg(folder.join("data"))
        .args(["--listen-peer-urls", "http://127.0.0.1:0"])
        .args(["--heartbeat-interval", "20", "--election-timeout", "200"])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("etcd starts")
}

fn text(text: &str) -> String {
    STANDARD.encode(text)
}

fn number(value: &Value) -> u64 {
    let text = value.as_str().expect("a number as a text");
    text.parse().expect("a number")
}

/// A line to somebody, which can be cut and mended.
pub(crate) struct Line {
    pub(crate) address: SocketAddr,
    is_cut: Arc<AtomicBool>,
    ends: Arc<Mutex<Vec<TcpStream>>>,
    strands: Arc<Mutex<Vec<Strand>>>,
}

/// What is known of a connection.
#[derive(Clone, Default)]
struct Strand {
    /// It carries a watch.
    watches: Arc<AtomicBool>,
    /// What comes back over it is lost.
    is_deaf: Arc<AtomicBool>,
}

impl Line {
    pub(crate) fn to(far: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let line = Self {
            address: listener.local_addr().expect("bound"),
            is_cut: Arc::default(),
            ends: Arc::default(),
            strands: Arc::default(),
        };
        let (is_cut, ends) = (Arc::clone(&line.is_cut), Arc::clone(&line.ends));
        let strands = Arc::clone(&line.strands);
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let mut known = ends.lock().expect("not poisoned");
                if is_cut.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(far) = TcpStream::connect(far) else {
                    continue;
                };
                let twin = |stream: &TcpStream| stream.try_clone().expect("a socket");
                known.extend([twin(&near), twin(&far)]);
                let (near_twin, far_twin) = (twin(&near), twin(&far));
                let strand = Strand::default();
                strands.lock().expect("not poisoned").push(strand.clone());
                let Strand { watches, is_deaf } = strand;
                let look = move |piece: &[u8]| {
                    if piece.starts_with(b"POST /v3/watch") {
                        watches.store(true, Ordering::SeqCst);
                    }
                    true
                };
                std::thread::spawn(move || pass(near, far, look));
                let hears = move |_: &[u8]| !is_deaf.load(Ordering::SeqCst);
                std::thread::spawn(move || pass(far_twin, near_twin, hears));
            }
        });
        line
    }

    pub(crate) fn cut(&self) {
        let mut ends = self.ends.lock().expect("not poisoned");
        self.is_cut.store(true, Ordering::SeqCst);
        for end in ends.drain(..) {
            // It may be closed already.
            let _ = end.shutdown(Shutdown::Both);
        }
    }

    /// Watches that are open stay so, and are told nothing any more.
    pub(crate) fn deafen(&self) {
        for strand in &*self.strands.lock().expect("not poisoned") {
            let watches = strand.watches.load(Ordering::SeqCst);
            strand.is_deaf.fetch_or(watches, Ordering::SeqCst);
        }
    }

    pub(crate) fn mend(&self) {
        self.is_cut.store(false, Ordering::SeqCst);
    }
}

/// Passes on what `goes` of what comes.
fn pass(mut from: TcpStream, mut to: TcpStream, goes: impl Fn(&[u8]) -> bool) {
    let mut piece = [0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut piece) {
        if goes(&piece[..read]) && to.write_all(&piece[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
