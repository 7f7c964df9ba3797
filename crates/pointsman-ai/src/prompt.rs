//! What the user asks: the last text that they wrote.
//!
//! The messages are walked in place. Only the last ones are looked into, from the end, until one has
//! text; a long conversation in front of it costs a walk and nothing else.

use crate::{
    Protocol, RequestBody,
    json::{self, items},
};

/// The text of the last message of the role `user` that has any, its parts joined with one blank; at
/// most `bytes_max` bytes of it, cut between characters. `None` if there is no such message, or the
/// protocol has no messages.
pub fn last_user_text(protocol: Protocol, body: &RequestBody, bytes_max: usize) -> Option<String> {
    let messages = match protocol {
        Protocol::OpenaiChat
        | Protocol::OpenaiResponses
        | Protocol::AnthropicMessages
        | Protocol::BedrockConverse
        | Protocol::GeminiGenerateContent
        | Protocol::CohereChat => body.raw_messages(protocol)?,
        Protocol::OpenaiEmbeddings
        | Protocol::Vectors(_)
        | Protocol::Direct(_)
        | Protocol::Passthrough => return None,
    };
    if protocol == Protocol::OpenaiResponses && messages.starts_with(b"\"") {
        return text_of(messages, bytes_max);
    }
    let mut of_user = Vec::new();
    items(messages, |message| {
        if protocol == Protocol::GeminiGenerateContent {
            // A content without a role is the user's.
            if let Some([role, Some(parts)]) = json::members(message, ["role", "parts"])
                && role.is_none_or(|role| json::says(role, "user"))
            {
                of_user.push(parts);
            }
        } else if let Some([Some(role), Some(content)]) =
            json::members(message, ["role", "content"])
            && json::says(role, "user")
        {
            of_user.push(content);
        }
    });
    let texts = of_user.into_iter().rev();
    texts
        .filter_map(|content| text_of(content, bytes_max))
        .next()
}

/// The text of a content: a string, or parts of which some have text.
fn text_of(content: &[u8], bytes_max: usize) -> Option<String> {
    let mut text = String::new();
    if let Some(whole) = json::text(content) {
        text.push_str(cut(&whole, bytes_max));
    } else {
        items(content, |part| {
            if text.len() < bytes_max
                && let Some(more) = text_of_part(part)
            {
                if !text.is_empty() {
                    text.push(' ');
                }
                text.push_str(cut(&more, bytes_max - text.len()));
            }
        });
    }
    (!text.trim().is_empty()).then_some(text)
}

/// A part's text: `text` and `input_text`, and the parts of Bedrock and Gemini, which have no type.
fn text_of_part(part: &[u8]) -> Option<std::borrow::Cow<'_, str>> {
    let [kind, text] = json::members(part, ["type", "text"])?;
    let is_text = |kind| json::says(kind, "text") || json::says(kind, "input_text");
    if !kind.is_none_or(is_text) {
        return None;
    }
    json::text(text?).filter(|text| !text.is_empty())
}

