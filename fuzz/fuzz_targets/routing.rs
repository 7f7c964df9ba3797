//! Paths, expressions and templates.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pointsman_gateway::{
    router::{Expr, path},
    template::Template,
};

fuzz_target!(|text: &str| {
    let options = path::PathOptions::default();
    // What no request line can hold never gets here.
    let is_target = text.bytes().all(|byte| byte > b' ' && byte != 0x7f);
    if let (true, Ok(normal)) = (is_target, path::normalise(text, &options)) {
        // What is sent on means what was routed by.
        let sent = path::encode(&normal);
        let again = path::normalise(&sent, &options).expect("a path that was normalised");
        assert_eq!(again, normal);
    }
    if let Ok(value) = serde_json::from_str(text) {
        let _ = Expr::parse(&value);
    }
    let _ = Template::parse(text);
});
