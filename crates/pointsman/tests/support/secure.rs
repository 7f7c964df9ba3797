//! An upstream that speaks TLS, for probes.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::wait_until;

/// An upstream over TLS that notes SNI and `Host`, and answers everything alike.
pub(crate) struct SecureUpstream {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    open: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    answered: Arc<AtomicUsize>,
}

/// SNI and `Host`.
pub(crate) type Seen = BTreeSet<(Option<String>, String)>;

impl SecureUpstream {
    /// Starts one that answers everything with `status` and closes.
    pub(crate) fn start(status: u16) -> Self {
        Self::with(status, false, Arc::new(AtomicBool::new(true)))
    }

    /// Starts one at `address` that answers everything with `status` and closes, if that may be had.
    pub(crate) fn start_at(address: SocketAddr, status: u16) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let released = Arc::new(AtomicBool::new(true));
        Ok(Self::on(listener, status, false, released))
    }

    /// Starts one that accepts connections, but shakes no hand before that is `released`.
    pub(crate) fn held(released: &Arc<AtomicBool>) -> Self {
        Self::with(200, true, Arc::clone(released))
    }

    /// Starts one that keeps its connections.
    pub(crate) fn keeping() -> Self {
        Self::with(200, true, Arc::new(AtomicBool::new(true)))
    }

    fn with(status: u16, keeps: bool, released: Arc<AtomicBool>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        Self::on(listener, status, keeps, released)
    }

    fn on(listener: TcpListener, status: u16, keeps: bool, released: Arc<AtomicBool>) -> Self {
        let config = self_signed();
        let address = listener.local_addr().expect("bound");
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let theirs = Arc::clone(&seen);
        let answer = format!("HTTP/1.1 {status} Scripted\r\nContent-Length: 0\r\n\r\n");
        let open: Arc<AtomicUsize> = Arc::default();
        let counted = Arc::clone(&open);
        let (connections, answered) = (Arc::default(), Arc::default());
        let (accepted, done): (Arc<AtomicUsize>, Arc<AtomicUsize>) =
            (Arc::clone(&connections), Arc::clone(&answered));
        std::thread::spawn(move || {
            for tcp in listener.incoming().flatten() {
                accepted.fetch_add(1, Ordering::SeqCst);
                let done = Arc::clone(&done);
                let connection = ServerConnection::new(Arc::clone(&config)).expect("made");
                let mut stream = StreamOwned::new(connection, tcp);
                let (seen, answer) = (Arc::clone(&theirs), answer.clone());
                let open = Arc::clone(&counted);
                let released = Arc::clone(&released);
                std::thread::spawn(move || {
                    open.fetch_add(1, Ordering::SeqCst);
                    wait_until("the handshake to be released", || {
                        released.load(Ordering::SeqCst).then_some(())
                    });
                    while note(&mut stream, &seen) {
                        // The peer may have gone.
                        let _ = stream.write_all(answer.as_bytes());
                        done.fetch_add(1, Ordering::SeqCst);
                        if !keeps {
                            break;
                        }
                    }
                    stream.conn.send_close_notify();
                    let _ = stream.flush();
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self {
            address,
            seen,
            open,
            connections,
            answered,
        }
    }

    /// Connections that are open now.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Connections that were accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Requests that were answered so far.
    pub(crate) fn answered(&self) -> usize {
        self.answered.load(Ordering::SeqCst)
    }

    /// What was seen so far.
    pub(crate) fn seen(&self) -> Seen {
        self.seen.lock().expect("not poisoned").clone()
    }

    /// Waits until what was seen satisfies `is_so`.
    pub(crate) fn wait_for(&self, is_so: impl Fn(&Seen) -> bool) -> Seen {
        wait_until("the probes over TLS", || {
            let seen = self.seen.lock().expect("not poisoned").clone();
            Some(seen).filter(&is_so)
        })
    }
}

/// A server with a certificate of its own for `localhost`, which nobody trusts.
pub(crate) fn self_signed() -> Arc<ServerConfig> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
    let cert = CertificateDer::from_pem_slice(made.cert.pem().as_bytes()).expect("PEM");
    let key = made.signing_key.serialize_pem();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![cert], key)
        .expect("a pair");
    Arc::new(config)
}

/// Reads one request and notes whom it was for; false at the end.
fn note(
    stream: &mut StreamOwned<ServerConnection, std::net::TcpStream>,
    seen: &Mutex<Seen>,
) -> bool {
    let mut request = Vec::new();
    let mut piece = [0u8; 4096];
    while !is_whole(&request) {
        let Ok(read @ 1..) = stream.read(&mut piece) else {
            return false;
        };
        request.extend_from_slice(&piece[..read]);
    }
    let text = String::from_utf8_lossy(&request).into_owned();
    let host = header(&text, "host");
    let sni = stream.conn.server_name().map(str::to_owned);
    let noted = (sni, host.unwrap_or_default().to_owned());
    seen.lock().expect("not poisoned").insert(noted);
    true
}

fn header<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let mut headers = text.lines().filter_map(|line| line.split_once(": "));
    let found = headers.find(|(own, _)| own.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value)
}

/// The request and its body have arrived.
fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = header(head, "content-length").and_then(|length| length.parse().ok());
    body.len() >= length.unwrap_or(0)
}
