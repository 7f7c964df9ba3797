//! `pointsman check`: every error of a configuration at once, and no socket.

#![expect(
    clippy::print_stdout,
    reason = "what it prints is what a person asked for"
)]

use std::{path::Path, process::ExitCode, sync::Arc};

use bytes::Bytes;
use pointsman_gateway::{
    config::{
        document::Format,
        problem::Severity,
        settings::{Provider, Settings},
    },
    plugin::registry::Registry,
    ports::{Sink, SinkSpec, Sinks},
    upstream::driver::SharedHealth,
};

use crate::{
    cli::CheckOptions, config_source, http_client::ClientTls, publisher::Publisher, run::fail,
    sinks, tls,
};

/// `pointsman check`.
pub(crate) fn main(options: &CheckOptions) -> ExitCode {
    match check(options) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(errors) => {
            eprintln!("pointsman: {errors} error(s)");
            ExitCode::FAILURE
        }
        Err(error) => fail(&error),
    }
}

/// Prints what is wrong; returns how many errors there are.
fn check(options: &CheckOptions) -> Result<usize, String> {
    let config = options.config.display();
    let text = std::fs::read_to_string(&options.config)
        .map_err(|error| format!("cannot read {config}: {error}"))?;
    let env = |name: &str| std::env::var(name).ok();
    let (settings, warnings) = match Settings::parse(&text, &env) {
        Ok(parsed) => parsed,
        Err(errors) => {
            for error in &errors {
                eprintln!("error: {config}: {error}");
            }
            let assumed = Settings {
                provider: Provider::File(Format::Yaml),
                ..Settings::default()
            };
            let others = document(options, assumed, false)?;
            return Ok(errors.len() + others);
        }
    };
    for warning in &warnings {
        eprintln!("warning: {config}: {warning}");
    }
    document(options, settings, true)
}

/// The same for the document, under `settings`. Unless they are the `real` ones, it may be absent.
fn document(options: &CheckOptions, settings: Settings, real: bool) -> Result<usize, String> {
    let config = options.config.display();
    let mut errors = 0;
    if let Err(error) = ClientTls::new(settings.ssl.trusted_certificate.as_deref()) {
        eprintln!("error: {config}: {error}");
        errors += 1;
    }
    let admin_tls = settings.admin.as_ref().and_then(|admin| admin.tls.as_ref());
    if let Some(Err(error)) = admin_tls.map(tls::files::acceptor) {
        eprintln!("error: {config}: {error}");
        errors += 1;
    }
    if let Some(problem) = settings.access_log.as_deref().and_then(sinks::problem) {
        eprintln!("error: {config}: access log: {problem}");
        errors += 1;
    }
    let (registry, unknown) = registry(&settings);
    for name in unknown {
        eprintln!("warning: {config}: plugins: `{name}` is not a plugin of this gateway");
    }
    let settings = Arc::new(settings);
    let mut source = config_source::look(&settings, &options.config)?;
    let path = source.name();
    if !real && !Path::new(&path).exists() {
        return Ok(errors);
    }
    let mut publisher = Publisher::new(
        settings,
        Arc::new(registry),
        Arc::new(NoSinks),
        SharedHealth::new(),
    );
    match publisher.prepare(&mut *source) {
        Err(error) => {
            eprintln!("error: {error}");
            errors += 1;
        }
        Ok(None) => {}
        Ok(Some(prepared)) => {
            for problem in &prepared.problems {
                let level = match problem.severity {
                    Severity::Error => {
                        errors += 1;
                        "error"
                    }
                    Severity::Warning => "warning",
                };
                eprintln!("{level}: {path}: {problem}");
            }
            let routes = prepared.snapshot.routes.len();
            println!("{path}: {routes} route(s) can be served");
            // The process is about to end, which frees all of it at once.
            std::mem::forget(prepared);
        }
    }
    std::mem::forget(publisher);
    Ok(errors)
}

/// The plugins that are enabled, and names in `plugins` that are none.
pub(crate) fn registry(settings: &Settings) -> (Registry, Vec<String>) {
    match &settings.plugins {
        Some(names) => Registry::only(names),
        None => (Registry::new(), Vec::new()),
    }
}

/// Loggers get a sink that takes nothing: checking must not touch anything.
pub(crate) struct NoSinks;

impl Sinks for NoSinks {
    fn open(&self, _: &SinkSpec) -> Arc<dyn Sink> {
        Arc::new(Self)
    }

    fn problem(&self, spec: &SinkSpec) -> Option<String> {
        sinks::problem_of(spec)
    }
}

impl Sink for NoSinks {
    fn push(&self, _: Bytes) {}

    fn dropped(&self) -> u64 {
        0
    }

    fn pending(&self) -> u64 {
        0
    }
}
