//! Tokens, from any protocol.

use crate::{Protocol, json};

/// Tokens of one exchange. Whether `prompt` includes cached tokens is the protocol's matter, as in
/// APISIX; in a [`conversation`](crate::conversation) it includes those that were read from a cache,
/// and not those that were put there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it; all are tokens")]
pub struct Usage {
    pub prompt: u64,
    pub completion: u64,
    pub total: u64,
    pub cache_read: u64,
    pub cache_creation: u64,
    pub reasoning: u64,
}

/// Whether a total that is not stated is made up from its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Total {
    /// Of a whole response.
    Summed,
    /// Of a stream, where more may come.
    AsStated,
}

impl Usage {
    /// From a protocol's usage object, as it stands; `None` when it is not an object. A member in
    /// it that is not what it should be counts as nothing, and the rest counts.
    pub(crate) fn read(protocol: Protocol, usage: &[u8], total: Total) -> Option<Self> {
        let raw = Raw::read(usage)?;
        let mut read = match protocol {
            Protocol::OpenaiChat => Self {
                prompt: raw.prompt_tokens,
                completion: raw.completion_tokens,
                total: raw.total_tokens,
                cache_read: raw
                    .prompt_details
                    .cached
                    .unwrap_or(raw.prompt_cache_hit_tokens),
                cache_creation: raw.prompt_details.cache_creation,
                reasoning: raw.completion_details.reasoning,
            },
            Protocol::OpenaiResponses => Self {
                prompt: raw.input_tokens,
                completion: raw.output_tokens,
                total: raw.total_tokens,
                cache_read: raw.input_details.cached.unwrap_or_default(),
                cache_creation: 0,
                reasoning: raw.output_details.reasoning,
            },
            Protocol::OpenaiEmbeddings => Self {
                prompt: raw.prompt_tokens,
                total: raw.total_tokens,
                ..Self::default()
            },
            Protocol::AnthropicMessages => Self {
                prompt: raw.input_tokens,
                completion: raw.output_tokens,
                total: raw.input_tokens.saturating_add(raw.output_tokens),
                cache_read: raw.cache_read_input_tokens,
                cache_creation: raw.cache_creation_input_tokens,
                reasoning: 0,
            },
            Protocol::Direct(_) => raw.of_any_name()?,
            Protocol::BedrockConverse
            | Protocol::GeminiGenerateContent
            | Protocol::CohereChat
            | Protocol::Vectors(_)
            | Protocol::Passthrough => return None,
        };
        if read.total == 0 && total == Total::Summed {
            read.total = read.prompt.saturating_add(read.completion);
        }
        Some(read)
    }

    /// What a conversation counts as one in `protocol` does, and as logs have it: Anthropic and
    /// Bedrock leave cached tokens out of the prompt.
    pub(crate) fn in_terms_of(self, protocol: Protocol) -> Self {
        match protocol {
            Protocol::AnthropicMessages | Protocol::BedrockConverse => Self {
                prompt: self.prompt.saturating_sub(self.cache_read),
                ..self
            },
            _ => self,
        }
    }

    /// Adds what another answer has used.
    pub(crate) fn add(&mut self, other: Self) {
        let more = |mine: &mut u64, theirs: u64| *mine = mine.saturating_add(theirs);
        more(&mut self.prompt, other.prompt);
        more(&mut self.completion, other.completion);
        more(&mut self.total, other.total);
        more(&mut self.cache_read, other.cache_read);
        more(&mut self.cache_creation, other.cache_creation);
        more(&mut self.reasoning, other.reasoning);
    }

    /// Takes over what a later event of the same stream says: only what is more than nothing.
    pub(crate) fn update(&mut self, later: Self) {
        let newer = |mine: &mut u64, theirs: u64| {
            if theirs > 0 {
                *mine = theirs;
            }
        };
        newer(&mut self.prompt, later.prompt);
        newer(&mut self.completion, later.completion);
        newer(&mut self.total, later.total);
        newer(&mut self.cache_read, later.cache_read);
        newer(&mut self.cache_creation, later.cache_creation);
        newer(&mut self.reasoning, later.reasoning);
        self.total = self.total.max(self.prompt.saturating_add(self.completion));
    }
}

