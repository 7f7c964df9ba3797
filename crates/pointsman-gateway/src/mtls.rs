//! Client certificates, as far as requests decide about them.
//!
//! A resource that demands certificates of everybody has them verified in the handshake. One with
//! exceptions (`client.skip_mtls_uri_regex`) lets the handshake pass, and each request is judged by
//! its path. In both cases a connection that was made under one name must not be used for another
//! that demands a certificate: what was verified, if anything, was verified for the first.

use std::sync::Arc;

use crate::{
    config::{document::Item, resource::ssl::Ssl},
    exchange::Exchange,
    failure::Failure,
    router::{
        pattern::Pattern,
        server_names::{ServerNames, normalise},
    },
};

/// What a client has shown of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificate {
    /// Nothing.
    #[default]
    None,
    /// A certificate that the server name's authority vouches for.
    Verified,
    /// Another.
    Refused,
}

/// Who demands certificates, by server name; `None` for names that demand nothing.
#[derive(Default)]
pub struct Demands {
    names: ServerNames<Option<Arc<Exceptions>>>,
    is_empty: bool,
}

/// Paths that may be asked for without a certificate.
type Exceptions = Vec<Pattern>;

impl Demands {
    /// What `resources` demand, all of them: one that cannot be served must not hand its names over
    /// to another that demands less.
    pub fn of(resources: &[Arc<Item<Ssl>>]) -> Self {
        let serving = || resources.iter().filter(|item| item.value.serves());
        let mut demands = Self {
            names: ServerNames::default(),
            is_empty: !serving().any(|item| item.value.client.is_some()),
        };
        if demands.is_empty {
            return demands;
        }
        for item in serving() {
            let exceptions = item.value.client.as_ref().map(|client| {
                // A pattern that is none excepts nothing. It is told where the resource is checked.
                let patterns = client.exceptions().filter_map(|pattern| pattern.ok());
                Arc::new(patterns.collect())
            });
            demands.names.add(item.value.names(), &exceptions);
        }
        demands
    }

    /// Whether the client of `exchange` has shown what its `Host` demands.
    ///
    /// # Errors
    /// If it has not.
    pub(crate) fn check(&self, exchange: &Exchange) -> Result<(), Failure> {
        let Some(tls) = &exchange.peer.tls else {
            return Ok(());
        };
        if self.is_empty {
            return Ok(());
        }
        let host = normalise(&exchange.received.host);
        let demanded = |name: &str| self.names.find(name).and_then(Option::as_ref);
        let fallback = || exchange.snapshot().settings.ssl.fallback_sni.as_deref();
        let name = tls.server_name.as_deref().or_else(fallback).map(normalise);
        let by_host = demanded(&host);
        if by_host.is_some() && name.as_deref() != Some(&*host) {
            return Err(Failure::ClientCertificate(OTHER_NAME));
        }
        // What the connection's own name demands holds for whatever is asked for over it.
        let by_name = || demanded(name.as_deref()?);
        let Some(exceptions) = by_host.or_else(by_name) else {
            return Ok(());
        };
        let wrong = match tls.certificate {
            ClientCertificate::Verified => return Ok(()),
            ClientCertificate::Refused => REFUSED,
            ClientCertificate::None => MISSING,
        };
        let path = &exchange.request.path;
        // A pattern that gives up excepts nothing.
        let is_excepted = |pattern: &Pattern| pattern.is_match(path).unwrap_or(false);
        match exceptions.iter().any(is_excepted) {
            true => Ok(()),
            false => Err(Failure::ClientCertificate(wrong)),
        }
    }
}

const MISSING: &str = "this host asks for a client certificate, and none was shown";
const REFUSED: &str = "the client certificate is not one that this host accepts";
const OTHER_NAME: &str = "this host asks for a client certificate, and the connection was made \
                          under another server name; connect with the name of the host";
