//! What the traffic of an instance means, and which guards stand before it.

use std::sync::Arc;

use pointsman_balance::GuardSpec;

use super::{address_of, written};
use crate::{
    plugins::ai_proxy::{Watch, is_credential},
    upstream::{Guarding, fingerprint::Text},
};

/// What is to be watched of `instance` of the plugin `key`; `None` if nothing is.
///
/// A guard's identity is what it stands for: the same credential at the same address is one, whichever
/// routes use it, and so is the same model behind it.
pub(super) fn of(
    instance: &written::Instance,
    conf: &written::AiProxyMulti,
    key: &str,
    guards: &dyn Guarding,
) -> Option<Watch> {
    let passive = (instance.checks.as_ref())
        .filter(|checks| checks.active.is_some())
        .and_then(|checks| checks.passive.as_ref())
        .map(|passive| Arc::new(passive.rules()));
    let cooldown = conf.cooldown;
    let breaker = conf.circuit_breaker.map(|breaker| breaker.rules());
    let is_guarded = cooldown.is_some() || breaker.is_some();
    if passive.is_none() && !is_guarded {
        return None;
    }
    let mut watch = Watch {
        passive,
        cooldown,
        guard: None,
        circuit: None,
        tally: None,
        credential: None,
        has_credential: has_credential(&instance.auth),
    };
    if !is_guarded {
        return Some(watch);
    }
    // What cannot be reached cannot be told apart by where it is.
    let place = address_of(instance).unwrap_or_else(|| (key.to_owned(), 0));
    let auth = &instance.auth;
    let name = format!("{key} ({})", instance.name);
    let key = |kind: &str| of_model(kind, &place, instance).into_string();
    if cooldown.is_some() {
        let spec = GuardSpec {
            key: key("instance"),
            breaker: None,
        };
        watch.guard = Some(guards.guard(spec, &name).0);
    }
    if breaker.is_some() {
        let spec = GuardSpec {
            key: key("circuit"),
            breaker,
        };
        let (circuit, tally) = guards.guard(spec, &format!("the circuit of {name}"));
        (watch.circuit, watch.tally) = (Some(circuit), tally);
    }
    if cooldown.is_some() && watch.has_credential {
        let spec = GuardSpec {
            key: of_credential("credential", &place, auth).into_string(),
            breaker: None,
        };
        let (guard, _) = guards.guard(spec, &format!("the credential of {name}"));
        watch.credential = Some(guard);
    }
    Some(watch)
}

/// The same with the model behind it, and the project whose quota it is.
fn of_model(kind: &str, place: &(String, u16), instance: &written::Instance) -> Text {
    let mut text = of_credential(kind, place, &instance.auth);
    let conf = instance.provider_conf.as_ref();
    if let Some(project) = conf.and_then(|conf| conf.project_id.as_deref()) {
        text.add("project", project);
    }
    text.add("endpoint", instance.endpoint().unwrap_or_default());
    let options = instance.options.as_ref();
    if let Some(model) = options.and_then(|options| options.get("model")?.as_str()) {
        text.add("model", model);
    }
    text
}

/// The parts of a guard's identity that say whose credential is used where.
fn of_credential(kind: &str, (host, port): &(String, u16), auth: &written::Auth) -> Text {
    let mut text = Text::new();
    text.add("kind", kind);
    text.add("host", host);
    text.add("port", port);
    for (part, pairs) in [("header", &auth.header), ("query", &auth.query)] {
        for (name, value) in pairs.iter().flatten() {
            text.add(part, name);
            text.add("value", value);
        }
    }
    if let Some(gcp) = &auth.gcp {
        let account = gcp.service_account_json.as_deref();
        text.add("gcp", account.unwrap_or_default());
    }
    if let Some(aws) = &auth.aws {
        text.add("aws", &aws.access_key_id);
        text.add("secret", &aws.secret_access_key);
        if let Some(token) = &aws.session_token {
            text.add("session", token);
        }
    }
    text
}

