//! etcd as a store, with APISIX's keys and values: gateways of both kinds may share one.
//!
//! Everything is mirrored in memory and looked at there. The mirror changes only by what etcd tells
//! (`follow`), also about what this gateway has written itself (`commit`), so there is one order of events,
//! etcd's. What the mirror shows is kept on the disk for a start without etcd. All of it runs on the control
//! thread; workers see finished configurations only.

mod client;
mod commit;
mod follow;
mod kept;
mod mirror;
mod wire;

use std::{
    cell::{Ref, RefCell},
    path::Path,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use pointsman_gateway::{
    admin_api::{
        access::KeyDigest,
        store::{Change, Contents, Reach, Store, StoreError, Turn},
    },
    clock,
    config::{at_rest::AtRest, settings::EtcdSettings},
    ports::LocalFuture,
};
use tokio::{
    sync::{Mutex, Notify},
    time::{sleep, timeout},
};

use self::{
    client::{Client, Fault},
    kept::Kept,
    mirror::Mirror,
    wire::{Span, Transaction, end_of},
};
use super::LiveStore;
use crate::http_client::Dialer;

/// What is in etcd under a prefix.
pub(crate) struct EtcdStore(Rc<Shared>);

struct Shared {
    prefix: String,
    /// The first key behind those that have the prefix.
    end: Vec<u8>,
    client: Client,
    at_rest: Arc<AtRest>,
    timeout: Duration,
    mirror: RefCell<Mirror>,
    /// What the configuration in force may not know yet; `None` if there is nothing.
    touched: RefCell<Option<Vec<String>>>,
    changed: Notify,
    /// Why etcd cannot be reached; `None` if it can.
    trouble: RefCell<Option<String>>,
    /// The mirror has come further, or it has become known whether etcd can be reached.
    moved: Notify,
    /// One write of this gateway at a time.
    turn: Arc<Mutex<()>>,
    kept: Option<Kept>,
}

impl EtcdStore {
    /// The store that `settings` name, called through `dialer` and encrypted by `at_rest`; what is kept of it is
    /// in the file `kept`.
    ///
    /// # Errors
    /// When the settings cannot be used. That etcd is down is none, nor that nothing can be kept.
    pub(crate) fn open(
        settings: &EtcdSettings,
        kept: &Path,
        dialer: Arc<Dialer>,
        at_rest: Arc<AtRest>,
    ) -> Result<Self, String> {
        let (kept, contents) = match Kept::open(kept, &settings.prefix, &at_rest) {
            Ok((kept, contents)) => (Some(kept), contents),
            Err(error) => {
                tracing::warn!("nothing is kept for a start without etcd: {error}");
                (None, Contents::default())
            }
        };
        Self::new(settings, dialer, at_rest, kept, contents)
    }

    /// The same, only to be looked at: nothing is kept.
    ///
    /// # Errors
    /// When the settings cannot be used.
    pub(crate) fn look(
        settings: &EtcdSettings,
        dialer: Arc<Dialer>,
        at_rest: Arc<AtRest>,
    ) -> Result<Self, String> {
        Self::new(settings, dialer, at_rest, None, Contents::default())
    }

    fn new(
        settings: &EtcdSettings,
        dialer: Arc<Dialer>,
        at_rest: Arc<AtRest>,
        kept: Option<Kept>,
        contents: Contents,
    ) -> Result<Self, String> {
        let mirror = Mirror::new(&settings.prefix, contents, Arc::clone(&at_rest));
        Ok(Self(Rc::new(Shared {
            prefix: settings.prefix.clone(),
            end: end_of(mirror.prefix()),
            client: Client::new(settings, dialer)?,
            at_rest,
            timeout: settings.timeout,
            mirror: RefCell::new(mirror),
            touched: RefCell::default(),
            changed: Notify::new(),
            trouble: RefCell::new(Some("etcd has not been asked yet".to_owned())),
            moved: Notify::new(),
            turn: Arc::default(),
            kept,
        })))
    }

    /// Reads everything, for the start: asks every member, `retries` times more, as long as `limit` at most.
    ///
    /// # Errors
    /// When none of them answers; the message says why.
    pub(crate) async fn load(&self, retries: u64, limit: Duration) -> Result<(), String> {
        let rounds = retries.saturating_add(1);
        let tried = async {
            let mut last = Fault::Silent;
            for round in 0..rounds {
                for _ in 0..self.0.client.members() {
                    match self.0.load().await {
                        Ok(()) => return Ok(()),
                        Err(fault) => last = fault,
                    }
                    self.0.client.turn_to_next();
                }
                if round + 1 < rounds {
                    sleep(START_PAUSE).await;
                }
            }
            Err(last.to_string())
        };
        let tried = timeout(limit, tried).await;
        let loaded = tried.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")));
        match &loaded {
            Ok(()) => self.0.reached(),
            Err(error) => *self.0.trouble.borrow_mut() = Some(error.clone()),
        }
        loaded
    }

    /// Says what a start without etcd comes to; `error` is why there is none.
    pub(crate) fn tell_start_without(&self, error: &str) {
        let revision = self.0.revision();
        match &self.0.kept {
            Some(kept) if revision > 0 => tracing::error!(
                "etcd is out of reach: {error}; what it held at revision {revision} is served, from {}",
                kept.path().display()
            ),
            _ => tracing::error!("etcd is out of reach, and nothing is kept of it: {error}"),
        }
    }

    /// What is known of it.
    pub(crate) fn contents(&self) -> Contents {
        self.0.mirror.borrow().contents().clone()
    }
}

impl Store for EtcdStore {
    fn prefix(&self) -> &str {
        &self.0.prefix
    }

    fn at_rest(&self) -> Option<&AtRest> {
        Some(&self.0.at_rest)
    }

    fn contents(&self) -> Ref<'_, Contents> {
        Ref::map(self.0.mirror.borrow(), Mirror::contents)
    }

    fn fresh(&self) -> LocalFuture<'_, Result<(), StoreError>> {
        Box::pin(self.0.fresh())
    }

    fn turn(&self) -> LocalFuture<'_, Result<Turn, StoreError>> {
        Box::pin(async {
            let turn = Turn::new(Arc::clone(&self.0.turn).lock_owned().await);
            self.0.fresh().await?;
            Ok(turn)
        })
    }

    fn commit(&self, change: Change, turn: Turn) -> LocalFuture<'_, Result<(), StoreError>> {
        let shared = Rc::clone(&self.0);
        // Whoever asked may leave; what has been begun is seen through, and the next one waits for it.
        let task = tokio::task::spawn_local(async move {
            let done = shared.commit(change).await;
            drop(turn);
            done
        });
        Box::pin(async move {
            task.await
                .unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())))
        })
    }
}

