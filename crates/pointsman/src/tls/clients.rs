//! What clients must show: the certificates that a resource's `client` accepts.
//!
//! Where everybody must show one the handshake decides. Where requests are excepted by their path
//! the handshake only asks, and what was shown is judged when it is over; the gateway goes by that.

use std::sync::Arc;

use pointsman_gateway::{
    config::{resource::ssl::Client, schema::Issue},
    mtls::ClientCertificate,
};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConnection,
    SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, UnixTime, pem::PemObject};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use super::pem_problem;

/// Verifies what clients show.
#[derive(Debug)]
pub(super) struct Clients {
    chains: Arc<dyn ClientCertVerifier>,
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
    /// How many certificates may stand between a client's and an authority's.
    depth: usize,
    decides: Decides,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decides {
    Handshake,
    Request,
}

impl Clients {
    /// What `client` says, references resolved.
    pub(super) fn new(client: &Client, provider: &Arc<CryptoProvider>) -> Result<Self, Issue> {
        let of_ca = |error: String| Issue::new("client.ca", format!("client.ca: {error}"));
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(client.ca.as_bytes()) {
            let certificate = certificate.map_err(|error| of_ca(pem_problem(&error).to_owned()))?;
            roots
                .add(certificate)
                .map_err(|error| of_ca(error.to_string()))?;
        }
        let roots = Arc::new(roots);
        let chains = Arc::clone(&roots);
        let chains = WebPkiClientVerifier::builder_with_provider(chains, Arc::clone(provider))
            .build()
            .map_err(|error| of_ca(error.to_string()))?;
        Ok(Self {
            chains,
            roots,
            algorithms: provider.signature_verification_algorithms,
            depth: usize::try_from(client.depth).unwrap_or(usize::MAX),
            decides: match client.has_exceptions() {
                true => Decides::Request,
                false => Decides::Handshake,
            },
        })
    }

    /// What the client of `connection`, whose handshake is over, has shown. A resumed session shows
    /// what the first one has, which is judged anew.
    pub(super) fn judge(&self, connection: &ServerConnection) -> ClientCertificate {
        let Some([own, others @ ..]) = connection.peer_certificates() else {
            return ClientCertificate::None;
        };
        match self.verify(own, others, UnixTime::now()) {
            Ok(_) => ClientCertificate::Verified,
            Err(error) => {
                tracing::info!("client certificate: {error}");
                ClientCertificate::Refused
            }
        }
    }

    fn verify(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chains.verify_client_cert(own, others, now)?;
        // Only with more certificates at hand can a chain be longer.
        if others.len() > self.depth && !self.has_short_chain(own, others, now) {
            let depth = self.depth;
            let text = format!("the client's chain is longer than client.depth allows ({depth})");
            return Err(Error::General(text));
        }
        Ok(verified)
    }

    /// Whether there is a chain to an authority over `depth` of `others` at most.
    fn has_short_chain(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> bool {
        let Ok(own) = EndEntityCert::try_from(own) else {
            return false;
        };
        let is_short = |path: &VerifiedPath<'_>| match path.intermediate_certificates().count()
            <= self.depth
        {
            true => Ok(()),
            false => Err(webpki::Error::MaximumPathDepthExceeded),
        };
        own.verify_for_usage(
            self.algorithms.all,
            &self.roots.roots,
            others,
            now,
            KeyUsage::client_auth(),
            None,
            Some(&is_short),
        )
        .is_ok()
    }
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        self.decides == Decides::Handshake
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chains.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match self.decides {
            Decides::Handshake => self.verify(own, others, now),
            // `judge` says later what it is worth.
            Decides::Request => Ok(ClientCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls12_signature(message, own, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls13_signature(message, own, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}
