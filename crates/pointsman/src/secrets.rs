//! Values that secret managers keep: fetched before the configuration that refers to them is compiled, and anew
//! as they grow old.

use std::{
    io::Read,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use pointsman_gateway::{
    clock,
    config::{
        document::Document,
        problem::{Report, Spot},
        settings::Settings,
        snapshot::Snapshot,
    },
    secrets::{
        Values,
        fetch::Outside,
        keeper::{Errand, Keeper, Outcome},
    },
};
use tokio::{runtime::Runtime, task::LocalSet, time::timeout};

use crate::{
    errands::{self, Errands},
    http_client::{Dialer, HttpClient},
    tokens::sign_rs256,
};

/// The values of this process.
pub(crate) struct Secrets(Rc<Errands<Keeper>>);

impl errands::Keeper for Keeper {
    type Errand = Errand;
    type Outcome = Outcome;

    /// It takes in documents, before they are compiled.
    fn adopt(&mut self, _: &Snapshot, _: Instant) {}

    fn poll(&mut self, now: Instant) -> Option<Errand> {
        self.poll_errand(now)
    }

    async fn perform(errand: &Errand, client: &HttpClient) -> Outcome {
        errand.perform(sign_rs256, client).await
    }

    fn on_outcome(&mut self, errand: &Errand, outcome: Outcome, now: Instant) {
        self.on_outcome(errand, outcome, now);
    }

    fn next_deadline(&self, _: Instant) -> Option<Instant> {
        self.next_deadline()
    }
}

impl Secrets {
    /// Nothing is known yet.
    pub(crate) fn new(settings: &Settings) -> Self {
        let secrets = Self(Rc::default());
        secrets
            .0
            .with(|keeper| keeper.set_cache(settings.secret_cache));
        secrets
    }

    /// Another handle.
    pub(crate) fn share(&self) -> Self {
        Self(Rc::clone(&self.0))
    }

    /// What is known.
    pub(crate) fn values(&self) -> Arc<Values> {
        self.0.with(|keeper| keeper.values())
    }

    /// Takes in a document before it is compiled.
    pub(crate) fn adopt(&self, document: &Document) {
        let env = |name: &str| std::env::var(name).ok();
        let outside = Outside {
            env: &env,
            file: &small_file,
        };
        self.0
            .with(|keeper| keeper.adopt(document, outside, clock::now()));
    }

    /// Tells what is wrong with managers.
    pub(crate) fn tell(&self, report: &mut Report<'_>) {
        self.0.with(|keeper| {
            for (item, why) in keeper.problems() {
                report.error(Spot::bare(&item.place), "", why);
            }
        });
    }

    /// Fetches what is due, as long as the program goes on.
    pub(crate) fn spawn(&self, dialer: &Arc<Dialer>) {
        tokio::task::spawn_local(Rc::clone(&self.0).run(Arc::clone(dialer)));
    }

    /// Waits until everything has had a first answer, or for a moment.
    pub(crate) async fn first_answers(&self) {
        let all = async {
            while self.0.with(|keeper| keeper.awaits_first_answers()) {
                self.0.came_back().await;
            }
        };
        let _ = timeout(FIRST_LIMIT, all).await;
    }

    /// The same before anything else runs.
    pub(crate) fn first_of_all(&self, runtime: &Runtime, dialer: Arc<Dialer>) {
        if !self.0.with(|keeper| keeper.awaits_first_answers()) {
            return;
        }
        let local = LocalSet::new();
        local.block_on(runtime, async {
            tokio::select! {
                () = Rc::clone(&self.0).run(dialer) => {}
                () = self.first_answers() => {}
            }
        });
        drop(local);
        self.0.with(|keeper| keeper.on_given_up(clock::now()));
    }

    /// Ends when what is known differs from `values`.
    pub(crate) async fn changed(&self, values: &Arc<Values>) {
        while Arc::ptr_eq(&self.values(), values) {
            self.0.came_back().await;
        }
        // What else is on its way is taken in along with it.
        self.first_answers().await;
    }
}

/// The text of a file that holds credentials.
fn small_file(path: &str) -> Result<String, String> {
    let say = |error: std::io::Error| format!("cannot read {path}: {error}");
    let file = std::fs::File::open(path).map_err(say)?;
    let mut text = String::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    match read.map_err(say)? as u64 {
        size if size > FILE_BYTES_MAX => Err(format!("{path} is too large")),
        _ => Ok(text),
    }
}

/// How long a configuration waits for values that nobody knows yet.
const FIRST_LIMIT: Duration = Duration::from_secs(2);
const FILE_BYTES_MAX: u64 = 256 << 10;