impl LiveStore for EtcdStore {
    fn take_touched(&self) -> Option<Vec<String>> {
        self.0.touched.take()
    }

    fn touched(&self) -> LocalFuture<'_, ()> {
        Box::pin(async {
            while self.0.touched.borrow().is_none() {
                self.0.changed.notified().await;
            }
        })
    }

    fn missing(&self) -> Option<String> {
        let mirror = self.0.mirror.borrow();
        let has_any = mirror.is_loaded() || mirror.contents().revision() > 0;
        let trouble = self.0.trouble.borrow();
        (!has_any).then(|| trouble.clone().unwrap_or_default())
    }

    fn keep(self: Rc<Self>) -> LocalFuture<'static, ()> {
        let shared = Rc::clone(&self.0);
        Box::pin(async move {
            let look = |show: &mut dyn FnMut(&Contents)| show(shared.mirror.borrow().contents());
            let keeping = async {
                match &shared.kept {
                    Some(kept) => kept.write(look).await,
                    None => std::future::pending().await,
                }
            };
            tokio::join!(shared.follow(), keeping);
        })
    }

    fn admin_key(&self) -> Option<KeyDigest> {
        self.0.kept.as_ref()?.admin_key()
    }

    fn keep_admin_key(&self, key: &KeyDigest) -> Result<(), String> {
        let nowhere = "there is no file to keep an admin key in: set deployment.admin.admin_key";
        let kept = self.0.kept.as_ref();
        kept.ok_or_else(|| nowhere.to_owned())?.keep_admin_key(key)
    }

    fn reach(&self) -> Option<Reach> {
        let mirror = self.0.mirror.borrow();
        Some(Reach {
            trouble: self.0.trouble.borrow().clone(),
            revision: mirror.contents().revision(),
            newest: mirror.newest(),
        })
    }
}

