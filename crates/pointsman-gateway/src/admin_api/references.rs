//! What resources say of each other: what they name must exist, and what is named must stay.

use serde_json::Value;

use super::{
    look::{members, reads_as, value_of},
    refusal::Refusal,
    store::{Contents, Stored},
    target::Target,
};
use crate::{config::collection::Collection, plugin::registry::Registry, plugins::limit_count};

/// A field of a collection's resources that names another resource.
struct Reference {
    from: Collection,
    field: &'static str,
    to: Collection,
}

const fn reference(from: Collection, field: &'static str, to: Collection) -> Reference {
    Reference { from, field, to }
}

const REFERENCES: &[Reference] = &[
    reference(Collection::Routes, "upstream_id", Collection::Upstreams),
    reference(Collection::Routes, "service_id", Collection::Services),
    reference(
        Collection::Routes,
        "plugin_config_id",
        Collection::PluginConfigs,
    ),
    reference(Collection::Services, "upstream_id", Collection::Upstreams),
    reference(
        Collection::Consumers,
        "group_id",
        Collection::ConsumerGroups,
    ),
];

/// The keys of what `value`, to be stored at `target`, refers to.
pub(super) fn keys(target: &Target, value: &Value) -> Vec<String> {
    let mut keys: Vec<String> = named(target.collection, value)
        .map(|(to, id)| to.key(&id))
        .collect();
    if let (Collection::Credentials, Some(username)) = (target.collection, &target.parent) {
        keys.push(Collection::Consumers.key(username));
    }
    keys
}

fn named(
    collection: Collection,
    value: &Value,
) -> impl Iterator<Item = (Collection, String)> + use<'_> {
    let of_it = REFERENCES.iter().filter(move |one| one.from == collection);
    of_it.filter_map(move |one| Some((one.to, id_text(value.get(one.field)?)?)))
}

fn id_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Whether everything that `value` names is there.
pub(super) fn exist(
    contents: &Contents,
    collection: Collection,
    value: &Value,
) -> Result<(), Refusal> {
    for (to, id) in named(collection, value) {
        if contents.get(&to.key(&id)).is_none() {
            let kind = to.kind();
            return Err(Refusal::bad(format!(
                "failed to fetch {kind} info by {kind} id [{id}], response code: 404"
            )));
        }
    }
    let upstream = match collection {
        Collection::Upstreams => Some(value),
        _ => value.get("upstream"),
    };
    let certificate = upstream.and_then(|upstream| upstream.pointer("/tls/client_cert_id"));
    let Some(id) = certificate.and_then(id_text) else {
        return Ok(());
    };
    match contents.get(&Collection::Ssls.key(&id)) {
        None => Err(Refusal::bad(format!(
            "failed to fetch ssl info by ssl id [{id}], response code: 404"
        ))),
        Some(ssl) if value_of(ssl)["type"] != "client" => Err(Refusal::bad("wrong ssl type")),
        Some(_) => Ok(()),
    }
}

/// Whether nothing names the resource `id` of `collection`.
pub(super) fn unused(contents: &Contents, collection: Collection, id: &str) -> Result<(), Refusal> {
    let what = match collection {
        Collection::Upstreams => "upstream",
        Collection::Services => "service directly",
        Collection::PluginConfigs => "plugin config",
        Collection::ConsumerGroups => "consumer group",
        _ => return Ok(()),
    };
    let in_use = |by: &str, user: &str| {
        Refusal::bad(format!(
            "can not delete this {what}, {by} [{user}] is still using it now"
        ))
    };
    for one in REFERENCES.iter().filter(|one| one.to == collection) {
        for (user, value) in mentioning(contents, one.from, &[one.field, id]) {
            if value.get(one.field).is_some_and(|own| reads_as(own, id)) {
                return Err(in_use(one.from.kind(), user));
            }
        }
    }
    if collection != Collection::Upstreams {
        return Ok(());
    }
    for (carrier, name) in [
        (Collection::Routes, "route"),
        (Collection::Services, "service"),
        (Collection::PluginConfigs, "plugin_config"),
        (Collection::Consumers, "consumer"),
        (Collection::ConsumerGroups, "consumer_group"),
        (Collection::GlobalRules, "global_rules"),
    ] {
        for (user, value) in mentioning(contents, carrier, &["traffic-split", id]) {
            if splits_to(&value, id) {
                return Err(in_use(&format!("plugin in {name}"), user));
            }
        }
    }
    Ok(())
}

/// Where whoever may name resources of `collection` is.
pub(super) fn users_of(collection: Collection) -> &'static [Collection] {
    match collection {
        Collection::Upstreams => &CARRIERS,
        Collection::Services | Collection::PluginConfigs => &[Collection::Routes],
        Collection::ConsumerGroups => &[Collection::Consumers],
        _ => &[],
    }
}

/// Where whoever may have what only one may have, or must have the same, as `value` of `collection` is.
pub(super) fn rivals_of(collection: Collection, value: &Value) -> &'static [Collection] {
    let counts_together = members(value, "plugins")
        .and_then(|plugins| limit_count::grouped(plugins.get(limit_count::NAME)?))
        .is_some();
    match collection {
        _ if counts_together => &CARRIERS,
        Collection::GlobalRules => &[Collection::GlobalRules],
        Collection::Consumers | Collection::Credentials => &[Collection::Consumers],
        _ => &[],
    }
}

/// All that may have plugins; credentials are among the consumers.
const CARRIERS: [Collection; 6] = [
    Collection::Routes,
    Collection::Services,
    Collection::PluginConfigs,
    Collection::Consumers,
    Collection::ConsumerGroups,
    Collection::GlobalRules,
];

