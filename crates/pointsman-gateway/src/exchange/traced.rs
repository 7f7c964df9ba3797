//! The spans of an exchange: begun before it is sent on, told when it has ended.

use std::borrow::Cow;

use crate::{exchange::Exchange, observe::trace::TraceContext};

/// A span that has begun.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenSpan {
    /// It.
    pub(crate) context: TraceContext,
    /// The span that it is a part of.
    pub(crate) parent: Option<[u8; 8]>,
}

impl Exchange {
    /// Notes that `span` has begun. `shown`: variables tell of it.
    pub(crate) fn begin_span(&mut self, span: OpenSpan, shown: bool) {
        let rare = self.rare_mut();
        rare.spans.borrow_mut().push_back(span);
        if shown {
            rare.trace = Some(span.context);
        }
    }

    /// The span that began first of those that have not been told of. Plugins are told of the end in
    /// the order in which they began, those of global rules before the route's.
    pub(crate) fn take_span(&self) -> Option<OpenSpan> {
        self.rare.get()?.spans.borrow_mut().pop_front()
    }

    /// `$opentelemetry_<part>`.
    pub(crate) fn trace_var(&self, part: &str) -> Option<Cow<'_, str>> {
        let trace = self.rare.get()?.trace.as_ref()?;
        match part {
            "context_traceparent" => Some(Cow::Owned(trace.to_string())),
            "trace_id" => Some(Cow::Owned(trace.trace_digits())),
            "span_id" => Some(Cow::Owned(trace.span_digits())),
            _ => None,
        }
    }
}
