//! `pointsman demo`: the real gateway in front of three stand-in models inside this process.
//!
//! One of the models dies and recovers every twenty seconds. Some traffic is sent all the time, so
//! that the terminal shows who gets how much and who is out; a `curl` of yours joins in.

#![expect(
    clippy::print_stdout,
    reason = "what it prints is what a person asked for"
)]

mod model;
mod traffic;

use std::{io::IsTerminal, net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use pointsman_gateway::config::settings::Settings;

use self::{model::Model, traffic::Traffic};
use crate::{
    cli::DemoOptions,
    run::{Program, fail, start_log},
};

/// `pointsman demo`.
pub(crate) fn main(options: &DemoOptions) -> ExitCode {
    if let Err(error) = start_log("error") {
        return fail(&error);
    }
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn run(options: &DemoOptions) -> Result<(), String> {
    let models = [
        Model::start("swift", 3)?,
        Model::start("steady", 2)?,
        Model::start("moody", 1)?,
    ];
    let folder = TemporaryFolder::new()?;
    std::fs::write(folder.path.join("apisix.yaml"), routes(&models))
        .map_err(|error| format!("cannot write the demo's configuration: {error}"))?;
    let env = |_: &str| None;
    let (settings, _) = Settings::parse(&settings(options.port), &env).map_err(|errors| {
        errors
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; ")
    })?;
    let program = Program::build(settings, &folder.path.join("config.yaml"), None)?;
    let address = program.proxy_address().ok_or("the demo has no listener")?;
    introduce(address, &models);
    let traffic = Traffic::start(
        address,
        models.map(Arc::new),
        std::io::stdout().is_terminal(),
    )?;
    let seconds = options.seconds;
    program.serve_until(async move {
        match seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    })?;
    traffic.stop();
    Ok(())
}

fn settings(port: u16) -> String {
    format!(
        "deployment: {{role: data_plane, role_data_plane: {{config_provider: yaml}}}}\n\
         apisix:\n  node_listen: [{{ip: 127.0.0.1, port: {port}}}]\n  ssl: {{enable: false}}\n\
         pointsman: {{access_log: {{enabled: false}}, health_state_file: false}}\n"
    )
}

fn routes(models: &[Model]) -> String {
    let mut instances = String::new();
    for model in models {
        instances.push_str(&format!(
            "          - name: {name}\n            provider: openai-compatible\n            \
             weight: {weight}\n            auth: {{header: {{Authorization: Bearer demo}}}}\n            \
             override: {{endpoint: \"http://{address}\"}}\n            checks:\n              \
             active: {{type: http, http_path: /health, timeout: 0.5, healthy: {{interval: 1, \
             successes: 1}}, unhealthy: {{interval: 1, http_failures: 1, tcp_failures: 1, \
             timeouts: 1}}}}\n",
            name = model.name,
            weight = model.weight,
            address = model.address,
        ));
    }
    format!(
        "routes:\n  - id: demo\n    uri: /v1/chat/completions\n    plugins:\n      prometheus: {{}}\n      \
         ai-proxy-multi:\n        fallback_strategy: [http_429, http_5xx]\n        instances:\n\
         {instances}#END\n"
    )
}

fn introduce(address: SocketAddr, models: &[Model]) {
    let names: Vec<String> = models
        .iter()
        .map(|model| format!("{} (weight {})", model.name, model.weight))
        .collect();
    println!(
        "Pointsman demo: http://{address} in front of {}.",
        names.join(", ")
    );
    println!("`moody` dies and recovers every 20 seconds. Try it from another terminal:\n");
    println!("  curl -s http://{address}/v1/chat/completions \\");
    println!("    -H 'Content-Type: application/json' \\");
    println!(
        "    -d '{{\"model\":\"demo\",\"messages\":[{{\"role\":\"user\",\"content\":\"Hi\"}}]}}'\n"
    );
    println!(
        "Health: http://127.0.0.1:9090/v1/healthcheck   Metrics: http://127.0.0.1:9091/apisix/prometheus/metrics"
    );
    println!("Ctrl-C ends it.\n");
}

/// A folder that goes when the demo ends.
struct TemporaryFolder {
    path: std::path::PathBuf,
}

impl TemporaryFolder {
    fn new() -> Result<Self, String> {
        let name = format!("pointsman-demo-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path)
            .map_err(|error| format!("cannot make {}: {error}", path.display()))?;
        Ok(Self { path })
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::debug!("{}: {error}", self.path.display());
        }
    }
}
