//! Secrets: encrypted where they are stored, or kept elsewhere and only referred to.

mod support;
mod secrets {
    mod at_rest;
}
