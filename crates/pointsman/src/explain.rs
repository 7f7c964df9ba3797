//! `pointsman explain`: why requests went where they went.
//!
//! Reads lines of the access log, compiles the configuration as `check` does, and makes the picks again.
//! Opens no socket and asks no target: what it tells is what was known then.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Write},
    path::Path,
    process::ExitCode,
    sync::Arc,
};

use pointsman_gateway::{
    config::{problem::Severity, settings::Settings, snapshot::Snapshot},
    explain::{self, Explanation, Replay},
    upstream::driver::SharedHealth,
};
use serde_json::{Value, json};

use crate::{
    check::{self, NoSinks},
    cli::ExplainOptions,
    config_source,
    publisher::Publisher,
    run::fail,
};

/// `pointsman explain`.
pub(crate) fn main(options: &ExplainOptions) -> ExitCode {
    match run(options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail(&error),
    }
}

/// Explains all lines that are asked for; returns whether all replays agree and nothing was wrong.
fn run(options: &ExplainOptions) -> Result<bool, String> {
    let settings = config_source::settings(&options.config)?;
    let (mut lines, log) = open(options, &settings)?;
    let snapshot = compile(options, settings)?;
    let mut report = Report {
        options,
        out: io::stdout().lock(),
        tally: Tally::default(),
    };
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read = lines.read_until(b'\n', &mut line);
        if read.map_err(|error| format!("cannot read {log}: {error}"))? == 0 {
            break;
        }
        let text = line.trim_ascii();
        let is_asked_for = !text.is_empty()
            && options
                .request_id
                .as_ref()
                .is_none_or(|id| has_id(text, id));
        if is_asked_for {
            report.line(number, text, &snapshot).map_err(told)?;
        }
    }
    // The process is about to end, which frees all of it at once.
    std::mem::forget(snapshot);
    if let Some(id) = &options.request_id
        && report.tally.requests == 0
    {
        return Err(format!(
            "{log}: no line has the request_id `{id}`: lines have one only if the plugin request-id gave it"
        ));
    }
    report.finish(&log).map_err(told)
}

fn told(error: io::Error) -> String {
    format!("cannot write: {error}")
}

/// The lines to explain, and how to name where they come from.
fn open(
    options: &ExplainOptions,
    settings: &Settings,
) -> Result<(Box<dyn BufRead>, String), String> {
    let path = match (&options.log, settings.access_log.as_deref()) {
        (Some(path), _) if path.as_os_str() == "-" => {
            return Ok((Box::new(io::stdin().lock()), "standard input".to_owned()));
        }
        (Some(path), _) => path.as_path(),
        (None, Some(path)) if Path::new(path).is_file() => Path::new(path),
        (None, Some(path)) => {
            return Err(format!(
                "the access log {path} is no file: give its lines with --log FILE, or --log -"
            ));
        }
        (None, None) => {
            return Err(
                "the access log is off: give lines of one with --log FILE, or --log -".to_owned(),
            );
        }
    };
    let name = path.display().to_string();
    let file = File::open(path).map_err(|error| format!("cannot read {name}: {error}"))?;
    Ok((Box::new(BufReader::new(file)), name))
}

/// The configuration as it would be served. What is wrong with it is told by `check`.
fn compile(options: &ExplainOptions, settings: Settings) -> Result<Arc<Snapshot>, String> {
    let settings = Arc::new(settings);
    let mut source = config_source::look(&settings, &options.config)?;
    let path = source.name();
    let (registry, _) = check::registry(&settings);
    let mut publisher = Publisher::new(
        settings,
        Arc::new(registry),
        Arc::new(NoSinks),
        SharedHealth::new(),
    );
    let prepared = publisher.prepare(&mut *source);
    let prepared = prepared.map_err(|error| error.to_string())?;
    let prepared = prepared.unwrap_or_else(|| publisher.nothing());
    let wrong = |severity: &Severity| *severity == Severity::Error;
    let errors = prepared
        .problems
        .iter()
        .filter(|problem| wrong(&problem.severity))
        .count();
    if errors > 0 {
        eprintln!(
            "warning: {path}: {errors} error(s), which `pointsman check` tells: what has one is left out"
        );
    }
    std::mem::forget(publisher);
    Ok(prepared.snapshot)
}

fn has_id(line: &[u8], id: &str) -> bool {
    let entry: Result<Value, _> = serde_json::from_slice(line);
    entry.is_ok_and(|entry| entry["request_id"] == id)
}

/// What has been told so far.
#[derive(Default)]
struct Tally {
    requests: usize,
    same: usize,
    different: usize,
    impossible: usize,
    nothing: usize,
    wrong: usize,
}

struct Report<'a, W> {
    options: &'a ExplainOptions,
    out: W,
    tally: Tally,
}

impl<W: Write> Report<'_, W> {
    fn line(&mut self, number: usize, line: &[u8], snapshot: &Snapshot) -> io::Result<()> {
        self.tally.requests += 1;
        match explain::explain(line, snapshot) {
            Ok(explanation) => {
                self.tally.count(&explanation);
                if self.options.json {
                    writeln!(self.out, "{}", explanation.json(number))
                } else {
                    write!(self.out, "line {number}: {explanation}")
                }
            }
            Err(error) => {
                self.tally.wrong += 1;
                if self.options.json {
                    writeln!(self.out, "{}", json!({ "line": number, "error": error }))
                } else {
                    writeln!(self.out, "line {number}: cannot be explained: {error}")
                }
            }
        }
    }

    /// Says how it went; returns whether all is well.
    fn finish(mut self, log: &str) -> io::Result<bool> {
        let Tally {
            requests,
            same,
            different,
            impossible,
            nothing,
            wrong,
        } = self.tally;
        if !self.options.json {
            writeln!(
                self.out,
                "{log}: {requests} line(s): {same} pick(s) replayed with the same answer, {different} with \
                 another, {impossible} not replayable; {nothing} line(s) without picks, {wrong} not explained"
            )?;
        }
        self.out.flush()?;
        Ok(different == 0 && wrong == 0)
    }
}

impl Tally {
    fn count(&mut self, explanation: &Explanation) {
        let Ok(picks) = &explanation.picks else {
            self.nothing += 1;
            return;
        };
        for attempt in &picks.attempts {
            match attempt.replay {
                Replay::Same => self.same += 1,
                Replay::Differs(..) => self.different += 1,
                Replay::Impossible(_) => self.impossible += 1,
            }
        }
    }
}
