//! Requests survive being written and read.

use super::{DIALECTS, REQUESTS, REQUESTS_AND_BACK, cases, generate, reading, settings, written};
use crate::{
    Protocol,
    conversation::{Feature, Features, Part, Request},
    dialect::{
        Setting, expresses_to, said_by_clients,
        same::{assert_text, normal, strip},
    },
};

/// What of `request` cannot be said to `setting`'s provider.
fn lost(request: &Request<'_>, setting: &Setting<'_>) -> Features {
    request
        .features(setting.target)
        .without(expresses_to(request, setting))
}

/// What is written can be read, says only what the protocol is said to express, and is the same when
/// it is written and read again. Everything that is not declared lost survives.
fn check_dialect(target: Protocol) {
    cases(REQUESTS, |rng| {
        let setting = rng.pick(&settings(target));
        let request = sound_for(generate::request(rng), &setting);
        let first = written(&request, &setting);
        check_shape(target, &first);
        reading(target, &first, |read| {
            // Words for the model to go on from are sent, for it to refuse them.
            let sent = Features::of(&[Feature::Prefill]);
            let undeclared = lost(&read, &setting).without(sent);
            assert!(
                undeclared.is_empty(),
                "{:?}",
                undeclared.iter().collect::<Vec<_>>()
            );
            let unknown = read.features(target).without(said_by_clients(target));
            assert!(
                unknown.is_empty(),
                "{:?}",
                unknown.iter().collect::<Vec<_>>()
            );
            let second = written(&read, &setting);
            reading(target, &second, |again| {
                let [first_read, again] = [read.clone(), again].map(without_plain);
                assert_text("read again", &first_read, &again, &[&first, &second]);
            });
            let lost = lost(&request, &setting);
            let mut expected = request.clone();
            let mut got = read.clone();
            if target == Protocol::AnthropicMessages {
                with_told_limit(&mut expected, &mut got);
            }
            for one in [&mut expected, &mut got] {
                strip::request(one, lost, target);
                normal::request(one, &[target]);
            }
            assert_text("read", &expected, &got, &[&first]);
        });
    });
}

/// Anthropic must be told a limit, whether there is one or not.
fn with_told_limit(expected: &mut Request<'_>, got: &mut Request<'_>) {
    if expected.sampling.max_tokens.is_none() {
        got.sampling.max_tokens = None;
    }
}

/// Whether a text is a string may change where there is only one form of it.
fn without_plain(mut request: Request<'_>) -> Request<'_> {
    for message in &mut request.messages {
        message.plain = false;
        for part in &mut message.parts {
            if let Part::ToolResult(result) = part {
                result.plain = false;
            }
        }
    }
    request
}

/// Older models of Gemini's get the media of results behind them, which is declared as a loss and is
/// tested elsewhere.
fn sound_for<'a>(mut request: Request<'a>, setting: &Setting<'_>) -> Request<'a> {
    if setting.model.starts_with("gemini-2") {
        let results = request
            .messages
            .iter_mut()
            .flat_map(|message| &mut message.parts);
        for part in results {
            if let Part::ToolResult(result) = part {
                result.parts.retain(|part| !matches!(part, Part::Media(_)));
            }
        }
    }
    request
}

/// Providers refuse messages that say nothing.
fn check_shape(target: Protocol, text: &[u8]) {
    let value: serde_json::Value = serde_json::from_slice(text).unwrap();
    let list = match target {
        Protocol::GeminiGenerateContent => "contents",
        Protocol::OpenaiResponses => "input",
        _ => "messages",
    };
    for message in value[list].as_array().into_iter().flatten() {
        let content = match target {
            Protocol::GeminiGenerateContent => &message["parts"],
            _ => &message["content"],
        };
        let is_empty = content.as_array().is_some_and(Vec::is_empty);
        assert!(
            !is_empty,
            "an empty message: {}",
            String::from_utf8_lossy(text)
        );
    }
}

/// There and back, `client`'s request says the same but for what was declared lost on the way.
fn check_pair(client: Protocol, target: Protocol) {
    cases(REQUESTS_AND_BACK, |rng| {
        let there = Setting {
            client,
            ..rng.pick(&settings(target))
        };
        let own = rng.pick(&settings(client));
        let back = Setting {
            client: target,
            ..own
        };
        let request = generate::request(rng);
        let sent = written(&sound_for(sound_for(request, &own), &there), &own);
        reading(client, &sent, |request| {
            let middle = written(&request, &there);
            let lost_there = lost(&request, &there);
            reading(target, &middle, |translated| {
                let end = written(&translated, &back);
                reading(client, &end, |got| {
                    let mut got = got;
                    let mut expected = request.clone();
                    if [client, target].contains(&Protocol::AnthropicMessages) {
                        with_told_limit(&mut expected, &mut got);
                        // It is above the budget, which may be another one now.
                        if has_lost_amount(lost_there) {
                            expected.sampling.max_tokens = got.sampling.max_tokens.clone();
                        }
                    }
                    for one in [&mut expected, &mut got] {
                        strip::request(one, lost_there, target);
                        strip::request(one, lost(&translated, &back), client);
                        normal::request(one, &[client, target]);
                    }
                    assert_text("there and back", &expected, &got, &[&sent, &middle, &end]);
                });
            });
        });
    });
}

fn has_lost_amount(lost: Features) -> bool {
    let amounts = [
        Feature::ReasoningEffort,
        Feature::ReasoningBudget,
        Feature::ReasoningAdaptive,
        Feature::ReasoningEnabled,
        Feature::ReasoningDisabled,
    ];
    amounts.iter().any(|amount| lost.has(*amount))
}

fn check_pairs_of(client: Protocol) {
    for target in DIALECTS.into_iter().filter(|target| *target != client) {
        eprintln!("{client:?} to {target:?} and back");
        check_pair(client, target);
    }
}

macro_rules! of_each {
    ($($name:ident, $pairs:ident = $protocol:ident;)*) => {
        $(
            #[test]
            fn $name() {
                check_dialect(Protocol::$protocol);
            }

            #[test]
            fn $pairs() {
                check_pairs_of(Protocol::$protocol);
            }
        )*
    };
}

of_each! {
    requests_in_chat, requests_from_chat_and_back = OpenaiChat;
    requests_in_responses, requests_from_responses_and_back = OpenaiResponses;
    requests_in_anthropic, requests_from_anthropic_and_back = AnthropicMessages;
    requests_in_gemini, requests_from_gemini_and_back = GeminiGenerateContent;
    requests_in_cohere, requests_from_cohere_and_back = CohereChat;
    requests_in_bedrock, requests_from_bedrock_and_back = BedrockConverse;
}
