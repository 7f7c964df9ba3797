//! Tokens, from any protocol.

use serde_json::Value;

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
    /// From a protocol's usage object; `None` when it is not an object.
    pub(crate) fn read(protocol: Protocol, usage: &Value, total: Total) -> Option<Self> {
        let usage = usage.is_object().then_some(usage)?;
        let number = |value: Option<&Value>| {
            value
                .and_then(|v| v.as_u64().or_else(|| v.as_f64().map(float)))
                .unwrap_or(0)
        };
        let top = |key: &str| number(usage.get(key));
        let inside = |outer: &str, key: &str| number(usage.get(outer).and_then(|o| o.get(key)));
        let mut read = match protocol {
            Protocol::OpenaiChat => Self {
                prompt: top("prompt_tokens"),
                completion: top("completion_tokens"),
                total: top("total_tokens"),
                cache_read: match usage.pointer("/prompt_tokens_details/cached_tokens") {
                    Some(cached) => number(Some(cached)),
                    None => top("prompt_cache_hit_tokens"),
                },
                cache_creation: inside("prompt_tokens_details", "cache_creation_input_tokens"),
                reasoning: inside("completion_tokens_details", "reasoning_tokens"),
            },
            Protocol::OpenaiResponses => Self {
                prompt: top("input_tokens"),
                completion: top("output_tokens"),
                total: top("total_tokens"),
                cache_read: inside("input_tokens_details", "cached_tokens"),
                cache_creation: 0,
                reasoning: inside("output_tokens_details", "reasoning_tokens"),
            },
            Protocol::OpenaiEmbeddings => Self {
                prompt: top("prompt_tokens"),
                total: top("total_tokens"),
                ..Self::default()
            },
            Protocol::AnthropicMessages => Self {
                prompt: top("input_tokens"),
                completion: top("output_tokens"),
                total: top("input_tokens") + top("output_tokens"),
                cache_read: top("cache_read_input_tokens"),
                cache_creation: top("cache_creation_input_tokens"),
                reasoning: 0,
            },
            Protocol::BedrockConverse | Protocol::Passthrough => return None,
        };
        if read.total == 0 && total == Total::Summed {
            read.total = read.prompt + read.completion;
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
        self.total = self.total.max(self.prompt + self.completion);
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
            let read = Usage::read(protocol, &usage, Total::Summed).expect("an object");
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
            Usage::read(Protocol::OpenaiChat, &Value::Null, Total::Summed),
            None
        );
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
