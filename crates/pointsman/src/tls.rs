//! TLS towards clients: the certificate for a server name, from the configuration in force.
//!
//! A table is made of the `ssl` resources of a configuration and replaced as a whole. It is
//! looked at once per handshake, so a change applies to the next connection and touches none
//! that is open.

use std::{collections::HashMap, io, sync::Arc};

use arc_swap::ArcSwap;
use pointsman_gateway::{
    config::{
        document::Item,
        problem::{Report, Severity},
        reference::Elsewhere,
        resource::ssl::{Client, Ssl},
        schema::Issue,
    },
    exchange::TlsPeer,
};
use rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::CryptoProvider,
    server::{
        Acceptor, ClientHello, ResolvesServerCert, WebPkiClientVerifier, danger::ClientCertVerifier,
    },
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use crate::http_server::Speaks;

/// What applies to all `ssl` resources.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsSettings {
    /// Offer HTTP/2.
    pub(crate) http2: bool,
    /// Name to use for clients that send none.
    pub(crate) fallback_sni: Option<String>,
    /// `ssl_protocols` of resources that name none.
    pub(crate) protocols: Vec<String>,
}

/// The certificates in force.
pub(crate) struct ServerTls {
    table: ArcSwap<Table>,
}

/// Server configurations by name.
#[derive(Default)]
pub(crate) struct Table {
    exact: HashMap<String, Arc<ServerConfig>>,
    /// `*.example.com` is kept as `example.com`.
    wildcard: HashMap<String, Arc<ServerConfig>>,
    any: Option<Arc<ServerConfig>>,
    fallback: Option<String>,
}

impl ServerTls {
    /// Starts with `table`.
    pub(crate) fn new(table: Table) -> Self {
        Self {
            table: ArcSwap::from_pointee(table),
        }
    }

    /// Replaces the table.
    pub(crate) fn publish(&self, table: Table) {
        self.table.store(Arc::new(table));
    }

    /// The server's side of a handshake.
    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
    ) -> io::Result<(TlsStream<TcpStream>, TlsPeer, Speaks)> {
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let name = start.client_hello().server_name().map(normalise);
        let config = self.table.load().find(name.as_deref()).ok_or_else(|| {
            let name = name.as_deref().unwrap_or("(none)");
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("no certificate for SNI `{name}`"),
            )
        })?;
        let stream = start.into_stream(config).await?;
        let speaks = match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Speaks::Http2,
            _ => Speaks::Http1,
        };
        Ok((
            stream,
            TlsPeer {
                server_name: name.map(Arc::from),
            },
            speaks,
        ))
    }
}

impl Table {
    /// A table of `resources`. Those that cannot be served are left out, and everything that is
    /// wrong with them is told to `report`.
    pub(crate) fn build(
        resources: &[Arc<Item<Ssl>>],
        settings: &TlsSettings,
        elsewhere: Elsewhere<'_>,
        report: &mut Report<'_>,
    ) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut table = Self {
            fallback: settings.fallback_sni.as_deref().map(normalise),
            ..Self::default()
        };
        for item in resources.iter().filter(|item| item.value.serves()) {
            match server_config(&item.value.resolved(elsewhere), settings, &provider) {
                Ok(config) => {
                    tell_ignored(item, report);
                    table.add(item.value.names(), &Arc::new(config));
                }
                Err(mut issues) => {
                    // Why there is nothing says more than that nothing is no certificate.
                    let unknown = item.value.unknown(elsewhere);
                    if !unknown.is_empty() {
                        issues = unknown;
                    }
                    // Whoever only looks asks nobody, and may not call it wrong.
                    let mut texts = item.value.texts();
                    let severity = match texts.any(|(_, text)| elsewhere.secrets.awaits(text)) {
                        true => Severity::Warning,
                        false => Severity::Error,
                    };
                    report.issues(severity, item.spot(), issues);
                }
            }
        }
        table
    }

    fn add(&mut self, names: Vec<String>, config: &Arc<ServerConfig>) {
        for name in names {
            let name = normalise(&name);
            if name == "*" {
                self.any = Some(Arc::clone(config));
            } else if let Some(parent) = name.strip_prefix("*.") {
                self.wildcard.insert(parent.to_owned(), Arc::clone(config));
            } else {
                self.exact.insert(name, Arc::clone(config));
            }
        }
    }

    /// Exact name first, then the wildcard one label up, then `*`. A client without a name gets
    /// the fallback's.
    fn find(&self, name: Option<&str>) -> Option<Arc<ServerConfig>> {
        let name = name.or(self.fallback.as_deref())?;
        self.exact
            .get(name)
            .or_else(|| self.wildcard.get(name.split_once('.')?.1))
            .or(self.any.as_ref())
            .cloned()
    }
}

