//! Real Redis servers, which the test starts and ends.

use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
};

use super::{skip, wait_until};

/// A `redis-server`. Ends with the value.
pub(crate) struct Redis {
    child: Child,
    folder: tempfile::TempDir,
    pub(crate) port: u16,
    arguments: Vec<String>,
    /// What `redis-cli` needs to get in.
    access: Vec<String>,
}

/// Whether there is none on this machine, which is told loudly, and is an error under CI.
pub(crate) fn is_missing() -> bool {
    let Err(error) = Command::new("redis-server").arg("--version").output() else {
        return false;
    };
    let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!is_ci, "redis-server must be there under CI: {error}");
    skip::loudly("Redis", &format!("no `redis-server` can be run: {error}"));
    true
}

/// A port that nobody has. It must be known before who listens there starts, and again after that.
pub(crate) fn free_port() -> u16 {
    let free = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    free.local_addr().expect("bound").port()
}

impl Redis {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// With further arguments.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        Self::start_at(free_port(), arguments, &[])
    }

    /// At a port, which may be 0 where arguments name another; `access` is for `redis-cli`.
    pub(crate) fn start_at(port: u16, arguments: &[&str], access: &[&str]) -> Self {
        let own = |list: &[&str]| list.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
        let folder = tempfile::tempdir().expect("a folder");
        let mut all = own(&["--port", &port.to_string(), "--bind", "127.0.0.1"]);
        all.extend(own(&["--save", "", "--appendonly", "no"]));
        all.extend(own(arguments));
        let redis = Self {
            child: launch(folder.path(), &all),
            folder,
            port,
            arguments: all,
            access: own(access),
        };
        redis.wait();
        redis
    }

    /// One that watches the master `name` at `port` on its own.
    pub(crate) fn sentinel(name: &str, port: u16) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let own = free_port();
        let file = folder.path().join("sentinel.conf");
        let text = format!(
            "port {own}\nbind 127.0.0.1\nsentinel monitor {name} 127.0.0.1 {port} 1\n\
             sentinel down-after-milliseconds {name} 300\nsentinel failover-timeout {name} 3000\n"
        );
        std::fs::write(&file, text).expect("written");
        let arguments = vec![file.display().to_string(), "--sentinel".to_owned()];
        let redis = Self {
            child: launch(folder.path(), &arguments),
            folder,
            port: own,
            arguments,
            access: Vec::new(),
        };
        redis.wait();
        redis
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// What `redis-cli` says.
    pub(crate) fn ask(&self, command: &[&str]) -> String {
        let output = Command::new("redis-cli")
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
            .args(&self.access)
            .args(command)
            .output()
            .expect("redis-cli runs");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }

    /// Starts it again, with nothing.
    pub(crate) fn start_again(&mut self) {
        self.child = launch(self.folder.path(), &self.arguments);
        self.wait();
    }

    /// Sends a signal, such as `STOP`.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status()
            .expect("kill runs");
        assert!(status.success());
    }

    fn wait(&self) {
        wait_until("Redis to answer", || {
            (self.ask(&["PING"]) == "PONG").then_some(())
        });
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn launch(folder: &Path, arguments: &[String]) -> Child {
    let log = std::fs::File::create(folder.join("log")).expect("a log");
    Command::new("redis-server")
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server starts")
}
