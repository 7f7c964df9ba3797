//! What a whole response says of itself: usage, tool calls, text.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde_json::Value;

use crate::{
    Protocol, Usage,
    json::{self, Kind},
    usage::Total,
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
        Protocol::OpenaiEmbeddings | Protocol::BedrockConverse | Protocol::Passthrough => None,
    };
    // The last member of a name counts, as parsers have it.
    let (mut usage, mut content) = (None, None);
    let (kind, _) = json::visit(body, |member| {
        if member.is(body, "usage") {
            usage = Some(member.value);
        } else if sought.is_some_and(|(name, _)| member.is(body, name)) {
            content = Some(member.value);
        }
    })
    .ok()?;
    if kind != Kind::Object {
        return None;
    }
    let usage = usage.and_then(|place| Usage::read(protocol, &body[place], Total::Summed));
    let Some((_, sign)) = sought else {
        return Some(ResponseFacts {
            usage,
            ..ResponseFacts::default()
        });
    };
    let raw = content.map(|place| &body[place]).unwrap_or_default();
    // The content is only parsed when there is something in it to find.
    let wanted = capture == Capture::Text || sign.find(raw).is_some();
    let content: Value = if wanted {
        serde_json::from_slice(raw).unwrap_or_default()
    } else {
        Value::Null
    };
    let items = content.as_array().map(Vec::as_slice).unwrap_or_default();
    Some(ResponseFacts {
        usage,
        has_tool_calls: items.iter().any(|item| calls_tool(protocol, item)),
        text: (capture == Capture::Text).then(|| text_of(protocol, items)),
    })
}

fn calls_tool(protocol: Protocol, item: &Value) -> bool {
    match protocol {
        Protocol::OpenaiChat => item
            .pointer("/message/tool_calls")
            .and_then(Value::as_array)
            .is_some_and(|calls| !calls.is_empty()),
        Protocol::OpenaiResponses => item["type"] == "function_call",
        Protocol::AnthropicMessages => item["type"] == "tool_use",
        _ => false,
    }
}

/// The texts of a response, joined with one blank.
fn text_of(protocol: Protocol, items: &[Value]) -> String {
    let mut texts: Vec<&str> = Vec::new();
    for item in items {
        match protocol {
            Protocol::OpenaiChat => {
                texts.extend(item.pointer("/message/content").and_then(Value::as_str));
            }
            Protocol::OpenaiResponses => {
                let parts = item["content"]
                    .as_array()
                    .map(Vec::as_slice)
                    .unwrap_or_default();
                texts.extend(parts.iter().filter_map(|part| part["text"].as_str()));
            }
            Protocol::AnthropicMessages => texts.extend(item["text"].as_str()),
            _ => {}
        }
    }
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
