//! The keys of the Admin API: those that are configured, and the one that is made.

use pointsman_gateway::{
    admin_api::access::{Access, KeyDigest},
    config::settings::AdminSettings,
};
use rand::{Rng, distr::Alphabetic};

use crate::{config_source::Written, store::LiveStore};

/// Who may use the Admin API. A key that is asked for and not given is made: once for a store, which
/// keeps it, and at every start where there is none.
pub(crate) fn access(settings: &AdminSettings, written: &Written) -> Result<Access, String> {
    let store = match written {
        Written::Store(store) => Some(&**store),
        Written::Document(_) | Written::Nothing => None,
    };
    let Some(keys) = &settings.keys else {
        tracing::warn!(
            "the Admin API asks for no key: whoever reaches {} can change everything; set \
             `deployment.admin.admin_key`",
            settings.listen
        );
        return Ok(Access {
            allow: settings.allow.clone(),
            keys: None,
        });
    };
    let mut known = Vec::new();
    let mut made: Option<KeyDigest> = None;
    for key in keys {
        let digest = match (&key.key, &made) {
            (Some(given), _) => given.clone(),
            (None, Some(made)) => made.clone(),
            (None, None) => made.insert(own_key(store)?).clone(),
        };
        known.push((digest, key.role));
    }
    Ok(Access {
        allow: settings.allow.clone(),
        keys: Some(known),
    })
}

/// The key that was made for this store, or a new one, which is shown.
fn own_key(store: Option<&dyn LiveStore>) -> Result<KeyDigest, String> {
    if let Some(known) = store.and_then(LiveStore::admin_key) {
        return Ok(known);
    }
    let letters = rand::rng().sample_iter(Alphabetic).map(char::from);
    let key: String = letters.take(KEY_LETTERS).collect();
    let digest = KeyDigest::of(&key);
    if let Some(store) = store {
        store.keep_admin_key(&digest)?;
    }
    // Not part of the log, which others read.
    let lasts = match store {
        Some(_) => "it is shown only now",
        None => "the next start makes another",
    };
    eprintln!("admin key: {key} ({lasts}; set deployment.admin.admin_key to choose one)");
    Ok(digest)
}

const KEY_LETTERS: usize = 32;
