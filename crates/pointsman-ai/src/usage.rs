//! Tokens, from any protocol.

use serde::{Deserialize, Deserializer, de::Visitor};
use serde_json::{Map, Value};

use crate::Protocol;

/// Tokens of one exchange. Whether `prompt` includes cached tokens is the protocol's matter.
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
    /// From a protocol's usage object, as it stands; `None` when it is not an object.
    pub(crate) fn read(protocol: Protocol, usage: &[u8], total: Total) -> Option<Self> {
        // As text from the start, or the parser checks the UTF-8 of each key by itself.
        let text = std::str::from_utf8(usage).ok()?;
        let raw = serde_json::from_str(text)
            .ok()
            .or_else(|| Raw::lenient(&serde_json::from_str(text).ok()?))?;
        Self::of(protocol, &raw, total)
    }

    pub(crate) fn of(protocol: Protocol, raw: &Raw, total: Total) -> Option<Self> {
        let mut read = match protocol {
            Protocol::OpenaiChat => {
                let prompt = raw.prompt_tokens_details.unwrap_or_default();
                Self {
                    prompt: raw.prompt_tokens.0,
                    completion: raw.completion_tokens.0,
                    total: raw.total_tokens.0,
                    cache_read: prompt
                        .cached_tokens
                        .unwrap_or(raw.prompt_cache_hit_tokens)
                        .0,
                    cache_creation: prompt.cache_creation_input_tokens.0,
                    reasoning: raw
                        .completion_tokens_details
                        .unwrap_or_default()
                        .reasoning_tokens
                        .0,
                }
            }
            Protocol::OpenaiResponses => Self {
                prompt: raw.input_tokens.0,
                completion: raw.output_tokens.0,
                total: raw.total_tokens.0,
                cache_read: cached(raw.input_tokens_details),
                cache_creation: 0,
                reasoning: raw
                    .output_tokens_details
                    .unwrap_or_default()
                    .reasoning_tokens
                    .0,
            },
            Protocol::OpenaiEmbeddings => Self {
                prompt: raw.prompt_tokens.0,
                total: raw.total_tokens.0,
                ..Self::default()
            },
            Protocol::AnthropicMessages => Self {
                prompt: raw.input_tokens.0,
                completion: raw.output_tokens.0,
                total: raw.input_tokens.0.saturating_add(raw.output_tokens.0),
                cache_read: raw.cache_read_input_tokens.0,
                cache_creation: raw.cache_creation_input_tokens.0,
                reasoning: 0,
            },
            Protocol::BedrockConverse | Protocol::Passthrough => return None,
        };
        if read.total == 0 && total == Total::Summed {
            read.total = read.prompt.saturating_add(read.completion);
        }
        Some(read)
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

fn cached(details: Option<Details>) -> u64 {
    details
        .unwrap_or_default()
        .cached_tokens
        .unwrap_or_default()
        .0
}

/// Every name under which some protocol states tokens. Anything else in the object is skipped.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Raw {
    prompt_tokens: Count,
    completion_tokens: Count,
    total_tokens: Count,
    prompt_cache_hit_tokens: Count,
    prompt_tokens_details: Option<Details>,
    completion_tokens_details: Option<Details>,
    input_tokens: Count,
    output_tokens: Count,
    input_tokens_details: Option<Details>,
    output_tokens_details: Option<Details>,
    cache_read_input_tokens: Count,
    cache_creation_input_tokens: Count,
}

impl Raw {
    /// From an object in which something is not what it should be: that counts as nothing, the
    /// rest counts. A name that stands there twice has its last value.
    pub(crate) fn lenient(usage: &Value) -> Option<Self> {
        let usage = usage.as_object()?;
        let details = |name: &str| {
            let details = usage.get(name)?.as_object()?;
            Some(Details {
                cached_tokens: details.get("cached_tokens").map(count),
                cache_creation_input_tokens: of(details, "cache_creation_input_tokens"),
                reasoning_tokens: of(details, "reasoning_tokens"),
            })
        };
        Some(Self {
            prompt_tokens: of(usage, "prompt_tokens"),
            completion_tokens: of(usage, "completion_tokens"),
            total_tokens: of(usage, "total_tokens"),
            prompt_cache_hit_tokens: of(usage, "prompt_cache_hit_tokens"),
            prompt_tokens_details: details("prompt_tokens_details"),
            completion_tokens_details: details("completion_tokens_details"),
            input_tokens: of(usage, "input_tokens"),
            output_tokens: of(usage, "output_tokens"),
            input_tokens_details: details("input_tokens_details"),
            output_tokens_details: details("output_tokens_details"),
            cache_read_input_tokens: of(usage, "cache_read_input_tokens"),
            cache_creation_input_tokens: of(usage, "cache_creation_input_tokens"),
        })
    }
}

fn of(object: &Map<String, Value>, name: &str) -> Count {
    object.get(name).map(count).unwrap_or_default()
}

fn count(value: &Value) -> Count {
    let whole = value.as_u64().or_else(|| value.as_f64().map(float));
    Count(whole.unwrap_or_default())
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Details {
    cached_tokens: Option<Count>,
    cache_creation_input_tokens: Count,
    reasoning_tokens: Count,
}

/// A number of tokens; whatever is not a number at least 0 counts as nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count(u64);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Count;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number of tokens")
            }

            fn visit_u64<E>(self, value: u64) -> Result<Count, E> {
                Ok(Count(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Count, E> {
                Ok(Count(u64::try_from(value).unwrap_or(0)))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Count, E> {
                Ok(Count(float(value)))
            }

            fn visit_unit<E>(self) -> Result<Count, E> {
                Ok(Count(0))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Count, E> {
                Ok(Count(0))
            }

            fn visit_str<E>(self, _: &str) -> Result<Count, E> {
                Ok(Count(0))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// A provider that writes tokens as `8.0`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates, which is the best that can be made of an absurd number"
)]
fn float(number: f64) -> u64 {
    number as u64
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
        assert_eq!(
            Usage::read(Protocol::OpenaiChat, b"null", Total::Summed),
            None
        );
    }

    /// What is odd counts as nothing; the rest counts.
    #[test]
    fn odd_members_do_not_lose_the_others() {
        for text in [
            r#"{"prompt_tokens":8,"completion_tokens":5,"prompt_tokens_details":0}"#,
            r#"{"prompt_tokens":8,"completion_tokens":5,"total_tokens":{"a":1}}"#,
            r#"{"prompt_tokens":1,"completion_tokens":5,"prompt_tokens":8}"#,
            r#"{"prompt_tokens":8.0,"completion_tokens":5,"completion_tokens_details":{"reasoning_tokens":[1]}}"#,
        ] {
            let usage = Usage::read(Protocol::OpenaiChat, text.as_bytes(), Total::Summed);
            let found = usage.map(|usage| (usage.prompt, usage.completion, usage.total));
            assert_eq!(found, Some((8, 5, 13)), "{text}");
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