/// Whether the instance brings a credential of its own: without, a refusal is the client's affair.
fn has_credential(auth: &written::Auth) -> bool {
    let mut headers = auth.header.iter().flatten();
    let has_query = auth.query.as_ref().is_some_and(|query| !query.is_empty());
    headers.any(|(name, _)| is_credential(name))
        || has_query
        || auth.gcp.is_some()
        || auth.aws.is_some()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use pointsman_balance::{Gate, Monitor, Tally, TargetId};
    use serde_json::{Value, json};

    use super::*;

    /// With the keys of the guards that were asked for.
    struct Given(RefCell<Monitor<u8>>, RefCell<Vec<String>>);

    impl Given {
        fn new() -> Self {
            Self(RefCell::new(Monitor::new()), RefCell::default())
        }
    }

    impl Guarding for Given {
        fn guard(&self, spec: GuardSpec, _name: &str) -> (TargetId, Option<Arc<Tally>>) {
            self.1.borrow_mut().push(spec.key.clone());
            self.0.borrow_mut().guard(spec, crate::clock::now())
        }

        fn gate(&self, targets: &[TargetId], guards: Vec<TargetId>) -> Arc<Gate> {
            self.0.borrow_mut().gate(targets, guards)
        }

        fn name(&self, _name: &str) -> TargetId {
            self.0.borrow_mut().unchecked_group(0, &[])
        }
    }

    /// One verdict everywhere: what is the same thing has the same guard, in whatever plugin.
    #[test]
    fn guards_stand_for_credentials_and_models() {
        let given = Given::new();
        let watch = |key: &str, token: &str, model: &str, plugin: Value| {
            let mut conf = json!({"instances": [{
                "name": "a", "provider": "openai", "weight": 1,
                "auth": {"header": {"authorization": token}}, "options": {"model": model},
            }]});
            for (name, value) in plugin.as_object().expect("an object") {
                conf[name] = value.clone();
            }
            let conf: written::AiProxyMulti = serde_json::from_value(conf).expect("sound");
            of(&conf.instances[0], &conf, key, &given)
        };
        assert!(watch("r1", "t", "m", json!({})).is_none());
        let cooled = || json!({"cooldown": {}});
        let one = watch("r1", "t", "m", cooled()).expect("watched");
        let same = watch("r2", "t", "m", cooled()).expect("watched");
        assert_eq!(one.guards(), same.guards());
        assert!(one.tally.is_none());
        let other_model = watch("r1", "t", "n", cooled()).expect("watched");
        assert_ne!(one.guard, other_model.guard);
        assert_eq!(one.credential, other_model.credential);
        let other_key = watch("r1", "u", "m", cooled()).expect("watched");
        assert_ne!(one.guard, other_key.guard);
        assert_ne!(one.credential, other_key.credential);
        let broken = watch("r1", "t", "m", json!({"circuit_breaker": {}})).expect("watched");
        assert!(broken.tally.is_some() && broken.circuit.is_some());
        assert!(broken.guard.is_none());
        let both = json!({"circuit_breaker": {}, "cooldown": {}});
        let both = watch("r1", "t", "m", both).expect("watched");
        assert_eq!((both.guard, both.circuit), (one.guard, broken.circuit));
        assert!(broken.credential.is_none());
    }

    /// Accounts and projects have quotas of their own, and only a header that carries a credential is one.
    #[test]
    fn accounts_and_projects_are_told_apart() {
        let given = Given::new();
        let watch = |instance: Value| {
            let mut conf = json!({"cooldown": {}, "instances": [{"name": "a", "weight": 1}]});
            for (name, value) in instance.as_object().expect("an object") {
                conf["instances"][0][name] = value.clone();
            }
            let conf: written::AiProxyMulti = serde_json::from_value(conf).expect("sound");
            of(&conf.instances[0], &conf, "r", &given).expect("watched")
        };
        let bedrock = |id: &str, secret: &str| {
            watch(json!({
                "provider": "bedrock", "provider_conf": {"region": "eu-west-1"},
                "auth": {"aws": {"access_key_id": id, "secret_access_key": secret}},
            }))
        };
        let one = bedrock("a", "b");
        assert_eq!(one.guards(), bedrock("a", "b").guards());
        for other in [bedrock("c", "b"), bedrock("a", "d")] {
            assert_ne!(one.guard, other.guard);
            assert_ne!(one.credential, other.credential);
        }
        assert!(one.has_credential && one.credential.is_some());
        let vertex = |project: &str| {
            watch(json!({
                "provider": "vertex-ai", "auth": {"gcp": {"service_account_json": "{}"}},
                "provider_conf": {"region": "europe-west1", "project_id": project},
            }))
        };
        assert_ne!(vertex("p").guard, vertex("q").guard);
        assert_eq!(vertex("p").credential, vertex("q").credential);
        let with_header =
            |name: &str| watch(json!({"provider": "openai", "auth": {"header": {name: "x"}}}));
        assert!(!with_header("X-Team").has_credential);
        assert!(with_header("X-Team").credential.is_none());
        assert!(with_header("X-Api-Key").credential.is_some());
    }

    /// Health files know guards by these: a change makes every gateway forget them, once.
    #[test]
    fn the_keys_stay_as_they_are() {
        let given = Given::new();
        let conf = json!({"cooldown": {}, "circuit_breaker": {}, "instances": [{
            "name": "a", "provider": "openai-compatible", "weight": 1,
            "auth": {"header": {"authorization": "Bearer x"}, "query": {"key": "y"}},
            "options": {"model": "m"}, "override": {"endpoint": "http://a.com:80/v1"},
        }]});
        let conf: written::AiProxyMulti = serde_json::from_value(conf).expect("sound");
        assert!(of(&conf.instances[0], &conf, "r1", &given).is_some());
        let credential = "host 5 a.com\nport 2 80\nheader 13 authorization\nvalue 8 Bearer x\n\
                          query 3 key\nvalue 1 y\n";
        let rest = "endpoint 18 http://a.com:80/v1\nmodel 1 m\n";
        let expected = [
            format!("kind 8 instance\n{credential}{rest}"),
            format!("kind 7 circuit\n{credential}{rest}"),
            format!("kind 10 credential\n{credential}"),
        ];
        assert_eq!(*given.1.borrow(), expected);
    }
}