/// Tells what of a resource that is served has no effect.
fn tell_ignored(item: &Item<Ssl>, report: &mut Report<'_>) {
    let protocols = item.value.protocols().unwrap_or_default();
    if protocols.iter().any(|name| name == "TLSv1.1") {
        let message = "TLSv1.1 is not supported, and not offered";
        report.warning(item.spot(), "ssl_protocols", message);
    }
    if item.value.client.as_ref().is_some_and(Client::limits_depth) {
        let message = "not supported; a chain may be as long as its verification allows";
        report.warning(item.spot(), "client.depth", message);
    }
}

fn normalise(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

fn server_config(
    ssl: &Ssl,
    settings: &TlsSettings,
    provider: &Arc<CryptoProvider>,
) -> Result<ServerConfig, Vec<Issue>> {
    let mut wrong = Vec::new();
    let mut keys = Vec::new();
    for (index, (cert, key)) in ssl.pairs().enumerate() {
        match certified(cert, key, index, provider) {
            Ok(pair) => keys.push(pair),
            Err(issues) => wrong.extend(issues),
        }
    }
    let versions = versions(ssl.protocols().unwrap_or(&settings.protocols))
        .map_err(|error| wrong.push(Issue::new("ssl_protocols", error)));
    let clients = client_verifier(ssl, provider).map_err(|issue| wrong.push(issue));
    let (Ok(versions), Ok(clients), []) = (versions, clients, wrong.as_slice()) else {
        return Err(wrong);
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&versions)
        .map_err(|error| vec![Issue::new("ssl_protocols", error.to_string())])?;
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(verifier) => builder.with_client_cert_verifier(verifier),
    };
    let mut config = builder.with_cert_resolver(Arc::new(Keys(keys)));
    config.alpn_protocols = match settings.http2 {
        true => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        false => vec![b"http/1.1".to_vec()],
    };
    Ok(config)
}

/// What verifies the certificates of clients, if they must show one.
fn client_verifier(
    ssl: &Ssl,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, Issue> {
    let of_ca = |error: String| Issue::new("client.ca", format!("client.ca: {error}"));
    let Some(ca) = ssl
        .client_ca()
        .map_err(|error| Issue::new("client.skip_mtls_uri_regex", error))?
    else {
        return Ok(None);
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        let certificate = certificate.map_err(|error| of_ca(pem_problem(&error).to_owned()))?;
        roots
            .add(certificate)
            .map_err(|error| of_ca(error.to_string()))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map(Some)
        .map_err(|error| of_ca(error.to_string()))
}

/// What is wrong with a PEM text. The library's own words repeat the text, which may be a key.
pub(crate) fn pem_problem(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => {
            "a section has no end line; a PEM text needs its line breaks"
        }
        pem::Error::IllegalSectionStart { .. } => "a section's start line is not valid",
        pem::Error::Base64Decode(_) => "a section is not base64",
        pem::Error::Io(_) => "the text cannot be read",
        pem::Error::NoItemsFound => "no section of the expected kind is in it",
        _ => "it is not a PEM text",
    }
}

/// The pair number `index`, the first of which is `cert` and `key`, the others `certs` and `keys`.
fn certified(
    cert: &str,
    key: &str,
    index: usize,
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, Vec<Issue>> {
    let at = |field: &str| match index.checked_sub(1) {
        None => field.to_owned(),
        Some(further) => format!("{field}s[{further}]"),
    };
    let chain = CertificateDer::pem_slice_iter(cert.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| pem_problem(&error))
        .and_then(|chain| match chain.is_empty() {
            true => Err("no PEM certificate in it"),
            false => Ok(chain),
        })
        .map_err(|error| Issue::new(&at("cert"), format!("failed to parse cert: {error}")));
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| {
        let text = format!("failed to parse key: {}", pem_problem(&error));
        Issue::new(&at("key"), text)
    });
    match (chain, key) {
        (Ok(chain), Ok(key)) => CertifiedKey::from_der(chain, key, provider)
            .map(Arc::new)
            .map_err(|error| {
                let text = format!("failed to handle cert-key pair[{}]: {error}", index + 1);
                vec![Issue::new(&at("key"), text)]
            }),
        (chain, key) => Err(chain.err().into_iter().chain(key.err()).collect()),
    }
}

fn versions(names: &[String]) -> Result<Vec<&'static SupportedProtocolVersion>, String> {
    let mut versions = Vec::new();
    for name in names {
        match name.as_str() {
            "TLSv1.2" => versions.push(&TLS12),
            "TLSv1.3" => versions.push(&TLS13),
            // Named in old configurations; nothing current offers it.
            _ => {}
        }
    }
    if versions.is_empty() {
        return Err("ssl_protocols: none of them is supported (TLSv1.2, TLSv1.3)".to_owned());
    }
    Ok(versions)
}

/// The key pairs of one resource; the first whose kind the client can verify is used.
#[derive(Debug)]
struct Keys(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for Keys {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let offered = hello.signature_schemes();
        self.0
            .iter()
            .find(|pair| pair.key.choose_scheme(offered).is_some())
            .or_else(|| self.0.first())
            .cloned()
    }
}
