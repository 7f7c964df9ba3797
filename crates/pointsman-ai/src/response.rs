//! What a whole response says of itself: usage, tool calls, text.

use std::{borrow::Cow, sync::LazyLock};

use memchr::memmem::Finder;

use crate::{
    DirectApi, Protocol, Usage,
    conversation::Part,
    dialect::{self, Setting},
    json::{self, items, value_at},
    stream::meter::is_of_type,
    usage::Total,
    vectors,
};

/// What to read beside usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capture {
    /// Nothing: the text stays unread.
    Nothing,
    /// The text, for a payload log.
    Text,
}

/// What a response says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseFacts {
    /// Tokens, if it states any.
    pub usage: Option<Usage>,
    /// It calls a tool.
    pub has_tool_calls: bool,
    /// Its text, if that was asked for.
    pub text: Option<String>,
}

/// Reads a whole response. `None` when it is not a JSON object.
pub fn read_response(protocol: Protocol, body: &[u8], capture: Capture) -> Option<ResponseFacts> {
    // The member that holds the content, and what stands in it when a tool is called.
    let sought = match protocol {
        Protocol::OpenaiChat => Some(("choices", &TOOL_CALLS)),
        Protocol::OpenaiResponses => Some(("output", &FUNCTION_CALL)),
        Protocol::AnthropicMessages => Some(("content", &TOOL_USE)),
        Protocol::BedrockConverse | Protocol::GeminiGenerateContent | Protocol::CohereChat => {
            return read_conversation(protocol, body, capture);
        }
        Protocol::Vectors(api) => {
            return Some(ResponseFacts {
                usage: vectors::usage(api, body),
                ..ResponseFacts::default()
            });
        }
        Protocol::Direct(api) => return read_direct(api, body, capture),
        Protocol::OpenaiEmbeddings | Protocol::Passthrough => None,
    };
    let name = sought.map_or("", |(name, _)| name);
    let [usage, content] = json::members(body, ["usage", name])?;
    let usage = usage.and_then(|usage| Usage::read(protocol, usage, Total::Summed));
    let Some((_, sign)) = sought else {
        return Some(ResponseFacts {
            usage,
            ..ResponseFacts::default()
        });
    };
    let content = content.unwrap_or_default();
    // The content is only looked into when there is something in it to find.
    let mut has_tool_calls = false;
    if sign.find(content).is_some() {
        items(content, |item| has_tool_calls |= calls_tool(protocol, item));
    }
    Some(ResponseFacts {
        usage,
        has_tool_calls,
        text: (capture == Capture::Text).then(|| text_of(protocol, content)),
    })
}

/// The same of an API that is passed on. What counts tokens for its client has used none.
fn read_direct(api: DirectApi, body: &[u8], capture: Capture) -> Option<ResponseFacts> {
    let [usage, meta, text, choices] = json::members(body, ["usage", "meta", "text", "choices"])?;
    let read = |usage| Usage::read(Protocol::Direct(api), usage, Total::Summed);
    // Cohere has both; units that were billed need not be tokens.
    let in_meta = |name| meta.and_then(|meta| value_at(meta, [name])).and_then(read);
    let usage = match api {
        DirectApi::CountTokens => None,
        DirectApi::Rerank | DirectApi::RerankV2 => usage
            .and_then(read)
            .or_else(|| in_meta("tokens"))
            .or_else(|| in_meta("billed_units")),
        _ => usage.and_then(read),
    };
    let text = (capture == Capture::Text).then(|| {
        let mut texts: Vec<String> = Vec::new();
        let mut take = |text: Option<&[u8]>| {
            texts.extend(text.and_then(json::text).map(Cow::into_owned));
        };
        take(text);
        items(choices.unwrap_or_default(), |choice| {
            take(value_at(choice, ["text"]));
        });
        texts.join(" ")
    });
    Some(ResponseFacts {
        usage,
        has_tool_calls: false,
        text,
    })
}

/// The same, by reading all of it. An error is a response, too, that says nothing of that kind.
fn read_conversation(protocol: Protocol, body: &[u8], capture: Capture) -> Option<ResponseFacts> {
    let tree = dialect::parse(body).ok()?;
    let Ok(response) = dialect::read_response(tree.root(), &Setting::alone(protocol)) else {
        return tree.root().is_object().then(ResponseFacts::default);
    };
    let mut facts = ResponseFacts {
        usage: response.usage.map(|usage| usage.in_terms_of(protocol)),
        ..ResponseFacts::default()
    };
    let mut texts = Vec::new();
    for part in response.choices.iter().flat_map(|choice| &choice.parts) {
        match part {
            Part::ToolCall(_) => facts.has_tool_calls = true,
            Part::Text(text) => texts.push(text.text.decode().into_owned()),
            _ => {}
        }
    }
    facts.text = (capture == Capture::Text).then(|| texts.join(" "));
    Some(facts)
}

fn calls_tool(protocol: Protocol, item: &[u8]) -> bool {
    match protocol {
        Protocol::OpenaiChat => {
            value_at(item, ["message", "tool_calls"]).is_some_and(json::has_items)
        }
        Protocol::OpenaiResponses => is_of_type(item, "function_call"),
        Protocol::AnthropicMessages => is_of_type(item, "tool_use"),
        _ => false,
    }
}

/// The texts in a response's content, joined with one blank.
fn text_of(protocol: Protocol, content: &[u8]) -> String {
    let mut texts = Vec::new();
    let mut take =
        |text: Option<&[u8]>| texts.extend(text.and_then(json::text).map(Cow::into_owned));
    items(content, |item| match protocol {
        Protocol::OpenaiChat => take(value_at(item, ["message", "content"])),
        Protocol::OpenaiResponses => {
            let parts = value_at(item, ["content"]).unwrap_or_default();
            items(parts, |part| take(value_at(part, ["text"])));
        }
        Protocol::AnthropicMessages => take(value_at(item, ["text"])),
        _ => {}
    });
    texts.join(" ")
}

