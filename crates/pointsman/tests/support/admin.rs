//! A gateway whose resources come over its Admin API.

use serde_json::{Value, json};

use super::{Gateway, Response, Start, client, get, wait_until};

/// `deployment` of a gateway with an embedded store.
pub(crate) const STORE: &str = "{admin: {admin_listen: {ip: 127.0.0.1, port: 0}, admin_key: [{name: a, key: test-admin, \
     role: admin}, {name: v, key: test-viewer, role: viewer}]}}";

impl Gateway {
    /// A gateway with an empty store.
    pub(crate) fn with_store() -> Self {
        Self::start_with(Start {
            deployment: STORE,
            ..Start::default()
        })
    }

    /// A request to the Admin API, below `/apisix/admin`.
    pub(crate) fn admin(&self, method: &str, path: &str, body: &str) -> Response {
        self.admin_with(method, path, &[("X-API-KEY", "test-admin")], body)
    }

    /// The same with headers of one's own.
    pub(crate) fn admin_with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Response {
        let path = format!("/apisix/admin{path}");
        client::request(self.address("admin"), method, &path, headers, body)
    }

    /// A request that must be answered with `status`; returns what it was answered.
    pub(crate) fn asked(&self, status: u16, method: &str, path: &str, body: Value) -> Value {
        let text = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let response = self.admin(method, path, &text);
        let told = response.text();
        assert_eq!(response.status, status, "{method} {path} {text}: {told}");
        match response.body.is_empty() {
            true => Value::Null,
            false => response.json(),
        }
    }

    /// A request that must be refused as wrong; returns what is said.
    pub(crate) fn refused(&self, method: &str, path: &str, body: Value) -> String {
        let answer = self.asked(400, method, path, body);
        answer["error_msg"].as_str().expect("a message").to_owned()
    }

    /// Waits until a request for `path` gets `status`.
    pub(crate) fn wait_for_route(&self, path: &str, status: u16) -> Response {
        wait_until(&format!("{path} to answer {status}"), || {
            let response = get(self.proxy, path, &[]);
            (response.status == status).then_some(response)
        })
    }
}

/// An upstream at `address` as a value.
pub(crate) fn upstream(address: std::net::SocketAddr) -> Value {
    json!({ "nodes": { address.to_string(): 1 } })
}
