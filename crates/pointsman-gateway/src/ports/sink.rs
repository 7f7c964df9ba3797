//! Where entries of logs go, and how they are gathered and joined on the way.
//!
//! A specification says everything that the program needs to open a sink, so equal ones can share it.
//! What a batch becomes on the wire is worked out here, since that needs no socket.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::observe::otlp;

/// A place where lines of a log go: bounded, never blocking.
///
/// When a sink is full it drops the line and counts it; the count is a metric.
pub trait Sink: Send + Sync {
    /// Hands over one entry, without a line end. Returns at once.
    fn push(&self, entry: Bytes);
    /// How many entries were dropped so far.
    fn dropped(&self) -> u64;
    /// How many entries wait.
    fn pending(&self) -> u64;
}

/// Opens sinks when configuration is compiled. Equal specifications share one sink, also across
/// reloads; a sink that no configuration names any more is flushed and closed.
pub trait Sinks: Send + Sync {
    /// The sink for `spec`.
    fn open(&self, spec: &SinkSpec) -> Arc<dyn Sink>;

    /// Why `spec` cannot work, as far as that can be seen beforehand; what to do about it.
    fn problem(&self, spec: &SinkSpec) -> Option<String>;
}

/// Where entries go and how they are gathered on the way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SinkSpec {
    /// One line per entry, appended to a file.
    File {
        /// Path as configured.
        path: String,
    },
    /// Batches to a collector.
    Batched(Arc<Batched>),
}

impl SinkSpec {
    /// What logs and metrics call it: the path, or the name of the batch processor. Holds no
    /// secret.
    pub fn name(&self) -> &str {
        match self {
            Self::File { path } => path,
            Self::Batched(batched) => &batched.batching.name,
        }
    }

    /// The route that it belongs to; empty where any number of routes may share it.
    pub fn route_id(&self) -> &str {
        match self {
            Self::File { .. } => "",
            Self::Batched(batched) => &batched.batching.route_id,
        }
    }
}

/// A collector and the batch processor in front of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Batched {
    /// How entries are gathered.
    pub batching: Batching,
    /// What a batch becomes.
    pub join: Join,
    /// What it is sent over.
    pub wire: Wire,
}

/// A batch processor (APISIX 3.18 names and defaults).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Batching {
    /// Deliveries of one batch after the first.
    pub max_retry_count: u32,
    /// Pause before such a retry.
    pub retry_delay: Duration,
    /// The oldest entry waits no longer than this.
    pub buffer_duration: Duration,
    /// No new entry for this long: send what is there.
    pub inactive_timeout: Duration,
    /// Entries per batch.
    pub batch_max_size: usize,
    /// Entries that may wait; more are dropped and counted.
    pub max_pending_entries: usize,
    /// Bytes that may wait, in the same way.
    pub pending_bytes_max: usize,
    /// Label of the metric, `<plugin>` unless named.
    pub name: String,
    /// The route that the configuration belongs to, for the metric.
    pub route_id: String,
}

/// How the entries of a batch become what is sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Join {
    /// As it is; batches hold one entry.
    Single,
    /// A JSON array.
    Array,
    /// Spans of OpenTelemetry, encoded, of this resource.
    Spans(Bytes),
    /// One after the other.
    Separated {
        /// Before the first.
        before: String,
        /// Between two of them.
        between: &'static str,
    },
}

/// What is sent at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// Its bytes.
    pub body: Bytes,
    /// How many entries are in it.
    pub entries: usize,
}

/// How a parcel is sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Wire {
    /// `POST`.
    Http(HttpWire),
    /// As it is, over a connection of its own.
    Tcp(TcpWire),
    /// As it is, as a datagram.
    Udp(UdpWire),
}

impl Wire {
    /// Limit of one delivery.
    pub fn timeout(&self) -> Duration {
        match self {
            Self::Http(http) => http.timeout,
            Self::Tcp(tcp) => tcp.timeout,
            Self::Udp(udp) => udp.timeout,
        }
    }

    /// As many bytes as a parcel may have; longer batches are sent in several.
    fn parcel_bytes_max(&self) -> usize {
        match self {
            Self::Http(_) | Self::Tcp(_) => usize::MAX,
            Self::Udp(_) => DATAGRAM_BYTES_MAX,
        }
    }
}

/// An HTTP collector.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct HttpWire {
    /// Where to `POST`; one of them each time.
    pub uris: Vec<String>,
    /// Value of `Content-Type`.
    pub content_type: &'static str,
    /// Further headers. They may hold secrets.
    pub headers: Vec<(String, String)>,
    /// Limit of one delivery.
    pub timeout: Duration,
    /// Verify the collector's certificate.
    pub ssl_verify: bool,
}

/// Values of headers are not shown.
impl std::fmt::Debug for HttpWire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = (self.headers.iter())
            .map(|(name, _)| name.as_str())
            .collect();
        f.debug_struct("HttpWire")
            .field("uris", &self.uris)
            .field("headers", &names)
            .finish_non_exhaustive()
    }
}

/// A collector that reads from a TCP connection until that ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TcpWire {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Over TLS, with this server name. Certificates are not verified (APISIX 3.18).
    pub tls: Option<String>,
    /// Limit of one delivery.
    pub timeout: Duration,
}

/// A collector that takes datagrams.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UdpWire {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Limit of one delivery.
    pub timeout: Duration,
}

