//! What is said to etcd and what it says: the JSON of its API v3, as its own gateway has it.
//!
//! Keys and values are Base64, and numbers of 64 bits are texts; what is 0, false or empty is left out.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, de::Error};
use serde_json::{Value, json};

/// What every answer begins with.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(super) struct Header {
    /// Which etcd it is.
    #[serde(deserialize_with = "number")]
    pub(super) cluster_id: u64,
    /// Its last change.
    #[serde(deserialize_with = "number")]
    pub(super) revision: u64,
}

/// A key and what is under it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(super) struct KeyValue {
    #[serde(deserialize_with = "binary")]
    pub(super) key: Vec<u8>,
    #[serde(deserialize_with = "binary")]
    pub(super) value: Vec<u8>,
    #[serde(deserialize_with = "number")]
    pub(super) create_revision: u64,
    #[serde(deserialize_with = "number")]
    pub(super) mod_revision: u64,
}

/// A part of what there is.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Range {
    pub(super) header: Header,
    pub(super) kvs: Vec<KeyValue>,
    pub(super) more: bool,
    /// Of all keys that were asked for.
    #[serde(deserialize_with = "number")]
    pub(super) count: u64,
}

/// What became of a transaction.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Transaction {
    pub(super) header: Header,
    pub(super) succeeded: bool,
    pub(super) responses: Vec<Part>,
}

/// The outcome of one of its operations.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Part {
    pub(super) response_range: Option<Range>,
}

/// A lease that was granted.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Lease {
    /// A number, as the text that it came as.
    #[serde(rename = "ID")]
    pub(super) id: String,
}

/// Who we are to etcd from now on.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Login {
    pub(super) token: String,
}

/// One line of a watch.
#[derive(Debug, Deserialize)]
pub(super) struct WatchLine {
    pub(super) result: Option<Notice>,
    pub(super) error: Option<Refusal>,
}

/// What a watch tells.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Notice {
    pub(super) header: Header,
    pub(super) canceled: bool,
    pub(super) cancel_reason: String,
    /// If above 0, what is watched from has been forgotten.
    #[serde(deserialize_with = "number")]
    pub(super) compact_revision: u64,
    /// The rest of it follows.
    pub(super) fragment: bool,
    pub(super) events: Vec<Event>,
}

/// A change.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Event {
    #[serde(rename = "type")]
    kind: String,
    pub(super) kv: KeyValue,
}

impl Event {
    /// Whether the key is gone.
    pub(super) fn is_delete(&self) -> bool {
        self.kind == "DELETE"
    }
}

/// Why etcd does not do what it was asked.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Refusal {
    pub(super) message: String,
    error: String,
    /// Of gRPC.
    #[serde(alias = "grpc_code")]
    pub(super) code: u32,
}

impl Refusal {
    /// Why, in etcd's words.
    pub(super) fn words(&self) -> &str {
        match self.message.is_empty() {
            true => &self.error,
            false => &self.message,
        }
    }

    /// What was asked for has been forgotten.
    pub(super) fn is_compacted(&self) -> bool {
        self.words().contains("has been compacted")
    }

    /// The token is not, or no longer, known.
    pub(super) fn is_of_token(&self) -> bool {
        let of_token = [
            "invalid auth token",
            "user name is empty",
            "revision of auth store is old",
        ];
        self.code == UNAUTHENTICATED || of_token.iter().any(|part| self.words().contains(part))
    }
}

/// What is asked of a span of keys.
#[derive(Clone, Copy)]
pub(super) struct Span<'a> {
    pub(super) from: &'a [u8],
    /// The first key after it.
    pub(super) to: &'a [u8],
}

/// The first key that does not begin with `prefix`, which ends in a slash.
pub(super) fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

/// Asks for up to `limit` keys of `span` with their values, as they were at `revision`; 0 for now.
pub(super) fn page(span: Span<'_>, revision: u64, limit: usize) -> Value {
    json!({
        "key": text(span.from), "range_end": text(span.to),
        "revision": revision.to_string(), "limit": limit.to_string(),
    })
}

