//! What resources refer to by id, and what is told when nothing is there.
//!
//! APISIX loads a resource whose reference dangles and fails its requests; so do we. But nobody
//! wants that, so it is an error at load, with the line.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::config::{
    document::{Document, Item},
    problem::Report,
    reference::Elsewhere,
    resource::{
        Id,
        consumer::PluginSet,
        service::Service,
        ssl::Ssl,
        upstream::{Upstream, UpstreamTls},
    },
};

/// The resources of a document that others name, by id.
pub(super) struct References<'a> {
    services: HashMap<&'a str, &'a Item<Service>>,
    plugin_configs: HashMap<&'a str, &'a Item<PluginSet>>,
    consumer_groups: HashMap<&'a str, &'a Item<PluginSet>>,
    upstreams: HashSet<&'a str>,
    certificates: HashMap<&'a str, &'a Item<Ssl>>,
}

impl<'a> References<'a> {
    /// Those of `document`.
    pub(super) fn of(document: &'a Document) -> Self {
        Self {
            services: by_id(&document.services),
            plugin_configs: by_id(&document.plugin_configs),
            consumer_groups: by_id(&document.consumer_groups),
            upstreams: document
                .upstreams
                .iter()
                .map(|item| item.id.as_str())
                .collect(),
            certificates: by_id(&document.ssls),
        }
    }

    /// The service with that id.
    pub(super) fn service(&self, id: &Id) -> Option<&'a Item<Service>> {
        self.services.get(id.text().as_ref()).copied()
    }

    /// The plugin_config with that id.
    pub(super) fn plugin_config(&self, id: &Id) -> Option<&'a Item<PluginSet>> {
        self.plugin_configs.get(id.text().as_ref()).copied()
    }

    /// The consumer group with that id.
    pub(super) fn consumer_group(&self, id: &Id) -> Option<&'a Item<PluginSet>> {
        self.consumer_groups.get(id.text().as_ref()).copied()
    }

    fn has_upstream(&self, id: &Id) -> bool {
        self.upstreams.contains(id.text().as_ref())
    }

    /// `upstream` with the client certificate that its `tls.client_cert_id` names.
    ///
    /// # Errors
    /// If there is none; requests that come to it get a 502.
    pub(super) fn certified<'u>(
        &self,
        upstream: &'u Upstream,
        elsewhere: Elsewhere<'_>,
    ) -> Result<Cow<'u, Upstream>, String> {
        let id = upstream.tls.as_ref().and_then(UpstreamTls::certificate);
        let Some(id) = id else {
            return Ok(Cow::Borrowed(upstream));
        };
        let Some(found) = self.certificates.get(id.text().as_ref()) else {
            return Err(format!(
                "there is no ssl `{id}`, or it has errors and was left out; requests get a 502"
            ));
        };
        if found.value.kind != "client" {
            return Err(format!(
                "ssl `{id}` is of another type than `client`; requests get a 502"
            ));
        }
        let found = found.value.resolved(elsewhere);
        let mut certified = upstream.clone();
        certified.tls = certified.tls.map(|tls| UpstreamTls {
            client_cert: Some(found.cert),
            client_key: Some(found.key),
            ..tls
        });
        Ok(Cow::Owned(certified))
    }

    /// Tells of every reference that names nothing. A route that is switched off is not looked at.
    pub(super) fn tell_dangling(&self, document: &Document, report: &mut Report<'_>) {
        let mut tell = |spot, field: &str, what: &str, id: &Id, then: &str| {
            let message =
                format!("there is no {what} `{id}`, or it has errors and was left out; {then}");
            report.error(spot, field, message);
        };
        for item in &document.services {
            if let Some(id) = &item.value.upstream_id
                && !self.has_upstream(id)
            {
                let then = "requests that come to it get a 502";
                tell(item.spot(), "upstream_id", "upstream", id, then);
            }
        }
        let enabled = document.routes.iter();
        for item in enabled.filter(|item| item.value.is_enabled()) {
            let (spot, route) = (item.spot(), &item.value);
            if let Some(id) = &route.service_id
                && self.service(id).is_none()
            {
                tell(spot, "service_id", "service", id, "requests get a 404");
            }
            if let Some(id) = &route.plugin_config_id
                && self.plugin_config(id).is_none()
            {
                let field = "plugin_config_id";
                tell(spot, field, "plugin_config", id, "requests get a 503");
            }
            if let Some(id) = &route.upstream_id
                && !self.has_upstream(id)
            {
                tell(spot, "upstream_id", "upstream", id, "requests get a 502");
            }
        }
        for item in &document.consumers {
            if let Some(id) = &item.value.group_id
                && self.consumer_group(id).is_none()
            {
                let then = "this consumer's requests get a 503";
                tell(item.spot(), "group_id", "consumer group", id, then);
            }
        }
    }
}

fn by_id<T>(items: &[Arc<Item<T>>]) -> HashMap<&str, &Item<T>> {
    items
        .iter()
        .map(|item| (item.id.as_str(), &**item))
        .collect()
}
