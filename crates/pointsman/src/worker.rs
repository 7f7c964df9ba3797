//! One worker: a thread with a runtime, sockets and upstream connections of its own.

use std::{net::TcpListener as StdListener, rc::Rc, sync::Arc, thread::JoinHandle, time::Duration};

use pointsman_gateway::{
    config::settings::Settings,
    gateway::{Gateway, State},
    observe::metrics::Shard,
    ports::{Counters, Sink},
};
use tokio::{
    net::TcpListener,
    runtime::Builder,
    sync::{mpsc, watch},
    task::LocalSet,
};

use crate::{
    background::Background,
    counters::RedisCounters,
    dns::Resolver,
    http_client::{ClientTls, Dialer, HttpClient},
    http_server::Limits,
    http1::{buffer, head::HeadLimits},
    listener::{self, Door, Places},
    tls::ServerTls,
};

/// One worker, before it runs.
pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) sockets: Vec<(StdListener, bool)>,
    pub(crate) state: Arc<State>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) shard: Arc<Shard>,
    pub(crate) access_log: Option<Arc<dyn Sink>>,
    pub(crate) client_tls: Arc<ClientTls>,
    pub(crate) server_tls: Arc<ServerTls>,
    pub(crate) drain: watch::Receiver<bool>,
}

impl Worker {
    /// Starts the thread.
    pub(crate) fn start(self) -> Result<JoinHandle<()>, String> {
        let name = format!("worker-{}", self.index);
        std::thread::Builder::new()
            .name(name)
            .spawn(move || {
                if let Err(error) = self.run() {
                    tracing::error!("worker: {error}");
                }
            })
            .map_err(|error| format!("cannot start a worker: {error}"))
    }

    fn run(self) -> Result<(), String> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        LocalSet::new().block_on(&runtime, async move {
            let resolver = Resolver::new(&self.settings);
            let counters = Rc::new(RedisCounters::new(
                self.settings.ssl.trusted_certificate.as_deref(),
            ));
            let dialer = Arc::new(Dialer::new(resolver, self.client_tls));
            let (background, running) = Background::new();
            tokio::task::spawn_local(running);
            let client = Rc::new(HttpClient::new(dialer).with_background(background));
            tokio::task::spawn_local(sweep(Rc::clone(&client), Rc::clone(&counters)));
            let gateway = Rc::new(Gateway::new(
                self.state,
                client,
                Rc::clone(&counters) as Rc<dyn Counters>,
                self.shard,
                self.access_log,
            ));
            let (alive, mut gone) = mpsc::channel(1);
            let door = Door {
                gateway,
                limits: limits(&self.settings),
                http2: self.settings.http2,
                tls: self.server_tls,
                drain: self.drain.clone(),
                alive,
                places: Places::new(self.settings.max_connections.unwrap_or(usize::MAX)),
            };
            for (socket, tls) in self.sockets {
                let listener = TcpListener::from_std(socket).map_err(|e| e.to_string())?;
                tokio::task::spawn_local(listener::accept(listener, tls, door.clone()));
            }
            let mut drain = self.drain;
            let _ = drain.wait_for(|drain| *drain).await;
            drop(door);
            tokio::select! {
                // Every connection holds a sender; `None` means that the last one has ended.
                _ = gone.recv() => counters.settle().await,
                // Nobody waits any longer. What is still served is dropped with its tasks.
                () = cut(drain) => {}
            }
            Ok(())
        })
    }
}

/// Ends when the program that told to drain does not wait for it any longer.
async fn cut(mut drain: watch::Receiver<bool>) {
    while drain.changed().await.is_ok() {}
}

fn limits(settings: &Settings) -> Limits {
    Limits {
        head: settings.client_header_timeout,
        body: settings.client_body_timeout,
        send: settings.send_timeout,
        heads: HeadLimits {
            bytes: settings.max_header_bytes,
            lines: settings.max_headers,
        },
    }
}

async fn sweep(client: Rc<HttpClient>, counters: Rc<RedisCounters>) {
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        client.sweep();
        counters.sweep();
        buffer::trim();
    }
}

/// How often idle connections are looked through.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
