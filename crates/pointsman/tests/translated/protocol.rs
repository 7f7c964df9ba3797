//! What each protocol's requests, answers, streams and errors look like.

use std::time::Duration;

use serde_json::Value;

use crate::support::{Answer, Upstream, aws, client::Response};

/// What every answer says.
pub(crate) const TEXT: &str = "Hallo Welt";

pub(crate) struct Protocol {
    pub(crate) name: &'static str,
    paths: [&'static str; 2],
    request: &'static str,
    pub(crate) answer: &'static str,
    /// A text in two pieces, and the end. Bedrock's have their types before them.
    events: &'static [&'static str],
    /// Events behind which the answer breaks off.
    half: usize,
    pub(crate) error: &'static str,
    /// Where an error's message is.
    pub(crate) message: &'static str,
    /// Where a whole answer's text is.
    text: &'static str,
    /// Where the text of a stream's events is.
    piece: &'static str,
    /// Stands in the last event of a stream.
    end: &'static str,
}

pub(crate) static ALL: [Protocol; 6] = [
    Protocol {
        name: "openai-chat",
        paths: ["/v1/chat/completions", "/v1/chat/completions"],
        request: r#"{"model":"m","messages":[{"role":"user","content":"What is up?"}]}"#,
        answer: r#"{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Hallo Welt"},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":2,"total_tokens":12}}"#,
        events: &[
            r#"{"id":"c","created":1,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":"Hallo"},"finish_reason":null}]}"#,
            r#"{"id":"c","created":1,"model":"m","choices":[{"index":0,"delta":{"content":" Welt"},"finish_reason":null}]}"#,
            r#"{"id":"c","created":1,"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
            r#"{"id":"c","created":1,"model":"m","choices":[],"usage":{"prompt_tokens":10,"completion_tokens":2,"total_tokens":12}}"#,
            "[DONE]",
        ],
        half: 1,
        error: r#"{"error":{"message":"slow down","type":"rate_limit_error","param":null,"code":null}}"#,
        message: "/error/message",
        text: "/choices/0/message/content",
        piece: "/choices/0/delta/content",
        end: "[DONE]",
    },
    Protocol {
        name: "openai-responses",
        paths: ["/v1/responses", "/v1/responses"],
        request: r#"{"model":"m","input":"What is up?"}"#,
        answer: r#"{"id":"resp_1","object":"response","created_at":1,"status":"completed","model":"m","output":[{"type":"message","id":"msg_1","status":"completed","role":"assistant","content":[{"type":"output_text","text":"Hallo Welt","annotations":[]}]}],"usage":{"input_tokens":10,"output_tokens":2,"total_tokens":12}}"#,
        events: &[
            r#"{"type":"response.created","sequence_number":0,"response":{"id":"resp_1","object":"response","created_at":1,"status":"in_progress","model":"m","output":[]}}"#,
            r#"{"type":"response.output_item.added","sequence_number":1,"output_index":0,"item":{"type":"message","id":"msg_1","status":"in_progress","role":"assistant","content":[]}}"#,
            r#"{"type":"response.content_part.added","sequence_number":2,"item_id":"msg_1","output_index":0,"content_index":0,"part":{"type":"output_text","text":"","annotations":[]}}"#,
            r#"{"type":"response.output_text.delta","sequence_number":3,"item_id":"msg_1","output_index":0,"content_index":0,"delta":"Hallo"}"#,
            r#"{"type":"response.output_text.delta","sequence_number":4,"item_id":"msg_1","output_index":0,"content_index":0,"delta":" Welt"}"#,
            r#"{"type":"response.output_text.done","sequence_number":5,"item_id":"msg_1","output_index":0,"content_index":0,"text":"Hallo Welt"}"#,
            r#"{"type":"response.content_part.done","sequence_number":6,"item_id":"msg_1","output_index":0,"content_index":0,"part":{"type":"output_text","text":"Hallo Welt","annotations":[]}}"#,
            r#"{"type":"response.output_item.done","sequence_number":7,"output_index":0,"item":{"type":"message","id":"msg_1","status":"completed","role":"assistant","content":[{"type":"output_text","text":"Hallo Welt","annotations":[]}]}}"#,
            r#"{"type":"response.completed","sequence_number":8,"response":{"id":"resp_1","object":"response","created_at":1,"status":"completed","model":"m","output":[{"type":"message","id":"msg_1","status":"completed","role":"assistant","content":[{"type":"output_text","text":"Hallo Welt","annotations":[]}]}],"usage":{"input_tokens":10,"output_tokens":2,"total_tokens":12}}}"#,
        ],
        half: 4,
        error: r#"{"error":{"message":"slow down","type":"rate_limit_error","param":null,"code":null}}"#,
        message: "/error/message",
        text: "/output/0/content/0/text",
        piece: "/delta",
        end: "response.completed",
    },
    Protocol {
        name: "anthropic-messages",
        paths: ["/v1/messages", "/v1/messages"],
        request: r#"{"model":"m","max_tokens":50,"messages":[{"role":"user","content":"What is up?"}]}"#,
        answer: r#"{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"Hallo Welt"}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":10,"output_tokens":2}}"#,
        events: &[
            r#"{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":10,"output_tokens":1}}}"#,
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hallo"}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" Welt"}}"#,
            r#"{"type":"content_block_stop","index":0}"#,
            r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":2}}"#,
            r#"{"type":"message_stop"}"#,
        ],
        half: 3,
        error: r#"{"type":"error","error":{"type":"rate_limit_error","message":"slow down"}}"#,
        message: "/error/message",
        text: "/content/0/text",
        piece: "/delta/text",
        end: "message_stop",
    },
    Protocol {
        name: "gemini-generate-content",
        paths: [
            "/v1beta/models/m:generateContent",
            "/v1beta/models/m:streamGenerateContent?alt=sse",
        ],
        request: r#"{"contents":[{"role":"user","parts":[{"text":"What is up?"}]}]}"#,
        answer: r#"{"candidates":[{"content":{"role":"model","parts":[{"text":"Hallo Welt"}]},"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":10,"candidatesTokenCount":2,"totalTokenCount":12},"modelVersion":"m","responseId":"r"}"#,
        events: &[
            r#"{"candidates":[{"content":{"role":"model","parts":[{"text":"Hallo"}]},"index":0}],"modelVersion":"m","responseId":"r"}"#,
            r#"{"candidates":[{"content":{"role":"model","parts":[{"text":" Welt"}]},"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":10,"candidatesTokenCount":2,"totalTokenCount":12},"modelVersion":"m","responseId":"r"}"#,
        ],
        half: 1,
        error: r#"{"error":{"code":429,"message":"slow down","status":"RESOURCE_EXHAUSTED"}}"#,
        message: "/error/message",
        text: "/candidates/0/content/parts/0/text",
        piece: "/candidates/0/content/parts/0/text",
        end: "\"STOP\"",
    },
    Protocol {
        name: "cohere-chat",
        paths: ["/v2/chat", "/v2/chat"],
        request: r#"{"model":"m","messages":[{"role":"user","content":"What is up?"}]}"#,
        answer: r#"{"id":"c","finish_reason":"COMPLETE","message":{"role":"assistant","content":[{"type":"text","text":"Hallo Welt"}]},"usage":{"tokens":{"input_tokens":10,"output_tokens":2}}}"#,
        events: &[
            r#"{"type":"message-start","id":"c","delta":{"message":{"role":"assistant","content":[],"tool_plan":"","tool_calls":[],"citations":[]}}}"#,
            r#"{"type":"content-start","index":0,"delta":{"message":{"content":{"type":"text","text":""}}}}"#,
            r#"{"type":"content-delta","index":0,"delta":{"message":{"content":{"text":"Hallo"}}}}"#,
            r#"{"type":"content-delta","index":0,"delta":{"message":{"content":{"text":" Welt"}}}}"#,
            r#"{"type":"content-end","index":0}"#,
            r#"{"type":"message-end","delta":{"finish_reason":"COMPLETE","usage":{"tokens":{"input_tokens":10,"output_tokens":2}}}}"#,
        ],
        half: 3,
        error: r#"{"message":"slow down"}"#,
        message: "/message",
        text: "/message/content/0/text",
        piece: "/delta/message/content/text",
        end: "\"COMPLETE\"",
    },
    Protocol {
        name: "bedrock-converse",
        paths: ["/model/m/converse", "/model/m/converse-stream"],
        request: r#"{"messages":[{"role":"user","content":[{"text":"What is up?"}]}]}"#,
        answer: r#"{"output":{"message":{"role":"assistant","content":[{"text":"Hallo Welt"}]}},"stopReason":"end_turn","usage":{"inputTokens":10,"outputTokens":2,"totalTokens":12},"metrics":{"latencyMs":1}}"#,
        events: &[
            r#"messageStart {"role":"assistant"}"#,
            r#"contentBlockDelta {"delta":{"text":"Hallo"},"contentBlockIndex":0}"#,
            r#"contentBlockDelta {"delta":{"text":" Welt"},"contentBlockIndex":0}"#,
            r#"contentBlockStop {"contentBlockIndex":0}"#,
            r#"messageStop {"stopReason":"end_turn"}"#,
            r#"metadata {"usage":{"inputTokens":10,"outputTokens":2,"totalTokens":12},"metrics":{"latencyMs":1}}"#,
        ],
        half: 2,
        error: r#"{"message":"slow down"}"#,
        message: "/message",
        text: "/output/message/content/0/text",
        piece: "/delta/text",
        end: "end_turn",
    },
];

