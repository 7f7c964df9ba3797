//! The access log: one JSON object per request.
//!
//! Written straight into a buffer, because it is on the path of every request. Values that a
//! query carries as a credential are starred out.

mod picks;

use std::net::IpAddr;

use bytes::Bytes;

use crate::{
    exchange::Exchange,
    forward::semantic,
    observe::{
        date::{self, four},
        secrets,
    },
    plugins::ai_proxy::{AiCall, Translated},
    semantic::Ranked,
};

/// The line of a request that has ended, without a line end.
pub fn line(exchange: &Exchange) -> Bytes {
    let mut line = Line {
        out: Vec::with_capacity(768),
    };
    line.request(exchange);
    line.attempts(exchange);
    line.picks(exchange);
    if exchange.llm.protocol.is_some() {
        line.llm(exchange);
    }
    line.out.push(b'}');
    Bytes::from(line.out)
}

struct Line {
    out: Vec<u8>,
}

impl Line {
    fn request(&mut self, x: &Exchange) {
        self.raw(b"{\"time\":\"");
        date::rfc_3339(x.started_unix_ms, &mut self.out);
        self.raw(b"\",\"remote_addr\":\"");
        self.address(x.peer.client.ip());
        self.raw(b"\"");
        self.text(b",\"host\":\"", &x.received.host);
        // The characters of a method are those of a token: nothing to escape.
        self.word(b",\"method\":\"", x.received.method.as_str());
        self.raw(b",\"uri\":\"");
        self.target(x);
        self.raw(b"\"");
        let status = x.response.status.map_or(499, |status| status.as_u16());
        self.number(b",\"status\":", u64::from(status));
        self.number(b",\"body_bytes\":", x.response.body_bytes);
        self.raw(b",\"request_time\":");
        fixed(x.took(), &mut self.out);
        if let Some(route) = x.route() {
            self.text(b",\"route_id\":\"", &route.id);
            self.optional(b",\"service_id\":\"", route.service_id.as_deref());
        }
        let consumer = x.consumer().map(|consumer| consumer.username.as_str());
        self.optional(b",\"consumer\":\"", consumer);
        self.optional(b",\"request_id\":\"", x.id_of_plugin());
        self.word(b",\"response_source\":\"", x.response_source());
        let ended = x.ended().map_or("unknown", |ended| ended.as_str());
        self.word(b",\"ended\":\"", ended);
    }

    /// One element per attempt, as nginx writes them.
    fn attempts(&mut self, x: &Exchange) {
        if x.attempts.is_empty() {
            return;
        }
        self.raw(b",\"upstream_addr\":\"");
        self.each(x, |attempt, out| escape(&attempt.address, out));
        self.raw(b"\",\"upstream_status\":\"");
        self.each(x, |attempt, out| decimal(u64::from(attempt.status), out));
        self.raw(b"\",\"upstream_response_time\":\"");
        self.each(x, |attempt, out| match attempt.total {
            Some(total) => fixed(total, out),
            None => out.push(b'-'),
        });
        self.raw(b"\"");
    }

    fn llm(&mut self, x: &Exchange) {
        let llm = &x.llm;
        self.word(b",\"request_type\":\"", x.request_type());
        self.optional(b",\"balancer_ip\":\"", llm.instance.as_deref());
        if let Some(call) = &x.ai
            && let Some(ranked) = &call.ranked
        {
            self.semantic(call, ranked, llm.instance.as_deref());
        }
        self.optional(b",\"request_llm_model\":\"", llm.request_model.as_deref());
        self.optional(b",\"llm_model\":\"", llm.model.as_deref());
        let usage = llm.usage.unwrap_or_default();
        self.number(b",\"llm_prompt_tokens\":", usage.prompt);
        self.number(b",\"llm_completion_tokens\":", usage.completion);
        self.number(b",\"llm_total_tokens\":", usage.total);
        self.number(b",\"llm_cache_read_input_tokens\":", usage.cache_read);
        self.number(
            b",\"llm_cache_creation_input_tokens\":",
            usage.cache_creation,
        );
        self.number(b",\"llm_reasoning_tokens\":", usage.reasoning);
        if llm.usage_estimated {
            self.flag(b",\"llm_usage_estimated\":", true);
        }
        self.flag(b",\"llm_stream\":", llm.stream);
        self.flag(b",\"llm_has_tool_calls\":", llm.has_tool_calls);
        if let Some(call) = &x.ai {
            let sent = call.sent();
            self.number(b",\"llm_tool_count\":", sent.tool_count() as u64);
            let end_user = sent.end_user_id();
            self.optional(b",\"llm_end_user_id\":\"", end_user.as_deref());
            if let Some(translated) = &call.translated {
                self.translated(translated);
            }
        }
        self.number(
            b",\"llm_time_to_first_token\":",
            llm.first_token_ms.unwrap_or(0),
        );
        self.number(
            b",\"apisix_upstream_response_time\":",
            llm.response_ms.unwrap_or(0),
        );
        if llm.stream {
            self.flag(b",\"llm_stream_done\":", llm.stream_done);
        }
    }

    /// What the instance was spoken to in, and what got lost either way.
    #[cold]
    fn translated(&mut self, translated: &Translated) {
        let target = translated.translation.target();
        self.text(b",\"llm_upstream_protocol\":\"", target.as_str());
        let lost = translated.all_lost().collect::<Vec<_>>().join(",");
        if !lost.is_empty() {
            self.text(b",\"llm_lossy\":\"", &lost);
        }
    }

