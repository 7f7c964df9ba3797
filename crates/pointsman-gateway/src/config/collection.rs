//! The collections of resources, under APISIX's names and keys.

/// A kind of resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are APISIX's collections")]
pub enum Collection {
    Routes,
    Services,
    Upstreams,
    Consumers,
    /// They stand below their consumer: `/consumers/<username>/credentials/<id>`.
    Credentials,
    ConsumerGroups,
    PluginConfigs,
    GlobalRules,
    Ssls,
    PluginMetadata,
    Secrets,
    Protos,
    StreamRoutes,
}

impl Collection {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Routes,
        Self::Services,
        Self::Upstreams,
        Self::Consumers,
        Self::Credentials,
        Self::ConsumerGroups,
        Self::PluginConfigs,
        Self::GlobalRules,
        Self::Ssls,
        Self::PluginMetadata,
        Self::Secrets,
        Self::Protos,
        Self::StreamRoutes,
    ];

    /// Its name in paths, keys and documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::Routes => "routes",
            Self::Services => "services",
            Self::Upstreams => "upstreams",
            Self::Consumers => "consumers",
            Self::Credentials => "credentials",
            Self::ConsumerGroups => "consumer_groups",
            Self::PluginConfigs => "plugin_configs",
            Self::GlobalRules => "global_rules",
            Self::Ssls => "ssls",
            Self::PluginMetadata => "plugin_metadata",
            Self::Secrets => "secrets",
            Self::Protos => "protos",
            Self::StreamRoutes => "stream_routes",
        }
    }

    /// What APISIX calls one of them in messages.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Routes => "route",
            Self::Services => "service",
            Self::Upstreams => "upstream",
            Self::Consumers => "consumer",
            Self::Credentials => "credential",
            Self::ConsumerGroups => "consumer group",
            Self::PluginConfigs => "plugin config",
            Self::GlobalRules => "global rule",
            Self::Ssls => "ssl",
            Self::PluginMetadata => "plugin_metadata",
            Self::Secrets => "secret",
            Self::Protos => "proto",
            Self::StreamRoutes => "stream route",
        }
    }

    /// The collection with that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }

    /// The key of the resource `id`; of a credential that is `<username>/credentials/<id>`.
    pub fn key(self, id: &str) -> String {
        format!("{}{id}", self.prefix())
    }

    /// How the keys of all its resources begin.
    pub fn prefix(self) -> String {
        match self {
            Self::Credentials => "/consumers/".to_owned(),
            other => format!("/{}/", other.name()),
        }
    }

    /// The collection and id of the resource that is stored under `key`.
    pub fn of_key(key: &str) -> Option<(Self, &str)> {
        let (name, id) = key.strip_prefix('/')?.split_once('/')?;
        let collection = match name {
            "credentials" => return None,
            "consumers" if id.contains("/credentials/") => Self::Credentials,
            name => Self::named(name)?,
        };
        Some((collection, id))
    }
}