/// Asks for nothing but the last revision; every member says what a majority knows.
pub(super) fn head(key: &[u8]) -> Value {
    json!({ "key": text(key), "limit": "1", "keys_only": true })
}

/// Asks how many keys `span` has, and whether one was written after `revision`.
pub(super) fn comparison(span: Span<'_>, revision: u64) -> Value {
    let (from, to) = (text(span.from), text(span.to));
    let after = (revision + 1).to_string();
    json!({ "success": [
        { "request_range": { "key": from, "range_end": to, "count_only": true } },
        { "request_range": { "key": from, "range_end": to, "min_mod_revision": after,
            "keys_only": true, "limit": "1" } },
    ] })
}

/// Asks to be told what changes in `span`, from `revision` on.
pub(super) fn watch(span: Span<'_>, revision: u64) -> Value {
    json!({ "create_request": {
        "key": text(span.from), "range_end": text(span.to),
        "start_revision": revision.to_string(), "fragment": true,
    } })
}

/// Bytes as etcd writes them.
pub(super) fn text(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::String(text) => text.parse().map_err(D::Error::custom),
        Value::Number(number) => number.as_u64().ok_or_else(|| D::Error::custom("below 0")),
        _ => Err(D::Error::custom("not a number")),
    }
}

fn binary<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
    STANDARD.decode(text.as_bytes()).map_err(D::Error::custom)
}

const UNAUTHENTICATED: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// As etcd 3.4 wrote it.
    #[test]
    fn answers_are_read() {
        let text = r#"{"header":{"cluster_id":"14841639068965178418","revision":"5","raft_term":"2"},
            "kvs":[{"key":"L2FwaXNpeC9yb3V0ZXMvMQ==","create_revision":"2","mod_revision":"4",
            "version":"2","value":"eyJhIjoxfQ=="}],"more":true,"count":"2"}"#;
        let range: Range = serde_json::from_str(text).expect("read");
        let header = Header {
            cluster_id: 14_841_639_068_965_178_418,
            revision: 5,
        };
        let entry = KeyValue {
            key: b"/apisix/routes/1".to_vec(),
            value: b"{\"a\":1}".to_vec(),
            create_revision: 2,
            mod_revision: 4,
        };
        assert_eq!((range.header, range.count, range.more), (header, 2, true));
        assert_eq!(range.kvs, [entry]);
        let line = r#"{"result":{"header":{"revision":"5"},"events":[
            {"type":"DELETE","kv":{"key":"YQ==","mod_revision":"5"}},{"kv":{"key":"YQ=="}}]}}"#;
        let line: WatchLine = serde_json::from_str(line).expect("read");
        let events = line.result.expect("a result").events;
        assert_eq!(
            events.iter().map(Event::is_delete).collect::<Vec<_>>(),
            [true, false]
        );
        let wrong = r#"{"kvs":[{"key":"?"}]}"#;
        assert!(serde_json::from_str::<Range>(wrong).is_err());
    }

    #[test]
    fn refusals_are_told_apart() {
        let refusal = |text: &str| serde_json::from_str::<Refusal>(text).expect("read");
        let compacted = refusal(
            r#"{"error":"etcdserver: mvcc: required revision has been compacted","code":11}"#,
        );
        assert!(compacted.is_compacted() && !compacted.is_of_token());
        let token =
            refusal(r#"{"error":"x","message":"etcdserver: invalid auth token","code":16}"#);
        assert!(token.is_of_token() && !token.is_compacted());
        assert_eq!(token.words(), "etcdserver: invalid auth token");
    }

    #[test]
    fn a_span_ends_behind_its_last_key() {
        let end = end_of("/apisix/");
        assert_eq!(end, b"/apisix0");
        assert!(b"/apisix/\xff\xff".as_slice() < end.as_slice());
    }
}
