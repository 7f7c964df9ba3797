//! The file of the embedded store.
//!
//! One redb database with two tables: resources, whose secrets are encrypted, and what is known of the store
//! itself. Every change
//! is one transaction, on the disk before it returns. The whole file is checked when it is opened; one
//! that is damaged, or that a later version wrote, is left as it is.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use pointsman_gateway::{
    admin_api::store::{Contents, Stored},
    config::at_rest::AtRest,
};
use redb::{
    Builder, Database, DatabaseError, ReadTransaction, ReadableDatabase, ReadableTable,
    StorageError, TableDefinition, WriteTransaction,
};

/// The open file.
pub(super) struct Disk {
    database: Database,
    at_rest: Arc<AtRest>,
}

/// What a file holds.
pub(super) struct Loaded {
    pub(super) contents: Contents,
    /// The digest of the admin key that was made for it.
    pub(super) admin_key: Option<[u8; 32]>,
    /// Of what it is a copy; `None` if of nothing.
    pub(super) origin: Option<String>,
}

/// One change, as it is written.
pub(super) struct Write {
    pub(super) revision: u64,
    pub(super) put: Vec<(String, Stored)>,
    pub(super) delete: Vec<String>,
}

impl Disk {
    /// Opens the file at `path`, or makes an empty one.
    pub(super) fn open(path: &Path, at_rest: &Arc<AtRest>) -> Result<(Self, Loaded), String> {
        // A link that leads nowhere is no place for a new store: what it led to may come back.
        if path.symlink_metadata().is_err() {
            create(path).map_err(|error| told(path, &error))?;
        }
        let opened = builder().open(path);
        let database = opened.map_err(|error| told(path, &why(error)))?;
        let disk = Self {
            database,
            at_rest: Arc::clone(at_rest),
        };
        let loaded = disk.load().map_err(|error| told(path, &error))?;
        Ok((disk, loaded))
    }

    /// What the file at `path` holds, without touching it; `None` if there is none.
    pub(super) fn look(path: &Path, at_rest: &AtRest) -> Result<Option<Loaded>, String> {
        if !path.exists() {
            return Ok(None);
        }
        let opened = Builder::new().open_read_only(path);
        let database = opened.map_err(|error| told(path, &why(error)))?;
        let loaded = database
            .begin_read()
            .map_err(|error| error.to_string())
            .and_then(|transaction| load(&transaction, at_rest));
        loaded.map(Some).map_err(|error| told(path, &error))
    }

    fn load(&self) -> Result<Loaded, String> {
        let transaction = self.database.begin_read();
        load(
            &transaction.map_err(|error| error.to_string())?,
            &self.at_rest,
        )
    }

    /// Writes a change, as a whole or not at all; on the disk when it returns.
    pub(super) fn write(&self, write: &Write) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut items = transaction.open_table(ITEMS)?;
            for key in &write.delete {
                items.remove(key.as_str())?;
            }
            for (key, stored) in &write.put {
                let text = self.at_rest.sealed(key, &stored.text);
                items.insert(key.as_str(), record(stored, &text).as_slice())?;
            }
            let mut meta = transaction.open_table(META)?;
            meta.insert(REVISION, write.revision.to_le_bytes().as_slice())?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// Keeps the digest of the admin key that was made for this store.
    pub(super) fn keep_admin_key(&self, digest: &[u8; 32]) -> Result<(), redb::Error> {
        self.keep(ADMIN_KEY, digest)
    }

    /// Keeps that this is a copy of what is under the prefix `origin` elsewhere.
    pub(super) fn keep_origin(&self, origin: &str) -> Result<(), redb::Error> {
        self.keep(ORIGIN, origin.as_bytes())
    }

    fn keep(&self, name: &str, value: &[u8]) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        transaction.open_table(META)?.insert(name, value)?;
        transaction.commit()?;
        Ok(())
    }
}

/// Makes an empty store. It comes to its name only when it is whole: a crash in between leaves nothing
/// that looks like a damaged one.
fn create(path: &Path) -> Result<(), String> {
    let say = |error: io::Error| error.to_string();
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| Path::new("."));
    fs::create_dir_all(folder).map_err(say)?;
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(say(error)),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(&new).map_err(say)?;
    let fill = || -> Result<(), redb::Error> {
        let database = builder().create(&new)?;
        let transaction = database.begin_write()?;
        begin(&transaction)?;
        transaction.commit()?;
        Ok(())
    };
    fill().map_err(|error| error.to_string())?;
    fs::rename(&new, path).map_err(say)?;
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(say)
}

