//! `request-id`: a name for each request, for the target, the client and the logs.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use rand::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::parse;
use crate::{
    clock,
    config::{
        plugin_schema::{Faults, PluginSchema},
        resource::schema_of,
        schema::Issue,
    },
    exchange::Exchange,
    plugin::{
        Flow, Phases, Plugin, ResponseHead, Step,
        registry::{Building, PluginKind},
    },
};

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct Conf {
    /// Header of the request and the response.
    header_name: String,
    /// The client sees it.
    include_in_response: bool,
    /// How one is made.
    algorithm: Algorithm,
    /// For `range_id`.
    range_id: RangeId,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Algorithm {
    Uuid,
    Nanoid,
    RangeId,
    Ksuid,
    Uuidv7,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct RangeId {
    /// Characters.
    #[schemars(range(min = 6))]
    length: usize,
    /// Which ones.
    #[schemars(length(min = 6))]
    char_set: String,
}

impl Default for Conf {
    fn default() -> Self {
        Self {
            header_name: "X-Request-Id".to_owned(),
            include_in_response: true,
            algorithm: Algorithm::Uuid,
            range_id: RangeId::default(),
        }
    }
}

impl Default for RangeId {
    fn default() -> Self {
        Self {
            length: 16,
            char_set: ALPHANUMERIC.to_owned(),
        }
    }
}

struct RequestId {
    conf: Conf,
    header: HeaderName,
}

/// For the registry.
pub(crate) fn kind() -> PluginKind {
    PluginKind {
        schema: PluginSchema {
            name: "request-id",
            priority: 12015,
            version: "0.1",
            schema: schema_of::<Conf>(),
            consumer_schema: None,
            metadata_schema: None,
            is_auth: false,
            check: |conf| compile(conf).map(drop),
        },
        build,
        checkers: None,
        identity_field: None,
    }
}

fn build(conf: &Value, _: &mut Building<'_>) -> Result<Arc<dyn Plugin>, Faults> {
    Ok(Arc::new(compile(conf)?))
}

fn compile(conf: &Value) -> Result<RequestId, Faults> {
    let conf: Conf = parse(conf)?;
    let mut found = Vec::new();
    if conf.range_id.length > RANGE_ID_LENGTH_MAX {
        let text = format!("range_id.length: at most {RANGE_ID_LENGTH_MAX}");
        found.push(Issue::new("range_id.length", text));
    }
    match HeaderName::from_bytes(conf.header_name.as_bytes()) {
        Ok(header) => Faults::none_of(found).map(|()| RequestId { conf, header }),
        Err(_) => {
            let text = format!("header_name `{}` is not a header name", conf.header_name);
            found.push(Issue::new("header_name", text));
            Err(Faults::Rules(found))
        }
    }
}

impl Plugin for RequestId {
    fn phases(&self) -> Phases {
        Phases::REWRITE.and(Phases::HEADER_FILTER)
    }

    fn rewrite<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        let sent = exchange
            .header(self.header.as_str())
            .filter(|id| !id.is_empty());
        let id = sent.map_or_else(|| self.make(), str::to_owned);
        if let Ok(value) = HeaderValue::from_str(&id) {
            exchange.request.headers.insert(self.header.clone(), value);
        }
        exchange.set_id_of_plugin(id);
        Step::Done(Flow::Continue)
    }

    fn header_filter(&self, exchange: &Exchange, head: &mut ResponseHead) {
        if !self.conf.include_in_response || head.headers.contains_key(&self.header) {
            return;
        }
        let value = exchange
            .id_of_plugin()
            .and_then(|id| HeaderValue::from_str(id).ok());
        if let Some(value) = value {
            head.headers.insert(self.header.clone(), value);
        }
    }
}

impl RequestId {
    fn make(&self) -> String {
        match self.conf.algorithm {
            Algorithm::Uuid => uuid::Uuid::new_v4().to_string(),
            Algorithm::Uuidv7 => uuid::Uuid::now_v7().to_string(),
            Algorithm::Nanoid => draw(NANOID, 21),
            Algorithm::RangeId => draw(&self.conf.range_id.char_set, self.conf.range_id.length),
            Algorithm::Ksuid => ksuid(clock::unix_millis() / 1000, rand::random()),
        }
    }
}

fn draw(set: &str, length: usize) -> String {
    let set: Vec<char> = set.chars().collect();
    let mut random = rand::rng();
    (0..length)
        .map(|_| set[random.random_range(0..set.len())])
        .collect()
}

/// Four bytes of time since the format's epoch and sixteen random ones, in base 62, 27 digits.
fn ksuid(unix_seconds: u64, random: [u8; 16]) -> String {
    let time = u32::try_from(unix_seconds.saturating_sub(KSUID_EPOCH)).unwrap_or(u32::MAX);
    let mut bytes = [0u8; 20];
    bytes[..4].copy_from_slice(&time.to_be_bytes());
    bytes[4..].copy_from_slice(&random);
    let digits = BASE62.as_bytes();
    let mut text = [b'0'; 27];
    for place in text.iter_mut().rev() {
        let mut remainder = 0u32;
        for byte in &mut bytes {
            let value = remainder * 256 + u32::from(*byte);
            *byte = u8::try_from(value / 62).unwrap_or(u8::MAX);
            remainder = value % 62;
        }
        *place = digits[remainder as usize];
    }
    text.iter().map(|byte| char::from(*byte)).collect()
}

const ALPHANUMERIC: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const BASE62: &str = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const NANOID: &str = "_-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
const KSUID_EPOCH: u64 = 1_400_000_000;
const RANGE_ID_LENGTH_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// G-162
    #[test]
    fn ids_have_their_formats_lengths() {
        assert_eq!(draw(NANOID, 21).len(), 21);
        assert_eq!(draw("abcdef", 20).len(), 20);
        assert_eq!(ksuid(KSUID_EPOCH, [0; 16]), "0".repeat(27));
        assert_eq!(ksuid(u64::MAX, [255; 16]), "aWgEPTl1tmebfsQzFP4bxwgy80V");
    }
}
