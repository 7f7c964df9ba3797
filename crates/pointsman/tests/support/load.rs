//! Clients that ask without a rest while something else happens.

use std::{
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::{client::Connection, wait_until};

/// Requests that go on and on, each of which must be answered with a 200.
pub(crate) struct Load {
    /// By client.
    answered: Vec<AtomicUsize>,
    failed: Mutex<Vec<String>>,
    done: AtomicBool,
}

/// Does `work` while clients send these `calls` in turn (see [`call`]), and checks that every one of them was
/// served.
pub(crate) fn under_load<T>(
    proxy: SocketAddr,
    calls: &[String],
    work: impl FnOnce(&Load) -> T,
) -> T {
    let load = Load {
        answered: (0..CLIENTS).map(|_| AtomicUsize::new(0)).collect(),
        failed: Mutex::default(),
        done: AtomicBool::new(false),
    };
    let result = std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let load = &load;
            scope.spawn(move || load.run(client, proxy, calls));
        }
        // Also when `work` fails.
        let _ending = Ending(&load.done);
        load.pass(1);
        work(&load)
    });
    load.check();
    result
}

/// A request on a connection that stays: a GET, or with a body a POST.
pub(crate) fn call(path: &str, headers: &[(&str, &str)], body: &str) -> String {
    let method = if body.is_empty() { "GET" } else { "POST" };
    let headers = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"));
    format!(
        "{method} {path} HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n{}\
         Content-Length: {}\r\n\r\n{body}",
        headers.collect::<String>(),
        body.len()
    )
}

impl Load {
    /// Waits until every client has had that many answers to requests that it began after this call. So
    /// nothing is under way any more that was before.
    pub(crate) fn pass(&self, answers: usize) {
        let count = |client: &AtomicUsize| client.load(Ordering::SeqCst);
        let before: Vec<usize> = self.answered.iter().map(count).collect();
        wait_until("every client to be answered", || {
            self.check();
            let mut each = self.answered.iter().zip(&before);
            // The next answer may be to a request that had begun.
            each.all(|(client, before)| count(client) > before + answers)
                .then_some(())
        });
    }

    fn check(&self) {
        let failed = self.failed.lock().expect("not poisoned").clone();
        assert!(failed.is_empty(), "{failed:#?}");
    }

    fn run(&self, client: usize, proxy: SocketAddr, calls: &[String]) {
        let mut number = client;
        while !self.done.load(Ordering::SeqCst) {
            // Which worker serves it is settled when it connects.
            let mut connection = Connection::open(proxy);
            for _ in 0..ANSWERS_PER_CONNECTION {
                let call = &calls[number % calls.len()];
                connection.send(call.as_bytes());
                let response = connection.response(false);
                if response.status != 200 {
                    let story = format!("{call}: {} {}", response.status, response.text());
                    self.failed.lock().expect("not poisoned").push(story);
                }
                self.answered[client].fetch_add(1, Ordering::SeqCst);
                number += 1;
                // Few cores serve everybody here, probes included.
                std::thread::park_timeout(Duration::from_micros(500));
            }
        }
    }
}

struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Clients at once.
pub(crate) const CLIENTS: usize = 8;
const ANSWERS_PER_CONNECTION: usize = 5;
