//! Unmodified official clients whose provider speaks another protocol than they do.

use std::{path::Path, process::Command};

use crate::{
    ask_is_streamed, document,
    protocol::ALL,
    support::{
        Gateway, Upstream,
        packages::{node, python, run, unavailable},
    },
    tools::scripted,
};

pub(crate) const PYTHON_PACKAGES: &[&str] = &[
    "openai==3.57.0",
    "anthropic==2.13.0",
    "google-genai==3.6.1",
    "cohere==7.3.1",
    "boto3==1.44.8",
];
const NODE_PACKAGES: &[&str] = &["openai@7.57.0", "@anthropic-ai/sdk@1.14.0"];

/// Runs `command` with the address of a gateway before one provider for each protocol.
fn drive(command: &mut Command) {
    let upstreams: Vec<Upstream> = (ALL.iter())
        .map(|protocol| {
            Upstream::start(move |received| scripted(protocol, received, ask_is_streamed(received)))
        })
        .collect();
    let gateway = Gateway::start(&document(&upstreams, ""));
    let result = run(command.arg(format!("http://{}", gateway.proxy)));
    let passed = (result.as_ref()).is_ok_and(|out| out.contains("all checks passed"));
    assert!(passed, "{result:?}\n{}", gateway.stderr());
    gateway.wait_until_idle();
}

/// Where a script is.
pub(crate) fn script(name: &str) -> std::path::PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    tests.join("sdk").join(name)
}

#[test]
fn python_clients_work_with_foreign_providers() {
    match python(PYTHON_PACKAGES, &[]) {
        Ok(python) => drive(Command::new(python).arg(script("foreign_test.py"))),
        Err(error) => unavailable("the Python clients", &error),
    }
}

#[test]
fn node_clients_work_with_foreign_providers() {
    let folder = match node(NODE_PACKAGES) {
        Ok(folder) => folder,
        Err(error) => return unavailable("the Node clients", &error),
    };
    let copy = folder.join("foreign_test.mjs");
    std::fs::copy(script("foreign_test.mjs"), &copy).expect("copied");
    drive(Command::new("node").arg(copy));
}
