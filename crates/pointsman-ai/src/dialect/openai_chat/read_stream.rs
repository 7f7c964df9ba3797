//! Reading streams.

use super::{
    read_citation, read_error,
    read_parts::{read_detail, thought_signature},
    read_stop, read_usage,
};
use crate::{
    conversation::{Block, CALLS_MAX, ErrorMessage, Event, Signature, Stop, ToldTier},
    dialect::{self, Setting},
    json::{string::JsonStr, tree::Node},
};

/// Reads a provider's stream.
#[derive(Debug, Default)]
pub(crate) struct StreamReader {
    started: bool,
    choices: Vec<Choice>,
    tier: ToldTier,
    over: bool,
}

/// One of several answers.
#[derive(Debug, Default)]
struct Choice {
    index: u32,
    open: Option<Kind>,
    /// Calls so far. The first that has not ended streams; those behind it wait, because providers
    /// may go on with any of them.
    calls: Vec<Call>,
    /// The call that is open, by its place in `calls`; those before it have ended.
    current: usize,
    refuses: bool,
    stopped: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Reasoning,
    Refusal,
    Call,
}

#[derive(Debug)]
struct Call {
    /// The provider's own number of it.
    index: Option<u64>,
    id: JsonStr<'static>,
    name: JsonStr<'static>,
    /// Arguments that have not been passed on.
    waiting: JsonStr<'static>,
    signature: Option<Signature<'static>>,
}

