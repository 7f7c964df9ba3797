//! `file-logger`: one JSON line per request, appended to a file.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{expressions, parse};
use crate::{
    config::{
        plugin_schema::{Faults, PluginSchema},
        resource::schema_of,
    },
    exchange::Exchange,
    observe::entry::{LogConf, LogMetadata, Wants, Writer, needs_size},
    plugin::{
        Phases, Plugin,
        registry::{Building, PluginKind},
    },
    ports::{Sink, SinkSpec},
    router::Expr,
    variables::reads_body,
};

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
struct Conf {
    /// The file; without it, the metadata's.
    path: Option<String>,
    /// Log only when one of these holds.
    #[serde(rename = "match")]
    #[schemars(length(max = 20))]
    matches: Option<Vec<Value>>,
    /// What is logged.
    #[serde(flatten)]
    common: LogConf,
}

struct FileLogger {
    sink: Arc<dyn Sink>,
    writer: Writer,
    matches: Option<Vec<Expr>>,
    wants: Wants,
    reads_body: bool,
}

/// For the registry.
pub(crate) fn kind() -> PluginKind {
    PluginKind {
        schema: PluginSchema {
            name: "file-logger",
            priority: 399,
            version: "0.1",
            schema: schema_of::<Conf>(),
            consumer_schema: None,
            metadata_schema: Some(schema_of::<LogMetadata>()),
            is_auth: false,
            check,
        },
        build,
        checkers: None,
        identity_field: None,
    }
}

fn build(conf: &Value, building: &mut Building<'_>) -> Result<Arc<dyn Plugin>, Faults> {
    let conf: Conf = parse(conf)?;
    let metadata: LogMetadata = building
        .metadata
        .map(parse)
        .transpose()?
        .unwrap_or_default();
    let path = conf.path.or_else(|| metadata.path.clone());
    let path = path.ok_or("property \"path\" is required (here or in the plugin's metadata)")?;
    let matches = matches(conf.matches.as_deref())?;
    let writer = Writer::new(conf.common, &metadata)?;
    let spec = SinkSpec::File { path };
    if let Some(problem) = building.sinks.problem(&spec) {
        let path = spec.name();
        let line = format!("path: {problem}; until then nothing is logged to {path}");
        building.warnings.push(line);
    }
    let names = || matches.iter().flatten().flat_map(Expr::variables);
    let mut wants = writer.wants();
    wants.request_size |= names().any(needs_size);
    Ok(Arc::new(FileLogger {
        wants,
        reads_body: writer.reads_body() || names().any(reads_body),
        sink: building.sinks.open(&spec),
        writer,
        matches,
    }))
}

fn check(conf: &Value) -> Result<(), Faults> {
    let conf: Conf = parse(conf)?;
    let writer = Writer::new(conf.common, &LogMetadata::default()).map(drop);
    let matches = matches(conf.matches.as_deref()).map(drop);
    Faults::collect([writer, matches]).map(drop)
}

/// `match`: any of these.
fn matches(written: Option<&[Value]>) -> Result<Option<Vec<Expr>>, Faults> {
    written.map(|list| expressions("match", list)).transpose()
}

impl Plugin for FileLogger {
    fn phases(&self) -> Phases {
        Phases::LOG
    }

    fn wants(&self) -> Wants {
        self.wants
    }

    fn reads_body(&self) -> Phases {
        Phases::LOG.when(self.reads_body)
    }

    fn log(&self, exchange: &Exchange) {
        let wanted = self.matches.as_ref().is_none_or(|matches| {
            matches
                .iter()
                .any(|expr| expr.eval(exchange).unwrap_or(false))
        });
        if wanted {
            self.sink.push(self.writer.entry(exchange));
        }
    }
}
