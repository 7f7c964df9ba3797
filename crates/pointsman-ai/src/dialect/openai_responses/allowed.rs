//! Tools that a choice allows, of those there are: requests may have very many of both.

use std::collections::HashSet;

use crate::{
    conversation::{Opaque, Tool},
    json::{self, tree::Node},
};

/// What the entries of `allowed_tools` name.
#[derive(Debug, Default)]
pub(super) struct Allowed {
    functions: HashSet<String>,
    hosted: HashSet<(String, Is, Is)>,
}

/// A name that there may be several hosted tools of: custom ones have names, MCP servers labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Is {
    Named(String),
    Unnamed,
    /// One or the other.
    Either,
}

const NAMES: [&str; 2] = ["name", "server_label"];

impl<'t, 'a: 't> FromIterator<Node<'t, 'a>> for Allowed {
    fn from_iter<I: IntoIterator<Item = Node<'t, 'a>>>(entries: I) -> Self {
        let mut allowed = Self::default();
        for entry in entries {
            let text = |name| Some(entry.get_str(name)?.decode().into_owned());
            let kind = text("type").unwrap_or_default();
            let [name, label] = NAMES.map(|name| text(name).map_or(Is::Unnamed, Is::Named));
            if let Is::Named(name) = &name {
                allowed.functions.insert(name.clone());
            }
            for name in [name, Is::Either] {
                for label in [label.clone(), Is::Either] {
                    allowed.hosted.insert((kind.clone(), name.clone(), label));
                }
            }
        }
        allowed
    }
}

impl Allowed {
    pub(super) fn has(&self, tool: &Tool<'_>) -> bool {
        match tool {
            Tool::Function(function) => self.functions.contains(&*function.name.decode()),
            Tool::Hosted(hosted) => self.has_hosted(hosted),
        }
    }

    /// What one of both does not say makes no difference.
    fn has_hosted(&self, hosted: &Opaque<'_>) -> bool {
        let kind = hosted.kind.decode();
        let [names, labels] = NAMES.map(|name| {
            let own = json::value_at(hosted.json.as_bytes(), [name]).and_then(json::text);
            match own {
                Some(own) => vec![Is::Named(own.into_owned()), Is::Unnamed],
                None => vec![Is::Either],
            }
        });
        names.iter().any(|name| {
            let mut labels = labels.iter();
            labels.any(|label| {
                let key = (kind.clone().into_owned(), name.clone(), label.clone());
                self.hosted.contains(&key)
            })
        })
    }
}