type Sink<'s> = &'s mut dyn FnMut(Event<'_>);

impl StreamReader {
    pub(in crate::dialect) fn new(_setting: &Setting<'_>) -> Self {
        Self::default()
    }

    pub(in crate::dialect) fn event(&mut self, _name: &[u8], data: &[u8], sink: Sink<'_>) {
        let data = data.trim_ascii();
        if self.over || data.is_empty() {
            return;
        }
        if data == b"[DONE]" {
            return self.done(sink);
        }
        let tree = match dialect::parse(data) {
            Ok(tree) => tree,
            Err(malformed) => return self.fail(&malformed.to_string(), sink),
        };
        let root = tree.root();
        if let Some(error) = read_error(root) {
            self.over = true;
            return sink(Event::Error(error));
        }
        let mut choices = root
            .get("choices")
            .into_iter()
            .flat_map(Node::items)
            .peekable();
        // The first chunk of some says nothing but what was filtered.
        if choices.peek().is_some() {
            self.start(root, sink);
        }
        if self.started
            && let Some(event) = self.tier.news(root.get_str("service_tier"))
        {
            sink(event);
        }
        for choice in choices {
            self.choice(choice, sink);
        }
        if let Some(usage) = root.get("usage").filter(|usage| usage.is_object())
            && self.started
        {
            sink(Event::Usage(read_usage(usage)));
        }
    }

    pub(in crate::dialect) fn finish(&mut self, sink: Sink<'_>) {
        if self.over {
            return;
        }
        let complete = self.started && self.choices.iter().all(|choice| choice.stopped);
        if complete {
            self.over = true;
            sink(Event::End);
        } else {
            self.fail("the stream ended without [DONE] or a finish_reason", sink);
        }
    }

    fn fail(&mut self, what: &str, sink: Sink<'_>) {
        self.over = true;
        sink(Event::Error(ErrorMessage {
            message: JsonStr::new(what),
            ..ErrorMessage::default()
        }));
    }

    /// The protocol's own end. Some providers give no reason; who gives one for some choices has not
    /// finished the others.
    fn done(&mut self, sink: Sink<'_>) {
        if !self.started {
            return self.fail("the stream ended without an answer", sink);
        }
        let has_stopped = |choice: &Choice| choice.stopped;
        if self.choices.iter().any(has_stopped) && !self.choices.iter().all(has_stopped) {
            return self.fail("the stream ended before all of its choices did", sink);
        }
        for choice in &mut self.choices {
            choice.stop(&JsonStr::default(), sink);
        }
        self.over = true;
        sink(Event::End);
    }

    fn start(&mut self, root: Node<'_, '_>, sink: Sink<'_>) {
        if !std::mem::replace(&mut self.started, true) {
            sink(Event::Start {
                id: root.get_str("id").unwrap_or_default(),
                model: root.get_str("model").unwrap_or_default(),
                created: root.get("created").and_then(Node::u64),
                usage: None,
            });
        }
    }

    fn choice(&mut self, node: Node<'_, '_>, sink: Sink<'_>) {
        let index = node.get("index").and_then(Node::u64);
        let index = u32::try_from(index.unwrap_or_default()).unwrap_or(u32::MAX);
        let at = match self.choices.iter().position(|choice| choice.index == index) {
            Some(at) => at,
            None if self.choices.len() < CHOICES_MAX => {
                self.choices.push(Choice {
                    index,
                    ..Choice::default()
                });
                self.choices.len() - 1
            }
            None => return self.fail("more choices than anybody asks for", sink),
        };
        let choice = &mut self.choices[at];
        if choice.stopped {
            return;
        }
        if let Some(delta) = node.get("delta")
            && !choice.delta(delta, sink)
        {
            return self.fail("more tool calls than anybody makes", sink);
        }
        if let Some(logprobs) = node.get("logprobs") {
            let json = logprobs.raw().into();
            sink(Event::Logprobs {
                choice: index,
                json,
            });
        }
        let word = node.get_str("finish_reason");
        if let Some(word) = word.filter(|word| !word.decode().trim().is_empty() && !word.is("null"))
        {
            self.choices[at].stop(&word, sink);
        }
    }
}

impl Choice {
    /// Takes a piece in; `false` if there are too many calls.
    fn delta(&mut self, delta: Node<'_, '_>, sink: Sink<'_>) -> bool {
        self.thoughts(delta, sink);
        match delta.get("content") {
            Some(content) if content.is_array() => {
                for part in content.items() {
                    self.piece(Kind::Text, part.get_str("text"), sink);
                }
            }
            content => self.piece(Kind::Text, content.and_then(Node::str), sink),
        }
        let refusal = delta.get_str("refusal");
        self.refuses |= refusal.as_ref().is_some_and(|text| !text.is_empty());
        self.piece(Kind::Refusal, refusal, sink);
        for annotation in delta.get("annotations").into_iter().flat_map(Node::items) {
            if let Some(citation) = read_citation(annotation)
                && self.open == Some(Kind::Text)
            {
                let choice = self.index;
                sink(Event::Citation { choice, citation });
            }
        }
        for call in delta.get("tool_calls").into_iter().flat_map(Node::items) {
            let index = call.get("index").and_then(Node::u64);
            if !self.call(index, call, call.get("function"), sink) {
                return false;
            }
        }
        if let Some(function) = delta.get("function_call") {
            return self.call(Some(0), function, Some(function), sink);
        }
        true
    }

    fn thoughts(&mut self, delta: Node<'_, '_>, sink: Sink<'_>) {
        let choice = self.index;
        let mut details = delta
            .get("reasoning_details")
            .into_iter()
            .flat_map(Node::items)
            .peekable();
        if details.peek().is_none() {
            let text = delta
                .get_str("reasoning_content")
                .or_else(|| delta.get_str("reasoning"));
            return self.piece(Kind::Reasoning, text, sink);
        }
        for reasoning in details.filter_map(read_detail) {
            if reasoning.is_hidden {
                self.close(sink);
                let block = Block::Hidden;
                sink(Event::BlockStart { choice, block });
            } else {
                self.piece(Kind::Reasoning, Some(reasoning.text), sink);
            }
            if let Some(signature) = reasoning.signature {
                if !reasoning.is_hidden {
                    self.ensure(Kind::Reasoning, sink);
                }
                sink(Event::Signature { choice, signature });
                // It is of what came before; more thoughts have a signature of their own.
                if !reasoning.is_hidden {
                    self.close(sink);
                }
            }
            if reasoning.is_hidden {
                sink(Event::BlockEnd { choice });
            }
        }
    }

    fn piece(&mut self, kind: Kind, text: Option<JsonStr<'_>>, sink: Sink<'_>) {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            self.ensure(kind, sink);
            let choice = self.index;
            sink(Event::Delta { choice, text });
        }
    }

    fn ensure(&mut self, kind: Kind, sink: Sink<'_>) {
        if self.open == Some(kind) {
            return;
        }
        self.close(sink);
        self.open = Some(kind);
        let block = match kind {
            Kind::Text | Kind::Call => Block::Text,
            Kind::Reasoning => Block::Reasoning,
            Kind::Refusal => Block::Refusal,
        };
        let choice = self.index;
        sink(Event::BlockStart { choice, block });
    }

    /// Closes what is open. Calls that wait come first: nobody goes on with them behind this.
    fn close(&mut self, sink: Sink<'_>) {
        let choice = self.index;
        match self.open.take() {
            None => {}
            Some(Kind::Call) => {
                sink(Event::BlockEnd { choice });
                self.current += 1;
                while self.current < self.calls.len() {
                    self.open_call(sink);
                    sink(Event::BlockEnd { choice });
                    self.current += 1;
                }
            }
            Some(_) => sink(Event::BlockEnd { choice }),
        }
    }

    /// Passes the current call on, as far as it has come.
    fn open_call(&mut self, sink: Sink<'_>) {
        let choice = self.index;
        let Some(call) = self.calls.get_mut(self.current) else {
            return;
        };
        sink(Event::BlockStart {
            choice,
            block: Block::ToolCall {
                id: std::mem::take(&mut call.id),
                name: std::mem::take(&mut call.name),
            },
        });
        if let Some(signature) = call.signature.take() {
            sink(Event::Signature { choice, signature });
        }
        let text = std::mem::take(&mut call.waiting);
        if !text.is_empty() {
            sink(Event::Delta { choice, text });
        }
    }

    fn call(
        &mut self,
        index: Option<u64>,
        node: Node<'_, '_>,
        function: Option<Node<'_, '_>>,
        sink: Sink<'_>,
    ) -> bool {
        let text = |name| function.and_then(|function| function.get_str(name));
        let id = node.get_str("id").filter(|id| !id.is_empty());
        let name = text("name").filter(|name| !name.is_empty());
        let arguments = text("arguments").unwrap_or_default();
        // Without a number, an id or a name begins the next call, and all else goes to the last.
        let known = match index {
            Some(index) => self
                .calls
                .iter()
                .rposition(|call| call.index == Some(index)),
            None if id.is_some() || name.is_some() => None,
            None => self.calls.len().checked_sub(1),
        };
        if let Some(at) = known.filter(|at| *at >= self.current) {
            let signature = thought_signature(node);
            let choice = self.index;
            if at == self.current && self.open == Some(Kind::Call) {
                if let Some(signature) = signature {
                    sink(Event::Signature { choice, signature });
                }
                if !arguments.is_empty() {
                    sink(Event::Delta {
                        choice,
                        text: arguments,
                    });
                }
            } else {
                let call = &mut self.calls[at];
                call.waiting.push(&arguments);
                call.signature = signature.map(owned).or_else(|| call.signature.take());
            }
            return true;
        }
        // More of a call that has been closed by a text behind it cannot be placed any more; the
        // first piece of a new one has at least a name.
        if known.is_some() || self.calls.len() >= CALLS_MAX {
            return known.is_some();
        }
        self.calls.push(Call {
            index,
            id: id.unwrap_or_default().into_owned(),
            name: name.unwrap_or_default().into_owned(),
            waiting: arguments.into_owned(),
            signature: thought_signature(node).map(owned),
        });
        if self.open != Some(Kind::Call) {
            self.close(sink);
            self.current = self.calls.len() - 1;
            self.open = Some(Kind::Call);
            self.open_call(sink);
        }
        true
    }

    fn stop(&mut self, word: &JsonStr<'_>, sink: Sink<'_>) {
        if std::mem::replace(&mut self.stopped, true) {
            return;
        }
        self.close(sink);
        let stop = match read_stop(word, !self.calls.is_empty()) {
            Stop::End if self.refuses => Stop::Refusal,
            stop => stop,
        };
        let choice = self.index;
        sink(Event::Stop { choice, stop });
    }
}

fn owned(signature: Signature<'_>) -> Signature<'static> {
    Signature {
        origin: signature.origin,
        data: signature.data.into_owned(),
    }
}

/// OpenAI's limit of `n`.
const CHOICES_MAX: usize = 128;
