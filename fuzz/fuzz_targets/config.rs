//! `config.yaml` and the standalone document: any text has an answer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pointsman_gateway::config::{settings::Settings, text as parser};

fuzz_target!(|text: &str| {
    let _ = parser::yaml(text);
    let _ = Settings::parse(text, &|_| None);
});
