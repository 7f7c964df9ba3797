//! Tools, their calls and what they answered.

use std::collections::HashMap;

use super::{Arguments, Function, Json, Message, Part, Request, Role, Tool};
use crate::{Protocol, json::string::JsonStr};

impl Request<'_> {
    /// The tools that `target` knows: functions, and what it runs itself.
    pub(crate) fn tools_for(&self, target: Protocol) -> impl Iterator<Item = &Tool<'_>> + Clone {
        self.tools.iter().filter(move |tool| match tool {
            Tool::Function(_) => true,
            Tool::Hosted(hosted) => hosted.protocol == target,
        })
    }
}

impl Function<'_> {
    /// The schema of its arguments, for protocols that want one of every function.
    pub(crate) fn schema(&self) -> &str {
        const ANYTHING: &str = r#"{"type":"object","properties":{}}"#;
        self.parameters.as_deref().unwrap_or(ANYTHING)
    }
}

/// Adds what tools answered. Results that follow each other are one message.
pub(crate) fn add_results<'a>(
    messages: &mut Vec<Message<'a>>,
    results: impl IntoIterator<Item = Part<'a>>,
) {
    let mut results = results.into_iter().peekable();
    if results.peek().is_none() {
        return;
    }
    match messages.last_mut() {
        Some(last) if last.role == Role::Tool => last.parts.extend(results),
        _ => messages.push(Message {
            role: Role::Tool,
            name: None,
            parts: results.collect(),
            plain: false,
        }),
    }
}

/// Fills in the tool of each result from the call that it answers.
pub(crate) fn name_results<'a>(messages: &mut [Message<'a>]) {
    let mut names: HashMap<String, JsonStr<'a>> = HashMap::new();
    for part in messages.iter_mut().flat_map(|message| &mut message.parts) {
        match part {
            Part::ToolCall(call) => {
                names.insert(call.id.decode().into_owned(), call.name.clone());
            }
            Part::ToolResult(result) if result.name.is_none() => {
                result.name = names.get(&*result.call_id.decode()).cloned();
            }
            _ => {}
        }
    }
}

impl<'a> Arguments<'a> {
    /// As a string that holds JSON.
    pub fn as_text(&self) -> JsonStr<'_> {
        match self {
            Self::Json(json) => JsonStr::new(json),
            Self::Text(text) => text.clone(),
        }
    }

    /// As JSON, if it is an object; an empty string is an object without members.
    pub fn as_object(&self) -> Option<Json<'_>> {
        let json = match self {
            Self::Json(json) => Json::Borrowed(&**json),
            Self::Text(text) => text.decode(),
        };
        match json.trim_ascii() {
            "" => Some(Json::Borrowed("{}")),
            object if crate::json::is_object(object.as_bytes()) => Some(json),
            _ => None,
        }
    }
}

impl PartialEq for Arguments<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.as_text() == other.as_text()
    }
}
