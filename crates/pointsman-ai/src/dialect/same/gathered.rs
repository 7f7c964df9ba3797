//! What a stream's events say together, and what readers promise of their order.

use crate::{
    Usage,
    conversation::{Arguments, Block, Choice, Event, Part, Reasoning, Response, Text, ToolCall},
    json::string::JsonStr,
};

/// Takes events in, and makes the answer of them.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    pub(crate) response: Response<'static>,
    pub(crate) end: Option<End>,
    started: bool,
    choices: Vec<Progress>,
    broken: Option<&'static str>,
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Proper,
    Error,
}

#[derive(Debug)]
struct Progress {
    index: u32,
    open: bool,
    stopped: bool,
}

impl Gathered {
    /// Takes the next event.
    pub(crate) fn take(&mut self, event: &Event<'_>) {
        self.judge(event);
        match event {
            Event::Start { usage, .. } => self.response.usage = *usage,
            Event::BlockStart { choice, block } => {
                let part = begun(block);
                self.choice(*choice).parts.push(part);
            }
            Event::Delta { choice, text } => {
                if let Some(part) = self.choice(*choice).parts.last_mut() {
                    go_on(part, text);
                }
            }
            Event::Signature { choice, signature } => {
                let signature = crate::conversation::Signature {
                    origin: signature.origin,
                    data: signature.data.clone().into_owned(),
                };
                match self.choice(*choice).parts.last_mut() {
                    Some(Part::Reasoning(reasoning)) => reasoning.signature = Some(signature),
                    Some(Part::ToolCall(call)) => call.signature = Some(signature),
                    _ => {}
                }
            }
            Event::Citation { choice, citation } => {
                let owned = |text: &Option<JsonStr<'_>>| text.clone().map(JsonStr::into_owned);
                if let Some(Part::Text(text)) = self.choice(*choice).parts.last_mut() {
                    text.citations.push(crate::conversation::Citation {
                        url: owned(&citation.url),
                        title: owned(&citation.title),
                        ..Default::default()
                    });
                }
            }
            Event::Logprobs { choice, json } => {
                let all = &mut self.choice(*choice).logprobs;
                let before = all.take().unwrap_or_default();
                *all = Some(format!("{before}{json}").into());
            }
            Event::Stop { choice, stop } => self.choice(*choice).stop = owned(stop),
            Event::Usage(usage) => {
                self.response
                    .usage
                    .get_or_insert_with(Usage::default)
                    .update(*usage);
            }
            Event::Tier(tier) => self.response.service_tier = Some(tier.clone().into_owned()),
            Event::Error(_) => self.end = Some(End::Error),
            Event::End => self.end = Some(End::Proper),
            Event::BlockEnd { .. } | Event::Ping => {}
        }
    }

    /// The promises of [`Event`] that `event` breaks.
    fn judge(&mut self, event: &Event<'_>) {
        let is_first = !std::mem::replace(&mut self.started, true);
        let may_be_first = matches!(event, Event::Start { .. } | Event::Error(_) | Event::Ping);
        if matches!(event, Event::Ping) && is_first {
            self.started = false;
        }
        self.break_if(self.end.is_some(), "something follows the end");
        self.break_if(
            is_first && !may_be_first,
            "something comes before the start",
        );
        let is_start = matches!(event, Event::Start { .. });
        self.break_if(is_start && !is_first, "it starts twice");
        let all_stopped = self.choices.iter().all(|choice| choice.stopped);
        let is_end = matches!(event, Event::End);
        self.break_if(is_end && !all_stopped, "it ends before its answers have");
        let (Event::BlockStart { choice, .. }
        | Event::Delta { choice, .. }
        | Event::Signature { choice, .. }
        | Event::Citation { choice, .. }
        | Event::Logprobs { choice, .. }
        | Event::BlockEnd { choice }
        | Event::Stop { choice, .. }) = event
        else {
            return;
        };
        let known = self.choices.iter().position(|known| known.index == *choice);
        let at = known.unwrap_or_else(|| {
            self.choices.push(Progress {
                index: *choice,
                open: false,
                stopped: false,
            });
            self.choices.len() - 1
        });
        let Progress { open, stopped, .. } = self.choices[at];
        self.break_if(stopped, "an answer goes on behind its reason to stop");
        match event {
            Event::BlockStart { .. } => {
                self.break_if(open, "two blocks are open");
                self.choices[at].open = true;
            }
            Event::BlockEnd { .. } => {
                self.break_if(!open, "a block ends that is not open");
                self.choices[at].open = false;
            }
            Event::Stop { .. } => {
                self.break_if(open, "an answer stops within a block");
                self.choices[at].stopped = true;
            }
            Event::Logprobs { .. } => {}
            _ => self.break_if(!open, "there is a piece of no block"),
        }
    }

