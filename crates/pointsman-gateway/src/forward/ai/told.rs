//! What logs and metrics tell of an attempt, kept while another is prepared that may come to nothing.

use std::sync::Arc;

use pointsman_ai::Replaced;

use crate::{exchange::Exchange, plugins::ai_proxy::Translated};

/// What logs and metrics tell of the newest attempt alone.
#[derive(Default)]
pub(super) struct Told {
    instance: Option<Arc<str>>,
    model: Option<Arc<str>>,
    response_ms: Option<u64>,
    first_token_ms: Option<u64>,
    replaced: Replaced,
    translated: Option<Box<Translated>>,
}

impl Told {
    /// What is told now; from here on nothing is.
    pub(super) fn take(exchange: &mut Exchange) -> Self {
        let call = exchange.ai.as_mut();
        let (replaced, translated) = call.map_or_else(Default::default, |call| {
            (std::mem::take(&mut call.replaced), call.translated.take())
        });
        let llm = &mut exchange.llm;
        Self {
            instance: llm.instance.take(),
            model: llm.model.take(),
            response_ms: llm.response_ms.take(),
            first_token_ms: llm.first_token_ms.take(),
            replaced,
            translated,
        }
    }

    pub(super) fn put_back(self, exchange: &mut Exchange) {
        let llm = &mut exchange.llm;
        llm.instance = self.instance;
        llm.model = self.model;
        llm.response_ms = self.response_ms;
        llm.first_token_ms = self.first_token_ms;
        if let Some(call) = exchange.ai.as_mut() {
            call.replaced = self.replaced;
            call.translated = self.translated;
        }
    }
}
