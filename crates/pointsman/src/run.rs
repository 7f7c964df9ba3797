//! Build, start, drain: the program from its first line to its exit code.
//!
//! One worker thread per core, each with a runtime, a listener socket and upstream connections of
//! its own; the thread of health, which probes and publishes verdicts; and the control thread (this
//! one), which reads configuration and serves the Control API and metrics. The workers only read what
//! the other two publish.

use std::{
    net::TcpListener as StdListener, path::Path, process::ExitCode, rc::Rc, sync::Arc,
    thread::JoinHandle,
};

use pointsman_gateway::{
    admin_api::{AdminApi, access::Access},
    config::{
        document::Document,
        settings::{Settings, Warning},
    },
    gateway::State,
    observe::metrics::Metrics,
    plugin::registry::Registry,
    ports::{SinkSpec, Sinks},
    upstream::driver::SharedHealth,
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::{mpsc, watch},
    task::{JoinSet, LocalSet},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    admin_keys,
    admin_server::{self, AdminServer},
    cli::RunOptions,
    config_source::{self, ConfigSource, Opened, SourceError, Written},
    dns::Resolver,
    drain::{self, End, any_signal},
    health_file::{HealthFile, Keeper},
    health_thread::{HealthThread, Keeping, Performers, Signals},
    http_client::{ClientTls, Dialer},
    listener::{self, Address, Bound},
    names,
    publisher::{Prepared, Publisher},
    side_servers::{self, Sides},
    sinks::{self, OpenSinks, Queue, Writer},
    tls::{self, ServerTls},
    worker::Worker,
};

/// `pointsman run`.
pub(crate) fn main(options: &RunOptions) -> ExitCode {
    if let Err(error) = start_log(&options.log_level) {
        return fail(&error);
    }
    let text = match std::fs::read_to_string(&options.config) {
        Ok(text) => text,
        Err(error) => {
            return fail(&format!(
                "cannot read {}: {error}",
                options.config.display()
            ));
        }
    };
    let env = |name: &str| std::env::var(name).ok();
    let (settings, warnings) = match Settings::parse(&text, &env) {
        Ok(parsed) => parsed,
        Err(errors) => {
            let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
            return fail(&format!(
                "{}: {}",
                options.config.display(),
                lines.join("; ")
            ));
        }
    };
    tell_warnings(&warnings);
    let built = Program::build(settings, &options.config, options.workers);
    exit_code(built.map(Program::announced).and_then(Program::serve))
}