    fn break_if(&mut self, is_broken: bool, what: &'static str) {
        if is_broken {
            self.broken.get_or_insert(what);
        }
    }

    /// The promise that was broken, if one was.
    pub(crate) fn broken(&self) -> Option<&'static str> {
        match self.end {
            None => Some("it does not end"),
            Some(_) => self.broken,
        }
    }

    /// Every answer that has begun has said why it stopped, and there is one.
    pub(crate) fn all_have_stopped(&self) -> bool {
        !self.choices.is_empty() && self.choices.iter().all(|choice| choice.stopped)
    }

    fn choice(&mut self, index: u32) -> &mut Choice<'static> {
        let at = self.choices.iter().position(|known| known.index == index);
        let at = at.unwrap_or_default();
        let choices = &mut self.response.choices;
        while choices.len() <= at {
            choices.push(Choice::default());
        }
        &mut choices[at]
    }

    /// The answer, choices in order.
    pub(crate) fn into_response(mut self) -> Response<'static> {
        let mut all: Vec<_> = self.choices.iter().map(|choice| choice.index).collect();
        all.truncate(self.response.choices.len());
        let mut choices: Vec<_> = all.into_iter().zip(self.response.choices).collect();
        choices.sort_by_key(|(index, _)| *index);
        self.response.choices = choices.into_iter().map(|(_, choice)| choice).collect();
        self.response
    }
}

fn owned(stop: &crate::conversation::Stop<'_>) -> crate::conversation::Stop<'static> {
    use crate::conversation::Stop;
    match stop {
        Stop::End => Stop::End,
        Stop::Sequence(text) => Stop::Sequence(text.clone().map(JsonStr::into_owned)),
        Stop::Length => Stop::Length,
        Stop::ToolCalls => Stop::ToolCalls,
        Stop::ContentFilter => Stop::ContentFilter,
        Stop::Refusal => Stop::Refusal,
        Stop::Pause => Stop::Pause,
        Stop::Other(word) => Stop::Other(word.clone().into_owned()),
    }
}

fn begun(block: &Block<'_>) -> Part<'static> {
    match block {
        Block::Text => Part::Text(Text::default()),
        Block::Reasoning => Part::Reasoning(Reasoning::default()),
        Block::Hidden => Part::Reasoning(Reasoning {
            is_hidden: true,
            ..Reasoning::default()
        }),
        Block::Refusal => Part::Refusal(JsonStr::default()),
        Block::ToolCall { id, name } => Part::ToolCall(ToolCall {
            id: id.clone().into_owned(),
            name: name.clone().into_owned(),
            arguments: Arguments::Text(JsonStr::default()),
            signature: None,
            cache: None,
        }),
        Block::Opaque(opaque) => Part::Opaque(crate::conversation::Opaque {
            protocol: opaque.protocol,
            kind: opaque.kind.clone().into_owned(),
            json: opaque.json.clone().into_owned().into(),
        }),
    }
}

fn go_on(part: &mut Part<'static>, text: &JsonStr<'_>) {
    match part {
        Part::Text(all) => all.text.push(text),
        Part::Reasoning(all) => all.text.push(text),
        Part::Refusal(all) => all.push(text),
        Part::ToolCall(call) => {
            if let Arguments::Text(all) = &mut call.arguments {
                all.push(text);
            }
        }
        _ => {}
    }
}
