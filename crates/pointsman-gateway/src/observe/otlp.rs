//! Spans as collectors of OpenTelemetry take them (OTLP 1.x, protobuf).
//!
//! Written by hand: it is six small messages, and what generates such code would be larger than they
//! are. The numbers are those of `opentelemetry/proto/trace/v1/trace.proto`.

use bytes::Bytes;

/// A value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Attribute {
    /// `string_value`
    Text(String),
    /// `bool_value`
    Flag(bool),
    /// `int_value`
    Int(u64),
    /// `double_value`
    Number(f64),
}

/// A named attribute.
pub(crate) type Named = (String, Attribute);

/// A span that has ended. Times are nanoseconds since the Unix epoch.
pub(crate) struct Span<'s> {
    pub(crate) trace_id: [u8; 16],
    pub(crate) span_id: [u8; 8],
    /// The span, somewhere else, that it is a part of.
    pub(crate) parent: Option<[u8; 8]>,
    /// `tracestate`, as it came.
    pub(crate) state: &'s str,
    pub(crate) name: &'s str,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) attributes: &'s [Named],
    /// Why it is an error.
    pub(crate) error: Option<&'s str>,
}

impl Span<'_> {
    /// `Span`, of the kind `SERVER`.
    pub(crate) fn encode(&self) -> Bytes {
        let mut span = Message::default();
        span.bytes(1, &self.trace_id);
        span.bytes(2, &self.span_id);
        span.text(3, self.state);
        if let Some(parent) = &self.parent {
            span.bytes(4, parent);
        }
        span.text(5, self.name);
        span.varint(6, KIND_SERVER);
        span.fixed64(7, self.start);
        span.fixed64(8, self.end);
        span.attributes(9, self.attributes);
        if let Some(why) = self.error {
            span.message(15, |status| {
                status.text(2, why);
                status.varint(3, STATUS_ERROR);
            });
        }
        let is_remote = if self.parent.is_some() { IS_REMOTE } else { 0 };
        span.fixed32(16, SAMPLED | KNOWS_REMOTE | is_remote);
        span.0.into()
    }
}

/// `Resource`: what spans come from.
pub(crate) fn resource(attributes: &[Named]) -> Bytes {
    let mut resource = Message::default();
    resource.attributes(1, attributes);
    resource.0.into()
}

/// `ExportTraceServiceRequest` with `spans` of one resource, all of them encoded.
pub(crate) fn request(resource: &[u8], spans: &[Bytes]) -> Bytes {
    let mut request = Message::default();
    request.message(1, |resource_spans| {
        resource_spans.bytes(1, resource);
        resource_spans.message(2, |scope_spans| {
            scope_spans.message(1, |scope| {
                scope.text(1, "pointsman");
                scope.text(2, env!("CARGO_PKG_VERSION"));
            });
            for span in spans {
                scope_spans.bytes(2, span);
            }
        });
    });
    request.0.into()
}

/// A message of protobuf under construction.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn bytes(&mut self, field: u32, value: &[u8]) {
        self.tag(field, LENGTH);
        self.number(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    /// Leaves an empty text out, as the format has it.
    fn text(&mut self, field: u32, value: &str) {
        if !value.is_empty() {
            self.bytes(field, value.as_bytes());
        }
    }

    fn varint(&mut self, field: u32, value: u64) {
        self.tag(field, VARINT);
        self.number(value);
    }

    fn fixed64(&mut self, field: u32, value: u64) {
        self.tag(field, FIXED_64);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn fixed32(&mut self, field: u32, value: u32) {
        self.tag(field, FIXED_32);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn message(&mut self, field: u32, fill: impl FnOnce(&mut Self)) {
        let mut part = Self::default();
        fill(&mut part);
        self.bytes(field, &part.0);
    }

    /// `KeyValue`s with an `AnyValue` each.
    fn attributes(&mut self, field: u32, attributes: &[Named]) {
        for (name, value) in attributes {
            self.message(field, |pair| {
                pair.text(1, name);
                pair.message(2, |any| match value {
                    Attribute::Text(text) => any.bytes(1, text.as_bytes()),
                    Attribute::Flag(flag) => any.varint(2, u64::from(*flag)),
                    Attribute::Int(number) => any.varint(3, *number),
                    Attribute::Number(number) => any.fixed64(4, number.to_bits()),
                });
            });
        }
    }

    fn tag(&mut self, field: u32, kind: u32) {
        self.number(u64::from(field << 3 | kind));
    }

    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

const VARINT: u32 = 0;
const FIXED_64: u32 = 1;
const LENGTH: u32 = 2;
const FIXED_32: u32 = 5;
const KIND_SERVER: u64 = 2;
const STATUS_ERROR: u64 = 2;
const SAMPLED: u32 = 1;
const KNOWS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of more than seven bits, and the nesting of an export.
    #[test]
    fn messages_are_laid_out_as_protobuf_has_it() {
        let mut message = Message::default();
        message.varint(1, 300);
        message.text(2, "");
        message.fixed32(16, 1);
        assert_eq!(message.0, [0x08, 0xac, 0x02, 0x85, 0x01, 1, 0, 0, 0]);
        let service = ("a".to_owned(), Attribute::Flag(true));
        let resource = resource(&[service]);
        assert_eq!(&*resource, b"\x0a\x07\x0a\x01a\x12\x02\x10\x01");
        let version = env!("CARGO_PKG_VERSION");
        let mut scope = b"\x0a\x09pointsman\x12".to_vec();
        scope.push(version.len() as u8);
        scope.extend_from_slice(version.as_bytes());
        let mut spans = vec![0x0a, scope.len() as u8];
        spans.extend(scope);
        spans.extend_from_slice(b"\x12\x01x\x12\x01y");
        let mut expected = vec![0x0a, (2 + resource.len() + 2 + spans.len()) as u8];
        expected.extend_from_slice(&[0x0a, resource.len() as u8]);
        expected.extend_from_slice(&resource);
        expected.extend_from_slice(&[0x12, spans.len() as u8]);
        expected.extend(spans);
        let found = request(&resource, &["x", "y"].map(Bytes::from));
        assert_eq!(&*found, &*expected);
    }
}
