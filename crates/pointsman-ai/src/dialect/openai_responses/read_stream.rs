//! Reading streams.
//!
//! Items come one after the other. Should a server mix them, what belongs to a later item waits until
//! the open one is done.

mod pieces;

use std::collections::BTreeMap;

use super::{
    error,
    read_response::{read_stop, read_usage, seconds},
};
use crate::{
    conversation::{ErrorMessage, Event},
    dialect::{self, Setting},
    json::{string::JsonStr, tree::Node},
};

type Sink<'s> = &'s mut dyn FnMut(Event<'_>);

/// Reads the stream of a response.
#[derive(Debug)]
pub(crate) struct StreamReader {
    started: bool,
    over: bool,
    open: Option<Item>,
    /// Data of events of items behind the open one, by `output_index`.
    waiting: BTreeMap<u64, Vec<Vec<u8>>>,
    waiting_bytes: usize,
    has_calls: bool,
    has_refusal: bool,
    /// Any block came.
    has_blocks: bool,
}

/// The item that is being read.
#[derive(Debug)]
struct Item {
    index: u64,
    /// The block in it that is open.
    block: Option<Kind>,
    /// The open block has some text.
    has_text: bool,
    /// The item had a block.
    has_blocks: bool,
    /// Of thoughts, which of two texts is taken: they say the same.
    thoughts: Option<Thoughts>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Refusal,
    Reasoning,
    Call,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Thoughts {
    Summary,
    Open,
}

/// Bytes that may wait for their turn.
const WAITING_BYTES_MAX: usize = 16 * 1024 * 1024;

impl StreamReader {
    pub(in crate::dialect) fn new(_setting: &Setting<'_>) -> Self {
        Self {
            started: false,
            over: false,
            open: None,
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            has_calls: false,
            has_refusal: false,
            has_blocks: false,
        }
    }

    pub(in crate::dialect) fn event(&mut self, name: &[u8], data: &[u8], sink: Sink<'_>) {
        if self.over || data == b"[DONE]" {
            return;
        }
        let tree = match dialect::parse(data) {
            Ok(tree) => tree,
            Err(malformed) => return self.fail(words(&malformed.to_string()), sink),
        };
        let root = tree.root();
        let kind = root.get_str("type");
        let kind = match &kind {
            Some(kind) => kind.decode(),
            None => String::from_utf8_lossy(name),
        };
        match &*kind {
            "response.created" | "response.in_progress" | "response.queued" => {
                self.start(root.get("response"), sink);
            }
            "response.completed" | "response.incomplete" => self.complete(root, sink),
            "response.failed" | "response.cancelled" | "error" => self.failed(root, sink),
            "keepalive" => sink(Event::Ping),
            // An error that came instead of an event.
            "" => {
                if let Some(error) = error::read_error(root) {
                    self.fail(error, sink);
                }
            }
            kind => self.of_item(kind, root, data, sink),
        }
    }

    pub(in crate::dialect) fn finish(&mut self, sink: Sink<'_>) {
        if !self.over {
            self.fail(words("the stream ended without response.completed"), sink);
        }
    }

    fn fail(&mut self, error: ErrorMessage<'_>, sink: Sink<'_>) {
        self.over = true;
        sink(Event::Error(error));
    }

    fn failed(&mut self, root: Node<'_, '_>, sink: Sink<'_>) {
        let response = root.get("response");
        let nested = response.unwrap_or(root).get("error");
        let error = error::of_object(nested.unwrap_or(root));
        let error = error.map(|error| ErrorMessage {
            // Flat, its type is that of the event.
            kind: error.kind.filter(|kind| !kind.is("error")),
            ..error
        });
        self.fail(error.unwrap_or_else(|| words("the response failed")), sink);
    }

    fn start(&mut self, response: Option<Node<'_, '_>>, sink: Sink<'_>) {
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        let text = |name| response.and_then(|response| response.get_str(name));
        let created = response.and_then(|response| response.get("created_at"));
        sink(Event::Start {
            id: text("id").unwrap_or_default(),
            model: text("model").unwrap_or_default(),
            created: created.and_then(seconds),
            usage: None,
        });
    }

    /// The response is complete, or as complete as it gets.
    fn complete(&mut self, root: Node<'_, '_>, sink: Sink<'_>) {
        let response = root.get("response").unwrap_or(root);
        self.start(Some(response), sink);
        self.close_item(sink);
        while !self.waiting.is_empty() {
            self.go_on(sink);
            self.close_item(sink);
        }
        if !self.has_blocks {
            let output = response.get("output").into_iter().flat_map(Node::items);
            output.for_each(|item| self.whole(item, sink));
        }
        if let Some(usage) = response.get("usage").and_then(read_usage) {
            sink(Event::Usage(usage));
        }
        // Before, it may say what was asked for.
        if let Some(tier) = response.get_str("service_tier") {
            sink(Event::Tier(tier));
        }
        match read_stop(response, self.has_calls, self.has_refusal) {
            Ok(stop) => {
                self.over = true;
                sink(Event::Stop { choice: 0, stop });
                sink(Event::End);
            }
            Err(malformed) => self.fail(words(&malformed.what), sink),
        }
    }

    /// An event of an item: now, or when it is its turn.
    fn of_item(&mut self, kind: &str, root: Node<'_, '_>, data: &[u8], sink: Sink<'_>) {
        let index = root.get("output_index").and_then(Node::u64);
        let open = self.open.as_ref().map(|item| item.index);
        let index = index.or(open).unwrap_or_default();
        self.start(None, sink);
        if open.is_some_and(|open| open != index) {
            self.waiting_bytes += data.len();
            if self.waiting_bytes > WAITING_BYTES_MAX {
                return self.fail(
                    words("too much of later items came before an earlier one ended"),
                    sink,
                );
            }
            self.waiting.entry(index).or_default().push(data.to_vec());
            return;
        }
        self.take(kind, index, root, sink);
        while self.open.is_none() && !self.waiting.is_empty() && !self.over {
            self.go_on(sink);
        }
    }

    /// Takes what waits for the next item.
    fn go_on(&mut self, sink: Sink<'_>) {
        let Some((index, events)) = self.waiting.pop_first() else {
            return;
        };
        for data in events {
            self.waiting_bytes = self.waiting_bytes.saturating_sub(data.len());
            // It was parsed once: it is JSON.
            if let Ok(tree) = dialect::parse(&data) {
                let kind = tree.root().get_str("type").unwrap_or_default();
                self.take(&kind.decode(), index, tree.root(), sink);
            }
        }
    }
}

fn words(what: &str) -> ErrorMessage<'_> {
    ErrorMessage {
        message: JsonStr::new(what),
        ..ErrorMessage::default()
    }
}
