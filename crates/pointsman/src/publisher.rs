//! From the text of a document to the configuration in force.
//!
//! Lives on the control thread and owns what must not be shared, such as the documents as last
//! applied. A document that cannot be read at all changes nothing; one with bad items is applied
//! without them.

use std::{cell::RefCell, collections::HashSet, rc::Rc, sync::Arc};

use pointsman_gateway::{
    clock,
    config::{
        compile::{self, Compiled},
        document::{Document, Parsed},
        problem::{Problem, Report, Severity},
        reference::Elsewhere,
        settings::Settings,
        snapshot::Snapshot,
        text::Lines,
    },
    gateway::State,
    plugin::registry::Registry,
    ports::Sinks,
    semantic, tokens,
    upstream::driver::SharedHealth,
};

use crate::config_source::{ConfigSource, Reading, SourceError};
use crate::errands::Errands;
use crate::health_file::HealthFile;
use crate::http_client::Dialer;
use crate::secrets::Secrets;
use crate::tls::{ServerTls, Table, TlsSettings};

/// Turns documents into snapshots and publishes them.
pub(crate) struct Publisher {
    pub(crate) settings: Arc<Settings>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) sinks: Arc<dyn Sinks>,
    pub(crate) health: Arc<SharedHealth>,
    /// Where an earlier process wrote down what it knew about targets.
    pub(crate) health_file: Option<Arc<HealthFile>>,
    examples: Rc<Errands<semantic::keeper::Keeper>>,
    tokens: Rc<Errands<tokens::keeper::Keeper>>,
    pub(crate) secrets: Secrets,
    /// What was read last.
    lines: Lines,
    read_problems: Vec<Problem>,
    generation: u64,
    /// What is wrong with the configuration in force.
    pub(crate) problems: Rc<RefCell<Vec<Problem>>>,
    /// What was wrong with the configuration in force, of a source that changes item by item.
    told: HashSet<String>,
}

/// A snapshot that is ready, and what was wrong on the way.
pub(crate) struct Prepared {
    pub(crate) snapshot: Arc<Snapshot>,
    /// `None` if those in force stay.
    pub(crate) certificates: Option<Table>,
    pub(crate) problems: Vec<Problem>,
}

impl Publisher {
    /// Nothing has been applied yet.
    pub(crate) fn new(
        settings: Arc<Settings>,
        registry: Arc<Registry>,
        sinks: Arc<dyn Sinks>,
        health: Arc<SharedHealth>,
    ) -> Self {
        Self {
            secrets: Secrets::new(&settings),
            lines: Lines::default(),
            read_problems: Vec::new(),
            settings,
            registry,
            sinks,
            health,
            health_file: None,
            examples: Rc::default(),
            tokens: Rc::default(),
            generation: 0,
            problems: Rc::default(),
            told: HashSet::new(),
        }
    }

    /// Starts the tasks that bring about what goes along with whatever is published: vectors of
    /// examples, and access tokens.
    pub(crate) fn spawn_keepers(&self, dialer: &Arc<Dialer>) {
        tokio::task::spawn_local(Rc::clone(&self.examples).run(Arc::clone(dialer)));
        tokio::task::spawn_local(Rc::clone(&self.tokens).run(Arc::clone(dialer)));
        self.secrets.spawn(dialer);
    }

    /// Reads and compiles what `source` holds, without waiting for anything; `None` if it holds nothing. Targets
    /// that are new are known to the monitor when this returns.
    ///
    /// # Errors
    /// When nothing of it can be used.
    pub(crate) fn prepare(
        &mut self,
        source: &mut dyn ConfigSource,
    ) -> Result<Option<Prepared>, SourceError> {
        let document = self.read(source)?;
        Ok(document.map(|document| self.compile(document, None)))
    }

    /// Reads what `source` holds; `None` if that is what was read last. Secrets that it refers to are asked for
    /// from then on.
    ///
    /// # Errors
    /// When nothing of it can be used.
    pub(crate) fn read(
        &mut self,
        source: &mut dyn ConfigSource,
    ) -> Result<Option<Arc<Document>>, SourceError> {
        let env = |name: &str| std::env::var(name).ok();
        let reading = Reading {
            env: &env,
            catalog: &*self.registry,
        };
        let Some(parsed) = source.read(&reading)? else {
            return Ok(None);
        };
        let Parsed {
            document,
            lines,
            problems,
        } = parsed;
        self.generation += 1;
        self.lines = lines;
        self.read_problems = problems;
        self.secrets.adopt(&document);
        Ok(Some(Arc::new(document)))
    }