/// A route for each provider's protocol, under its name; `more` goes on with its `ai-proxy`.
pub(crate) fn document(upstreams: &[Upstream], more: &str) -> String {
    let mut document = String::from("routes:\n");
    for (protocol, upstream) in ALL.iter().zip(upstreams) {
        let (name, address) = (protocol.name, upstream.address);
        let provider = match name {
            "bedrock-converse" => {
                "provider: bedrock, provider_conf: {region: us-east-1}, \
                 auth: {aws: {access_key_id: a, secret_access_key: b}}"
            }
            _ => "provider: openai-compatible, auth: {header: {Authorization: Bearer key}}",
        };
        document.push_str(&format!(
            "  - id: {name}\n    uri: /{name}/*\n    plugins:\n      ai-proxy: {{{provider}, \
             protocol: {name}, override: {{endpoint: \"http://{address}\"}}{more}}}\n"
        ));
    }
    document
}

impl Protocol {
    /// Where a client of this protocol sends its requests.
    pub(crate) fn path(&self, streamed: bool) -> &'static str {
        self.paths[usize::from(streamed)]
    }

    /// Where a provider of this protocol gets them: as from its own clients.
    pub(crate) fn target(&self, streamed: bool) -> &'static str {
        self.path(streamed)
    }

    pub(crate) fn request(&self, streamed: bool) -> String {
        self.streamed(self.request, streamed)
    }

    /// A client's request, asking for a stream if `streamed`.
    pub(crate) fn streamed(&self, request: &str, streamed: bool) -> String {
        let in_path = self.paths[0] != self.paths[1];
        if streamed && !in_path {
            return request.replacen('{', "{\"stream\":true,", 1);
        }
        request.to_owned()
    }

    /// The request of `requests.json` that is about `feature`.
    pub(crate) fn request_about(&self, feature: &str, streamed: bool) -> String {
        let all: Value = serde_json::from_str(include_str!("requests.json")).expect("JSON");
        let mut request = all[self.name][feature].clone();
        assert!(request.is_object(), "{}: no {feature}", self.name);
        if streamed && self.paths[0] == self.paths[1] {
            request["stream"] = true.into();
        }
        request.to_string()
    }

    fn is_aws(&self) -> bool {
        self.name == "bedrock-converse"
    }

    /// A provider's stream, whole or cut in the middle.
    pub(crate) fn stream(&self, whole: bool) -> Answer {
        let events = if whole {
            self.events
        } else {
            &self.events[..self.half]
        };
        self.stream_of(events)
    }

    /// A provider's stream of these events.
    pub(crate) fn stream_of(&self, events: &[&str]) -> Answer {
        let pieces: Vec<Vec<u8>> = events.iter().map(|event| self.frame(event)).collect();
        if self.is_aws() {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.amazon.eventstream\r\n\
                        Connection: close\r\n\r\n";
            return Answer::Raw([head.as_bytes(), &pieces.concat()].concat());
        }
        Answer::Stream {
            pieces,
            pause: Duration::ZERO,
            ends: true,
        }
    }

    fn frame(&self, event: &str) -> Vec<u8> {
        if self.is_aws() {
            let (name, payload) = event.split_once(' ').expect("a type");
            return aws::frame(name, payload);
        }
        let named: Option<Value> = serde_json::from_str(event).ok();
        match named.as_ref().and_then(|event| event["type"].as_str()) {
            Some(name) => format!("event: {name}\ndata: {event}\n\n").into_bytes(),
            None => format!("data: {event}\n\n").into_bytes(),
        }
    }

    /// The texts that a client of this protocol got.
    pub(crate) fn texts(&self, response: &Response, streamed: bool) -> String {
        let read = |json: &str, path: &str| {
            let value: Value = serde_json::from_str(json).unwrap_or_default();
            let text = value.pointer(path).and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        };
        if !streamed {
            return read(&response.text(), self.text);
        }
        let events = self.events_of(response);
        let is_piece = |event: &&String| {
            self.name != "openai-responses" || event.contains("response.output_text.delta")
        };
        events
            .iter()
            .filter(is_piece)
            .map(|event| read(event, self.piece))
            .collect()
    }

    /// The data of the events that a client of this protocol got.
    pub(crate) fn events_of(&self, response: &Response) -> Vec<String> {
        if self.is_aws() {
            return aws::payloads(&response.body);
        }
        let text = response.text();
        let lines = text.lines().filter_map(|line| line.strip_prefix("data: "));
        lines.map(str::to_owned).collect()
    }

    /// Whether the answer says that it is complete.
    pub(crate) fn is_ended(&self, response: &Response, streamed: bool) -> bool {
        streamed && String::from_utf8_lossy(&response.body).contains(self.end)
    }

    /// Whether the answer says that something went wrong.
    pub(crate) fn has_error(&self, response: &Response) -> bool {
        let text = String::from_utf8_lossy(&response.body).to_lowercase();
        text.contains("error") || text.contains("exception")
    }
}
