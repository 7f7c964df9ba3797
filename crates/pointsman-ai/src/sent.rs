//! What a request says as it goes out: the client's body, under the members that an instance put
//! in their place.
//!
//! Logs tell of a few members only. So shaping notes what it did to those, and the body that went
//! out is never read again.

use std::borrow::Cow;

use bytes::Bytes;

use crate::{Protocol, RequestBody, json};

/// What became of the members that logs tell of, where shaping changed them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replaced(Vec<(&'static str, Option<Bytes>)>);

impl Replaced {
    /// Notes that `key` has that value by now, or is gone, if logs tell of it.
    pub(crate) fn note(&mut self, key: &str, value: Option<&Bytes>) {
        if let Some(told) = TOLD.into_iter().find(|told| *told == key) {
            self.0.push((told, value.cloned()));
        }
    }
}

/// A request body as the last attempt sent it. Before the first attempt it is the client's.
#[derive(Clone, Copy, Debug)]
pub struct Sent<'a> {
    /// The client's body.
    pub body: &'a RequestBody,
    /// What the instance did to it.
    pub replaced: &'a Replaced,
    /// What it is in.
    pub protocol: Protocol,
}

impl<'a> Sent<'a> {
    /// How many tools it declares. Gemini's stand in lists within the list.
    pub fn tool_count(&self) -> usize {
        let tools = match self.protocol {
            Protocol::BedrockConverse => self
                .member("toolConfig")
                .and_then(|config| json::value_at(config, ["tools"])),
            _ => self.member("tools"),
        };
        let mut count = 0;
        json::items(tools.unwrap_or_default(), |tool| {
            let listed = match self.protocol {
                Protocol::GeminiGenerateContent => json::value_at(tool, ["functionDeclarations"])
                    .or_else(|| json::value_at(tool, ["function_declarations"])),
                _ => None,
            };
            match listed {
                Some(listed) => json::items(listed, |_| count += 1),
                None => count += 1,
            }
        });
        count
    }

    /// Who it says it is for: `safety_identifier` or `user`, or Anthropic's `metadata.user_id`.
    pub fn end_user_id(&self) -> Option<String> {
        let value = match self.protocol {
            Protocol::AnthropicMessages => {
                json::value_at(self.member("metadata")?, ["user_id"]).and_then(json::text)
            }
            _ => ["safety_identifier", "user"]
                .iter()
                .find_map(|name| self.member(name).and_then(json::text)),
        };
        value.map(Cow::into_owned)
    }

    fn member(&self, name: &str) -> Option<&'a [u8]> {
        match self.replaced.0.iter().find(|(key, _)| *key == name) {
            Some((_, value)) => value.as_deref(),
            None => self.body.member(name),
        }
    }
}

/// The members that logs tell of.
const TOLD: [&str; 5] = [
    "toolConfig",
    "tools",
    "safety_identifier",
    "user",
    "metadata",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        text: &str,
        replaced: &[(&str, Option<&'static str>)],
        protocol: Protocol,
        expected: (usize, Option<&str>),
    ) {
        let body = RequestBody::parse(Bytes::copy_from_slice(text.as_bytes())).expect("JSON");
        let mut noted = Replaced::default();
        for (key, value) in replaced {
            let value = value.map(|value| Bytes::from_static(value.as_bytes()));
            noted.note(key, value.as_ref());
        }
        let sent = Sent {
            body: &body,
            replaced: &noted,
            protocol,
        };
        let user = sent.end_user_id();
        assert_eq!((sent.tool_count(), user.as_deref()), expected, "{text}");
    }

    /// P-159, P-162
    #[test]
    fn what_was_replaced_counts() {
        let chat = r#"{"tools":[{},{"a":[1,2]}],"user":"alice"}"#;
        let both = r#"{"user":"alice","safety_identifier":"x"}"#;
        let openai = Protocol::OpenaiChat;
        check(chat, &[], openai, (2, Some("alice")));
        check(chat, &[("tools", Some("[{}]"))], openai, (1, Some("alice")));
        check(chat, &[("tools", None), ("user", None)], openai, (0, None));
        check(
            chat,
            &[("model", Some("\"m\"")), ("user", Some("\"bob\""))],
            openai,
            (2, Some("bob")),
        );
        check(both, &[], openai, (0, Some("x")));
        check(
            both,
            &[("safety_identifier", None)],
            openai,
            (0, Some("alice")),
        );
        let bedrock = r#"{"toolConfig":{"tools":[{},{}]}}"#;
        check(bedrock, &[], Protocol::BedrockConverse, (2, None));
        let gemini = r#"{"tools":[{"functionDeclarations":[{},{}]},{"googleSearch":{}}]}"#;
        check(gemini, &[], Protocol::GeminiGenerateContent, (3, None));
        let anthropic = Protocol::AnthropicMessages;
        check(
            r#"{"metadata":{"user_id":"a"}}"#,
            &[],
            anthropic,
            (0, Some("a")),
        );
        check(
            r#"{"metadata":{"user_id":"a"}}"#,
            &[("metadata", Some(r#"{"user_id":"b"}"#))],
            anthropic,
            (0, Some("b")),
        );
    }
    /// What no parser takes is still only a part of the body, and hides nothing of the rest.
    #[test]
    fn half_a_surrogate_pair_hides_nothing() {
        let anthropic = |text: &str, user| check(text, &[], Protocol::AnthropicMessages, (0, user));
        anthropic(
            r#"{"metadata":{"a":"\ud83d","b":1e999,"user_id":"alice"}}"#,
            Some("alice"),
        );
        anthropic(r#"{"metadata":{"user_id":"al\ud83d"}}"#, Some("al\u{fffd}"));
        anthropic(r#"{"metadata":{"user_id":5}}"#, None);
        anthropic(r#"{"metadata":[]}"#, None);
        anthropic("{}", None);
        check(
            r#"{"tools":["\ud83d",1e999],"safety_identifier":null,"user":"\ude80"}"#,
            &[],
            Protocol::OpenaiChat,
            (2, Some("\u{fffd}")),
        );
    }
}
