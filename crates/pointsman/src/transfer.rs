//! `pointsman export` and `import`: resources as one document, out of where they are and into a store.

use std::{
    collections::HashSet,
    fs,
    io::{self, IsTerminal, Read, Write},
    path::Path,
    process::ExitCode,
    rc::Rc,
    sync::Arc,
};

use pointsman_gateway::{
    admin_api::{
        Context,
        store::{Change, Contents, StoreError},
        transfer::{self, Import},
    },
    clock,
    config::{
        document::Format,
        problem::Severity,
        settings::{Provider, Settings},
        text::{self, Coerce},
    },
    upstream::driver::SharedHealth,
};
use serde_json::Value;
use tokio::task::LocalSet;

use crate::{
    check::{self, NoSinks},
    cli::{ExportOptions, ImportOptions},
    config_source::{self, StoreLook},
    publisher::Publisher,
    run::fail,
    store::LiveStore,
};

/// `pointsman export`.
pub(crate) fn export(options: &ExportOptions) -> ExitCode {
    done(exported(options))
}

/// `pointsman import`.
pub(crate) fn import(options: &ImportOptions) -> ExitCode {
    match imported(options) {
        Ok(errors) if !errors.is_empty() => {
            for error in &errors {
                eprintln!("error: {}: {error}", options.document.display());
            }
            fail(&format!("{} error(s); nothing was changed", errors.len()))
        }
        other => done(other.map(|_| ())),
    }
}

