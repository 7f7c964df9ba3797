//! Access tokens of service accounts: how they are fetched and renewed, and the signature that a request
//! for one needs.

use std::time::Instant;

use aws_lc_rs::{rand::SystemRandom, rsa::KeyPair, signature::RSA_PKCS1_SHA256};
use pointsman_gateway::{
    config::snapshot::Snapshot,
    tokens::keeper::{Errand, Keeper, Outcome},
};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};

use crate::{errands, http_client::HttpClient};

impl errands::Keeper for Keeper {
    type Errand = Errand;
    type Outcome = Outcome;

    fn adopt(&mut self, snapshot: &Snapshot, now: Instant) {
        self.adopt(snapshot, now);
    }

    fn poll(&mut self, now: Instant) -> Option<Errand> {
        self.poll_errand(now)
    }

    async fn perform(errand: &Errand, client: &HttpClient) -> Outcome {
        errand.perform(sign_rs256, client).await
    }

    fn on_outcome(&mut self, errand: &Errand, outcome: Outcome, now: Instant) {
        self.on_outcome(errand, outcome, now);
    }

    fn next_deadline(&self, _: Instant) -> Option<Instant> {
        self.next_deadline()
    }
}

/// See [`pointsman_gateway::ports::SignRs256`].
pub(crate) fn sign_rs256(key: &str, message: &[u8]) -> Result<Vec<u8>, &'static str> {
    let key = match PrivateKeyDer::from_pem_slice(key.as_bytes()) {
        Ok(PrivateKeyDer::Pkcs8(der)) => KeyPair::from_pkcs8(der.secret_pkcs8_der()),
        Ok(PrivateKeyDer::Pkcs1(der)) => KeyPair::from_der(der.secret_pkcs1_der()),
        _ => return Err("it is no key in PEM"),
    };
    let key = key.map_err(|_| "it is no RSA key of 2048 bits or more")?;
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(
        &RSA_PKCS1_SHA256,
        &SystemRandom::new(),
        message,
        &mut signature,
    )
    .map_err(|_| "it signs nothing")?;
    Ok(signature)
}
