//! Names of tools that a provider would refuse.
//!
//! Most providers take letters, digits, `_` and `-`, and not many of them. A name that does not fit
//! is replaced by one that does and that no other name becomes, and answers get the client's own
//! name back (rule and lengths of APISIX 3.18).

use std::{borrow::Cow, collections::BTreeMap};

use sha2::{Digest, Sha256};

use super::{Part, Request, Response, Tool, ToolChoice};
use crate::{Protocol, json::string::JsonStr};

/// The names that were replaced in one request.
#[derive(Clone, Debug, Default)]
pub struct Renamed {
    /// As the client has it, by what is sent. A request may have as many as fit into it.
    own: BTreeMap<String, JsonStr<'static>>,
}

impl Renamed {
    /// Replaces what `target` would refuse.
    pub fn adapt(request: &mut Request<'_>, target: Protocol) -> Self {
        let mut renamed = Self::default();
        let longest = longest(target);
        for tool in &mut request.tools {
            if let Tool::Function(function) = tool {
                renamed.fit(&mut function.name, longest);
            }
        }
        for message in &mut request.messages {
            for part in &mut message.parts {
                match part {
                    Part::ToolCall(call) => renamed.fit(&mut call.name, longest),
                    Part::ToolResult(result) => {
                        if let Some(name) = &mut result.name {
                            renamed.fit(name, longest);
                        }
                    }
                    _ => {}
                }
            }
        }
        // A tool that is chosen without being declared is the client's mistake, and stays one.
        if let Some(ToolChoice::Tool(name)) = &mut request.tool_choice
            && let Some((sent, _)) = renamed.own.iter().find(|(_, own)| *own == name)
        {
            *name = JsonStr::from(sent.clone());
        }
        renamed
    }

    /// Gives the names in `response` back.
    pub fn restore(&self, response: &mut Response<'_>) {
        if self.own.is_empty() {
            return;
        }
        for choice in &mut response.choices {
            for part in &mut choice.parts {
                if let Part::ToolCall(call) = part
                    && let Some(own) = self.own(&call.name)
                {
                    call.name = own.clone();
                }
            }
        }
    }

    /// The client's own name for `sent`, if that was replaced.
    pub fn own(&self, sent: &JsonStr<'_>) -> Option<&JsonStr<'static>> {
        if self.own.is_empty() {
            return None;
        }
        self.own.get(&*sent.decode())
    }

    fn fit(&mut self, name: &mut JsonStr<'_>, longest: usize) {
        let own = name.decode();
        let Cow::Owned(fitting) = fitting(&own, longest) else {
            return;
        };
        if !self.own.contains_key(&fitting) {
            self.own.insert(fitting.clone(), name.clone().into_owned());
        }
        *name = JsonStr::from(fitting);
    }
}

/// `name` if it fits, or a name of at most 64 bytes that does.
fn fitting(name: &str, longest: usize) -> Cow<'_, str> {
    let is_kept = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if name.len() <= longest && name.chars().all(is_kept) {
        return Cow::Borrowed(name);
    }
    let start = name.chars().map(|c| if is_kept(c) { c } else { '_' });
    let mut fitting: String = start.take(STEM).collect();
    let digest = Sha256::digest(name.as_bytes());
    fitting.push('_');
    for byte in &digest[..4] {
        fitting.push_str(&format!("{byte:02x}"));
    }
    Cow::Owned(fitting)
}

/// The longest name that `target` takes, bytes.
fn longest(target: Protocol) -> usize {
    match target {
        Protocol::AnthropicMessages => 128,
        _ => 64,
    }
}

/// Characters of a name that stay in front of its digest.
const STEM: usize = 55;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::{Arguments, Choice, Function, ToolCall};

    fn call(name: &str) -> Part<'static> {
        Part::ToolCall(ToolCall {
            id: JsonStr::new("1"),
            name: JsonStr::from(name.to_owned()),
            arguments: Arguments::Json("{}".into()),
            signature: None,
            cache: None,
        })
    }

    /// P-116, P-117
    #[test]
    fn names_fit_differ_and_come_back() {
        let names = ["get_weather", "get weather", "get!weather", "äß"];
        let long = ["a".repeat(70), format!("{}b", "a".repeat(69))];
        let all = names.iter().map(|name| (*name).to_owned()).chain(long);
        let all: Vec<String> = all.collect();
        let mut request = Request::default();
        for name in &all {
            let function = Function {
                name: JsonStr::from(name.clone()),
                ..Function::default()
            };
            request.tools.push(Tool::Function(function));
        }
        request.tool_choice = Some(ToolChoice::Tool(JsonStr::new("get weather")));
        let renamed = Renamed::adapt(&mut request, Protocol::OpenaiChat);
        let mut sent = Vec::new();
        for tool in &request.tools {
            if let Tool::Function(function) = tool {
                sent.push(function.name.decode().into_owned());
            }
        }
        assert_eq!(sent[0], "get_weather");
        assert_eq!(sent[4], format!("{}_6bd5e503", "a".repeat(55)));
        let mut distinct = sent.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), all.len());
        assert!(sent.iter().all(|name| name.len() <= 64));
        assert_eq!(
            request.tool_choice,
            Some(ToolChoice::Tool(JsonStr::new(&sent[1])))
        );
        let mut response = Response {
            choices: vec![Choice {
                parts: sent.iter().map(|name| call(name)).collect(),
                ..Choice::default()
            }],
            ..Response::default()
        };
        renamed.restore(&mut response);
        let restored: Vec<Part<'_>> = all.iter().map(|name| call(name)).collect();
        assert_eq!(response.choices[0].parts, restored);

        let mut odd = Request {
            tool_choice: Some(ToolChoice::Tool(JsonStr::new("not declared"))),
            ..Request::default()
        };
        let before = odd.clone();
        Renamed::adapt(&mut odd, Protocol::OpenaiChat);
        assert_eq!(odd, before);
    }
}
