//! When values are asked for, and what becomes of what was known.

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::{
    clock,
    config::{
        document::{Document, Format},
        text::Env,
    },
    plugin::registry::Registry,
};

const REFERENCE: &str = "$secret://vault/1/jack/key";

fn document(references: &[&str], token: &str) -> Document {
    let consumers: Vec<Value> = (references.iter().enumerate())
        .map(|(index, key)| json!({"username": format!("u{index}"), "plugins": {"key-auth": {"key": key}}}))
        .collect();
    let secret =
        json!({"id": "vault/1", "uri": "http://127.0.0.1:1", "prefix": "kv", "token": token});
    let text = json!({"consumers": consumers, "secrets": [secret]}).to_string();
    let env: Env<'_> = &|_| None;
    let parsed = Document::parse(&text, Format::Json, env, &Registry::new()).expect("a document");
    assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
    parsed.document
}

fn adopt(keeper: &mut Keeper, references: &[&str], token: &str, now: Instant) {
    let outside = Outside {
        env: &|_| None,
        file: &|_| Err("no file".to_owned()),
    };
    keeper.adopt(&document(references, token), outside, now);
}

fn lost() -> Outcome {
    Err(FetchError {
        is_final: false,
        why: "it took too long".to_owned(),
    })
}

fn gone() -> Outcome {
    Err(FetchError {
        is_final: true,
        why: "there is no such secret (404)".to_owned(),
    })
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A value counts for 300 s, and that there is none for 60.
#[test]
fn what_is_known_is_asked_for_anew_when_it_is_old() {
    let (mut keeper, now) = (Keeper::default(), clock::now());
    // The same from two consumers, under either spelling of the scheme.
    adopt(
        &mut keeper,
        &[REFERENCE, "$SECRET://vault/1/jack/key"],
        "t",
        now,
    );
    assert!(keeper.awaits_first_answers());
    let errand = keeper.poll_errand(now).expect("due");
    assert!(keeper.poll_errand(now).is_none(), "it is under way");
    keeper.on_outcome(&errand, Ok("v1".to_owned()), now);
    assert!(!keeper.awaits_first_answers());
    let values = keeper.values();
    assert_eq!(values.get(REFERENCE), Some("v1"));
    assert_eq!(keeper.next_deadline(), Some(now + seconds(300)));
    // The same once more is no news.
    let later = now + seconds(300);
    let errand = keeper.poll_errand(later).expect("due");
    keeper.on_outcome(&errand, Ok("v1".to_owned()), later);
    assert!(Arc::ptr_eq(&values, &keeper.values()));
    // Nobody answers: what was known stays. It is gone: nothing does.
    let errand = keeper.poll_errand(later + seconds(300)).expect("due");
    keeper.on_outcome(&errand, lost(), later);
    assert_eq!(keeper.values().get(REFERENCE), Some("v1"));
    assert_eq!(keeper.next_deadline(), Some(later + seconds(60)));
    let errand = keeper.poll_errand(later + seconds(60)).expect("due");
    keeper.on_outcome(&errand, gone(), later);
    assert_eq!(keeper.values().get(REFERENCE), None);
    assert!(keeper.values().problem(REFERENCE).contains("404"));
    // Nobody answers again, and there is nothing that could stay.
    let errand = keeper.poll_errand(later + seconds(60)).expect("due");
    keeper.on_outcome(&errand, lost(), later);
    assert!(keeper.values().problem(REFERENCE).contains("too long"));
}

/// What was asked of a manager as it was before does not count once it is another.
#[test]
fn a_manager_that_changes_is_asked_anew() {
    let (mut keeper, now) = (Keeper::default(), clock::now());
    adopt(&mut keeper, &[REFERENCE], "t", now);
    let errand = keeper.poll_errand(now).expect("due");
    adopt(&mut keeper, &[REFERENCE], "other", now);
    let anew = keeper.poll_errand(now).expect("due at once");
    keeper.on_outcome(&errand, Ok("of the old one".to_owned()), now);
    assert_eq!(keeper.values().get(REFERENCE), None);
    keeper.on_outcome(&anew, Ok("new".to_owned()), now);
    assert_eq!(keeper.values().get(REFERENCE), Some("new"));
    // Equal to what it was: nothing happens.
    adopt(&mut keeper, &[REFERENCE], "other", now);
    assert!(keeper.poll_errand(now).is_none());
    // Nobody refers to it any more.
    adopt(&mut keeper, &["plain"], "other", now);
    assert_eq!(keeper.values().get(REFERENCE), None);
    assert_eq!(keeper.next_deadline(), None);
}

/// A manager is never asked for more than a few values at once, and none is forgotten.
#[test]
fn few_calls_are_under_way_at_once() {
    let (mut keeper, now) = (Keeper::default(), clock::now());
    let references: Vec<String> = (0..40).map(|n| format!("{REFERENCE}{n}")).collect();
    let references: Vec<&str> = references.iter().map(String::as_str).collect();
    adopt(&mut keeper, &references, "t", now);
    let first: Vec<Errand> = std::iter::from_fn(|| keeper.poll_errand(now)).collect();
    assert_eq!(first.len(), UNDER_WAY_MAX);
    assert_eq!(keeper.next_deadline(), None);
    keeper.on_outcome(&first[0], Ok("v".to_owned()), now);
    assert!(keeper.poll_errand(now).is_some());
    // Given up as a whole: all but the one are due again, and late answers do not count.
    keeper.on_given_up(now);
    keeper.on_outcome(&first[1], Ok("late".to_owned()), now);
    let mut asked = 0;
    while let Some(errand) = keeper.poll_errand(now) {
        keeper.on_outcome(&errand, Ok("v".to_owned()), now);
        asked += 1;
    }
    assert_eq!(asked, 39);
    assert!(!keeper.awaits_first_answers());
    let all = keeper.values();
    assert!(references.iter().all(|one| all.get(one) == Some("v")));
}
