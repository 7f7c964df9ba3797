//! Where configuration comes from.
//!
//! Each source holds one document, and all of them go the same way from here: the publisher reads
//! the document, compiles and publishes it, and does so again whenever the source says that it may
//! have changed. A source that cannot be read changes nothing.

mod api;
mod file;
mod store;

use std::{
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use pointsman_gateway::{
    admin_api::store::{Contents, Reach},
    config::{
        at_rest::AtRest,
        document::Parsed,
        plugin_schema::PluginCatalog,
        settings::{Provider, Settings},
        text::Env,
    },
    ports::LocalFuture,
};
use tokio::{
    runtime::{Builder, Runtime},
    task::LocalSet,
};

use self::{api::ApiSource, file::DocumentFile, store::StoreSource};
pub(crate) use self::{api::HeldDocument, file::document_file, store::StoreLook};
use crate::{
    dns::Resolver,
    http_client::{ClientTls, Dialer},
    store::{EmbeddedStore, EtcdStore, LiveStore},
};

/// A place that holds a document.
pub(crate) trait ConfigSource {
    /// How problems name it.
    fn name(&self) -> String;

    /// The document, if it differs from the one that was read last.
    ///
    /// # Errors
    /// When nothing of it can be used; the message says where and why.
    fn read(&mut self, reading: &Reading<'_>) -> Result<Option<Parsed>, SourceError>;

    /// Begins to notice changes.
    ///
    /// # Errors
    /// When that cannot be done.
    fn watch(&mut self) -> Result<(), String>;

    /// Ends when the document may have changed since it was read. May be given up and asked for
    /// anew at any time.
    fn changed(&mut self) -> LocalFuture<'_, ()>;

    /// Whether it changes item by item: what is wrong with the others was told before.
    fn is_piecemeal(&self) -> bool {
        false
    }
}

/// What a document is read with.
pub(crate) struct Reading<'a> {
    pub(crate) env: Env<'a>,
    pub(crate) catalog: &'a dyn PluginCatalog,
}

/// Why a source has no document.
#[derive(Debug)]
pub(crate) enum SourceError {
    /// Somebody is still writing it.
    Unfinished(String),
    /// Nothing of it can be used.
    Unusable(String),
}

impl std::fmt::Display for SourceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unfinished(message) | Self::Unusable(message) => f.write_str(message),
        }
    }
}

/// A source, and what the Admin API writes to change it.
pub(crate) struct Opened {
    pub(crate) source: Box<dyn ConfigSource>,
    pub(crate) written: Written,
}

/// What the Admin API writes.
#[derive(Clone)]
pub(crate) enum Written {
    /// Nothing: there is none.
    Nothing,
    /// Resources, one by one.
    Store(Rc<dyn LiveStore>),
    /// A document as a whole.
    Document(Rc<HeldDocument>),
}

impl Written {
    /// How it stands with where it is, if that is elsewhere.
    pub(crate) fn reach(&self) -> Option<Reach> {
        match self {
            Self::Store(store) => store.reach(),
            Self::Nothing | Self::Document(_) => None,
        }
    }
}

/// The source that `settings`, which stand in the file `config`, name, to be served.
///
/// # Errors
/// When it cannot be used at all.
pub(crate) fn open(
    settings: &Arc<Settings>,
    config: &Path,
    client_tls: &Arc<ClientTls>,
    runtime: &Runtime,
) -> Result<Opened, String> {
    match settings.provider {
        Provider::File(format) => Ok(Opened {
            source: Box::new(DocumentFile::beside(config, format)),
            written: Written::Nothing,
        }),
        Provider::Store => {
            let path = store_file(settings, config, STORE_FILE);
            let store: Rc<dyn LiveStore> = Rc::new(EmbeddedStore::open(&path, at_rest(settings))?);
            tell_unread(config);
            let name = path.display().to_string();
            tracing::info!("resources are kept in {name}");
            Ok(Opened {
                source: Box::new(StoreSource::new(name, Rc::clone(&store))),
                written: Written::Store(store),
            })
        }
        Provider::Etcd => {
            let kept = store_file(settings, config, KEPT_FILE);
            let dialer = Arc::new(Dialer::new(Resolver::new(settings), Arc::clone(client_tls)));
            let store = EtcdStore::open(&settings.etcd, &kept, dialer, at_rest(settings))?;
            tell_unread(config);
            let name = etcd_name(settings);
            tracing::info!("resources are in {name}");
            let loading = store.load(settings.etcd.startup_retry, START_LIMIT);
            if let Err(error) = LocalSet::new().block_on(runtime, loading) {
                store.tell_start_without(&error);
            }
            let store: Rc<dyn LiveStore> = Rc::new(store);
            Ok(Opened {
                source: Box::new(StoreSource::new(name, Rc::clone(&store))),
                written: Written::Store(store),
            })
        }
        Provider::Api => {
            let document = Rc::new(HeldDocument::default());
            tell_unread(config);
            Ok(Opened {
                source: Box::new(ApiSource::new(Rc::clone(&document))),
                written: Written::Document(document),
            })
        }
    }
}

