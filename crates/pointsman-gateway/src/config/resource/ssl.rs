//! `ssl`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    config::{
        reference::{self, Elsewhere},
        schema::Issue,
    },
    router::pattern::{Case, Pattern},
};

use super::{
    Id,
    shared::{Host, Labels, Status},
};

/// A certificate as written. `Debug` shows no key.
#[derive(Clone, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    missing_docs,
    reason = "the names are APISIX's and are documented there"
)]
pub struct Ssl {
    pub id: Option<Id>,
    #[serde(rename = "type", default = "server")]
    #[schemars(extend("enum" = ["server", "client"]))]
    pub kind: String,
    pub sni: Option<Host>,
    #[schemars(length(min = 1))]
    pub snis: Option<Vec<Host>>,
    #[schemars(length(min = 128, max = 65536))]
    pub cert: String,
    #[schemars(length(min = 64, max = 65536))]
    pub key: String,
    pub certs: Option<Vec<String>>,
    pub keys: Option<Vec<String>>,
    pub client: Option<Client>,
    #[schemars(extend("uniqueItems" = true, "items" = {"enum": ["TLSv1.1", "TLSv1.2", "TLSv1.3"]}))]
    pub ssl_protocols: Option<Vec<String>>,
    #[serde(default)]
    pub status: Status,
    pub labels: Option<Labels>,
    pub desc: Option<String>,
    pub create_time: Option<u64>,
    pub update_time: Option<u64>,
}

/// `client`: certificates that clients must present.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, JsonSchema)]
#[expect(
    missing_docs,
    reason = "the names are APISIX's and are documented there"
)]
pub struct Client {
    pub ca: String,
    #[serde(default = "depth")]
    pub depth: u32,
    #[schemars(inner(length(max = 4096)))]
    pub skip_mtls_uri_regex: Option<Vec<String>>,
}

impl Client {
    /// Patterns of paths that may be asked for without a certificate; those that are none as what
    /// is wrong with them.
    pub fn exceptions(&self) -> impl Iterator<Item = Result<Pattern, String>> {
        let texts = self.skip_mtls_uri_regex.iter().flatten();
        texts.map(|text| Pattern::new(text, Case::Sensitive).map_err(|error| error.to_string()))
    }

    /// Whether requests decide, by their paths, if a certificate is demanded.
    pub fn has_exceptions(&self) -> bool {
        self.skip_mtls_uri_regex.is_some()
    }
}

impl std::fmt::Debug for Ssl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ssl")
            .field("id", &self.id)
            .field("names", &self.names())
            .finish()
    }
}

impl Ssl {
    /// Its certificates and keys, with where they stand.
    pub fn texts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let certs = self.certs.iter().flatten().map(|text| ("certs", text));
        let keys = self.keys.iter().flatten().map(|text| ("keys", text));
        let client = self.client.iter().map(|client| ("client.ca", &client.ca));
        let all = [("cert", &self.cert), ("key", &self.key)].into_iter();
        let all = all.chain(certs).chain(keys).chain(client);
        all.map(|(field, text)| (field, text.as_str()))
    }

    /// The references among them that nothing stands for.
    pub fn unknown(&self, elsewhere: Elsewhere<'_>) -> Vec<Issue> {
        let found = self.texts().filter_map(|(field, text)| {
            let problem = reference::problem(text, elsewhere)?;
            Some(Issue::new(field, problem))
        });
        found.collect()
    }

    /// This resource with the certificates and keys that stand elsewhere.
    pub fn resolved(&self, elsewhere: Elsewhere<'_>) -> Self {
        let one = |text: &String| reference::resolved(text, elsewhere);
        let all = |texts: &Vec<String>| texts.iter().map(one).collect();
        Self {
            cert: one(&self.cert),
            key: one(&self.key),
            certs: self.certs.as_ref().map(all),
            keys: self.keys.as_ref().map(all),
            client: self.client.as_ref().map(|client| Client {
                ca: one(&client.ca),
                ..client.clone()
            }),
            ..self.clone()
        }
    }

    /// Terminates TLS for clients, and is enabled.
    pub fn serves(&self) -> bool {
        self.kind == "server" && self.status.0 == 1
    }

    /// The server names that it is for.
    pub fn names(&self) -> Vec<String> {
        let many = self.snis.iter().flatten();
        self.sni
            .iter()
            .chain(many)
            .map(|name| name.0.clone())
            .collect()
    }

    /// Certificate and key pairs, PEM.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let certs = self.certs.iter().flatten().map(String::as_str);
        let keys = self.keys.iter().flatten().map(String::as_str);
        std::iter::once((self.cert.as_str(), self.key.as_str())).chain(certs.zip(keys))
    }

    /// Its own `ssl_protocols`.
    pub fn protocols(&self) -> Option<&[String]> {
        self.ssl_protocols.as_deref()
    }

    /// Rules across fields.
    pub fn check(&self) -> Vec<Issue> {
        let mut wrong = Vec::new();
        if self.kind == "server" && self.sni.is_some() == self.snis.is_some() {
            let text =
                "invalid configuration: then clause did not match (exactly one of sni and snis)";
            wrong.push(Issue::new("sni", text.to_owned()));
        }
        let count = |list: &Option<Vec<String>>| list.as_ref().map_or(0, Vec::len);
        if count(&self.certs) != count(&self.keys) {
            wrong.push(Issue::new(
                "certs",
                "mismatched number of certs and keys".to_owned(),
            ));
        }
        let exceptions = self.client.iter().flat_map(Client::exceptions);
        for (index, error) in exceptions
            .enumerate()
            .filter_map(|(index, exception)| Some((index, exception.err()?)))
        {
            let at = format!("client.skip_mtls_uri_regex[{index}]");
            wrong.push(Issue::new(&at, format!("{at}: {error}")));
        }
        wrong
    }
}

fn server() -> String {
    "server".to_owned()
}

fn depth() -> u32 {
    1
}
