//! TLS out of files: for the Admin API, whose certificate stands in `config.yaml`.

use std::sync::Arc;

use pointsman_gateway::config::settings::AdminTls;
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio_rustls::TlsAcceptor;

use super::pem_problem;

/// The server's side of TLS with the files that `settings` name, read once.
///
/// # Errors
/// Which of them is wrong, and how.
pub(crate) fn acceptor(settings: &AdminTls) -> Result<TlsAcceptor, String> {
    let AdminTls { cert, key, ca } = settings;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for root in certificates("admin_ssl_ca_cert", path)? {
                let added = roots.add(root);
                added.map_err(|error| told("admin_ssl_ca_cert", path, &error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| told("admin_ssl_ca_cert", path, &error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let chain = certificates("admin_ssl_cert", cert)?;
    let pem = read("admin_ssl_cert_key", key)?;
    let secret = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|error| told("admin_ssl_cert_key", key, pem_problem(&error)))?;
    let mut config = builder
        .with_single_cert(chain, secret)
        .map_err(|error| told("admin_ssl_cert", cert, &error.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(field: &str, path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(&read(field, path)?)
        .collect::<Result<_, _>>()
        .map_err(|error| told(field, path, pem_problem(&error)))?;
    match found.is_empty() {
        true => Err(told(field, path, "no PEM certificate is in it")),
        false => Ok(found),
    }
}

fn read(field: &str, path: &str) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| told(field, path, &format!("cannot be read: {error}")))
}

fn told(field: &str, path: &str, problem: &str) -> String {
    format!("deployment.admin.admin_api_mtls.{field}: `{path}`: {problem}")
}