fn done(outcome: Result<(), String>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn exported(options: &ExportOptions) -> Result<(), String> {
    let settings = Arc::new(config_source::settings(&options.config)?);
    let (name, document) = match settings.provider {
        Provider::File(format) => {
            let path = config_source::document_file(&options.config, format);
            let text = read(&path)?;
            let document = parse(&text, format, &path)?;
            (path.display().to_string(), document)
        }
        Provider::Store | Provider::Etcd => {
            let (name, contents) = config_source::contents(&settings, &options.config)?;
            (name, transfer::document(&contents))
        }
        Provider::Api => {
            return Err(
                "the document is in the memory of the gateway: ask that for it, with GET \
                 /apisix/admin/configs"
                    .to_owned(),
            );
        }
    };
    let output = options.output.as_deref();
    let format = match options.json || output.is_some_and(|path| format_of(path) == Format::Json) {
        true => Format::Json,
        false => Format::Yaml,
    };
    let text = transfer::text(&document, format);
    match output {
        Some(path) => {
            write(path, &text)
                .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        }
        None => (io::stdout().write_all(text.as_bytes()))
            .map_err(|error| format!("cannot write: {error}"))?,
    }
    eprintln!("{name}: {}", counted(&document));
    Ok(())
}

/// Returns what is wrong with the document, if anything is: then nothing was done.
fn imported(options: &ImportOptions) -> Result<Vec<String>, String> {
    let settings = Arc::new(config_source::settings(&options.config)?);
    if !matches!(settings.provider, Provider::Store | Provider::Etcd) {
        return Err(format!(
            "{} names no store: with a file, put the document in its place; with the standalone Admin \
             API, PUT it to /apisix/admin/configs",
            options.config.display()
        ));
    }
    let document = document(&options.document)?;
    if options.dry_run {
        let (name, contents) = config_source::contents(&settings, &options.config)?;
        let import = match plan(options, &settings, &document, &contents) {
            Ok(import) => import,
            Err(errors) => return Ok(errors),
        };
        tell(&name, &import, "would be");
        return Ok(Vec::new());
    }
    let runtime = config_source::runtime()?;
    let store = config_source::store(&settings, &options.config, &runtime)?;
    let store = store.ok_or("there is no store")?;
    LocalSet::new().block_on(&runtime, async {
        tokio::task::spawn_local(Rc::clone(&store).keep());
        let planned = plan(options, &settings, &document, &store.contents());
        let import = match planned {
            Ok(import) => import,
            Err(errors) => return Ok(errors),
        };
        carry_out(&*store, &import.change, settings.provider).await?;
        tell("done", &import, "were");
        Ok(Vec::new())
    })
}

async fn carry_out(
    store: &dyn LiveStore,
    change: &Change,
    provider: Provider,
) -> Result<(), String> {
    let pieces = match provider {
        // etcd takes no more than 128 operations at once, and a consumer is removed with two.
        Provider::Etcd => transfer::pieces(change, AT_ONCE),
        _ if change.put.is_empty() && change.delete.is_empty() => Vec::new(),
        _ => vec![change.clone()],
    };
    let count = pieces.len();
    for (index, piece) in pieces.into_iter().enumerate() {
        if count > 1 && io::stderr().is_terminal() {
            eprint!("\r{index} of {count}");
        }
        let done = async { store.commit(piece, store.turn().await?).await };
        done.await.map_err(|error| {
            let how = match error {
                StoreError::Overtaken => "somebody else changed a resource meanwhile".to_owned(),
                other => other.to_string(),
            };
            format!("{how}; {index} of {count} parts are done: run it again")
        })?;
    }
    if count > 1 && io::stderr().is_terminal() {
        eprintln!("\r{count} of {count}");
    }
    Ok(())
}

/// What is to be done; or all that speaks against it.
fn plan(
    options: &ImportOptions,
    settings: &Arc<Settings>,
    document: &Value,
    contents: &Contents,
) -> Result<Import, Vec<String>> {
    let (registry, _) = check::registry(settings);
    let env = |name: &str| std::env::var(name).ok();
    let context = Context {
        registry: &registry,
        env: &env,
        now_ms: clock::unix_millis(),
    };
    let import = transfer::import(document, contents, &context, options.replace)?;
    for left_out in &import.left_out {
        let name = options.document.display();
        eprintln!("warning: {name}: {left_out}; left out");
    }
    // What resources say of each other is looked at as it would stand.
    let before: HashSet<String> = errors(settings, contents)?.into_iter().collect();
    let mut after = contents.clone();
    after.apply(&import.change);
    let mut new = errors(settings, &after)?;
    new.retain(|error| !before.contains(error));
    if new.is_empty() { Ok(import) } else { Err(new) }
}

/// What keeps resources in `contents` from being served.
fn errors(settings: &Arc<Settings>, contents: &Contents) -> Result<Vec<String>, Vec<String>> {
    let (registry, _) = check::registry(settings);
    let mut publisher = Publisher::new(
        Arc::clone(settings),
        Arc::new(registry),
        Arc::new(NoSinks),
        SharedHealth::new(),
    );
    let mut source = StoreLook::new(String::new(), contents.clone());
    let prepared = publisher.prepare(&mut source);
    let prepared = prepared.map_err(|error| vec![error.to_string()])?;
    let problems = prepared.map(|prepared| prepared.problems);
    let problems = problems.unwrap_or_default().into_iter();
    Ok(problems
        .filter(|problem| problem.severity == Severity::Error)
        .map(|problem| problem.to_string())
        .collect())
}

fn tell(what: &str, import: &Import, were: &str) {
    let Import {
        added,
        changed,
        same,
        change,
        ..
    } = import;
    let removed = change.delete.len();
    eprintln!(
        "{what}: {added} resource(s) {were} added, {changed} changed and {removed} removed; {same} \
         already there as they are"
    );
}

/// The document at `path`, with what it takes from the environment: a store does not look there.
fn document(path: &Path) -> Result<Value, String> {
    let env = |name: &str| std::env::var(name).ok();
    let told = |error: text::TextError| format!("{}: {error}", path.display());
    let format = format_of(path);
    let given = if path.as_os_str() == "-" {
        let mut text = String::new();
        (io::stdin().read_to_string(&mut text))
            .map_err(|error| format!("cannot read the standard input: {error}"))?;
        text
    } else {
        read(path)?
    };
    match format {
        Format::Yaml => {
            let text = text::substitute(&given, &env).map_err(told)?;
            parse(&text, format, path)
        }
        Format::Json => {
            let mut document = parse(&given, format, path)?;
            text::substitute_value(&mut document, &env, Coerce::No).map_err(told)?;
            Ok(document)
        }
    }
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

fn parse(text: &str, format: Format, path: &Path) -> Result<Value, String> {
    let located = match format {
        Format::Yaml => text::yaml(text),
        Format::Json => text::json(text),
    };
    let located = located.map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(match located.value {
        Value::Null => Value::Object(serde_json::Map::new()),
        other => other,
    })
}

fn format_of(path: &Path) -> Format {
    let is_json = path
        .extension()
        .is_some_and(|extension| extension == "json");
    if is_json { Format::Json } else { Format::Yaml }
}

/// Writes a file as a whole or not at all, for its owner alone.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let mut options = fs::OpenOptions::new();
    // What lies there, or a link, must not decide who may read it.
    let _ = fs::remove_file(&new);
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)
}

fn counted(document: &Value) -> String {
    let lists = document.as_object().into_iter().flatten();
    let counts = lists.filter_map(|(name, items)| {
        let count = items.as_array()?.len();
        Some(format!("{count} {name}"))
    });
    let counts: Vec<String> = counts.collect();
    if counts.is_empty() {
        "nothing".to_owned()
    } else {
        counts.join(", ")
    }
}

/// Resources that etcd is given at once.
const AT_ONCE: usize = 60;
