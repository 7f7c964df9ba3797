//! Says which sinks lose entries.
//!
//! A sink that drops must not make every request say so: the control thread looks at the counts
//! now and then, and each sink that has lost something gets a line once a minute at most. The
//! counts themselves are a metric.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use pointsman_gateway::{
    clock,
    ports::{Sink, SinkSpec},
};

use super::{OpenSinks, Seldom};

/// Looks at the counts of `sinks` for as long as the program runs.
pub(crate) async fn watch(sinks: Arc<OpenSinks>) {
    let mut drops = Drops::default();
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        for loss in drops.due(&sinks.list(), clock::now()) {
            tracing::warn!(
                sink = loss.sink,
                route = loss.route,
                entries = loss.entries,
                "log entries were dropped: the sink takes no more, or none"
            );
        }
    }
}

/// What has been said so far.
#[derive(Default)]
struct Drops {
    known: HashMap<SinkSpec, Known>,
}

#[derive(Default)]
struct Known {
    /// Entries that a line has told of.
    told: u64,
    seldom: Seldom,
}

/// Entries that a sink has lost since the last line about it.
#[derive(Debug, PartialEq, Eq)]
struct Loss {
    sink: String,
    route: String,
    entries: u64,
}

impl Drops {
    /// What is to be said of `sinks` at `now`.
    fn due(&mut self, sinks: &[(SinkSpec, Arc<dyn Sink>)], now: Instant) -> Vec<Loss> {
        self.known
            .retain(|spec, _| sinks.iter().any(|(open, _)| open == spec));
        let mut losses = Vec::new();
        for (spec, sink) in sinks {
            let dropped = sink.dropped();
            let known = self.known.entry(spec.clone()).or_default();
            let entries = dropped.saturating_sub(known.told);
            if entries > 0 && known.seldom.is_due(now) {
                known.told = dropped;
                losses.push(Loss {
                    sink: spec.name().to_owned(),
                    route: spec.route_id().to_owned(),
                    entries,
                });
            }
        }
        losses
    }
}

/// How often the counts are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use bytes::Bytes;

    use super::*;

    struct Counted(AtomicU64);

    impl Sink for Counted {
        fn push(&self, _: Bytes) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }

        fn dropped(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }

        fn pending(&self) -> u64 {
            0
        }
    }

    #[test]
    fn a_sink_that_loses_entries_is_told_of_once_a_minute() {
        let sink: Arc<dyn Sink> = Arc::new(Counted(AtomicU64::new(0)));
        let spec = SinkSpec::File {
            path: "/log".to_owned(),
        };
        let sinks = [(spec, Arc::clone(&sink))];
        let mut drops = Drops::default();
        let start = clock::now();
        let mut told = |after: u64| {
            let losses = drops.due(&sinks, start + Duration::from_secs(after));
            losses.iter().map(|loss| loss.entries).sum::<u64>()
        };
        let lose = || sink.push(Bytes::new());
        assert_eq!(told(0), 0);
        lose();
        assert_eq!(told(1), 1);
        lose();
        lose();
        assert_eq!(told(60), 0);
        assert_eq!(told(61), 2);
        assert_eq!(told(200), 0);
        lose();
        assert_eq!(told(201), 1);
    }
}
