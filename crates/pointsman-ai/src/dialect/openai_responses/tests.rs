mod request;
mod response;
mod stream;
mod written_stream;

use super::*;
use crate::{
    Provider,
    conversation::{Request, Response},
    dialect::{self, Setting},
    json::{tree::Tree, write::Writer},
};

const SETTING: Setting<'static> = Setting {
    client: OWN,
    target: OWN,
    provider: Provider::Openai,
    model: "gpt-5.2",
    version: None,
    now: 1_760_000_000,
    seed: "s33d",
};

fn tree(text: &str) -> &'static Tree<'static> {
    Box::leak(Box::new(dialect::parse(Vec::leak(text.into())).unwrap()))
}

fn request(text: &str) -> Request<'static> {
    read_request(tree(text).root()).unwrap()
}

fn written(request: &Request<'_>, setting: &Setting<'_>) -> String {
    let mut out = Vec::new();
    write_request(request, setting, &mut Writer::new(&mut out));
    String::from_utf8(out).unwrap()
}

fn response(text: &str) -> Response<'static> {
    read_response(tree(text).root(), &SETTING).unwrap()
}

fn answered(response: &Response<'_>) -> String {
    let mut out = Vec::new();
    write_response(response, &SETTING, &mut Writer::new(&mut out));
    String::from_utf8(out).unwrap()
}

/// All members of an object that official SDKs rely on are there.
fn has_members(text: &str, names: &[&str]) {
    for name in names {
        let found = crate::json::value_at(text.as_bytes(), [name]);
        assert!(found.is_some(), "{name} is missing in {text}");
    }
}
