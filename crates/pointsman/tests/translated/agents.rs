//! Coding agents as clients: each completes a task with one tool, its provider speaking its own
//! protocol or another.

use std::{path::Path, process::Command};

use serde_json::{Value, json};

use crate::{
    document,
    protocol::{ALL, Protocol},
    support::{
        Answer, Gateway, Received, Upstream,
        packages::{node, run, unavailable},
    },
};

const PACKAGES: &[&str] = &["@anthropic-ai/claude-code@2.1.332", "@openai/codex@0.171.0"];
const SHELL: &str = "printf hallo > written.txt";

/// The events of an answer that calls the tool `name`.
fn call(protocol: &str, name: &str, arguments: &Value) -> Vec<String> {
    let text = arguments.to_string();
    let events = match protocol {
        "openai-chat" => {
            let choice = |delta: Value, finish: Option<&str>| json!({"id": "c", "created": 1, "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]});
            let function = json!({"name": name, "arguments": text});
            let calls =
                json!([{"index": 0, "id": "call_1", "type": "function", "function": function}]);
            vec![
                choice(json!({"role": "assistant", "tool_calls": calls}), None),
                choice(json!({}), Some("tool_calls")),
            ]
        }
        "anthropic-messages" => {
            let tool = json!({"type": "tool_use", "id": "toolu_1", "name": name, "input": {}});
            let message = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": null, "stop_sequence": null, "usage": {"input_tokens": 10, "output_tokens": 1}});
            vec![
                json!({"type": "message_start", "message": message}),
                json!({"type": "content_block_start", "index": 0, "content_block": tool}),
                json!({"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": text}}),
                json!({"type": "content_block_stop", "index": 0}),
                json!({"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": null}, "usage": {"output_tokens": 2}}),
                json!({"type": "message_stop"}),
            ]
        }
        _ => {
            let item = json!({"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": name, "arguments": text, "status": "completed"});
            let response = |status: &str, output: Value| json!({"id": "resp_1", "object": "response", "created_at": 1, "status": status, "model": "m", "output": output, "usage": {"input_tokens": 10, "output_tokens": 2, "total_tokens": 12}});
            vec![
                json!({"type": "response.created", "sequence_number": 0, "response": response("in_progress", json!([]))}),
                json!({"type": "response.output_item.added", "sequence_number": 1, "output_index": 0, "item": item}),
                json!({"type": "response.output_item.done", "sequence_number": 2, "output_index": 0, "item": item}),
                json!({"type": "response.completed", "sequence_number": 3, "response": response("completed", json!([item]))}),
            ]
        }
    };
    let mut events: Vec<String> = events.iter().map(Value::to_string).collect();
    if protocol == "openai-chat" {
        events.push("[DONE]".to_owned());
    }
    events
}

/// Has the agent run [`SHELL`] with `tool`, and says something once it is told what came of it.
fn scripted(protocol: &Protocol, tool: &str, argument: &str, received: &Received) -> Answer {
    let request = received.text();
    let results = [
        r#""role":"tool""#,
        r#""tool_result""#,
        r#""function_call_output""#,
    ];
    if results.iter().any(|result| request.contains(result)) {
        return protocol.stream(true);
    }
    let events = call(protocol.name, tool, &json!({argument: SHELL}));
    let events: Vec<&str> = events.iter().map(String::as_str).collect();
    protocol.stream_of(&events)
}

struct Agent {
    tool: &'static str,
    /// The argument of the tool that takes a command of the shell.
    argument: &'static str,
    providers: [&'static str; 2],
    command: fn(&Path, &str) -> Command,
}

/// Leaves `command` no way out but `outside`.
fn enclose(command: &mut Command, home: &Path, outside: &Upstream) {
    let proxy = format!("http://{}", outside.address);
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env("PATH", path).env("HOME", home);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env(name, &proxy).env(name.to_lowercase(), &proxy);
    }
    for name in ["NO_PROXY", "no_proxy"] {
        command.env(name, "127.0.0.1");
    }
    command.env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1");
    command.env("DISABLE_AUTOUPDATER", "1");
    command.env("ANTHROPIC_API_KEY", "k").env("AGENT_KEY", "k");
}

/// A command with nothing of our environment, which ends after a while whatever happens.
fn limited(program: &Path) -> Command {
    let mut command = Command::new("timeout");
    command.env_clear().arg("60").arg(program);
    command
}

fn claude(folder: &Path, base: &str) -> Command {
    let mut command = limited(&folder.join("claude"));
    command.args(["--bare", "-p", "Write the file", "--model", "m"]);
    command.args(["--allowedTools", "Bash"]);
    command.env("ANTHROPIC_BASE_URL", base);
    command
}

fn codex(folder: &Path, base: &str) -> Command {
    let mut command = limited(&folder.join("codex"));
    command.args(["exec", "--skip-git-repo-check", "--ephemeral", "-m", "m"]);
    command.arg("--dangerously-bypass-approvals-and-sandbox");
    // They would be fetched from the internet.
    command.args(["--disable", "plugins", "--disable", "apps"]);
    let provider = format!(
        "model_providers.p={{name=\"p\",base_url=\"{base}/v1\",env_key=\"AGENT_KEY\",wire_api=\"responses\"}}"
    );
    for setting in [
        "model_provider=p",
        &provider,
        "check_for_update_on_startup=false",
        "analytics.enabled=false",
    ] {
        command.args(["-c", setting]);
    }
    command.arg("Write the file");
    command
}

/// Has the agent complete its task with each of its providers.
fn complete(agent: &'static Agent) {
    let folder = match node(PACKAGES) {
        Ok(folder) => folder.join("node_modules").join(".bin"),
        Err(error) => return unavailable("the coding agents", &error),
    };
    let start = |protocol: &'static Protocol| {
        Upstream::start(move |received| scripted(protocol, agent.tool, agent.argument, received))
    };
    let upstreams: Vec<Upstream> = ALL.iter().map(start).collect();
    let gateway = Gateway::start(&document(&upstreams, ""));
    let outside = Upstream::failing(501);
    for provider in agent.providers {
        let home = tempfile::tempdir().expect("a folder");
        let work = tempfile::tempdir().expect("a folder");
        let base = format!("http://{}/{provider}", gateway.proxy);
        let mut command = (agent.command)(&folder, &base);
        enclose(&mut command, home.path(), &outside);
        let result = run(command
            .current_dir(work.path())
            .stdin(std::process::Stdio::null()));
        let written = std::fs::read_to_string(work.path().join("written.txt"));
        let said = format!("{provider}: {result:?}\n{}", gateway.stderr());
        assert_eq!(written.ok().as_deref(), Some("hallo"), "{said}");
        assert!(result.is_ok_and(|out| out.contains("Hallo Welt")), "{said}");
        let outside: Vec<String> = (outside.requests().iter())
            .map(|received| received.target.clone())
            .collect();
        assert!(outside.is_empty(), "{provider}: asked for {outside:?}");
    }
    gateway.wait_until_idle();
}

#[test]
fn claude_code_completes_a_task() {
    complete(&Agent {
        tool: "Bash",
        argument: "command",
        providers: ["openai-chat", "anthropic-messages"],
        command: claude,
    });
}

#[test]
fn codex_completes_a_task() {
    complete(&Agent {
        tool: "exec_command",
        argument: "cmd",
        providers: ["anthropic-messages", "openai-responses"],
        command: codex,
    });
}