/// The resources of `collection` whose text has all of `words`. Reading only those keeps this cheap
/// beside thousands of others.
fn mentioning<'a>(
    contents: &'a Contents,
    collection: Collection,
    words: &'a [&'a str],
) -> impl Iterator<Item = (&'a str, Value)> {
    let finders: Vec<_> = words
        .iter()
        .map(|word| memchr::memmem::Finder::new(*word))
        .collect();
    let mentions = move |stored: &Stored| {
        let text = stored.text.as_bytes();
        finders.iter().all(|finder| finder.find(text).is_some())
    };
    all_of(contents, collection)
        .filter(move |(_, stored)| mentions(stored))
        .map(|(id, stored)| (id, value_of(stored)))
}

/// All resources of `collection`, by id.
fn all_of(contents: &Contents, collection: Collection) -> impl Iterator<Item = (&str, &Stored)> {
    contents
        .under(prefix_of(collection))
        .filter_map(move |(key, stored)| {
            let (of, id) = Collection::of_key(key)?;
            (of == collection).then_some((id, stored))
        })
}

fn prefix_of(collection: Collection) -> &'static str {
    match collection {
        Collection::Routes => "/routes/",
        Collection::Services => "/services/",
        Collection::PluginConfigs => "/plugin_configs/",
        Collection::Consumers | Collection::Credentials => "/consumers/",
        Collection::ConsumerGroups => "/consumer_groups/",
        Collection::GlobalRules => "/global_rules/",
        _ => "/",
    }
}

/// Whether the plugin `traffic-split` of `value` sends to the upstream `id`.
fn splits_to(value: &Value, id: &str) -> bool {
    let plugin = members(value, "plugins").and_then(|plugins| plugins.get("traffic-split"));
    let rules = plugin.and_then(|plugin| plugin.get("rules")?.as_array());
    let targets = rules
        .into_iter()
        .flatten()
        .filter_map(|rule| rule.get("weighted_upstreams")?.as_array())
        .flatten();
    let mut ids = targets.filter_map(|target| target.get("upstream_id"));
    ids.any(|own| reads_as(own, id))
}

/// Whether nobody else has what only one may have: a key to authenticate with, or a plugin among the
/// global rules.
pub(super) fn alone(
    contents: &Contents,
    registry: &Registry,
    collection: Collection,
    id: &str,
    value: &Value,
) -> Result<(), Refusal> {
    let Some(plugins) = members(value, "plugins") else {
        return Ok(());
    };
    match collection {
        Collection::GlobalRules => {
            for (other, rule) in all_of(contents, collection).filter(|(other, _)| *other != id) {
                let rule = value_of(rule);
                let theirs = members(&rule, "plugins");
                let both = |name: &&String| theirs.is_some_and(|map| map.contains_key(*name));
                if let Some(name) = plugins.keys().find(both) {
                    return Err(Refusal::bad(format!(
                        "plugin '{name}' already exists in global rule with id '{other}'"
                    )));
                }
            }
        }
        Collection::Consumers | Collection::Credentials => {
            for (name, conf) in plugins {
                let field = registry
                    .kind(name)
                    .and_then(|kind| kind.identity_field)
                    .map(|by| by.field);
                let key = field.and_then(|field| Some((field, conf.get(field)?.as_str()?)));
                if let Some((field, key)) = key
                    && let Some(owner) = owner_of(contents, name, field, key, id)
                {
                    return Err(Refusal::bad(format!(
                        "duplicate key of plugin {name} found with {owner}"
                    )));
                }
            }
        }
        _ => {}
    }
    Ok(())
}

/// Whether a `limit-count` of `value` that counts together with others is as theirs.
pub(super) fn alike(
    contents: &Contents,
    collection: Collection,
    id: &str,
    value: &Value,
) -> Result<(), Refusal> {
    let plugin = limit_count::NAME;
    let grouped = |value: &Value| {
        let conf = members(value, "plugins")?.get(plugin)?;
        limit_count::grouped(conf)
    };
    let Some((group, conf)) = grouped(value) else {
        return Ok(());
    };
    // As it stands in a stored text.
    let written = Value::from(group.as_str()).to_string();
    let words = [plugin, written.as_str()];
    for carrier in CARRIERS {
        let differs = |(other, theirs): (&str, Value)| {
            let is_itself = carrier == collection && other == id;
            let is_other =
                |(theirs, their_conf): (String, Value)| theirs == group && their_conf != conf;
            !is_itself && grouped(&theirs).is_some_and(is_other)
        };
        if mentioning(contents, carrier, &words).any(differs) {
            return Err(Refusal::bad(format!(
                "failed to check the configuration of plugin {plugin} err: group conf mismatched"
            )));
        }
    }
    Ok(())
}

/// Who but `id` authenticates with `key`.
fn owner_of(contents: &Contents, plugin: &str, field: &str, key: &str, id: &str) -> Option<String> {
    // As it stands in a stored text.
    let written = Value::from(key).to_string();
    let words = [plugin, written.as_str()];
    let has_it = |(other, value): &(&str, Value)| {
        let conf = members(value, "plugins").and_then(|plugins| plugins.get(plugin));
        *other != id && conf.is_some_and(|conf| conf.get(field).is_some_and(|own| own == key))
    };
    let consumer = mentioning(contents, Collection::Consumers, &words).find(has_it);
    if let Some((username, _)) = consumer {
        return Some(format!("consumer: {username}"));
    }
    let (owner, _) = mentioning(contents, Collection::Credentials, &words).find(has_it)?;
    let (username, credential) = owner.split_once("/credentials/")?;
    Some(format!("credential: {credential} of consumer: {username}"))
}