    /// Who was picked by meaning, and how it scored; or why nobody did.
    #[cold]
    fn semantic(&mut self, call: &AiCall, ranked: &Ranked, instance: Option<&str>) {
        let picked = semantic::picked(call, ranked, instance);
        self.optional(b",\"semantic_picked\":\"", picked);
        let scores = semantic::scores(call, ranked);
        self.optional(b",\"semantic_scores\":\"", scores.as_deref());
        if let Err(why) = &ranked.scores {
            self.text(b",\"semantic_unscored\":\"", &why.to_string());
        }
    }

    fn each(
        &mut self,
        x: &Exchange,
        write: impl Fn(&crate::exchange::AttemptRecord, &mut Vec<u8>),
    ) {
        for (index, attempt) in x.attempts.iter().enumerate() {
            if index > 0 {
                self.raw(b", ");
            }
            write(attempt, &mut self.out);
        }
    }

    fn target(&mut self, x: &Exchange) {
        escape(x.received.uri.path(), &mut self.out);
        if let Some(query) = x.received.uri.query() {
            self.out.push(b'?');
            escape(&secrets::shown_query(x, query), &mut self.out);
        }
    }

    /// Text that is JSON already. Its length is part of the type: a copy of a known length is a
    /// few moves instead of a call.
    #[inline(always)]
    fn raw<const N: usize>(&mut self, text: &[u8; N]) {
        self.out.extend_from_slice(text);
    }

    /// A member whose `key` ends in the quote that begins the value.
    #[inline(always)]
    fn text<const N: usize>(&mut self, key: &[u8; N], value: &str) {
        self.raw(key);
        escape(value, &mut self.out);
        self.out.push(b'"');
    }

    /// A member whose value has nothing to escape.
    #[inline(always)]
    fn word<const N: usize>(&mut self, key: &[u8; N], value: &str) {
        self.raw(key);
        self.out.extend_from_slice(value.as_bytes());
        self.out.push(b'"');
    }

    #[inline(always)]
    fn optional<const N: usize>(&mut self, key: &[u8; N], value: Option<&str>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    #[inline(always)]
    fn number<const N: usize>(&mut self, key: &[u8; N], value: u64) {
        self.raw(key);
        decimal(value, &mut self.out);
    }

    #[inline(always)]
    fn flag<const N: usize>(&mut self, key: &[u8; N], value: bool) {
        self.raw(key);
        self.out
            .extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// IPv4 without the machinery of formatting; IPv6 has rules that are not worth repeating.
    fn address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => {
                let [a, b, c, d] = address.octets();
                decimal(u64::from(a), &mut self.out);
                for octet in [b, c, d] {
                    self.out.push(b'.');
                    decimal(u64::from(octet), &mut self.out);
                }
            }
            IpAddr::V6(address) => {
                use std::io::Write as _;
                // Writing into a vector cannot fail.
                let _ = write!(self.out, "{address}");
            }
        }
    }
}

fn decimal(value: u64, out: &mut Vec<u8>) {
    if let (0..=9, Ok(digit)) = (value, u8::try_from(value)) {
        out.push(b'0' + digit);
        return;
    }
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Seconds with three decimals.
fn fixed(duration: std::time::Duration, out: &mut Vec<u8>) {
    decimal(duration.as_secs(), out);
    let [_, digits @ ..] = four(u64::from(duration.subsec_millis()));
    out.extend_from_slice(&[b'.', digits[0], digits[1], digits[2]]);
}

/// JSON's escapes.
fn escape(text: &str, out: &mut Vec<u8>) {
    if is_plain(text.as_bytes()) {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    for byte in text.bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0..=0x1f => {
                out.extend_from_slice(b"\\u00");
                out.push(b"0123456789abcdef"[usize::from(byte >> 4)]);
                out.push(b"0123456789abcdef"[usize::from(byte & 15)]);
            }
            _ => out.push(byte),
        }
    }
}

/// Whether there is nothing to escape, eight bytes at a time: the texts are too short for vectors
/// to pay. A byte is below 32, or becomes 0 when compared, where subtracting borrows into its top
/// bit; a borrow from a neighbour can only say "escape" of a text that needs it anyway.
fn is_plain(text: &[u8]) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let (words, rest) = text.as_chunks::<8>();
    let special = words.iter().fold(0, |special, word| {
        let word = u64::from_le_bytes(*word);
        let control = word.wrapping_sub(ONES * 0x20);
        let quote = (word ^ (ONES * u64::from(b'"'))).wrapping_sub(ONES);
        let slash = (word ^ (ONES * u64::from(b'\\'))).wrapping_sub(ONES);
        special | ((control | quote | slash) & !word & (ONES * 0x80))
    });
    special == 0
        && rest
            .iter()
            .all(|byte| *byte >= 0x20 && *byte != b'"' && *byte != b'\\')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn plain_texts_are_told_apart(text in "([a-z/é\u{7f}\u{20}]{0,9}[\u{0}-\u{23}\\\\\\]Z]?){0,3}") {
            let special = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
            prop_assert_eq!(is_plain(text.as_bytes()), !text.bytes().any(special), "{:?}", text);
        }

        #[test]
        fn any_text_survives_as_json(text in "\\PC{0,30}[\u{0}-\u{1f}\"\\\\]{0,5}") {
            let mut out = vec![b'"'];
            escape(&text, &mut out);
            out.push(b'"');
            let read: String = serde_json::from_slice(&out).expect("a JSON string");
            prop_assert_eq!(read, text);
        }
    }
}
