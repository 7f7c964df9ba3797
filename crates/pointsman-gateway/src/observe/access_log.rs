//! The access log: one JSON object per request.
//!
//! Written straight into a buffer, because it is on the path of every request. Values that a
//! query carries as a credential are starred out.

use bytes::Bytes;

use crate::{clock, exchange::Exchange};

/// The line of a request that has ended, without a line end.
pub fn line(exchange: &Exchange) -> Bytes {
    let mut line = Line {
        out: Vec::with_capacity(768),
    };
    line.request(exchange);
    line.attempts(exchange);
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
        self.out.extend_from_slice(b"{\"time\":\"");
        timestamp(x.started_unix_ms, &mut self.out);
        self.out.push(b'"');
        self.display("remote_addr", x.peer.client.ip());
        self.text("host", &x.received.host);
        self.text("method", x.received.method.as_str());
        self.key("uri");
        self.target(x);
        self.number(
            "status",
            x.response
                .status
                .map_or(499, |status| u64::from(status.as_u16())),
        );
        self.number("body_bytes", x.response.body_bytes);
        self.seconds("request_time", clock::now() - x.started);
        if let Some(route) = x.route() {
            self.text("route_id", &route.id);
            self.optional("service_id", route.service_id.as_deref());
        }
        self.optional(
            "consumer",
            x.consumer().map(|consumer| consumer.username.as_str()),
        );
        self.optional("request_id", x.request_id.as_deref());
        self.text("response_source", x.response_source());
        self.text("ended", x.ended().map_or("unknown", |ended| ended.as_str()));
    }

    /// One element per attempt, as nginx writes them.
    fn attempts(&mut self, x: &Exchange) {
        if x.attempts.is_empty() {
            return;
        }
        self.key("upstream_addr");
        self.each(x, |attempt, out| escape(&attempt.address, out));
        self.key("upstream_status");
        self.each(x, |attempt, out| decimal(u64::from(attempt.status), out));
        self.key("upstream_response_time");
        self.each(x, |attempt, out| match attempt.total {
            Some(total) => fixed(total, out),
            None => out.push(b'-'),
        });
    }

    fn llm(&mut self, x: &Exchange) {
        let llm = &x.llm;
        self.text("request_type", x.request_type());
        self.optional("balancer_ip", llm.instance.as_deref());
        self.optional("request_llm_model", llm.request_model.as_deref());
        self.optional("llm_model", llm.model.as_deref());
        let usage = llm.usage.unwrap_or_default();
        self.number("llm_prompt_tokens", usage.prompt);
        self.number("llm_completion_tokens", usage.completion);
        self.number("llm_total_tokens", usage.total);
        self.number("llm_cache_read_input_tokens", usage.cache_read);
        self.number("llm_cache_creation_input_tokens", usage.cache_creation);
        self.number("llm_reasoning_tokens", usage.reasoning);
        self.flag("llm_stream", llm.stream);
        self.flag("llm_has_tool_calls", llm.has_tool_calls);
        if let (Some(body), Some(protocol)) = (x.llm_request(), llm.protocol) {
            self.number("llm_tool_count", body.tool_count() as u64);
            self.optional("llm_end_user_id", body.end_user_id(protocol).as_deref());
        }
        self.number("llm_time_to_first_token", llm.first_token_ms.unwrap_or(0));
        self.number(
            "apisix_upstream_response_time",
            llm.response_ms.unwrap_or(0),
        );
        if llm.stream {
            self.flag("llm_stream_done", llm.stream_done);
        }
    }

    fn each(
        &mut self,
        x: &Exchange,
        write: impl Fn(&crate::exchange::AttemptRecord, &mut Vec<u8>),
    ) {
        self.out.push(b'"');
        for (index, attempt) in x.attempts.iter().enumerate() {
            if index > 0 {
                self.out.extend_from_slice(b", ");
            }
            write(attempt, &mut self.out);
        }
        self.out.push(b'"');
    }

    fn target(&mut self, x: &Exchange) {
        self.out.push(b'"');
        escape(x.received.uri.path(), &mut self.out);
        if let Some(query) = x.received.uri.query() {
            self.out.push(b'?');
            for (index, pair) in query.split('&').enumerate() {
                if index > 0 {
                    self.out.push(b'&');
                }
                match pair.split_once('=') {
                    Some((key, _)) if is_credential(key) => {
                        escape(key, &mut self.out);
                        self.out.extend_from_slice(b"=***");
                    }
                    _ => escape(pair, &mut self.out),
                }
            }
        }
        self.out.push(b'"');
    }

    fn key(&mut self, name: &str) {
        self.out.extend_from_slice(b",\"");
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn text(&mut self, name: &str, value: &str) {
        self.key(name);
        self.out.push(b'"');
        escape(value, &mut self.out);
        self.out.push(b'"');
    }

    fn optional(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    fn display(&mut self, name: &str, value: impl std::fmt::Display) {
        use std::io::Write as _;
        self.key(name);
        // Writing into a vector cannot fail.
        let _ = write!(self.out, "\"{value}\"");
    }

    fn number(&mut self, name: &str, value: u64) {
        self.key(name);
        decimal(value, &mut self.out);
    }

    fn flag(&mut self, name: &str, value: bool) {
        self.key(name);
        self.out
            .extend_from_slice(if value { b"true" } else { b"false" });
    }

    fn seconds(&mut self, name: &str, value: std::time::Duration) {
        self.key(name);
        fixed(value, &mut self.out);
    }
}

fn decimal(value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Seconds with three decimals.
fn fixed(duration: std::time::Duration, out: &mut Vec<u8>) {
    decimal(duration.as_secs(), out);
    out.push(b'.');
    padded(u64::from(duration.subsec_millis()), 3, out);
}

fn padded(value: u64, width: usize, out: &mut Vec<u8>) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(value);
    out.extend(std::iter::repeat_n(
        b'0',
        width.saturating_sub(digits.len()),
    ));
    out.extend_from_slice(digits.as_bytes());
}

/// RFC 3339 in UTC with milliseconds.
pub(crate) fn timestamp(unix_ms: u64, out: &mut Vec<u8>) {
    let (seconds, ms) = (unix_ms / 1000, unix_ms % 1000);
    let (days, second_of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    padded(year, 4, out);
    for (mark, value) in [
        (b'-', month),
        (b'-', day),
        (b'T', second_of_day / 3600),
        (b':', second_of_day / 60 % 60),
        (b':', second_of_day % 60),
    ] {
        out.push(mark);
        padded(value, 2, out);
    }
    out.push(b'.');
    padded(ms, 3, out);
    out.push(b'Z');
}

/// Year, month and day of a day since 1970, by counting in 400-year cycles from 1 March 0000.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let cycle = days / 146_097;
    let day_of_cycle = days % 146_097;
    let year_of_cycle =
        (day_of_cycle - day_of_cycle / 1460 + day_of_cycle / 36_524 - day_of_cycle / 146_096) / 365;
    let day_of_year =
        day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_cycle + cycle * 400 + u64::from(month <= 2);
    (year, month, day)
}

/// JSON's escapes.
fn escape(text: &str, out: &mut Vec<u8>) {
    let plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
    if text.bytes().fold(true, |all, byte| all & plain(byte)) {
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

fn is_credential(key: &str) -> bool {
    const NAMES: &[&str] = &[
        "apikey",
        "api_key",
        "api-key",
        "key",
        "token",
        "access_token",
        "jwt",
    ];
    NAMES.iter().any(|name| key.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        let check = |ms: u64, expected: &str| {
            let mut out = Vec::new();
            timestamp(ms, &mut out);
            assert_eq!(String::from_utf8_lossy(&out), expected);
        };
        check(0, "1970-01-01T00:00:00.000Z");
        check(951_782_400_123, "2000-02-29T00:00:00.123Z");
        check(1_767_225_599_999, "2025-12-31T23:59:59.999Z");
        check(4_102_444_800_000, "2100-01-01T00:00:00.000Z");
    }

    proptest! {
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