/// The same, only to be looked at; nothing is made or changed.
///
/// # Errors
/// When it cannot be used at all.
pub(crate) fn look(
    settings: &Arc<Settings>,
    config: &Path,
) -> Result<Box<dyn ConfigSource>, String> {
    match settings.provider {
        Provider::File(format) => Ok(Box::new(DocumentFile::beside(config, format))),
        Provider::Store | Provider::Etcd => {
            let (name, contents) = contents(settings, config)?;
            Ok(Box::new(StoreLook::new(name, contents)))
        }
        // It begins with nothing.
        Provider::Api => Ok(Box::new(ApiSource::new(Rc::default()))),
    }
}

/// What the store holds that `settings` name, and how problems name it; nothing where they name none.
/// Nothing is made or changed.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn contents(
    settings: &Arc<Settings>,
    config: &Path,
) -> Result<(String, Contents), String> {
    if settings.provider == Provider::Etcd {
        let runtime = runtime()?;
        let store = reach_etcd(settings, &runtime)?;
        let contents = store.contents().clone();
        return Ok((etcd_name(settings), contents));
    }
    let path = store_file(settings, config, STORE_FILE);
    let contents = EmbeddedStore::look(&path, &at_rest(settings))?;
    Ok((path.display().to_string(), contents))
}

/// The store that `settings` name, to be written to by who serves nothing; `None` where they name none.
///
/// # Errors
/// When it cannot be used; the embedded store is its gateway's alone while that runs.
pub(crate) fn store(
    settings: &Arc<Settings>,
    config: &Path,
    runtime: &Runtime,
) -> Result<Option<Rc<dyn LiveStore>>, String> {
    Ok(match settings.provider {
        Provider::File(_) | Provider::Api => None,
        Provider::Store => {
            let path = store_file(settings, config, STORE_FILE);
            Some(Rc::new(EmbeddedStore::open(&path, at_rest(settings))?))
        }
        Provider::Etcd => Some(Rc::new(reach_etcd(settings, runtime)?)),
    })
}

/// What is in etcd, read once; nothing of it is kept on this machine.
fn reach_etcd(settings: &Arc<Settings>, runtime: &Runtime) -> Result<EtcdStore, String> {
    let trusted = settings.ssl.trusted_certificate.as_deref();
    let client_tls = Arc::new(ClientTls::new(trusted)?);
    let dialer = Arc::new(Dialer::new(Resolver::new(settings), client_tls));
    let store = EtcdStore::look(&settings.etcd, dialer, at_rest(settings))?;
    let loading = store.load(settings.etcd.startup_retry, START_LIMIT);
    let loaded = LocalSet::new().block_on(runtime, loading);
    loaded.map_err(|error| format!("etcd cannot be read: {error}"))?;
    Ok(store)
}

/// A runtime for what is done once.
pub(crate) fn runtime() -> Result<Runtime, String> {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| format!("cannot start a runtime: {error}"))
}

/// The settings in the file at `path`. What is wrong with them is told by `check`.
///
/// # Errors
/// When they cannot be used.
pub(crate) fn settings(path: &Path) -> Result<Settings, String> {
    let config = path.display();
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("cannot read {config}: {error}"))?;
    let env = |name: &str| std::env::var(name).ok();
    match Settings::parse(&text, &env) {
        Ok((settings, _)) => Ok(settings),
        Err(errors) => {
            let first = errors.first().map(ToString::to_string).unwrap_or_default();
            Err(format!("{config}: {first} (`pointsman check` tells all)"))
        }
    }
}

/// What encrypts stores.
fn at_rest(settings: &Settings) -> Arc<AtRest> {
    Arc::new(AtRest::new(&settings.data_encryption))
}

/// How problems name an etcd.
fn etcd_name(settings: &Settings) -> String {
    format!("etcd ({})", settings.etcd.prefix)
}

/// Where resources are kept on this machine: in the file `name` of the folder `data` beside that of
/// `config.yaml`, unless `pointsman.store_file` says otherwise.
fn store_file(settings: &Settings, config: &Path, name: &str) -> PathBuf {
    let folder = config.parent().unwrap_or_else(|| Path::new("."));
    match &settings.store_file {
        Some(path) => folder.join(path),
        None => folder.join("..").join("data").join(name),
    }
}

/// A document that nobody reads is told: its routes would be missed.
fn tell_unread(config: &Path) {
    let folder = config.parent().unwrap_or_else(|| Path::new("."));
    for name in ["apisix.yaml", "apisix.json"] {
        let path = folder.join(name);
        if path.exists() {
            tracing::warn!(
                "{} is not read: resources are those of the Admin API; set `deployment.role` to \
                 data_plane to serve the file",
                path.display()
            );
        }
    }
}

const STORE_FILE: &str = "pointsman.redb";
/// Of what is in etcd.
const KEPT_FILE: &str = "etcd.redb";
/// How long a start waits for etcd.
const START_LIMIT: Duration = Duration::from_secs(5);
