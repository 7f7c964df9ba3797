//! Where configuration comes from.
//!
//! Each source holds one document, and all of them go the same way from here: the publisher reads
//! the document, compiles and publishes it, and does so again whenever the source says that it may
//! have changed. A source that cannot be read changes nothing.

mod file;

use std::path::Path;

use pointsman_gateway::{
    config::{document::Parsed, plugin_schema::PluginCatalog, settings::Settings, text::Env},
    ports::LocalFuture,
};

use self::file::DocumentFile;

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

/// The source that `settings`, which stand in the file `config`, name.
pub(crate) fn of(settings: &Settings, config: &Path) -> Box<dyn ConfigSource> {
    Box::new(DocumentFile::beside(config, settings.document_format()))
}
