//! TLS towards clients: the certificate for a server name, from the configuration in force.
//!
//! A table is made of the `ssl` resources of a configuration and replaced as a whole. It is
//! looked at once per handshake, so a change applies to the next connection and touches none
//! that is open.

mod clients;
pub(crate) mod files;

use std::{io, sync::Arc};

use arc_swap::ArcSwap;
use pointsman_gateway::{
    config::{
        document::Item,
        problem::{Report, Severity},
        reference::Elsewhere,
        resource::ssl::Ssl,
        schema::Issue,
    },
    exchange::TlsPeer,
    router::server_names::{ServerNames, normalise},
};
use rustls::{
    ServerConfig, SupportedProtocolVersion,
    crypto::CryptoProvider,
    server::{Acceptor, ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use self::clients::Clients;
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

/// Server configurations by name. A resource that cannot be served keeps its names all the same:
/// whoever asks for them must not get to another, which may demand less of clients.
#[derive(Default)]
pub(crate) struct Table {
    names: ServerNames<Option<Arc<Served>>>,
    fallback: Option<String>,
}

/// One resource, ready to serve.
struct Served {
    config: Arc<ServerConfig>,
    /// Who verifies what clients show, if they are asked for it.
    clients: Option<Arc<Clients>>,
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
        let served = self.table.load().find(name.as_deref()).ok_or_else(|| {
            let name = name.as_deref().unwrap_or("(none)");
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("no certificate for SNI `{name}`"),
            )
        })?;
        let stream = start.into_stream(Arc::clone(&served.config)).await?;
        let connection = stream.get_ref().1;
        let clients = served.clients.as_ref();
        let certificate = clients.map(|clients| clients.judge(connection));
        let speaks = match connection.alpn_protocol() {
            Some(b"h2") => Speaks::Http2,
            _ => Speaks::Http1,
        };
        Ok((
            stream,
            TlsPeer {
                server_name: name.map(Arc::from),
                certificate: certificate.unwrap_or_default(),
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
            let served = match Served::new(&item.value.resolved(elsewhere), settings, &provider) {
                Ok(served) => {
                    tell_ignored(item, report);
                    Some(Arc::new(served))
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
                    None
                }
            };
            table.names.add(item.value.names(), &served);
        }
        table
    }

    /// What serves `name`. A client without a name gets the fallback's.
    fn find(&self, name: Option<&str>) -> Option<Arc<Served>> {
        self.names.find(name.or(self.fallback.as_deref())?)?.clone()
    }
}

/// Tells what of a resource that is served has no effect.
fn tell_ignored(item: &Item<Ssl>, report: &mut Report<'_>) {
    let protocols = item.value.protocols().unwrap_or_default();
    if protocols.iter().any(|name| name == "TLSv1.1") {
        let message = "TLSv1.1 is not supported, and not offered";
        report.warning(item.spot(), "ssl_protocols", message);
    }
}

impl Served {
    fn new(
        ssl: &Ssl,
        settings: &TlsSettings,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, Vec<Issue>> {
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
        let clients = ssl
            .client
            .as_ref()
            .map(|client| Clients::new(client, provider));
        let clients = clients.transpose().map_err(|issue| wrong.push(issue));
        let clients = clients.map(|clients| clients.map(Arc::new));
        let (Ok(versions), Ok(clients), []) = (versions, clients, wrong.as_slice()) else {
            return Err(wrong);
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
            .with_protocol_versions(&versions)
            .map_err(|error| vec![Issue::new("ssl_protocols", error.to_string())])?;
        let builder = match clients.clone() {
            None => builder.with_no_client_auth(),
            Some(verifier) => builder.with_client_cert_verifier(verifier),
        };
        let mut config = builder.with_cert_resolver(Arc::new(Keys(keys)));
        config.alpn_protocols = match settings.http2 {
            true => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            false => vec![b"http/1.1".to_vec()],
        };
        Ok(Self {
            config: Arc::new(config),
            clients,
        })
    }
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