/// As much of `text` as fits, without half a character at its end.
fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = bytes_max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn check(protocol: Protocol, body: &str, expected: Option<&str>) {
        let parsed = RequestBody::parse(Bytes::copy_from_slice(body.as_bytes())).expect("JSON");
        let text = last_user_text(protocol, &parsed, 16);
        assert_eq!(text.as_deref(), expected, "{body}");
    }

    /// B-115, B-121
    #[test]
    fn every_protocol_has_its_own_way_to_say_it() {
        use Protocol::{
            AnthropicMessages, BedrockConverse, GeminiGenerateContent, OpenaiChat, OpenaiResponses,
        };
        check(
            OpenaiChat,
            r#"{"messages":[{"role":"system","content":"s"},{"role":"user","content":"a"},{"role":"user","content":"b"},{"role":"assistant","content":"c"}]}"#,
            Some("b"),
        );
        check(
            OpenaiChat,
            r#"{"messages":[{"role":"user","content":[{"type":"text","text":"one"},{"type":"image_url","image_url":{"url":"x"}},{"type":"text","text":"t\u0077o"}]}]}"#,
            Some("one two"),
        );
        // What the last message has no text for, one before it may.
        check(
            OpenaiChat,
            r#"{"messages":[{"role":"user","content":"a"},{"role":"user","content":[{"type":"image_url"}]},{"role":"user","content":""},{"role":"user","content":null},{"role":"user"}]}"#,
            Some("a"),
        );
        check(OpenaiResponses, r#"{"input":"hello"}"#, Some("hello"));
        check(
            OpenaiResponses,
            r#"{"input":[{"role":"user","content":"a"},{"type":"message","role":"user","content":[{"type":"input_text","text":"b"}]},{"type":"function_call_output","output":"x"}]}"#,
            Some("b"),
        );
        check(
            AnthropicMessages,
            r#"{"system":"s","messages":[{"role":"user","content":[{"type":"text","text":"q"}]},{"role":"assistant","content":"a"},{"role":"user","content":[{"type":"tool_result","content":"r"}]}]}"#,
            Some("q"),
        );
        check(
            BedrockConverse,
            r#"{"messages":[{"role":"user","content":[{"text":"a"},{"image":{}},{"text":"b"}]}]}"#,
            Some("a b"),
        );
        check(
            GeminiGenerateContent,
            r#"{"contents":[{"parts":[{"text":"a"},{"inlineData":{}},{"text":"b"}]},{"role":"model","parts":[{"text":"c"}]},{"role":"user","parts":[{"functionResponse":{"response":{"text":"d"}}}]}]}"#,
            Some("a b"),
        );
    }

    #[test]
    fn there_may_be_no_text() {
        use Protocol::{OpenaiChat, OpenaiEmbeddings, OpenaiResponses, Passthrough};
        for body in [
            r"{}",
            r#"{"messages":null}"#,
            r#"{"messages":"x"}"#,
            r#"{"messages":[]}"#,
            r#"{"messages":[1,null,"user",["user"],{"role":1,"content":"x"}]}"#,
            r#"{"messages":[{"role":"system","content":"x"}]}"#,
            r#"{"messages":[{"role":"user","content":" \n"}]}"#,
            r#"{"messages":[{"role":"user","content":{"text":"x"}}]}"#,
            r#"{"messages":[{"role":"user","content":[{"type":"text","text":7},["text"],{"type":"text"}]}]}"#,
        ] {
            check(OpenaiChat, body, None);
        }
        check(OpenaiResponses, r#"{"input":""}"#, None);
        check(OpenaiEmbeddings, r#"{"input":"x"}"#, None);
        check(
            Passthrough,
            r#"{"messages":[{"role":"user","content":"x"}]}"#,
            None,
        );
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        use Protocol::OpenaiChat;
        let user =
            |content: &str| format!(r#"{{"messages":[{{"role":"user","content":{content}}}]}}"#);
        let whole = |text: &str| user(&format!("\"{text}\""));
        check(
            OpenaiChat,
            &whole("0123456789abcdef"),
            Some("0123456789abcdef"),
        );
        check(
            OpenaiChat,
            &whole("0123456789abcdefg"),
            Some("0123456789abcdef"),
        );
        check(
            OpenaiChat,
            &whole("0123456789abcdeé"),
            Some("0123456789abcde"),
        );
        let parts = |texts: &[&str]| {
            let parts = texts
                .iter()
                .map(|text| format!(r#"{{"type":"text","text":"{text}"}}"#));
            user(&format!("[{}]", parts.collect::<Vec<_>>().join(",")))
        };
        check(
            OpenaiChat,
            &parts(&["0123456789", "abcdefg"]),
            Some("0123456789 abcde"),
        );
        check(
            OpenaiChat,
            &parts(&["0123456789abcde", "x"]),
            Some("0123456789abcde "),
        );
        check(
            OpenaiChat,
            &parts(&["0123456789abcdef", "x"]),
            Some("0123456789abcdef"),
        );
    }
}
