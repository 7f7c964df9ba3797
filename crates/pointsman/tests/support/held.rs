//! A server that lets nobody in until it is told to: connections to it are under way as long as a test likes.
//!
//! Nobody accepts and the backlog is full, so the system drops further attempts to connect, and their side
//! asks again: after one second, after three, after seven.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener},
};

use socket2::{Domain, Socket, Type};

use super::{
    upstream::{Answer, Received, Upstream},
    wait_until,
};

pub(crate) struct Held {
    pub(crate) address: SocketAddr,
    socket: Socket,
    /// Who fills the backlog.
    first: Vec<Socket>,
}

impl Held {
    pub(crate) fn start() -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// One at that address, of which the port may be 0.
    pub(crate) fn at(address: SocketAddr) -> Self {
        let socket = socket();
        // As the standard library has it.
        socket.set_reuse_address(true).expect("set");
        socket.bind(&address.into()).expect("bound");
        socket.listen(0).expect("listening");
        let address = socket.local_addr().expect("bound").as_socket();
        let address = address.expect("an address of the internet");
        Self {
            address,
            socket,
            first: callers(address),
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Waits until somebody waits for a connection.
    pub(crate) fn wait_for_caller(&self) {
        let own = self.own_ports();
        wait_until("somebody who connects", || {
            let callers = connecting_to(self.address);
            callers.iter().any(|port| !own.contains(port)).then_some(())
        });
    }

    /// Lets one in, and answers it once nobody else comes in any more.
    pub(crate) fn answer_one(&mut self, answer: &[u8]) {
        let own = self.own_ports();
        let mut one = loop {
            let (stream, from) = self.socket.accept().expect("accepted");
            let from = from.as_socket().expect("an address of the internet");
            if !own.contains(&from.port()) {
                break stream;
            }
        };
        self.first.extend(callers(self.address));
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            one.read_exact(&mut byte).expect("a head");
            head.extend(byte);
        }
        one.write_all(answer).expect("answered");
        // What has not been read would make a reset of the end.
        one.shutdown(Shutdown::Write).expect("ended");
        let _ = one.read_to_end(&mut Vec::new());
    }

    fn own_ports(&self) -> Vec<u16> {
        let port = |socket: &Socket| Some(socket.local_addr().ok()?.as_socket()?.port());
        self.first.iter().filter_map(port).collect()
    }

    /// Lets everybody in.
    pub(crate) fn open(
        self,
        handler: impl Fn(&Received) -> Answer + Send + Sync + 'static,
    ) -> Upstream {
        self.socket.listen(128).expect("listening");
        Upstream::on(TcpListener::from(self.socket), handler, None)
    }

    /// Turns everybody away.
    pub(crate) fn refuse(self) {
        drop(self.socket);
    }
}

fn socket() -> Socket {
    Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket")
}

/// More connections than a backlog of none takes.
fn callers(address: SocketAddr) -> Vec<Socket> {
    let caller = |_| {
        let client = socket();
        client.set_nonblocking(true).expect("set");
        // It is under way, or waits like those to come.
        let _ = client.connect(&address.into());
        client
    };
    (0..4).map(caller).collect()
}

/// The ports from which connections to `address` are under way.
fn connecting_to(address: SocketAddr) -> Vec<u16> {
    let SocketAddr::V4(to) = address else {
        panic!("{address} is not looked for")
    };
    // The address as the bytes of a word of this machine, then the port.
    let ip = u32::from_ne_bytes(to.ip().octets());
    let to = format!("{ip:08X}:{:04X}", to.port());
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the system lists connections");
    let caller = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let (from, remote, state) = (words.next()?, words.next()?, words.next()?);
        let port = from.rsplit(':').next()?;
        let is_caller = remote == to && state == SYN_SENT;
        is_caller.then(|| u16::from_str_radix(port, 16).ok())?
    };
    table.lines().filter_map(caller).collect()
}

const SYN_SENT: &str = "02";