fn exit_code(ended: Result<(), String>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// One clear line, and the exit code for "could not start".
pub(crate) fn fail(error: &str) -> ExitCode {
    eprintln!("pointsman: {error}");
    ExitCode::FAILURE
}

/// Sends the program's own log to stderr.
pub(crate) fn start_log(level: &str) -> Result<(), String> {
    let filter = tracing_subscriber::EnvFilter::try_new(level)
        .map_err(|error| format!("--log-level `{level}`: {error}"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
        .try_init()
        .map_err(|error| error.to_string())
}

fn tell_warnings(warnings: &[Warning]) {
    for warning in warnings {
        tracing::warn!("config.yaml: {warning}");
    }
}

/// Everything that is needed to serve; nothing runs yet, but all sockets are bound.
pub(crate) struct Program {
    settings: Arc<Settings>,
    source: Box<dyn ConfigSource>,
    written: Written,
    access: Option<Access>,
    workers: usize,
    runtime: Runtime,
    publisher: Publisher,
    first: Prepared,
    health: Arc<SharedHealth>,
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
    client_tls: Arc<ClientTls>,
    sinks: Arc<OpenSinks>,
    writer: Arc<Writer>,
    queues: mpsc::UnboundedReceiver<Arc<Queue>>,
    proxies: Vec<Bound>,
    control: Option<StdListener>,
    exporter: Option<StdListener>,
    status: Option<StdListener>,
    admin: Option<StdListener>,
    admin_tls: Option<TlsAcceptor>,
    announces: bool,
    performers: Performers,
}

impl Program {
    /// Reads, compiles and binds, by `settings`, which stand in the file `config`. Whatever fails
    /// here is one line and exit code 1.
    pub(crate) fn build(
        settings: Settings,
        config: &Path,
        workers: Option<usize>,
    ) -> Result<Self, String> {
        let settings = Arc::new(settings);
        let workers = worker_count(workers.or(settings.workers));
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("cannot start a runtime: {error}"))?;
        let (registry, unknown) = match &settings.plugins {
            Some(names) => Registry::only(names),
            None => (Registry::new(), Vec::new()),
        };
        for name in unknown {
            tracing::warn!("config.yaml: plugins: `{name}` is not a plugin of this gateway");
        }
        let registry = Arc::new(registry);
        let (writer, sinks, queues) = sinks::start(settings.access_log.as_deref())?;
        let health = SharedHealth::new();
        let mut publisher = Publisher::new(
            Arc::clone(&settings),
            Arc::clone(&registry),
            Arc::clone(&sinks) as Arc<dyn Sinks>,
            Arc::clone(&health),
        );
        let folder = config.parent().unwrap_or_else(|| Path::new("."));
        publisher.health_file = HealthFile::new(&settings, folder);
        let client_tls = Arc::new(ClientTls::new(settings.ssl.trusted_certificate.as_deref())?);
        let Opened {
            mut source,
            written,
        } = config_source::open(&settings, config, &client_tls, &runtime)?;
        let admin_tls = settings.admin.as_ref().and_then(|admin| admin.tls.as_ref());
        let admin_tls = admin_tls.map(tls::files::acceptor).transpose()?;
        let access = settings.admin.as_ref();
        let access = access.map(|admin| admin_keys::access(admin, &written));
        let access = access.transpose()?;
        let dialer = Dialer::new(Resolver::new(&settings), Arc::clone(&client_tls));
        let first = first(&mut publisher, &mut *source, &runtime, dialer)?;
        let mut proxies = Vec::new();
        let plain = settings.node_listen.iter().map(|address| (*address, false));
        let secure = settings.ssl.listen.iter().map(|address| (*address, true));
        for (address, tls) in plain.chain(secure) {
            proxies.push(listener::bind(&Address { address, tls }, workers)?);
        }
        let bind =
            |address: Option<std::net::SocketAddr>| address.map(listener::bind_one).transpose();
        Ok(Self {
            control: bind(settings.control)?,
            exporter: bind(settings.prometheus.export_addr)?,
            status: bind(settings.status)?,
            admin: bind(settings.admin.as_ref().map(|admin| admin.listen))?,
            admin_tls,
            metrics: Arc::new(Metrics::new(&settings.prometheus)),
            settings,
            source,
            written,
            access,
            workers,
            runtime,
            publisher,
            first,
            health,
            registry,
            client_tls,
            sinks,
            writer,
            queues,
            proxies,
            announces: false,
            performers: Performers::default(),
        })
    }

    /// The address of the first plain listener.
    pub(crate) fn proxy_address(&self) -> Option<std::net::SocketAddr> {
        self.proxies
            .iter()
            .find(|bound| !bound.tls)
            .map(|bound| bound.address)
    }

    /// Says on stderr where it listens, one `listening name=address` a line, and later `ready`.
    /// Not part of the log: scripts read it, whatever the log level.
    fn announced(mut self) -> Self {
        for bound in &self.proxies {
            let name = if bound.tls { "proxy_tls" } else { "proxy" };
            eprintln!("listening {name}={}", bound.address);
        }
        let sides = [
            ("control", &self.control),
            ("metrics", &self.exporter),
            ("status", &self.status),
            ("admin", &self.admin),
        ];
        for (name, socket) in sides {
            if let Some(address) = socket.as_ref().and_then(|socket| socket.local_addr().ok()) {
                eprintln!("listening {name}={address}");
            }
        }
        self.announces = true;
        self
    }

    /// Serves until a signal ends it.
    pub(crate) fn serve(self) -> Result<(), String> {
        self.serve_until(std::future::pending())
    }

    /// Serves until a signal, or `stop`, ends it.
    pub(crate) fn serve_until(mut self, stop: impl Future<Output = ()>) -> Result<(), String> {
        let proxies = std::mem::take(&mut self.proxies);
        let availability = self.health.lock().availability();
        let state = Arc::new(State::new(Arc::clone(&self.first.snapshot), availability));
        let signals = Arc::new(Signals::default());
        let keeping = Keeping {
            settings: Arc::clone(&self.settings),
            client_tls: Arc::clone(&self.client_tls),
            health: Arc::clone(&self.health),
            state: Arc::clone(&state),
            signals: Arc::clone(&signals),
            performers: self.performers,
        };
        let health_thread = HealthThread::start(keeping)?;
        let tls = Arc::new(ServerTls::new(crate::tls::Table::default()));
        let mut by_worker: Vec<Vec<(StdListener, bool)>> = Vec::new();
        by_worker.resize_with(self.workers, Vec::new);
        for bound in proxies {
            // Each socket goes to its worker and is closed there, so that a drain really stops
            // new connections.
            for (socket, worker) in bound.sockets.into_iter().zip(&mut by_worker) {
                worker.push((socket, bound.tls));
            }
        }
        let (drain, draining) = watch::channel(false);
        let access_log = self
            .settings
            .access_log
            .as_ref()
            .map(|path| self.sinks.open(&SinkSpec::File { path: path.clone() }));
        let mut threads = Vec::new();
        for (index, sockets) in by_worker.into_iter().enumerate() {
            let worker = Worker {
                index,
                sockets,
                state: Arc::clone(&state),
                settings: Arc::clone(&self.settings),
                shard: self.metrics.shard(),
                access_log: access_log.clone(),
                client_tls: Arc::clone(&self.client_tls),
                server_tls: Arc::clone(&tls),
                drain: draining.clone(),
            };
            threads.push(worker.start()?);
        }
        self.control(state, tls, drain, threads, (health_thread, signals), stop)
    }

    /// The control thread's part, from the first publication to the end of the drain.
    fn control(
        mut self,
        state: Arc<State>,
        tls: Arc<ServerTls>,
        drain: watch::Sender<bool>,
        threads: Vec<JoinHandle<()>>,
        (health_thread, signals): (HealthThread, Arc<Signals>),
        stop: impl Future<Output = ()>,
    ) -> Result<(), String> {
        let resolver = Resolver::new(&self.settings);
        let dialer = Arc::new(Dialer::new(resolver, Arc::clone(&self.client_tls)));
        let local = LocalSet::new();
        let drain_limit = self.settings.drain_timeout;
        let writer = Arc::clone(&self.writer);
        let keeper = Keeper::new(self.publisher.health_file.clone(), Arc::clone(&self.health));
        let sides = self.sides(&state);
        let admin = self.admin_server();
        self.publisher
            .publish(self.first, &*self.source, &state, &tls);
        signals.tell_reconciled();
        let runtime = self.runtime;
        let (ending, ended) = watch::channel(false);
        // Kept to the end: verdicts go on while the program drains.
        let mut lost = std::pin::pin!(health_thread.lost());
        let outcome = runtime.block_on(local.run_until(async {
            side_servers::start(sides, self.control, self.exporter, self.status)?;
            admin_server::start(admin, self.written)?;
            let feeding = feed_collectors(self.queues, Arc::clone(&dialer), ended);
            let feeding = tokio::task::spawn_local(feeding);
            tokio::task::spawn_local(sinks::watch(Arc::clone(&self.sinks)));
            self.publisher.spawn_keepers(&dialer);
            tokio::task::spawn_local(keeper.clone().keep());
            let mut reloader = Reloader {
                publisher: self.publisher,
                source: self.source,
                state,
                tls,
                signals,
            };
            let announcement = self.announces.then_some("ready");
            tokio::select! {
                ended = until_signal(&mut reloader, stop, announcement) => ended?,
                lost = lost.as_mut() => {
                    keeper.finish();
                    return Err(lost);
                }
            }
            // Listened for before anybody can know of the first: one in between would be lost.
            let second = Box::pin(drain::second_signal());
            let _ = drain.send(true);
            // Now, for a second signal or an impatient supervisor may cut the drain short.
            keeper.save();
            tracing::info!("draining: no new connections, up to {drain_limit:?} for open ones");
            Ok::<_, String>((feeding, second))
        }));
        // What requests have logged so far is written, however it ends.
        let (feeding, mut second) = outcome.inspect_err(|_| writer.stop())?;
        let cut = cut(second.as_mut(), lost);
        let end = drain::finish(&runtime, &local, threads, drain, drain_limit, cut);
        let _ = ending.send(true);
        keeper.finish();
        if end == End::Orderly {
            drain::flush(&runtime, &local, feeding, second);
        }
        writer.stop();
        Ok(())
    }

    /// The Admin API and its socket, if there is one.
    fn admin_server(&mut self) -> Option<(AdminServer, StdListener)> {
        let socket = self.admin.take()?;
        let settings = self.settings.admin.as_ref()?;
        let server = AdminServer {
            api: AdminApi {
                access: self.access.take()?,
                cors: settings.cors,
                server: self.settings.server_header.clone(),
            },
            registry: Arc::clone(&self.registry),
            written: self.written.clone(),
            tls: self.admin_tls.take(),
        };
        Some((server, socket))
    }

    /// What the servers beside the proxy look at.
    fn sides(&self, state: &Arc<State>) -> Sides {
        Sides {
            state: Arc::clone(state),
            health: Arc::clone(&self.health),
            registry: Arc::clone(&self.registry),
            metrics: Arc::clone(&self.metrics),
            sinks: Arc::clone(&self.sinks),
            settings: Arc::clone(&self.settings),
            written: self.written.clone(),
            problems: Rc::clone(&self.publisher.problems),
        }
    }
}

/// The configuration to start with. A document that somebody is still writing is waited for: until
/// then there is no route, and `/status/ready` says so.
fn first(
    publisher: &mut Publisher,
    source: &mut dyn ConfigSource,
    runtime: &Runtime,
    dialer: Dialer,
) -> Result<Prepared, String> {
    match publisher.read(source) {
        Ok(None) => Ok(publisher.nothing()),
        Ok(Some(document)) => {
            // From its first request on, the gateway knows what it can know.
            publisher.secrets.first_of_all(runtime, Arc::new(dialer));
            Ok(publisher.compile(document, None))
        }
        Err(SourceError::Unfinished(error)) => {
            tracing::warn!("{error}; waiting for it");
            Ok(publisher.nothing())
        }
        Err(SourceError::Unusable(error)) => Err(error),
    }
}

fn worker_count(wanted: Option<usize>) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    wanted
        .filter(|count| *count > 0)
        .unwrap_or(cores)
        .min(WORKERS_MAX)
}

/// Ends when a drain is to be cut short: the program was asked twice, or verdicts are kept no longer.
async fn cut(second: impl Future<Output = ()>, lost: impl Future<Output = String>) {
    tokio::select! {
        () = second => {}
        why = lost => tracing::error!("ending at once: {why}"),
    }
}

/// Feeds collectors as configurations name them; ends once the program is `ending` and
/// everything that waits has been sent.
async fn feed_collectors(
    mut queues: mpsc::UnboundedReceiver<Arc<Queue>>,
    dialer: Arc<Dialer>,
    mut ending: watch::Receiver<bool>,
) {
    let mut feeders = JoinSet::new();
    loop {
        let ended = ending.clone();
        tokio::select! {
            _ = ending.wait_for(|ending| *ending) => break,
            queue = queues.recv() => {
                let Some(queue) = queue else { break };
                feeders.spawn_local(sinks::feed(queue, Arc::clone(&dialer), ended));
            }
        }
        while feeders.try_join_next().is_some() {}
    }
    while feeders.join_next().await.is_some() {}
}

/// Applies changes of the document.
struct Reloader {
    publisher: Publisher,
    source: Box<dyn ConfigSource>,
    state: Arc<State>,
    tls: Arc<ServerTls>,
    signals: Arc<Signals>,
}

impl Reloader {
    /// Puts the document in force if it has changed; says whether it had.
    async fn reload(&mut self) -> bool {
        match self.publisher.read(&mut *self.source) {
            Ok(None) => return false,
            Ok(Some(document)) => {
                self.publisher.secrets.first_answers().await;
                self.put_in_force(document).await;
            }
            Err(error) => {
                tracing::error!("configuration refused, the last one stays in force: {error}");
            }
        }
        true
    }

    /// Puts the same document in force once more, because what its references stand for has changed.
    async fn renew(&mut self) {
        let document = self.publisher.again(&self.state.snapshot());
        self.put_in_force(document).await;
    }

    async fn put_in_force(&mut self, document: Arc<Document>) {
        let previous = self.state.snapshot();
        let prepared = self.publisher.compile(document, Some(&previous));
        self.publisher.health.lock().announce(&self.state);
        self.signals.tell_reconciled();
        names::first_answers(&self.publisher.health, &self.signals.answered).await;
        self.publisher
            .publish(prepared, &*self.source, &self.state, &self.tls);
        self.signals.tell_reconciled();
    }
}

/// Reloads as asked until a signal, or `stop`, says to end. Prints `announcement` once it listens
/// to changes and signals.
async fn until_signal(
    reloader: &mut Reloader,
    stop: impl Future<Output = ()>,
    announcement: Option<&str>,
) -> Result<(), String> {
    reloader.source.watch()?;
    let mut hangup = hangup()?;
    // What changed between the first reading and the watch would otherwise be missed.
    reloader.reload().await;
    let mut stop = std::pin::pin!(stop);
    let mut ended = std::pin::pin!(any_signal()?);
    if let Some(announcement) = announcement {
        eprintln!("{announcement}");
    }
    let secrets = reloader.publisher.secrets.share();
    loop {
        let values = Arc::clone(&reloader.state.snapshot().secrets);
        tokio::select! {
            () = stop.as_mut() => return Ok(()),
            () = ended.as_mut() => return Ok(()),
            () = secrets.changed(&values) => reloader.renew().await,
            _ = hangup.recv() => if !reloader.reload().await {
                tracing::info!("SIGHUP: the configuration has not changed");
            },
            () = reloader.source.changed() => {
                reloader.reload().await;
            }
        }
    }
}

#[cfg(unix)]
fn hangup() -> Result<tokio::signal::unix::Signal, String> {
    use tokio::signal::unix::{SignalKind, signal};
    signal(SignalKind::hangup()).map_err(|error| format!("cannot wait for SIGHUP: {error}"))
}

/// More workers than this help nobody.
const WORKERS_MAX: usize = 256;

#[cfg(test)]
mod tests;