/// Every name under which some protocol states tokens. Anything else in the object is skipped.
#[derive(Clone, Copy, Debug, Default)]
struct Raw {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    prompt_cache_hit_tokens: u64,
    prompt_details: Details,
    completion_details: Details,
    input_tokens: u64,
    output_tokens: u64,
    input_details: Details,
    output_details: Details,
    cache_read_input_tokens: u64,
    cache_creation_input_tokens: u64,
}

impl Raw {
    /// Under whichever of the names tokens are stated; `None` if under none of them, as where time
    /// is what counts.
    fn of_any_name(self) -> Option<Usage> {
        let completion = self.completion_tokens.max(self.output_tokens);
        let stated = self.prompt_tokens.max(self.input_tokens);
        // Rerankers state a total and no more.
        let prompt = match stated {
            0 => self.total_tokens.saturating_sub(completion),
            stated => stated,
        };
        let cached = self.prompt_details.cached.or(self.input_details.cached);
        let usage = Usage {
            prompt,
            completion,
            total: self.total_tokens,
            cache_read: cached.unwrap_or(self.prompt_cache_hit_tokens),
            cache_creation: 0,
            reasoning: self.completion_details.reasoning,
        };
        (prompt > 0 || completion > 0).then_some(usage)
    }

    /// `None` when `usage` is not an object: whatever else stands there states no tokens.
    fn read(usage: &[u8]) -> Option<Self> {
        let [
            prompt,
            completion,
            total,
            hit,
            input,
            output,
            read,
            creation,
            prompt_details,
            completion_details,
            input_details,
            output_details,
            realtime_input_details,
        ] = json::members(usage, RAW)?;
        Some(Self {
            prompt_tokens: count(prompt),
            completion_tokens: count(completion),
            total_tokens: count(total),
            prompt_cache_hit_tokens: count(hit),
            prompt_details: Details::read(prompt_details),
            completion_details: Details::read(completion_details),
            input_tokens: count(input),
            output_tokens: count(output),
            input_details: Details::read(input_details.or(realtime_input_details)),
            output_details: Details::read(output_details),
            cache_read_input_tokens: count(read),
            cache_creation_input_tokens: count(creation),
        })
    }
}

const RAW: [&str; 13] = [
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "prompt_cache_hit_tokens",
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "prompt_tokens_details",
    "completion_tokens_details",
    "input_tokens_details",
    "output_tokens_details",
    // Of Realtime sessions.
    "input_token_details",
];

/// What a total is made of.
#[derive(Clone, Copy, Debug, Default)]
struct Details {
    cached: Option<u64>,
    cache_creation: u64,
    reasoning: u64,
}

impl Details {
    fn read(details: Option<&[u8]>) -> Self {
        let names = [
            "cached_tokens",
            "cache_creation_input_tokens",
            "reasoning_tokens",
        ];
        let found = details.and_then(|details| json::members(details, names));
        let [cached, creation, reasoning] = found.unwrap_or_default();
        Self {
            cached: cached
                .filter(|value| *value != b"null")
                .map(|value| count(Some(value))),
            cache_creation: count(creation),
            reasoning: count(reasoning),
        }
    }
}