impl Batched {
    /// What `batch` is sent as, in order. Also says how many of its entries can never be sent, since
    /// one alone is longer than a parcel may be.
    pub fn parcels(&self, batch: &[Bytes]) -> (Vec<Parcel>, usize) {
        let most = self.wire.parcel_bytes_max();
        let overhead = self.join.overhead();
        let (mut parcels, mut oversized) = (Vec::new(), 0);
        let (mut start, mut size) = (0, 0);
        for (index, entry) in batch.iter().enumerate() {
            let room = entry.len() + overhead;
            let is_single = self.join == Join::Single && index > start;
            if index > start && (is_single || size + room > most) {
                parcels.push(self.join.parcel(&batch[start..index]));
                (start, size) = (index, 0);
            }
            if room > most {
                oversized += 1;
                start = index + 1;
            } else {
                size += room;
            }
        }
        if start < batch.len() {
            parcels.push(self.join.parcel(&batch[start..]));
        }
        (parcels, oversized)
    }
}

impl Join {
    /// A JSON object when batches hold one entry, otherwise an array.
    pub fn json(batch_max_size: usize) -> Self {
        if batch_max_size == 1 {
            Self::Single
        } else {
            Self::Array
        }
    }

    /// Lines, the last without an end.
    pub fn lines() -> Self {
        Self::Separated {
            before: String::new(),
            between: "\n",
        }
    }

    /// As many bytes as each entry may add to a parcel beside its own.
    fn overhead(&self) -> usize {
        match self {
            Self::Single | Self::Spans(_) => 0,
            Self::Array => 2,
            Self::Separated { before, between } => before.len() + between.len(),
        }
    }

    fn parcel(&self, entries: &[Bytes]) -> Parcel {
        let body = match self {
            Self::Single => entries.first().cloned().unwrap_or_default(),
            Self::Spans(resource) => otlp::request(resource, entries),
            Self::Array => joined(entries, "[", ",", "]"),
            Self::Separated { before, between } => joined(entries, before, between, ""),
        };
        Parcel {
            body,
            entries: entries.len(),
        }
    }
}

fn joined(entries: &[Bytes], open: &str, between: &str, close: &str) -> Bytes {
    let size = entries.iter().map(|entry| entry.len() + between.len());
    let mut body = Vec::with_capacity(size.sum::<usize>() + open.len() + close.len());
    body.extend_from_slice(open.as_bytes());
    for (index, entry) in entries.iter().enumerate() {
        if index > 0 {
            body.extend_from_slice(between.as_bytes());
        }
        body.extend_from_slice(entry);
    }
    body.extend_from_slice(close.as_bytes());
    body.into()
}

/// The longest datagram over IPv4: 65,535 bytes less the headers of IP and UDP.
const DATAGRAM_BYTES_MAX: usize = 65_507;

#[cfg(test)]
mod tests {
    use super::*;

    fn batched(join: Join, wire: Wire) -> Batched {
        Batched {
            batching: Batching {
                max_retry_count: 0,
                retry_delay: Duration::ZERO,
                buffer_duration: Duration::ZERO,
                inactive_timeout: Duration::ZERO,
                batch_max_size: 1,
                max_pending_entries: 1,
                pending_bytes_max: 1,
                name: String::new(),
                route_id: String::new(),
            },
            join,
            wire,
        }
    }

    fn tcp() -> Wire {
        Wire::Tcp(TcpWire {
            host: String::new(),
            port: 0,
            tls: None,
            timeout: Duration::ZERO,
        })
    }

    fn udp() -> Wire {
        Wire::Udp(UdpWire {
            host: String::new(),
            port: 0,
            timeout: Duration::ZERO,
        })
    }

    #[test]
    fn a_batch_is_joined_as_it_is_to_be_sent() {
        let entries = ["{1}", "{2}"].map(|entry| Bytes::from_static(entry.as_bytes()));
        let check = |join: Join, expected: &[(&'static str, usize)]| {
            let (parcels, oversized) = batched(join, tcp()).parcels(&entries);
            let expected = expected.iter().map(|(body, entries)| Parcel {
                body: Bytes::from_static(body.as_bytes()),
                entries: *entries,
            });
            assert_eq!(parcels, expected.collect::<Vec<_>>());
            assert_eq!(oversized, 0);
        };
        check(Join::json(1), &[("{1}", 1), ("{2}", 1)]);
        check(Join::json(2), &[("[{1},{2}]", 2)]);
        check(Join::lines(), &[("{1}\n{2}", 2)]);
        let before = "INTO t ".to_owned();
        let separated = Join::Separated {
            before,
            between: " ",
        };
        check(separated, &[("INTO t {1} {2}", 2)]);
    }
    /// What does not fit into one datagram goes in several; what alone does not fit is told.
    #[test]
    fn a_batch_is_cut_to_what_can_be_sent_at_once() {
        let sized = |sizes: &[usize]| -> Vec<Bytes> {
            sizes.iter().map(|size| vec![b'x'; *size].into()).collect()
        };
        let check = |sizes: &[usize], expected: &[(usize, usize)], lost: usize| {
            let (parcels, oversized) = batched(Join::Array, udp()).parcels(&sized(sizes));
            let found = parcels
                .iter()
                .map(|parcel| (parcel.body.len(), parcel.entries));
            assert_eq!(found.collect::<Vec<_>>(), expected, "{sizes:?}");
            assert_eq!(oversized, lost, "{sizes:?}");
        };
        let most = DATAGRAM_BYTES_MAX - 2;
        check(&[most], &[(most + 2, 1)], 0);
        check(&[most + 1], &[], 1);
        check(&[1, most, 1, 1], &[(3, 1), (most + 2, 1), (5, 2)], 0);
        check(&[1, most + 1, 1], &[(3, 1), (3, 1)], 1);
        check(&[30_000; 5], &[(60_003, 2), (60_003, 2), (30_002, 1)], 0);
    }
}
