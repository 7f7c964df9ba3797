//! Certificates made for a test, and a client that shows and trusts them.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};

/// A certificate and its key, PEM; in front of those that lead to its authority, if there are any.
pub(crate) struct Identity {
    pub(crate) cert: String,
    pub(crate) key: String,
}

/// A certificate for `names` that is its own authority.
pub(crate) fn identity(names: &[&str]) -> Identity {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    Identity {
        cert: made.cert.pem(),
        key: made.signing_key.serialize_pem(),
    }
}

/// Who vouches for others.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// From its own certificate to one below the root.
    chain: String,
}

impl Authority {
    /// Vouched for by itself.
    pub(crate) fn root(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(Self::params(name), key).expect("signed");
        Self {
            issuer,
            chain: String::new(),
        }
    }

    /// Vouched for by this one.
    pub(crate) fn below(&self, name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::signed_by(Self::params(name), key, &self.issuer);
        let issuer = issuer.expect("signed");
        let chain = issuer.pem() + &self.chain;
        Self { issuer, chain }
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::new(Vec::new()).expect("valid");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        params
    }

    /// Its certificate.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for `name`, for both sides of TLS.
    pub(crate) fn vouch(&self, name: &str) -> Identity {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("valid");
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("signed");
        Identity {
            cert: cert.pem() + &self.chain,
            key: key.serialize_pem(),
        }
    }
}

/// `pem` as a block of a resource.
pub(crate) fn indent(pem: &str) -> String {
    pem.lines().map(|line| format!("      {line}\n")).collect()
}

/// An `ssl` resource of a document.
pub(crate) fn ssl(id: &str, sni: &str, identity: &Identity, more: &str) -> String {
    format!(
        "- id: {id}\n  sni: \"{sni}\"\n{more}  cert: |\n{}  key: |\n{}",
        indent(&identity.cert),
        indent(&identity.key)
    )
}

/// A client that trusts `trusted` and shows nothing.
pub(crate) fn client(trusted: &[&Identity], only_12: bool) -> ClientConfig {
    let versions: &[&SupportedProtocolVersion] = match only_12 {
        true => &[&TLS12],
        false => &[&TLS12, &TLS13],
    };
    client_with(trusted, None, versions)
}

/// A client that trusts `trusted` and shows `own`.
pub(crate) fn client_with(
    trusted: &[&Identity],
    own: Option<&Identity>,
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for identity in trusted {
        let cert = CertificateDer::from_pem_slice(identity.cert.as_bytes()).expect("PEM");
        roots.add(cert).expect("a root");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots);
    match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let (chain, key) = own.parsed();
            builder.with_client_auth_cert(chain, key).expect("a pair")
        }
    }
}

impl Identity {
    /// Chain and key.
    pub(crate) fn parsed(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let chain = CertificateDer::pem_slice_iter(self.cert.as_bytes());
        let chain = chain.collect::<Result<Vec<_>, _>>().expect("PEM");
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("PEM");
        (chain, key)
    }
}

/// A connection over TLS; nothing was sent yet.
pub(crate) type Secured = StreamOwned<ClientConnection, TcpStream>;

/// Connects to `address` under `name`.
pub(crate) fn connect(
    address: SocketAddr,
    name: &str,
    config: &Arc<ClientConfig>,
) -> Result<Secured, String> {
    let name = ServerName::try_from(name.to_owned()).map_err(|error| error.to_string())?;
    let connection =
        ClientConnection::new(Arc::clone(config), name).map_err(|error| error.to_string())?;
    let stream = TcpStream::connect(address).map_err(|error| error.to_string())?;
    stream
        .set_read_timeout(Some(super::DEADLINE))
        .map_err(|error| error.to_string())?;
    Ok(StreamOwned::new(connection, stream))
}

/// One request, after which the connection is closed.
pub(crate) fn ask(stream: &mut Secured, target: &str, host: &str) -> Result<String, String> {
    let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .map_err(|error| error.to_string())?;
    let mut text = String::new();
    stream
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    Ok(text)
}

/// A request over TLS; the error text when the handshake or the request fails.
pub(crate) fn https(
    address: SocketAddr,
    name: &str,
    config: ClientConfig,
) -> Result<String, String> {
    ask(&mut connect(address, name, &Arc::new(config))?, "/x", "a")
}