/// A number of tokens; whatever is not a number at least 0 counts as nothing.
fn count(value: Option<&[u8]>) -> u64 {
    let text = value.and_then(|value| std::str::from_utf8(value).ok());
    let Some(number) = text.filter(|text| text.starts_with(|c: char| c.is_ascii_digit())) else {
        return 0;
    };
    let whole = number.parse().ok();
    // A provider may write tokens as `8.0`; a number beyond all bounds says nothing.
    let float = || number.parse().ok().filter(|float: &f64| float.is_finite());
    whole.or_else(|| float().map(saturated)).unwrap_or_default()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates, which is the best that can be made of an absurd number"
)]
fn saturated(number: f64) -> u64 {
    number as u64
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn usage_by_protocol() {
        let check = |protocol, usage: Value, expected: [u64; 6]| {
            let read = Usage::read(protocol, usage.to_string().as_bytes(), Total::Summed)
                .expect("an object");
            let found = [
                read.prompt,
                read.completion,
                read.total,
                read.cache_read,
                read.cache_creation,
                read.reasoning,
            ];
            assert_eq!(found, expected, "{usage}");
        };
        // P-161
        check(
            Protocol::OpenaiChat,
            json!({"prompt_tokens": 30, "completion_tokens": 9, "total_tokens": 39,
            "prompt_tokens_details": {"cached_tokens": 10, "cache_creation_input_tokens": 5},
            "completion_tokens_details": {"reasoning_tokens": 7}}),
            [30, 9, 39, 10, 5, 7],
        );
        check(
            Protocol::OpenaiChat,
            json!({"prompt_tokens": 3, "completion_tokens": 4, "prompt_cache_hit_tokens": 2}),
            [3, 4, 7, 2, 0, 0],
        );
        // P-163
        check(
            Protocol::OpenaiResponses,
            json!({"input_tokens": 1, "output_tokens": 2, "total_tokens": 3,
            "input_tokens_details": {"cached_tokens": 12}, "output_tokens_details": {"reasoning_tokens": 8}}),
            [1, 2, 3, 12, 0, 8],
        );
        check(
            Protocol::OpenaiEmbeddings,
            json!({"prompt_tokens": 5, "total_tokens": 5}),
            [5, 0, 5, 0, 0, 0],
        );
        // P-165
        check(
            Protocol::AnthropicMessages,
            json!({"input_tokens": 50, "output_tokens": 30,
            "cache_creation_input_tokens": 100, "cache_read_input_tokens": 200}),
            [50, 30, 80, 200, 100, 0],
        );
        // P-155
        check(
            Protocol::OpenaiChat,
            json!({"prompt_tokens": null, "prompt_tokens_details": null}),
            [0; 6],
        );
        for other in ["null", "[5,6,7]", "[]", "5", "\"5\"", "true", "{"] {
            let read = Usage::read(Protocol::OpenaiChat, other.as_bytes(), Total::Summed);
            assert_eq!(read, None, "{other}");
        }
    }

    /// What is odd counts as nothing; the rest counts.
    #[test]
    fn odd_members_do_not_lose_the_others() {
        for text in [
            r#"{"prompt_tokens":8,"completion_tokens":5,"prompt_tokens_details":0}"#,
            r#"{"prompt_tokens":8,"completion_tokens":5,"total_tokens":{"a":1}}"#,
            r#"{"prompt_tokens":1,"completion_tokens":5,"prompt_tokens":8}"#,
            r#"{"prompt_tokens":8.0,"completion_tokens":5,"completion_tokens_details":{"reasoning_tokens":[1]}}"#,
            r#"{"prompt_tokens":8,"completion_tokens":5,"prompt_tokens_details":[9,9,9]}"#,
            r#"{"prompt_t\u006fkens":8,"completion_tokens":5,"total_tokens":1e999,"x":"\ud83d"}"#,
            r#"{"prompt_tokens":8,"completion_tokens":5,"total_tokens":-3,"prompt_cache_hit_tokens":"9"}"#,
        ] {
            let usage = Usage::read(Protocol::OpenaiChat, text.as_bytes(), Total::Summed);
            let found = usage.map(|u| (u.prompt, u.completion, u.total, u.cache_read));
            assert_eq!(found, Some((8, 5, 13, 0)), "{text}");
        }
    }

    #[test]
    fn later_events_replace_only_with_more_than_nothing() {
        let mut usage = Usage {
            prompt: 10,
            completion: 1,
            total: 11,
            ..Usage::default()
        };
        usage.update(Usage {
            completion: 8,
            ..Usage::default()
        });
        assert_eq!((usage.prompt, usage.completion, usage.total), (10, 8, 18));
    }
}
