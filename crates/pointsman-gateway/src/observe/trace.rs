//! Traces that go through the gateway: W3C trace context, and which requests are traced.

use http::HeaderValue;

/// One span of one trace, as `traceparent` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceContext {
    /// The trace; not all zero.
    pub(crate) trace_id: [u8; 16],
    /// The span; not all zero.
    pub(crate) span_id: [u8; 8],
    /// Whether it is recorded.
    pub(crate) sampled: bool,
}

impl TraceContext {
    /// Reads a `traceparent` (W3C Trace Context, version 00; of later ones the part that is known).
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('-');
        let version: [u8; 1] = hex(parts.next()?)?;
        let trace_id = hex(parts.next()?)?;
        let span_id = hex(parts.next()?)?;
        let [flags] = hex(parts.next()?)?;
        let has_more = parts.next().is_some();
        let is_known = match version {
            [0] => !has_more,
            [0xff] => false,
            _ => true,
        };
        let is_valid = is_known && trace_id != [0; 16] && span_id != [0; 8];
        is_valid.then_some(Self {
            trace_id,
            span_id,
            sampled: flags & 1 == 1,
        })
    }

    /// The same as a `traceparent`.
    pub(crate) fn header(&self) -> HeaderValue {
        HeaderValue::from_str(&self.to_string()).expect("digits and dashes")
    }

    /// The trace in 32 digits.
    pub(crate) fn trace_digits(&self) -> String {
        digits(&self.trace_id)
    }

    /// The span in 16 digits.
    pub(crate) fn span_digits(&self) -> String {
        digits(&self.span_id)
    }
}

impl std::fmt::Display for TraceContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let flags = u8::from(self.sampled);
        let (trace, span) = (self.trace_digits(), self.span_digits());
        write!(f, "00-{trace}-{span}-{flags:02x}")
    }
}

/// The trace that the id of a request names: 32 hexadecimal digits, with or without dashes.
pub(crate) fn trace_of_id(id: &str) -> Option<[u8; 16]> {
    let plain = id.replace('-', "").to_ascii_lowercase();
    hex(&plain).filter(|trace| *trace != [0; 16])
}

/// Which requests are recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Sampler {
    /// All or none.
    Always(bool),
    /// This part of all traces.
    Ratio(f64),
    /// Those that whoever sent them records; of the others all, none or a part.
    ParentOr(Root),
}

/// Decides about traces that begin here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Root {
    /// All or none.
    Always(bool),
    /// This part of all traces.
    Ratio(f64),
}

impl Sampler {
    /// Whether a request of the trace `trace_id` is recorded.
    pub(crate) fn samples(self, trace_id: &[u8; 16], parent: Option<&TraceContext>) -> bool {
        match self {
            Self::Always(is_on) => is_on,
            Self::Ratio(fraction) => is_within(trace_id, fraction),
            Self::ParentOr(root) => match (parent, root) {
                (Some(parent), _) => parent.sampled,
                (None, Root::Always(is_on)) => is_on,
                (None, Root::Ratio(fraction)) => is_within(trace_id, fraction),
            },
        }
    }
}

/// Whether a trace is in the part `fraction` of all: everybody who asks so finds the same ones
/// (OpenTelemetry's `TraceIdRatioBased`, by the last 63 bits).
#[expect(
    clippy::cast_precision_loss,
    reason = "a share of all traces needs no 63 bits"
)]
fn is_within(trace_id: &[u8; 16], fraction: f64) -> bool {
    let last: [u8; 8] = std::array::from_fn(|index| trace_id[index + 8]);
    let place = u64::from_be_bytes(last) >> 1;
    fraction >= 1.0 || (place as f64) < fraction * (1u64 << 63) as f64
}

/// `N` bytes of lower-case hexadecimal digits.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

fn digits(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let pair = |byte: &u8| [byte >> 4, byte & 15];
    let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
    bytes.iter().flat_map(pair).map(digit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_traceparent_is_not_taken_for_one() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let span = "00f067aa0ba902b7";
        let taken = |text: &str| TraceContext::parse(text).map(|context| context.to_string());
        let good = format!("00-{trace}-{span}-01");
        assert_eq!(taken(&good).as_deref(), Some(&*good));
        let later = taken(&format!("cc-{trace}-{span}-03-more"));
        assert_eq!(later.as_deref(), Some(&*good));
        let off = format!("00-{trace}-{span}-00");
        assert_eq!(taken(&format!("00-{trace}-{span}-02")), Some(off));
        let zero = "0".repeat(32);
        for bad in [
            String::new(),
            format!("00-{trace}-{span}"),
            format!("00-{trace}-{span}-01-more"),
            format!("ff-{trace}-{span}-01"),
            format!("00-{zero}-{span}-01"),
            format!("00-{trace}-{}-01", &zero[..16]),
            format!("00-{}-{span}-01", trace.to_ascii_uppercase()),
            format!("00-{}-{span}-01", &trace[1..]),
            format!("00-{trace}-\u{e4}{}-01", &span[2..]),
        ] {
            assert_eq!(taken(&bad), None, "{bad}");
        }
    }

    #[test]
    fn samplers_decide_by_trace_and_parent() {
        let mut trace = [0; 16];
        trace[8] = 0x3f;
        let parent = |sampled| TraceContext {
            trace_id: trace,
            span_id: [1; 8],
            sampled,
        };
        let check = |sampler: Sampler, root: bool, on: bool, off: bool| {
            assert_eq!(sampler.samples(&trace, None), root, "{sampler:?}");
            let of = |sampled| sampler.samples(&trace, Some(&parent(sampled)));
            assert_eq!((of(true), of(false)), (on, off), "{sampler:?}");
        };
        check(Sampler::Always(true), true, true, true);
        check(Sampler::Always(false), false, false, false);
        check(Sampler::Ratio(0.0), false, false, false);
        check(Sampler::Ratio(0.24), false, false, false);
        check(Sampler::Ratio(0.25), true, true, true);
        check(Sampler::Ratio(1.0), true, true, true);
        check(Sampler::ParentOr(Root::Always(true)), true, true, false);
        check(Sampler::ParentOr(Root::Always(false)), false, true, false);
        check(Sampler::ParentOr(Root::Ratio(0.25)), true, true, false);
    }

    #[test]
    fn ids_of_requests_may_name_traces() {
        let uuid = trace_of_id("4BF92F35-77b3-4da6-a3ce-929d0e0e4736");
        assert_eq!(uuid, trace_of_id("4bf92f3577b34da6a3ce929d0e0e4736"));
        assert!(uuid.is_some());
        for id in ["", "x", "4bf92f35", &"0".repeat(32)] {
            assert_eq!(trace_of_id(id), None);
        }
    }
}
