//! Mutants of what traffic says: whose fault the end of an attempt is, and what a guard stands for.

use super::Mutant;

const EVIDENCE: &str = "crates/pointsman-gateway/src/forward/evidence.rs";
const WATCH: &str = "crates/pointsman-gateway/src/plugins/ai_instance/watch.rs";

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "a quota that is used up is an illness",
        file: EVIDENCE,
        text: "        429 => Fault::Quota,",
        replacement: "        429 => Fault::Target,",
        test: "-p pointsman --test evidence passive_checks_of_instances",
    },
    Mutant {
        name: "a client's own quota is everybody's",
        file: EVIDENCE,
        text: "!plan.is_session() && brings_key(exchange)\n",
        replacement: "!plan.is_session() && brings_key(exchange) && false\n",
        test: "-p pointsman --test evidence a_clients_own_quota",
    },
    Mutant {
        name: "a client's fault is the target's",
        file: EVIDENCE,
        text: "        400..=499 => Fault::Client,",
        replacement: "        400..=499 => Fault::Target,",
        test: "-p pointsman --test circuits a_clients_fault",
    },
    Mutant {
        name: "passive checks count a client's fault",
        file: EVIDENCE,
        text: "(Outcome::Answer(answer) | Outcome::ErrorStatus(answer), Fault::Nobody | Fault::Target) => {",
        replacement: "(Outcome::Answer(answer) | Outcome::ErrorStatus(answer), _) => {",
        test: "-p pointsman --test evidence passive_checks_of_instances",
    },
    Mutant {
        name: "a refused credential takes out one instance only",
        file: EVIDENCE,
        text: "(watch.credential, wait, \"the credential was refused\")",
        replacement: "(watch.guard, wait, \"the credential was refused\")",
        test: "-p pointsman --test evidence a_credential_that_is_refused_on_one_route",
    },
    Mutant {
        name: "a model that the client chose takes its instance out",
        file: EVIDENCE,
        text: "complaint == Some(Complaint::ModelMissing) && instance.model.is_some()",
        replacement: "complaint == Some(Complaint::ModelMissing) && (instance.model.is_some() || true)",
        test: "-p pointsman --test evidence a_missing_model",
    },
    Mutant {
        name: "a missing model is the client's fault",
        file: EVIDENCE,
        text: "instance.model.is_some() => Fault::Model,",
        replacement: "instance.model.is_some() => Fault::Client,",
        test: "-p pointsman --test evidence a_missing_model",
    },
    Mutant {
        name: "a stream that breaks off is nobody's fault",
        file: EVIDENCE,
        text: "StreamEnd::Broken(broken) => (Fault::Target,",
        replacement: "StreamEnd::Broken(broken) => (Fault::Client,",
        test: "-p pointsman --test circuits streams_that_break",
    },
    Mutant {
        name: "what a stream says is the target's fault, whosever it is",
        file: EVIDENCE,
        text: "let fault = fault_of_status(instance, watch, status, None);",
        replacement: "let fault = Fault::Target; let _ = (instance, status);",
        test: "-p pointsman --test circuits a_clients_fault_within",
    },
    Mutant {
        name: "a stream that says that it failed is nobody's fault",
        file: EVIDENCE,
        text: "let fault = fault_of_status(instance, watch, status, None);",
        replacement: "let fault = Fault::Nobody; let _ = (instance, status);",
        test: "-p pointsman --test circuits streams_that_say",
    },
    Mutant {
        name: "quotas, credentials and models open circuits",
        file: EVIDENCE,
        text: "        Fault::Gateway | Fault::Quota | Fault::Credential | Fault::Model => None,",
        replacement: "        Fault::Gateway => None,\n        \
                      Fault::Quota | Fault::Credential | Fault::Model => Some(false),",
        test: "-p pointsman --test circuits what_has_a_guard_of_its_own",
    },
    Mutant {
        name: "a trial that meets a quota has failed",
        file: EVIDENCE,
        text: "        Fault::Quota | Fault::Credential | Fault::Model => Some(true),",
        replacement: "        Fault::Quota | Fault::Credential | Fault::Model => Some(false),",
        test: "-p pointsman --test circuits a_trial_that_meets",
    },
    Mutant {
        name: "what an address did is held against its neighbour",
        file: EVIDENCE,
        text: "addresses.iter().find(|address| address.ip == ip)?.target",
        replacement: "addresses.iter().find(|address| address.ip != ip)?.target",
        test: "-p pointsman --test names passive_checks_judge",
    },
    Mutant {
        name: "accounts of AWS share a guard",
        file: WATCH,
        text: "        text.add(\"aws\", &aws.access_key_id);",
        replacement: "",
        test: "-p pointsman-gateway --lib accounts_and_projects",
    },
    Mutant {
        name: "projects share a quota",
        file: WATCH,
        text: "        text.add(\"project\", project);",
        replacement: "        let _ = project;",
        test: "-p pointsman-gateway --lib accounts_and_projects",
    },
    Mutant {
        name: "every header is a credential",
        file: WATCH,
        text: "headers.any(|(name, _)| is_credential(name))",
        replacement: "headers.any(|(name, _)| is_credential(name) || true)",
        test: "-p pointsman-gateway --lib accounts_and_projects",
    },
    Mutant {
        name: "keys at one address share a guard",
        file: WATCH,
        text: "            text.add(\"value\", value);",
        replacement: "            let _ = value;",
        test: "-p pointsman --test evidence a_refused_credential",
    },
    Mutant {
        name: "models share a guard",
        file: WATCH,
        text: "        text.add(\"model\", model);",
        replacement: "        let _ = model;",
        test: "-p pointsman-gateway --lib guards_stand_for",
    },
    Mutant {
        name: "routes have guards of their own",
        file: WATCH,
        text: "address_of(instance).unwrap_or_else(|| (key.to_owned(), 0))",
        replacement: "address_of(instance).map_or(None, |_| None).unwrap_or_else(|| (key.to_owned(), 0))",
        test: "-p pointsman --test evidence a_credential_that_is_refused_on_one_route",
    },
    Mutant {
        name: "circuits have the key of cool-downs",
        file: WATCH,
        text: "            key: key(\"circuit\"),",
        replacement: "            key: key(\"instance\"),",
        test: "-p pointsman-gateway --lib the_keys_stay",
    },
    Mutant {
        name: "a session that is refused is answered with that",
        file: "crates/pointsman-gateway/src/forward/ai.rs",
        text: "            Ok(answer)\n                if self\n",
        replacement: "            Ok(answer) if self.is_session() => Outcome::Answer(answer),\n            \
                      Ok(answer)\n                if self\n",
        test: "-p pointsman --test realtime sessions_obey",
    },
    Mutant {
        name: "sessions carry the client's own key on",
        file: "crates/pointsman-gateway/src/forward/ai/outgoing.rs",
        text: "let has_own_key = client == REALTIME\n        || ",
        replacement: "let has_own_key = ",
        test: "-p pointsman --test realtime a_clients_own_key",
    },
];