impl Shared {
    /// All keys under the prefix.
    fn with_span<T>(&self, ask: impl FnOnce(Span<'_>) -> T) -> T {
        ask(Span {
            from: format!("{}/", self.prefix).as_bytes(),
            to: &self.end,
        })
    }

    fn revision(&self) -> u64 {
        self.mirror.borrow().contents().revision()
    }

    /// Ends when the mirror shows what was acknowledged before this was called.
    async fn fresh(&self) -> Result<(), StoreError> {
        let asked = async {
            let key = format!("{}/", self.prefix);
            let head = self.client.head(key.as_bytes()).await?;
            self.shows(head.revision).await
        };
        self.while_reached(asked).await
    }

    /// What `work` comes to, if etcd can be reached all the while.
    async fn while_reached<T>(
        &self,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, StoreError> {
        let lost = async {
            loop {
                let moved = self.moved.notified();
                if let Some(trouble) = &*self.trouble.borrow() {
                    return trouble.clone();
                }
                moved.await;
            }
        };
        let unavailable =
            |why: String| StoreError::Unavailable(format!("etcd is out of reach: {why}"));
        tokio::select! {
            // Without a glance at etcd, if it is known to be away.
            biased;
            why = lost => Err(unavailable(why)),
            done = timeout(self.timeout, work) => match done {
                Ok(done) => done.map_err(|fault| StoreError::Unavailable(fault.to_string())),
                Err(_) => Err(unavailable(format!("no answer within {:?}", self.timeout))),
            },
        }
    }

    /// Ends when the mirror shows everything up to `revision`. Mostly the watch tells of it at once; if not,
    /// it was perhaps written elsewhere in etcd, which a comparison finds out.
    async fn shows(&self, revision: u64) -> Result<(), Fault> {
        let mut until = clock::now() + LAG_USUAL;
        loop {
            let moved = self.moved.notified();
            if self.revision() >= revision {
                return Ok(());
            }
            let left = until.saturating_duration_since(clock::now());
            if timeout(left, moved).await.is_err() {
                if self.compare().await? {
                    continue;
                }
                until = clock::now() + LAG_USUAL;
            }
        }
    }

    /// Whether the mirror is equal to etcd: nothing was written since, and there are as many keys.
    async fn compare(&self) -> Result<bool, Fault> {
        let (revision, count) = {
            let mirror = self.mirror.borrow();
            (mirror.contents().revision(), mirror.count())
        };
        let ask = self.with_span(|span| wire::comparison(span, revision));
        let answer: Transaction = self.client.call("/v3/kv/txn", &ask).await?;
        let mut ranges = answer
            .responses
            .into_iter()
            .filter_map(|part| part.response_range);
        let (Some(all), Some(newer)) = (ranges.next(), ranges.next()) else {
            return Err(Fault::Broken("etcd compares nothing".to_owned()));
        };
        // What the watch has told meanwhile is not what was compared.
        let is_equal = self.revision() == revision && all.count == count && newer.kvs.is_empty();
        if is_equal {
            self.mirror.borrow_mut().reach(answer.header.revision);
            self.moved.notify_waiters();
        }
        Ok(is_equal)
    }

    /// The mirror has changed, by `keys`.
    fn show(&self, keys: Vec<String>) {
        if let Some(kept) = &self.kept {
            kept.note(&keys);
        }
        self.touched
            .borrow_mut()
            .get_or_insert_default()
            .extend(keys);
        self.changed.notify_one();
        self.moved.notify_waiters();
    }

    /// etcd answers.
    fn reached(&self) {
        if let Some(trouble) = self.trouble.take() {
            tracing::debug!("until now: {trouble}");
            tracing::info!("etcd can be reached, revision {}", self.revision());
            self.moved.notify_waiters();
        }
    }

    /// etcd does not answer.
    fn lost(&self, fault: &Fault) {
        let before = self.trouble.replace(Some(fault.to_string()));
        if before.is_none() {
            tracing::error!(
                "etcd is out of reach, what it held at revision {} stays in force: {fault}",
                self.revision()
            );
            self.moved.notify_waiters();
        }
    }
}

/// Between two rounds of asking at the start.
const START_PAUSE: Duration = Duration::from_millis(300);
/// How long a change takes at most, mostly, until the watch tells of it.
const LAG_USUAL: Duration = Duration::from_millis(100);
