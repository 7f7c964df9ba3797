//! Picks by meaning: it is asked for before the pick, which takes time, and so does a connection.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use serde_json::json;

use crate::{
    fall, judged_at, overtake,
    support::{
        Gateway, Held, Upstream,
        embeddings::{Embeddings, texts, vectors},
        instance, multi, post_json, wait_until,
    },
};

/// What `first` suits best, and `other` well.
const CODE: &str = r#"{"model":"m","messages":[{"role":"user","content":"fix my code"}]}"#;
/// What nobody suits.
const HI: &str = r#"{"model":"m","messages":[{"role":"user","content":"Hi"}]}"#;

fn document(
    first: SocketAddr,
    judge: &Upstream,
    other: &Upstream,
    embeddings: &Embeddings,
) -> String {
    let checks = judged_at(judge.port());
    let first = instance(
        "first",
        first,
        &format!(", examples: [write code], {checks}"),
    );
    let other = instance("other", other.address, ", examples: [do both]");
    let options = embeddings.options(", threshold: 0.5, fallback: first", "");
    multi(&[first, other], &options)
}

fn started(document: &str, judge: &Upstream) -> Gateway {
    let gateway = Gateway::start(document);
    gateway.wait_for_line("the examples have their vectors");
    judge.wait_for_probes(1);
    gateway
}

fn ask(gateway: &Gateway, prompt: &str) -> u16 {
    post_json(gateway.proxy, "/v1/chat/completions", prompt).status
}

/// I-1, I-2: the verdicts at the pick count, not those from before meaning was asked for.
#[test]
fn who_falls_while_the_meaning_is_asked_for_is_not_picked() {
    let (asked, released) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let (tells, waits) = (Arc::clone(&asked), Arc::clone(&released));
    let upstream = Upstream::start(move |received| {
        if texts(received) == ["fix my code"] {
            tells.store(true, SeqCst);
            wait_until("the end", || waits.load(SeqCst).then_some(()));
        }
        vectors(received, &[])
    });
    let embeddings = Embeddings::at(upstream);
    let (first, other) = (Upstream::named("first"), Upstream::named("other"));
    let judge = Upstream::named("judge");
    let document = document(first.address, &judge, &other, &embeddings)
        .replace("model: e", "model: e, timeout: 60000");
    let gateway = started(&document, &judge);
    assert_eq!((ask(&gateway, HI), first.hits()), (200, 1));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| ask(&gateway, CODE));
        wait_until("the question", || asked.load(SeqCst).then_some(()));
        fall(&gateway, &judge);
        released.store(true, SeqCst);
        assert_eq!(waiting.join().expect("answered"), 200);
    });
    assert_eq!((first.hits(), other.hits()), (1, 1));
    // Nor was it offered and taken back.
    let line = gateway.access_log(2).remove(1);
    assert_eq!(line["picks"][0]["excluded"], json!(["first"]), "{line}");
}

/// The same while a connection is being made: to the one that suits best, and to the fallback.
#[test]
fn who_falls_while_it_connects_gets_nothing_however_well_it_suits() {
    for prompt in [CODE, HI] {
        let embeddings = Embeddings::start();
        let (held, judge) = (Held::start(), Upstream::named("judge"));
        let other = Upstream::named("other");
        let document = document(held.address, &judge, &other, &embeddings);
        let gateway = started(&document, &judge);
        let (status, fallen) = overtake(&gateway, held, &judge, || ask(&gateway, prompt));
        assert_eq!(
            (status, fallen.hits(), other.hits()),
            (200, 0, 1),
            "{prompt}"
        );
        // Its meaning was asked for once.
        assert_eq!(embeddings.upstream.hits(), 2);
    }
}
