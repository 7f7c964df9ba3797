use std::{
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    time::Duration,
};

use pointsman_balance::ProbeOutcome;
use pointsman_gateway::{
    config::settings::Settings,
    ports::LocalFuture,
    upstream::{health::ProbeSpec, resolve::Found},
};
use tokio::time::sleep;

use super::*;
use crate::{dns::Lookups, probe::Stage};

/// The program serves, and has begun to keep its file of health.
static SERVES: AtomicBool = AtomicBool::new(false);
/// A target has been found to be down since.
static FELL: AtomicBool = AtomicBool::new(false);

/// The target at port 1 falls; a probe of any other panics then.
fn failing_probe<'a>(
    _: &'a Dialer,
    spec: &'a ProbeSpec,
    _: &'a Stage,
) -> LocalFuture<'a, ProbeOutcome> {
    Box::pin(async move {
        if spec.port != 1 {
            wait_for(&FELL).await;
            panic!("a fault of a probe");
        }
        falling().await
    })
}

fn falling_probe<'a>(
    _: &'a Dialer,
    _: &'a ProbeSpec,
    _: &'a Stage,
) -> LocalFuture<'a, ProbeOutcome> {
    Box::pin(falling())
}

fn failing_look_up<'a>(_: &'a Lookups, _: &'a str) -> LocalFuture<'a, Result<Found, String>> {
    Box::pin(async {
        wait_for(&FELL).await;
        panic!("a fault of a look-up")
    })
}

async fn falling() -> ProbeOutcome {
    wait_for(&SERVES).await;
    // It is taken in before any other task of this thread has its turn.
    FELL.store(true, SeqCst);
    ProbeOutcome::TcpFailure
}

async fn wait_for(flag: &AtomicBool) {
    while !flag.load(SeqCst) {
        sleep(Duration::from_millis(1)).await;
    }
}

/// A program of one worker with two nodes, by what performs its probes and look-ups.
fn program(folder: &Path, node: &str, performers: Performers) -> Program {
    let checks =
        "active: {type: tcp, healthy: {interval: 1}, unhealthy: {interval: 1, tcp_failures: 1}}";
    let document = format!(
        "routes: [{{id: 1, uri: /*, upstream: {{nodes: {{\"127.0.0.1:1\": 1, \"{node}\": 1}}, \
         checks: {{{checks}}}}}}}]\n#END\n"
    );
    std::fs::write(folder.join("apisix.yaml"), document).expect("written");
    let nowhere = "{ip: 127.0.0.1, port: 0}";
    let settings = format!(
        "deployment: {{role: data_plane, role_data_plane: {{config_provider: yaml}}}}\n\
         apisix: {{node_listen: [{nowhere}], ssl: {{enable: false}}, control: {nowhere}}}\n\
         plugin_attr: {{prometheus: {{export_addr: {nowhere}}}}}\n\
         pointsman: {{access_log: {{enabled: false}}, health_state_file: health.state}}\n"
    );
    let (settings, _) = Settings::parse(&settings, &|_| None).expect("sound");
    let mut program =
        Program::build(settings, &folder.join("config.yaml"), Some(1)).expect("built");
    program.performers = performers;
    program
}

/// A probe, or a look-up, that panics is the end of the program: with exit code 1, a line that says why, and what
/// was known then in the file of health.
#[test]
fn a_probe_or_a_look_up_that_panics_ends_the_program() {
    let of_probe = Performers {
        probe: failing_probe,
        ..Performers::default()
    };
    let of_look_up = Performers {
        probe: falling_probe,
        look_up: failing_look_up,
    };
    for (node, performers) in [("127.0.0.1:2", of_probe), ("a.test:1", of_look_up)] {
        SERVES.store(false, SeqCst);
        FELL.store(false, SeqCst);
        let folder = tempfile::tempdir().expect("a folder");
        let program = program(folder.path(), node, performers);
        let serving = async {
            // The keeper of the file has its turn before this goes on: the verdict to come is news, and
            // what it writes next it writes some time later.
            sleep(Duration::from_millis(1)).await;
            SERVES.store(true, SeqCst);
            // If it does not end by itself, that is the failure.
            sleep(Duration::from_secs(10)).await;
        };
        let error = program.serve_until(serving).expect_err("it ends by itself");
        let why = "the health of targets is kept no longer (a probe or a look-up: it panicked); please report this; \
                   start again";
        assert_eq!(error, why);
        assert_eq!(exit_code(Err(error)), ExitCode::FAILURE);
        let left = std::fs::read_to_string(folder.path().join("health.state"));
        let left = left.unwrap_or_default();
        assert!(left.contains("unhealthy"), "{node}: {left}");
    }
}
