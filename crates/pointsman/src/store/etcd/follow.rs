//! Following etcd: load, watch, and begin anew when either breaks.
//!
//! A watch goes on right behind what the mirror shows, so nothing falls into a gap. Where that has been
//! compacted, or the mirror turns out to differ, everything is read anew while the old goes on being served;
//! only what differs is touched then. A watch alone may be silent for good without being told that the
//! network has lost it, so a beat beside it asks how far etcd has come.

use std::{convert::Infallible, time::Duration};

use rand::Rng;
use tokio::time::{sleep, timeout};

use super::{
    Shared,
    client::{Client, Fault, Watch},
    wire::{self, Event, Header, KeyValue, Range},
};

impl Shared {
    /// Keeps the mirror equal to etcd, as long as the program goes on.
    pub(super) async fn follow(&self) {
        let mut pause = PAUSE_MIN;
        loop {
            let Err(fault) = self.session(&mut pause).await;
            self.lost(&fault);
            self.client.turn_to_next();
            self.client.sweep();
            // Gateways that lost etcd together do not come back in step.
            sleep(pause.mul_f64(rand::rng().random_range(0.5..1.0))).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Follows one member as long as it answers. Sets `pause` back once it does.
    async fn session(&self, pause: &mut Duration) -> Result<Infallible, Fault> {
        let head = self.head().await?;
        let knows_it = self.mirror.borrow().is_of(head);
        if !knows_it {
            self.load().await?;
        }
        loop {
            let from = self.revision() + 1;
            let ask = self.with_span(|span| (span.from.to_vec(), span.to.to_vec()));
            let span = wire::Span {
                from: &ask.0,
                to: &ask.1,
            };
            let begun = timeout(HEAD_LIMIT, self.client.watch(span, from)).await;
            let watch = begun.map_err(|_| Fault::Broken("etcd begins no watch".to_owned()))??;
            self.reached();
            *pause = PAUSE_MIN;
            let ended = tokio::select! {
                ended = self.listen(watch) => ended,
                ended = self.beat() => ended,
            };
            let Err(fault) = ended;
            match fault {
                // The mirror shows what was, until all is here.
                Fault::Compacted | Fault::Differs | Fault::TooLarge => {
                    let known = self.revision();
                    tracing::warn!("{fault}, as known at revision {known}: reading all of it anew");
                    self.load().await?;
                }
                Fault::Silent => {}
                Fault::Token(_) => {
                    self.client.forget_token();
                    sleep(PAUSE_MIN).await;
                }
                other => return Err(other),
            }
        }
    }

    async fn head(&self) -> Result<Header, Fault> {
        let key = format!("{}/", self.prefix);
        let head = timeout(HEAD_LIMIT, self.client.head(key.as_bytes())).await;
        head.unwrap_or_else(|_| Err(Fault::Broken(format!("no answer within {HEAD_LIMIT:?}"))))
    }

    /// Takes in what `watch` tells, until it breaks.
    async fn listen(&self, mut watch: Watch) -> Result<Infallible, Fault> {
        let mut events: Vec<Event> = Vec::new();
        loop {
            let notice = watch.next().await?;
            events.extend(notice.events);
            if notice.fragment {
                if events.len() > EVENTS_MAX {
                    return Err(Fault::TooLarge);
                }
                continue;
            }
            if events.is_empty() {
                continue;
            }
            let keys = self.mirror.borrow_mut().apply(std::mem::take(&mut events));
            match keys.is_empty() {
                true => self.moved.notify_waiters(),
                false => self.show(keys),
            }
        }
    }

    /// Sees to it, now and then, that etcd answers and the watch tells what it should.
    async fn beat(&self) -> Result<Infallible, Fault> {
        let mut shown = None;
        loop {
            sleep(BEAT).await;
            let head = self.head().await?;
            if !self.mirror.borrow().is_of(head) {
                return Err(Fault::Differs);
            }
            let now = self.revision();
            // Twice behind, and nothing came in between: either it is none of ours, or the watch is deaf.
            let is_stuck = head.revision > now && shown == Some(now);
            shown = Some(now);
            if is_stuck && !self.compare().await? && self.revision() == now {
                return Err(Fault::Differs);
            }
            self.client.sweep();
        }
    }

    /// Reads everything as it is at one revision.
    pub(super) async fn load(&self) -> Result<(), Fault> {
        let (head, all) = loop {
            match self.read_all().await {
                // Slower than whoever compacts: it goes by the newest revision again.
                Err(Fault::Compacted) => sleep(PAUSE_MIN).await,
                read => break read?,
            }
        };
        let count = all.len();
        let keys = self.mirror.borrow_mut().replace(head, all);
        tracing::info!(
            "etcd was read at revision {}: {count} keys, {} resources differ",
            head.revision,
            keys.len()
        );
        self.show(keys);
        Ok(())
    }

    async fn read_all(&self) -> Result<(Header, Vec<KeyValue>), Fault> {
        let mut from = format!("{}/", self.prefix).into_bytes();
        let mut head = Header::default();
        let mut all = Vec::new();
        let mut limit = PAGE_KEYS;
        loop {
            let span = wire::Span {
                from: &from,
                to: &self.end,
            };
            let ask = wire::page(span, head.revision, limit);
            let page: Range = match page(&self.client, &ask).await {
                Err(Fault::TooLarge) if limit > 1 => {
                    // Zero would be all.
                    limit = (limit / 4).max(1);
                    continue;
                }
                page => page?,
            };
            if head.revision == 0 {
                head = page.header;
            }
            let last = page.kvs.last().map(|entry| entry.key.clone());
            all.extend(page.kvs);
            match last.filter(|_| page.more) {
                // The first key after it.
                Some(last) => {
                    from = last;
                    from.push(0);
                }
                None => return Ok((head, all)),
            }
        }
    }
}

async fn page(client: &Client, ask: &serde_json::Value) -> Result<Range, Fault> {
    client.call("/v3/kv/range", ask).await
}

/// How often etcd is asked how far it has come.
const BEAT: Duration = Duration::from_secs(1);
/// For a small answer.
const HEAD_LIMIT: Duration = Duration::from_secs(3);
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(800);
/// Of one transaction.
const EVENTS_MAX: usize = 1 << 16;
/// Keys of one answer.
const PAGE_KEYS: usize = 512;