/// Making a finder ready costs as much as searching a short response with it.
static TOOL_CALLS: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"tool_calls\""));
static FUNCTION_CALL: LazyLock<Finder<'static>> =
    LazyLock::new(|| Finder::new("\"function_call\""));
static TOOL_USE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"tool_use\""));

#[cfg(test)]
mod tests {
    use super::*;

    fn read(protocol: Protocol, body: &str) -> ResponseFacts {
        read_response(protocol, body.as_bytes(), Capture::Text).expect("an object")
    }

    #[test]
    fn what_is_passed_on_states_its_tokens_in_many_ways() {
        let check = |api, body: &str, expected: Option<(u64, u64, u64)>, text: &str| {
            let facts = read(Protocol::Direct(api), body);
            let usage = facts
                .usage
                .map(|usage| (usage.prompt, usage.completion, usage.total));
            assert_eq!(usage, expected, "{body}");
            assert_eq!(facts.text.as_deref(), Some(text), "{body}");
        };
        check(
            DirectApi::Completion,
            r#"{"choices":[{"text":"a"},{"text":"b"}],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}"#,
            Some((3, 4, 7)),
            "a b",
        );
        check(
            DirectApi::Transcription,
            r#"{"text":"hi","usage":{"type":"tokens","input_tokens":14,"output_tokens":45,"total_tokens":59}}"#,
            Some((14, 45, 59)),
            "hi",
        );
        let seconds = r#"{"text":"","usage":{"type":"duration","seconds":3}}"#;
        check(DirectApi::Transcription, seconds, None, "");
        let images = r#"{"data":[],"usage":{"input_tokens":50,"output_tokens":60}}"#;
        check(DirectApi::ImageGeneration, images, Some((50, 60, 110)), "");
        let jina = r#"{"results":[],"usage":{"total_tokens":815}}"#;
        check(DirectApi::Rerank, jina, Some((815, 0, 815)), "");
        let cohere = r#"{"meta":{"billed_units":{"search_units":1},"tokens":{"input_tokens":9}}}"#;
        check(DirectApi::RerankV2, cohere, Some((9, 0, 9)), "");
        let units = r#"{"meta":{"billed_units":{"search_units":1}}}"#;
        check(DirectApi::RerankV2, units, None, "");
        let counted = r#"{"input_tokens":7,"usage":{"input_tokens":7}}"#;
        check(DirectApi::CountTokens, counted, None, "");
    }

    /// P-162, P-163
    #[test]
    fn tool_calls_and_text() {
        let chat = read(
            Protocol::OpenaiChat,
            r#"{"choices":[{"message":{"content":"hi","tool_calls":[{"id":"1"}]}}],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}"#,
        );
        assert!(chat.has_tool_calls);
        assert_eq!(chat.text.as_deref(), Some("hi"));
        assert_eq!(chat.usage.map(|usage| usage.total), Some(3));
        assert!(
            !read(
                Protocol::OpenaiChat,
                r#"{"choices":[{"message":{"tool_calls":[]}}]}"#
            )
            .has_tool_calls
        );
        assert!(
            read(
                Protocol::OpenaiResponses,
                r#"{"output":[{"type":"function_call"}]}"#
            )
            .has_tool_calls
        );
        let anthropic = read(
            Protocol::AnthropicMessages,
            r#"{"content":[{"type":"text","text":"a"},{"type":"tool_use"},{"type":"text","text":"b"}]}"#,
        );
        assert_eq!(
            (anthropic.has_tool_calls, anthropic.text.as_deref()),
            (true, Some("a b"))
        );
    }

    /// A response may repeat what the client sent, which no parser need take.
    #[test]
    fn half_a_surrogate_pair_hides_nothing() {
        for odd in [r#""\ud83d""#, "1e999"] {
            for (protocol, content) in [
                (
                    Protocol::OpenaiChat,
                    r#""choices":[{"x":ODD,"message":{"content":"a\ud83d","tool_calls":[ODD]}}]"#,
                ),
                (
                    Protocol::OpenaiResponses,
                    r#""output":[ODD,{"type":"function_call"},{"content":[ODD,{"x":ODD,"text":"a\ud83d"}]}]"#,
                ),
                (
                    Protocol::AnthropicMessages,
                    r#""content":[ODD,{"type":"text","text":"a\ud83d"},{"x":ODD,"type":"tool_use"}]"#,
                ),
            ] {
                let body = format!(
                    "{{\"x\":ODD,{content},\"usage\":{{\"x\":ODD,\"total_tokens\":3,\"input_tokens\":3}}}}"
                );
                let facts = read(protocol, &body.replace("ODD", odd));
                assert!(facts.has_tool_calls, "{body}");
                assert_eq!(facts.text.as_deref(), Some("a\u{fffd}"), "{body}");
                assert_eq!(facts.usage.map(|usage| usage.total), Some(3), "{body}");
            }
        }
    }

    /// P-155, P-156
    #[test]
    fn odd_responses_say_nothing() {
        let odd = read(
            Protocol::OpenaiChat,
            r#"{"choices":[{"message":{"content":null}}],"usage":null}"#,
        );
        assert_eq!(
            odd,
            ResponseFacts {
                text: Some(String::new()),
                ..ResponseFacts::default()
            }
        );
        for body in ["<html>", "", "5", "[1]", "null"] {
            assert_eq!(
                read_response(Protocol::OpenaiChat, body.as_bytes(), Capture::Text),
                None
            );
        }
    }
}