    /// The document of `snapshot` is to be compiled once more, as another configuration.
    pub(crate) fn again(&mut self, snapshot: &Snapshot) -> Arc<Document> {
        self.generation += 1;
        Arc::clone(&snapshot.document)
    }

    /// What is in force before anything could be loaded: no route at all, generation 0.
    pub(crate) fn nothing(&mut self) -> Prepared {
        self.compile(Arc::default(), None)
    }

    /// Compiles `document`, which was read last. Targets that are new are known to the monitor when this returns.
    pub(crate) fn compile(
        &mut self,
        document: Arc<Document>,
        previous: Option<&Snapshot>,
    ) -> Prepared {
        let env = |name: &str| std::env::var(name).ok();
        let secrets = self.secrets.values();
        let lines = &self.lines;
        let mut problems = self.read_problems.clone();
        let compiled = compile::compile(compile::Input {
            document,
            lines,
            settings: &self.settings,
            registry: &self.registry,
            sinks: &*self.sinks,
            env: &env,
            secrets: &secrets,
            health: &self.health,
            previous,
            generation: self.generation,
            now: clock::now(),
        });
        // What was known before a restart is about the first configuration of this process. Nothing of it
        // is probed yet.
        if self.generation == 1
            && let Some(file) = &self.health_file
        {
            file.restore(&self.health, clock::now());
        }
        let Compiled {
            snapshot,
            problems: more,
        } = compiled;
        problems.extend(more);
        let tls = TlsSettings {
            http2: self.settings.http2,
            fallback_sni: self.settings.ssl.fallback_sni.clone(),
            protocols: self.settings.ssl.protocols.clone(),
        };
        let mut report = Report::new(lines);
        self.secrets.tell(&mut report);
        let ssls = &snapshot.document.ssls;
        let stay = previous.is_some_and(|previous| {
            let before = &previous.document.ssls;
            let mut pairs = before.iter().zip(ssls);
            before.len() == ssls.len()
                && pairs.all(|(before, now)| Arc::ptr_eq(before, now))
                && Arc::ptr_eq(&previous.secrets, &secrets)
        });
        let elsewhere = Elsewhere {
            env: &env,
            secrets: &secrets,
        };
        let certificates = (!stay).then(|| Table::build(ssls, &tls, elsewhere, &mut report));
        problems.extend(report.into_problems());
        // As they stand in the file, whichever step found them.
        problems.sort_by_key(|problem| problem.line);
        Prepared {
            snapshot: Arc::new(snapshot),
            certificates,
            problems,
        }
    }

    /// Puts `prepared`, which comes from `source`, in force.
    pub(crate) fn publish(
        &mut self,
        prepared: Prepared,
        source: &dyn ConfigSource,
        state: &State,
        tls: &ServerTls,
    ) {
        let generation = prepared.snapshot.generation;
        let routes = prepared.snapshot.routes.len();
        if let Some(certificates) = prepared.certificates {
            tls.publish(certificates);
        }
        self.examples.adopt(&prepared.snapshot);
        self.tokens.adopt(&prepared.snapshot);
        let snapshot = prepared.snapshot;
        let mut health = self.health.lock();
        health.put_in_force(snapshot, state, clock::now());
        drop(health);
        let errors = prepared
            .problems
            .iter()
            .filter(|p| p.severity == Severity::Error)
            .count();
        let all_problems = prepared.problems.clone();
        let mut news = prepared.problems;
        if source.is_piecemeal() {
            let all: Vec<String> = news.iter().map(ToString::to_string).collect();
            let mut texts = all.iter();
            news.retain(|_| texts.next().is_some_and(|text| !self.told.contains(text)));
            self.told = all.into_iter().collect();
        }
        tell(&news, &source.name());
        *self.problems.borrow_mut() = all_problems;
        if generation > 0 {
            tracing::info!(
                routes,
                errors,
                "configuration applied generation={generation}"
            );
        }
    }
}

/// Says what is wrong with `source`, one line each, as `check` does.
fn tell(problems: &[Problem], source: &str) {
    for problem in problems {
        match problem.severity {
            Severity::Error => tracing::error!("{source}: {problem}"),
            Severity::Warning => tracing::warn!("{source}: {problem}"),
        }
    }
}
