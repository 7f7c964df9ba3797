//! Every place of a document that carries plugins, or an upstream of its own.
//!
//! Both passes of the compilation go through these lists: the first plans probes for all that is
//! on them, the second can only lay plugins and build upstreams that it finds there. So a place
//! whose plugins take effect and whose instances nobody checks cannot come about by forgetting it
//! in one of the passes.

use std::collections::HashMap;

use crate::config::{
    document::{Document, Item},
    problem::Spot,
    resource::{plugins::Plugins, upstream::Upstream},
};

/// A resource that carries plugins, an upstream, or both.
pub(super) struct Carrier<'a> {
    /// Its collection, such as `routes`.
    pub(super) collection: &'static str,
    /// Its id.
    pub(super) id: &'a str,
    /// Its key, such as `/routes/1`.
    pub(super) key: &'a str,
    /// Where it stands, such as `routes[0]`.
    pub(super) place: &'a str,
    /// Its plugins.
    pub(super) plugins: Option<&'a Plugins>,
    /// The upstream that it is, or has inline, and the path of that in the resource.
    pub(super) upstream: Option<(&'a Upstream, &'static str)>,
}

/// All carriers of a document. A route that is switched off is none.
pub(super) struct Carriers<'a> {
    list: Vec<Carrier<'a>>,
    by_key: HashMap<&'a str, usize>,
}

impl<'a> Carriers<'a> {
    /// The carriers of `document`, upstreams first, since others refer to them.
    pub(super) fn of(document: &'a Document) -> Self {
        let mut list = Vec::new();
        for item in &document.upstreams {
            list.push(Carrier {
                upstream: Some((&item.value, "")),
                ..carrier("upstreams", item, None)
            });
        }
        for item in &document.services {
            let upstream = item.value.upstream.as_ref();
            list.push(Carrier {
                upstream: upstream.map(|upstream| (upstream, "upstream")),
                ..carrier("services", item, Some(&item.value.plugins))
            });
        }
        for item in document
            .routes
            .iter()
            .filter(|item| item.value.is_enabled())
        {
            let upstream = item.value.upstream.as_ref();
            list.push(Carrier {
                upstream: upstream.map(|upstream| (upstream, "upstream")),
                ..carrier("routes", item, Some(&item.value.plugins))
            });
        }
        let sets = [
            ("plugin_configs", &document.plugin_configs),
            ("global_rules", &document.global_rules),
            ("consumer_groups", &document.consumer_groups),
        ];
        for (collection, items) in sets {
            for item in items {
                list.push(carrier(collection, item, Some(&item.value.plugins)));
            }
        }
        for item in &document.consumers {
            list.push(carrier("consumers", item, Some(&item.value.plugins)));
        }
        let by_key = list
            .iter()
            .enumerate()
            .map(|(at, one)| (one.key, at))
            .collect();
        Self { list, by_key }
    }

    /// All of them.
    pub(super) fn all(&self) -> &[Carrier<'a>] {
        &self.list
    }

    /// Those of one collection.
    pub(super) fn in_collection(&self, name: &'static str) -> impl Iterator<Item = &Carrier<'a>> {
        self.list.iter().filter(move |one| one.collection == name)
    }

    /// The carrier with that key.
    pub(super) fn at(&self, key: &str) -> Result<&Carrier<'a>, String> {
        let found = self.by_key.get(key).map(|at| &self.list[*at]);
        debug_assert!(found.is_some(), "{key} is not on the list of carriers");
        found.ok_or_else(|| format!("{key} is not on the list of carriers"))
    }
}

impl Carrier<'_> {
    /// It, for problems.
    pub(super) fn spot(&self) -> Spot<'_> {
        Spot {
            place: self.place,
            id: Some(self.id),
        }
    }
}

fn carrier<'a, T>(
    collection: &'static str,
    item: &'a Item<T>,
    plugins: Option<&'a Plugins>,
) -> Carrier<'a> {
    Carrier {
        collection,
        id: &item.id,
        key: &item.key,
        place: &item.place,
        plugins,
        upstream: None,
    }
}
