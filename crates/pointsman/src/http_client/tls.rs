//! TLS towards targets: which roots are trusted, which client certificate is presented.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use pointsman_gateway::upstream::destination::{ClientCertificate, Tls};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use tokio_rustls::TlsConnector;

use crate::tls::pem_problem;

/// Client configurations: one for verified connections, one for unverified ones, and one per
/// client certificate.
pub(crate) struct ClientTls {
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    configs: Mutex<HashMap<Key, Arc<ClientConfig>>>,
}

#[derive(PartialEq, Eq, Hash)]
struct Key {
    verify: bool,
    client: Option<Arc<ClientCertificate>>,
}

impl ClientTls {
    /// Trusts the system's roots, and those of the PEM file at `extra` if one is named.
    ///
    /// # Errors
    /// When that file cannot be read, holds no certificate, or one that cannot be used.
    pub(crate) fn new(extra: Option<&str>) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        let system = rustls_native_certs::load_native_certs();
        for error in &system.errors {
            tracing::warn!("system trust store: {error}");
        }
        roots.add_parsable_certificates(system.certs);
        if let Some(path) = extra {
            trust(&mut roots, path).map_err(|problem| {
                format!("apisix.ssl.ssl_trusted_certificate: `{path}`: {problem}")
            })?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        Ok(Self {
            provider,
            roots: Arc::new(roots),
            configs: Mutex::default(),
        })
    }

    /// A connector for `tls`.
    pub(super) fn connector(&self, tls: &Tls) -> Result<TlsConnector, String> {
        let key = Key {
            verify: tls.verify,
            client: tls.client.clone(),
        };
        let mut configs = self
            .configs
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(config) = configs.get(&key) {
            return Ok(TlsConnector::from(Arc::clone(config)));
        }
        let config = Arc::new(self.config(&key)?);
        if configs.len() >= CONFIGS_MAX {
            // Certificates that were replaced long ago; the live ones are made anew at once.
            configs.clear();
        }
        configs.insert(key, Arc::clone(&config));
        Ok(TlsConnector::from(config))
    }

    /// `name` as TLS wants it.
    pub(crate) fn server_name(name: &str) -> Result<ServerName<'static>, String> {
        ServerName::try_from(name.to_owned())
            .map_err(|_| format!("`{name}` is not a valid TLS server name"))
    }

    fn config(&self, key: &Key) -> Result<ClientConfig, String> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = if key.verify {
            builder.with_root_certificates(Arc::clone(&self.roots))
        } else {
            let verifier = Arc::new(Unverified(Arc::clone(&self.provider)));
            builder
                .dangerous()
                .with_custom_certificate_verifier(verifier)
        };
        let mut config = match &key.client {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let chain = CertificateDer::pem_slice_iter(pair.cert.as_bytes())
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(|error| format!("client certificate: {}", pem_problem(&error)))?;
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes())
                    .map_err(|error| format!("client key: {}", pem_problem(&error)))?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| format!("client certificate: {error}"))?
            }
        };
        config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
        Ok(config)
    }
}

/// Adds the certificates of the PEM file at `path` to `roots`. Each must be usable: who names a
/// file of their own has targets that are refused without what is in it.
fn trust(roots: &mut RootCertStore, path: &str) -> Result<(), String> {
    let text = std::fs::read(path).map_err(|error| format!("cannot be read: {error}"))?;
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| pem_problem(&error).to_owned())?;
        count += 1;
        roots
            .add(certificate)
            .map_err(|error| format!("certificate number {count} in it cannot be used: {error}"))?;
    }
    if count == 0 {
        return Err(
            "holds no certificate; it must be a PEM file with the authorities to trust".to_owned(),
        );
    }
    Ok(())
}

/// Accepts any certificate, for targets whose configuration says so. The handshake's signatures
/// are still checked.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Distinct client configurations that are kept.
const CONFIGS_MAX: usize = 256;
/// TLS sessions kept for resumption, per client configuration.
const SESSIONS_MAX: usize = 256;
