//! What a path of the Admin API names.

use http::Method;
use percent_encoding::percent_decode_str;

use super::refusal::Refusal;
use crate::config::collection::Collection;

/// A resource, or a collection of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) collection: Collection,
    /// Of credentials, their consumer.
    pub(super) parent: Option<String>,
    pub(super) id: Option<String>,
    /// What follows the id: a path in the resource.
    pub(super) below: Vec<String>,
}

/// The segments of a path below `/apisix/admin`, decoded; `None` for any other path.
pub(super) fn segments(path: &str) -> Option<Vec<String>> {
    let rest = path.strip_prefix("/apisix/admin")?;
    if !(rest.is_empty() || rest.starts_with('/')) {
        return None;
    }
    let parts = rest.split('/').filter(|part| !part.is_empty());
    Some(
        parts
            .map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned())
            .collect(),
    )
}

impl Target {
    /// What `segments` name.
    pub(super) fn of(segments: &[String]) -> Result<Self, Refusal> {
        let unknown = |name: &str| {
            let message = format!("Unsupported resource type: {name}");
            Refusal::new(http::StatusCode::NOT_FOUND, message)
        };
        let Some((name, rest)) = segments.split_first() else {
            return Err(Refusal::not_found());
        };
        let collection = Collection::named(name)
            .filter(|collection| *collection != Collection::Credentials)
            .ok_or_else(|| unknown(name))?;
        let id = rest.first().cloned();
        let below = rest.get(1..).unwrap_or_default();
        match (collection, below) {
            (Collection::Consumers, [word, more @ ..]) if word == "credentials" => Ok(Self {
                collection: Collection::Credentials,
                parent: id,
                id: more.first().cloned(),
                below: more.get(1..).unwrap_or_default().to_vec(),
            }),
            (Collection::Secrets, _) => {
                // The id of a secret has two parts; less names a collection.
                let whole = below
                    .first()
                    .zip(id)
                    .map(|(id, manager)| format!("{manager}/{id}"));
                Ok(Self {
                    collection,
                    parent: None,
                    id: whole,
                    below: below.get(1..).unwrap_or_default().to_vec(),
                })
            }
            _ => Ok(Self {
                collection,
                parent: None,
                id,
                below: below.to_vec(),
            }),
        }
    }

    /// Whether the collection has that verb, and else what is said.
    pub(super) fn allows(&self, method: &Method) -> Result<(), Refusal> {
        use Collection::{
            ConsumerGroups, Consumers, Credentials, GlobalRules, PluginConfigs, PluginMetadata,
            Protos, Secrets, StreamRoutes,
        };
        let is_there = match *method {
            Method::GET | Method::PUT | Method::DELETE => true,
            Method::POST => !matches!(
                self.collection,
                Consumers
                    | Credentials
                    | ConsumerGroups
                    | PluginConfigs
                    | GlobalRules
                    | PluginMetadata
                    | Secrets
            ),
            Method::PATCH => !matches!(
                self.collection,
                Consumers | Credentials | Protos | PluginMetadata | StreamRoutes
            ),
            _ => return Err(Refusal::not_found()),
        };
        if !is_there {
            return Err(Refusal::method(method.as_str(), self.collection));
        }
        match self.collection {
            Collection::StreamRoutes => Err(Refusal::bad(
                "stream mode is disabled, can not add stream routes",
            )),
            Collection::Protos if *method != Method::GET => Err(Refusal::bad(
                "protos are not supported by this gateway, which does not transcode gRPC",
            )),
            _ => Ok(()),
        }
    }

    /// The id under which `id` is stored: a credential's includes its consumer.
    pub(super) fn stored_id(&self, id: &str) -> String {
        match &self.parent {
            Some(username) => format!("{username}/credentials/{id}"),
            None => id.to_owned(),
        }
    }
}
