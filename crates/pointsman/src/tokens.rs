//! Access tokens of service accounts: fetched and renewed here, off the path of requests.
//!
//! What is due, and what is kept, is for the [`Keeper`] to say; this is the loop around it, on the
//! control thread, with a client of its own; and the signature that a request for a token needs.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use aws_lc_rs::{rand::SystemRandom, rsa::KeyPair, signature::RSA_PKCS1_SHA256};
use pointsman_gateway::{clock, config::snapshot::Snapshot, tokens::keeper::Keeper};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};
use tokio::sync::Notify;

use crate::http_client::{Dialer, HttpClient};

/// All access tokens, and the means to get them.
#[derive(Default)]
pub(crate) struct Tokens {
    keeper: RefCell<Keeper>,
    changed: Notify,
}

impl Tokens {
    /// To be called with every configuration, right before it is published.
    pub(crate) fn adopt(&self, snapshot: &Snapshot) {
        self.keeper.borrow_mut().adopt(snapshot, clock::now());
        self.changed.notify_one();
    }

    /// Fetches tokens as they fall due.
    pub(crate) async fn keep(self: Rc<Self>, dialer: Arc<Dialer>) {
        let client = Rc::new(HttpClient::new(dialer));
        loop {
            loop {
                let errand = self.keeper.borrow_mut().poll_errand(clock::now());
                let Some(errand) = errand else { break };
                let (tokens, client) = (Rc::clone(&self), Rc::clone(&client));
                tokio::task::spawn_local(async move {
                    let outcome = errand.perform(sign_rs256, &*client).await;
                    let mut keeper = tokens.keeper.borrow_mut();
                    keeper.on_outcome(&errand, outcome, clock::now());
                    tokens.changed.notify_one();
                });
            }
            client.sweep();
            let deadline = self.keeper.borrow().next_deadline();
            let due = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.changed.notified() => {}
                () = due => {}
            }
        }
    }
}

/// See [`pointsman_gateway::ports::SignRs256`].
fn sign_rs256(key: &str, message: &[u8]) -> Result<Vec<u8>, &'static str> {
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
