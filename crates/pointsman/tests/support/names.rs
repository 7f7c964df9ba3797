//! A name server that says what it is told to, over UDP and TCP, and remembers what it was asked.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::wait_until;

/// What is said about a name.
#[derive(Clone, Debug)]
pub(crate) enum Zone {
    /// A records and their lifetime in seconds; there is no AAAA record.
    Records(Vec<Ipv4Addr>, u32),
    /// No answer but this code: 2 SERVFAIL, 3 NXDOMAIN.
    Fails(u8),
    /// A records as above, and SERVFAIL for AAAA.
    OnlyA(Vec<Ipv4Addr>, u32),
    /// A records as above, each answer so much later.
    Late(Vec<Ipv4Addr>, u32, Duration),
    /// Other A records for every question, in turn, which count for a second.
    Turns(Vec<Vec<Ipv4Addr>>),
    /// Nothing at all.
    Silence,
}

/// A question that arrived.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) name: String,
    /// 1: A, 28: AAAA.
    pub(crate) kind: u16,
    pub(crate) at: Instant,
}

/// The name server. Names that it was told nothing about do not exist.
pub(crate) struct NameServer {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    zones: Mutex<HashMap<String, Zone>>,
    asked: Mutex<Vec<Asked>>,
    stop: AtomicBool,
}

impl NameServer {
    pub(crate) fn start() -> Self {
        let (udp, tcp) = wait_until("a port for UDP and TCP", || {
            let udp = UdpSocket::bind(("127.0.0.1", 0)).ok()?;
            let tcp = TcpListener::bind(udp.local_addr().ok()?).ok()?;
            Some((udp, tcp))
        });
        let address = udp.local_addr().expect("bound");
        let shared = Arc::<Shared>::default();
        let theirs = Arc::clone(&shared);
        std::thread::spawn(move || {
            let mut buffer = [0u8; 4096];
            while let Ok((length, peer)) = udp.recv_from(&mut buffer) {
                if theirs.stop.load(Ordering::SeqCst) {
                    return;
                }
                if let Some(answer) = theirs.answer(&buffer[..length], UDP_MAX) {
                    let _ = udp.send_to(&answer, peer);
                }
            }
        });
        let theirs = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in tcp.incoming().flatten() {
                if theirs.stop.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&theirs);
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Self { address, shared }
    }

    /// What is said about `name` from now on.
    pub(crate) fn set(&self, name: &str, zone: Zone) {
        let mut zones = self.shared.zones.lock().expect("not poisoned");
        zones.insert(name.to_owned(), zone);
    }

    /// `set` with A records that count for a second: as short as the gateway takes them.
    pub(crate) fn point(&self, name: &str, addresses: &[Ipv4Addr]) {
        self.set(name, Zone::Records(addresses.to_vec(), 1));
    }

    /// What it was asked about `name`.
    pub(crate) fn asked(&self, name: &str) -> Vec<Asked> {
        let asked = self.shared.asked.lock().expect("not poisoned");
        let about = asked.iter().filter(|asked| asked.name == name);
        about.cloned().collect()
    }

    /// The lines of the section `apisix` that let a gateway ask this server only.
    pub(crate) fn settings(&self) -> String {
        format!(
            "  dns_resolver: [\"{}\"]\n  enable_resolv_search_opt: false",
            self.address
        )
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes both threads, so that the port is free again.
        let _ = TcpStream::connect(self.address);
        if let Ok(socket) = UdpSocket::bind(("127.0.0.1", 0)) {
            let _ = socket.send_to(&[], self.address);
        }
    }
}

fn serve(mut stream: TcpStream, shared: &Shared) {
    let mut length = [0u8; 2];
    while stream.read_exact(&mut length).is_ok() {
        let mut query = vec![0u8; usize::from(u16::from_be_bytes(length))];
        if stream.read_exact(&mut query).is_err() {
            return;
        }
        if let Some(answer) = shared.answer(&query, usize::from(u16::MAX)) {
            let length = u16::try_from(answer.len()).expect("fits").to_be_bytes();
            if stream.write_all(&[&length, &answer[..]].concat()).is_err() {
                return;
            }
        }
    }
}

impl Shared {
    /// The answer to `query`, without its records if it would be longer than `bytes_max`.
    fn answer(&self, query: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
        let (name, kind, question_end) = question(query)?;
        let zones = self.zones.lock().expect("not poisoned");
        let zone = zones.get(&name).cloned().unwrap_or(Zone::Fails(3));
        drop(zones);
        let mut asked = self.asked.lock().expect("not poisoned");
        let turn = asked
            .iter()
            .filter(|one| one.name == name && one.kind == 1)
            .count();
        asked.push(Asked {
            name,
            kind,
            at: Instant::now(),
        });
        drop(asked);
        if let Zone::Late(_, _, pause) = zone {
            std::thread::sleep(pause);
        }
        let (records, ttl, code) = match (zone, kind) {
            (Zone::Silence, _) => return None,
            (
                Zone::Records(addresses, ttl)
                | Zone::OnlyA(addresses, ttl)
                | Zone::Late(addresses, ttl, _),
                1,
            ) => (addresses, ttl, 0),
            (Zone::Turns(mut all), 1) => (all.swap_remove(turn % all.len()), 1, 0),
            (Zone::Records(..) | Zone::Late(..) | Zone::Turns(_), _) => (Vec::new(), 0, 0),
            (Zone::OnlyA(..), _) => (Vec::new(), 0, 2),
            (Zone::Fails(code), _) => (Vec::new(), 0, code),
        };
        let is_cut = question_end + records.len() * 16 > bytes_max;
        let count = if is_cut { 0 } else { records.len() };
        let mut answer = query[..2].to_vec();
        // A response, recursion desired and available.
        answer.extend([0x81 | if is_cut { 2 } else { 0 }, 0x80 | code]);
        answer.extend([0, 1]);
        answer.extend(u16::try_from(count).expect("few").to_be_bytes());
        answer.extend([0; 4]);
        answer.extend(&query[12..question_end]);
        for address in records.iter().take(count) {
            // The name is the question's; class IN.
            answer.extend([0xc0, 12, 0, 1, 0, 1]);
            answer.extend(ttl.to_be_bytes());
            answer.extend([0, 4]);
            answer.extend(address.octets());
        }
        Some(answer)
    }
}

/// Name in lower case and type of the one question, and where it ends.
fn question(query: &[u8]) -> Option<(String, u16, usize)> {
    let mut at = 12;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        let label = query.get(at..at + length)?;
        labels.push(String::from_utf8_lossy(label).to_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes([*query.get(at)?, *query.get(at + 1)?]);
    Some((labels.join("."), kind, at + 4))
}

/// What goes into one datagram.
const UDP_MAX: usize = 512;
