//! The small servers beside the proxy: Control API, metrics, status. All on the control thread.

use std::{
    cell::RefCell,
    net::{SocketAddr, TcpListener as StdListener},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use pointsman_gateway::{
    admin::{control, exporter, status, targets::Time},
    config::{problem::Problem, settings::Settings},
    gateway::State,
    observe::metrics::Metrics,
    plugin::registry::Registry,
    upstream::driver::SharedHealth,
};
use tokio::net::TcpListener;

use crate::{
    config_source::Written,
    sinks::OpenSinks,
    small_server::{self, Answers},
};

/// What the side servers show.
pub(crate) struct Sides {
    pub(crate) state: Arc<State>,
    pub(crate) health: Arc<SharedHealth>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) sinks: Arc<OpenSinks>,
    pub(crate) settings: Arc<Settings>,
    /// Where configuration comes from.
    pub(crate) written: Written,
    /// What is wrong with the one in force.
    pub(crate) problems: Rc<RefCell<Vec<Problem>>>,
}

#[derive(Clone, Copy)]
enum Side {
    Control,
    Exporter,
    Status,
}

/// Starts the servers whose sockets are given.
pub(crate) fn start(
    sides: Sides,
    control: Option<StdListener>,
    exporter: Option<StdListener>,
    status: Option<StdListener>,
) -> Result<(), String> {
    let sides = Rc::new(sides);
    let all = [
        (Side::Control, control),
        (Side::Exporter, exporter),
        (Side::Status, status),
    ];
    for (side, socket) in all {
        let Some(socket) = socket else { continue };
        let listener = TcpListener::from_std(socket).map_err(|error| error.to_string())?;
        let server = Server {
            side,
            sides: Rc::clone(&sides),
        };
        tokio::task::spawn_local(small_server::serve(listener, None, Rc::new(server)));
    }
    Ok(())
}

/// One of them.
struct Server {
    side: Side,
    sides: Rc<Sides>,
}

impl Answers for Server {
    const NAME: &'static str = "side server";
    const HEAD_LIMIT: Duration = Duration::from_secs(10);

    async fn answer(&self, request: Request<Incoming>, _: SocketAddr) -> Response<Bytes> {
        self.sides.answer(self.side, &request)
    }
}

impl Sides {
    fn answer(&self, side: Side, request: &Request<Incoming>) -> Response<Bytes> {
        let snapshot = self.state.snapshot();
        match side {
            Side::Control => {
                let accept = request.headers().get(http::header::ACCEPT);
                let ask = control::Ask {
                    method: request.method(),
                    path: request.uri().path(),
                    accept: accept
                        .and_then(|value| value.to_str().ok())
                        .unwrap_or_default(),
                };
                let problems = self.problems.borrow();
                let (health, registry) = (&self.health, &self.registry);
                control::respond(&ask, &snapshot, health, registry, &problems, Time::now())
            }
            Side::Exporter => {
                let shown = exporter::Shown {
                    state: &self.state,
                    health: &self.health,
                    metrics: &self.metrics,
                    sinks: &self.sinks.list(),
                    reach: self.written.reach(),
                    problems: &self.problems.borrow(),
                };
                exporter::respond(request.uri().path(), &self.settings, &shown)
            }
            Side::Status => {
                let reach = self.written.reach();
                status::respond(request.uri().path(), &snapshot, reach.as_ref())
            }
        }
    }
}
