//! Mutants of the look at the verdicts between a pick and its dispatch.

use super::Mutant;

const CLIENT: &str = "crates/pointsman/src/http_client/mod.rs";
const LOOP: &str = "crates/pointsman-gateway/src/forward/mod.rs";
const PORTS: &str = "crates/pointsman-gateway/src/ports.rs";
const LOOK: &str = "if !attempt.holds(connection.address.ip()) {";
/// There is one such look for all paths; each of the tests that name one must notice that it is gone.
const NO_LOOK: &str = "if !attempt.holds(connection.address.ip()) && false {";

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "no look at the verdicts before sending",
        file: CLIENT,
        text: LOOK,
        replacement: NO_LOOK,
        test: "-p pointsman --test overtaken a_verdict_that_comes_while_connecting",
    },
    Mutant {
        name: "no look before sending where somebody suits best",
        file: CLIENT,
        text: LOOK,
        replacement: NO_LOOK,
        test: "-p pointsman --test overtaken who_falls_while_it_connects",
    },
    Mutant {
        name: "no look before a retry is sent",
        file: CLIENT,
        text: LOOK,
        replacement: NO_LOOK,
        test: "-p pointsman --test overtaken a_retry_that_falls",
    },
    Mutant {
        name: "no look before a repeat is sent",
        file: CLIENT,
        text: LOOK,
        replacement: NO_LOOK,
        test: "-p pointsman --test overtaken a_repeat_that_falls",
    },
    Mutant {
        name: "no look before sending where there is one instance",
        file: CLIENT,
        text: LOOK,
        replacement: NO_LOOK,
        test: "-p pointsman --test overtaken i3_a_single_instance",
    },
    Mutant {
        name: "no look before sending without TLS",
        file: CLIENT,
        text: LOOK,
        replacement: "if !attempt.holds(connection.address.ip()) && attempt.destination.tls.is_some() {",
        test: "-p pointsman --test overtaken a_node_that_falls",
    },
    Mutant {
        name: "no look before a WebSocket to a node",
        file: CLIENT,
        text: LOOK,
        replacement: "if !attempt.holds(connection.address.ip()) && attempt.upgrade.is_none() {",
        test: "-p pointsman --test overtaken a_websocket",
    },
    Mutant {
        name: "no look before a session with an instance",
        file: CLIENT,
        text: LOOK,
        replacement: "if !attempt.holds(connection.address.ip()) && attempt.upgrade.is_none() {",
        test: "-p pointsman --test overtaken a_realtime_session",
    },
    Mutant {
        name: "no look before what a kept connection lost is sent again",
        file: CLIENT,
        text: LOOK,
        replacement: "if !attempt.holds(connection.address.ip()) && may_be_idle {",
        test: "-p pointsman --test overtaken what_a_kept_connection_lost",
    },
    Mutant {
        name: "an idle connection is used without a look at the verdicts",
        file: CLIENT,
        text: LOOK,
        replacement: "if matches!(dialled, Dialled::Now) && !attempt.holds(connection.address.ip()) {",
        test: "-p pointsman --test providers a_verdict_that_comes_while_waiting_for_a_token",
    },
    Mutant {
        name: "a kept connection to the next address is used without a look at the verdicts",
        file: CLIENT,
        text: LOOK,
        replacement: "if matches!(dialled, Dialled::Now) && !attempt.holds(connection.address.ip()) {",
        test: "-p pointsman --test overtaken a_kept_connection_to",
    },
    Mutant {
        name: "whoever fell last is asked though nobody is to be",
        file: PORTS,
        text: "is_listed && !is_refused && pool.pool()",
        replacement: "is_listed && pool.pool()",
        test: "-p pointsman --test overtaken nobody_is_asked",
    },
    Mutant {
        name: "what was never sent is a try",
        file: LOOP,
        text: "overtaken += 1;",
        replacement: "overtaken += 1;\n            attempts += 1;",
        test: "-p pointsman --test overtaken a_retry_that_falls",
    },
    Mutant {
        name: "picks by meaning go by verdicts from before it was asked for",
        file: LOOP,
        text: "        let availability = exchange.gateway().availability();\n        let ask = Ask {",
        replacement: "        thread_local! {\n            static FIRST: \
                      std::cell::OnceCell<Arc<pointsman_balance::Availability>> = \
                      const { std::cell::OnceCell::new() };\n        }\n        \
                      let newest = || Arc::clone(&exchange.gateway().availability());\n        \
                      let availability = FIRST.with(|first| Arc::clone(first.get_or_init(newest)));\n        \
                      let ask = Ask {",
        test: "-p pointsman --test overtaken who_falls_while_the_meaning",
    },
];
