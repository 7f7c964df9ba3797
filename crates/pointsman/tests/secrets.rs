//! Secrets: encrypted where they are stored, or kept elsewhere and only referred to.

mod support;
mod secrets {
    mod at_rest;
    #[path = "../providers/google.rs"]
    #[expect(dead_code, reason = "of the account, tests of providers look at more")]
    mod google;
    mod managers;
}
