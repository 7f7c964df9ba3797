//! Whole answers survive being written and read.

use serde_json::{Value, json};

use super::{
    ANSWERS, DIALECTS, Rng, SIGNATURES, cases, generate_answer, reading, settings, written,
};
use crate::{
    Protocol,
    conversation::{Feature, Part, Request, Response, Signature},
    dialect::{
        Setting, expresses, parse, read_error, read_response,
        same::{assert_text, normal, strip},
        write_response,
    },
    json::write::Writer,
};

fn answered(response: &Response<'_>, setting: &Setting<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    write_response(response, setting, &mut Writer::new(&mut out));
    out
}

/// A client is told all that is not declared lost, and it is no error.
fn check(client: Protocol, rng: &mut Rng) {
    let setting = rng.pick(&settings(client));
    let response = generate_answer::response(client, false, rng);
    let text = answered(&response, &setting);
    let tree = parse(&text).unwrap();
    assert_eq!(read_error(client, tree.root()), None);
    let got = read_response(tree.root(), &setting).unwrap();
    let undeclared = got.features(client).without(expresses(client));
    assert!(
        undeclared.is_empty(),
        "{:?}",
        undeclared.iter().collect::<Vec<_>>()
    );
    let lost = response.features(client).without(expresses(client));
    let [mut expected, mut got] = [response, got];
    for one in [&mut expected, &mut got] {
        strip::response(one, lost, client);
        normal::response(one, client);
    }
    assert_text("answer", &expected, &got, &[&text]);
}

#[test]
fn answers_reach_clients() {
    cases(ANSWERS, |rng| {
        for client in DIALECTS {
            check(client, rng);
        }
    });
}

/// What a client of `client` sends in its next turn, of the answer that it got.
fn next_turn(client: Protocol, answer: &Value) -> Value {
    let user = json!({"role": "user", "content": "x"});
    match client {
        Protocol::OpenaiChat => json!({"messages": [user, answer["choices"][0]["message"]]}),
        Protocol::OpenaiResponses => {
            let mut input = vec![user];
            input.extend(answer["output"].as_array().unwrap().iter().cloned());
            json!({ "input": input })
        }
        Protocol::AnthropicMessages => json!({
            "messages": [user, {"role": "assistant", "content": answer["content"]}]
        }),
        Protocol::GeminiGenerateContent => json!({
            "contents": [{"role": "user", "parts": [{"text": "x"}]}, answer["candidates"][0]["content"]]
        }),
        _ => json!({
            "messages": [{"role": "user", "content": [{"text": "x"}]}, answer["output"]["message"]]
        }),
    }
}

/// Signatures of `origin`, which are not empty, in order.
fn signatures(parts: &[Part<'_>], origin: Protocol) -> Vec<String> {
    let data = |signature: &Signature<'_>| signature.data.decode().into_owned();
    let all = parts.iter().filter_map(|part| match part {
        Part::Reasoning(reasoning) => reasoning.signature.as_ref(),
        Part::ToolCall(call) => call.signature.as_ref(),
        _ => None,
    });
    let own = all.filter(|signature| signature.origin == origin);
    let mut own: Vec<String> = own.map(data).collect();
    own.sort();
    own
}

fn of_request(request: &Request<'_>, origin: Protocol) -> Vec<String> {
    let parts = request.messages.iter().flat_map(|message| &message.parts);
    signatures(&parts.cloned().collect::<Vec<_>>(), origin)
}

/// What a provider signs comes back to it through any client, unchanged.
fn check_signatures(client: Protocol, provider: Protocol, rng: &mut Rng) {
    let own = rng.pick(&settings(client));
    let mut response = generate_answer::response(client, false, rng);
    response.choices.truncate(1);
    let has_place = |call: bool| match provider {
        Protocol::OpenaiChat | Protocol::GeminiGenerateContent => true,
        Protocol::CohereChat => false,
        _ => !call,
    };
    let carries_calls = expresses(client).has(Feature::CallSignatureAnswer);
    for part in &mut response.choices[0].parts {
        match part {
            Part::Reasoning(reasoning) => {
                if let Some(signature) = &mut reasoning.signature {
                    signature.origin = provider;
                }
            }
            Part::ToolCall(call) => {
                call.signature
                    .take_if(|_| !has_place(true) || !carries_calls);
                if let Some(signature) = &mut call.signature {
                    signature.origin = provider;
                }
            }
            _ => {}
        }
    }
    let sent = signatures(&response.choices[0].parts, provider);
    let text = answered(&response, &own);
    let answer: Value = serde_json::from_slice(&text).unwrap();
    let next = next_turn(client, &answer).to_string();
    let there = Setting {
        client,
        ..rng.pick(&settings(provider))
    };
    reading(client, next.as_bytes(), |request| {
        let back = written(&request, &there);
        reading(provider, &back, |got| {
            let texts = String::from_utf8_lossy(&text);
            let back = String::from_utf8_lossy(&back);
            assert_eq!(
                of_request(&got, provider),
                sent,
                "{client:?} {provider:?}\n{texts}\n{back}"
            );
        });
    });
}

#[test]
fn what_providers_sign_finds_back_to_them() {
    let sign = |protocol: &Protocol| *protocol != Protocol::CohereChat;
    cases(SIGNATURES, |rng| {
        for client in DIALECTS.into_iter().filter(sign) {
            for provider in DIALECTS
                .into_iter()
                .filter(sign)
                .filter(|other| *other != client)
            {
                check_signatures(client, provider, rng);
            }
        }
    });
}
