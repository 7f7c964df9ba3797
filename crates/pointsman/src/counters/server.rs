//! One server of counters, whether or not it can be reached right now.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use pointsman_gateway::{
    clock,
    limits::remote::{Call, Server},
    ports::Unanswered,
};
use tokio::sync::Notify;

use super::link::{Link, Trouble};

/// A server, and the connection to it.
pub(super) struct Connected {
    server: Arc<Server>,
    roots: Option<Arc<[u8]>>,
    state: RefCell<State>,
    /// The number of the newest connection.
    number: Cell<u64>,
    changed: Notify,
    used: Cell<Instant>,
    warned: Cell<Option<Instant>>,
}

#[derive(Clone)]
enum State {
    /// Nobody has asked.
    Unused,
    /// For the first time, or right after a connection broke.
    Connecting,
    Open(Link, u64),
    /// The last attempt has failed, and others go on.
    Down,
}

impl Connected {
    pub(super) fn new(server: Arc<Server>, roots: Option<Arc<[u8]>>) -> Self {
        Self {
            server,
            roots,
            state: RefCell::new(State::Unused),
            number: Cell::new(0),
            changed: Notify::new(),
            used: Cell::new(clock::now()),
            warned: Cell::new(None),
        }
    }

    /// Whether it was used lately.
    pub(super) fn is_wanted(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.used.get()) < self.server.keepalive
    }

    /// What the script says, in time.
    pub(super) async fn run(self: &Rc<Self>, call: &Call) -> Result<Vec<i64>, Unanswered> {
        let now = clock::now();
        self.used.set(now);
        let due = now + self.server.timeout;
        match tokio::time::timeout_at(due.into(), self.try_run(call)).await {
            Ok(answer) => answer,
            Err(_) => {
                self.warn("no answer in time");
                // Whoever is silent is asked again only once it answers a ping.
                if let State::Open(link, number) = self.state()
                    && !link.is_cluster()
                {
                    self.lost(number, State::Down);
                }
                Err(Unanswered)
            }
        }
    }

    async fn try_run(self: &Rc<Self>, call: &Call) -> Result<Vec<i64>, Unanswered> {
        let mut is_again = false;
        loop {
            let (link, number) = self.open().await?;
            match link.run(call).await {
                Ok(answer) => return Ok(answer),
                Err(Trouble::Answer(why)) => {
                    self.warn(&why);
                    return Err(Unanswered);
                }
                Err(Trouble::Lost(why)) => {
                    self.lost(number, State::Connecting);
                    // It may have been closed long before, or be another's by now. At worst the request
                    // is counted twice: never too few.
                    if is_again {
                        self.warn(&why);
                        return Err(Unanswered);
                    }
                    is_again = true;
                }
            }
        }
    }

    /// The connection, once there is one.
    async fn open(self: &Rc<Self>) -> Result<(Link, u64), Unanswered> {
        loop {
            let changed = self.changed.notified();
            match self.state() {
                State::Open(link, number) => return Ok((link, number)),
                State::Down => return Err(Unanswered),
                State::Unused => self.connect(State::Connecting),
                State::Connecting => {}
            }
            changed.await;
        }
    }

    fn state(&self) -> State {
        self.state.borrow().clone()
    }

    fn set(&self, state: State) {
        *self.state.borrow_mut() = state;
        self.changed.notify_waiters();
    }

    /// The connection of that number is of no use any longer.
    fn lost(self: &Rc<Self>, number: u64, meanwhile: State) {
        let is_current = matches!(*self.state.borrow(), State::Open(_, open) if open == number);
        if is_current {
            self.connect(meanwhile);
        }
    }

    /// Has somebody connect, until that works or nobody wants it any longer.
    fn connect(self: &Rc<Self>, meanwhile: State) {
        self.set(meanwhile);
        let own = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let mut pause = PAUSE_MIN;
            loop {
                match Link::open(&own.server, own.roots.as_deref()).await {
                    Ok(link) => {
                        own.number.set(own.number.get() + 1);
                        own.set(State::Open(link, own.number.get()));
                        return;
                    }
                    Err(why) => {
                        own.warn(&why);
                        own.set(State::Down);
                    }
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
                if !own.is_wanted(clock::now()) {
                    own.set(State::Unused);
                    return;
                }
            }
        });
    }

    /// Says what is wrong, once in a while.
    fn warn(&self, why: &str) {
        let now = clock::now();
        let is_due = |at: Instant| now.saturating_duration_since(at) >= WARN_EVERY;
        if self.warned.get().is_none_or(is_due) {
            self.warned.set(Some(now));
            let server = Link::name(&self.server);
            tracing::warn!(
                "limits: the Redis at {server} does not count: {why}; requests that it limits are \
                 refused, or pass where `allow_degradation` is set"
            );
        }
    }
}

/// Between attempts to connect.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Nobody reads the same any sooner.
const WARN_EVERY: Duration = Duration::from_secs(30);