fn begin(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    transaction.open_table(ITEMS)?;
    let mut meta = transaction.open_table(META)?;
    meta.insert(FORMAT, FORMAT_NOW.to_le_bytes().as_slice())?;
    meta.insert(REVISION, 0u64.to_le_bytes().as_slice())?;
    Ok(())
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    // All of it is in memory anyhow.
    builder.set_cache_size(CACHE_BYTES);
    builder.set_check_integrity_on_open(true);
    builder
}

fn load(transaction: &ReadTransaction, at_rest: &AtRest) -> Result<Loaded, String> {
    let say = |error: redb::Error| error.to_string();
    let meta = transaction
        .open_table(META)
        .map_err(|error| say(error.into()))?;
    let number = |name: &str| -> Result<Option<u64>, String> {
        let value = meta.get(name).map_err(|error| say(error.into()))?;
        Ok(value.and_then(|value| Some(u64::from_le_bytes(value.value().try_into().ok()?))))
    };
    match number(FORMAT)? {
        Some(FORMAT_NOW) => {}
        Some(later) if later > FORMAT_NOW => {
            return Err(format!(
                "a later version of this program wrote it (format {later}, this one knows \
                 {FORMAT_NOW})"
            ));
        }
        _ => return Err("it says no format that this program knows".to_owned()),
    }
    let revision = number(REVISION)?.ok_or("it says no revision")?;
    let admin_key = meta.get(ADMIN_KEY).map_err(|error| say(error.into()))?;
    let admin_key = admin_key.and_then(|digest| digest.value().try_into().ok());
    let origin = meta.get(ORIGIN).map_err(|error| say(error.into()))?;
    let origin = origin.map(|origin| String::from_utf8_lossy(origin.value()).into_owned());
    let table = transaction
        .open_table(ITEMS)
        .map_err(|error| say(error.into()))?;
    let mut items = BTreeMap::new();
    let all = table.iter().map_err(|error| say(error.into()))?;
    for entry in all {
        let (key, value) = entry.map_err(|error| say(error.into()))?;
        let key = key.value().to_owned();
        let stored = stored(value.value()).ok_or_else(|| format!("{key} cannot be read"))?;
        let text = at_rest.opened(&key, &stored.text);
        let stored = Stored { text, ..stored };
        items.insert(key, stored);
    }
    Ok(Loaded {
        contents: Contents::restored(revision, items),
        admin_key,
        origin,
    })
}

/// A resource as bytes: three numbers, and the text as it is stored.
fn record(stored: &Stored, text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD + text.len());
    bytes.extend(stored.created.to_le_bytes());
    bytes.extend(stored.modified.to_le_bytes());
    bytes.extend(stored.expires_ms.unwrap_or(NEVER).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes
}

fn stored(bytes: &[u8]) -> Option<Stored> {
    let number = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let text = std::str::from_utf8(bytes.get(HEAD..)?).ok()?;
    Some(Stored {
        text: Arc::from(text),
        created: number(0)?,
        modified: number(8)?,
        expires_ms: number(16).filter(|at| *at != NEVER),
    })
}

/// Why a file cannot be opened.
fn why(error: DatabaseError) -> String {
    match error {
        DatabaseError::DatabaseAlreadyOpen => {
            "another process has it open: stop its gateway first, or ask that by its Admin API"
                .to_owned()
        }
        DatabaseError::RepairAborted => {
            "the process that wrote it was cut short; a gateway that runs on it sets that right"
                .to_owned()
        }
        DatabaseError::Storage(StorageError::Corrupted(what)) => format!("it is damaged: {what}"),
        other => other.to_string(),
    }
}

fn told(path: &Path, why: &str) -> String {
    format!(
        "the store {} cannot be used, and was left as it is: {why}. Put a copy of it back, or let \
         `pointsman.store_file` name another file",
        path.display()
    )
}

const ITEMS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("items");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const FORMAT: &str = "format";
const FORMAT_NOW: u64 = 1;
const REVISION: &str = "revision";
const ORIGIN: &str = "origin";
const ADMIN_KEY: &str = "admin_key_sha256";
const CACHE_BYTES: usize = 4 << 20;
/// Bytes of a record before its text.
const HEAD: usize = 24;
const NEVER: u64 = u64::MAX;
