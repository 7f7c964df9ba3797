//! `auth.gcp` of an instance as it runs.

use std::sync::Arc;

use super::written;
use crate::{
    plugin::registry::Building,
    tokens::{GcpAuth, Identity, fetch::Fetcher},
};

/// What gives `instance` its access tokens, if it wants any. An account that cannot work is told, and
/// then fails requests, as in APISIX.
pub(super) fn of(
    instance: &written::Instance,
    verify: bool,
    building: &mut Building<'_>,
) -> Option<Arc<GcpAuth>> {
    let gcp = instance.auth.gcp.as_ref()?;
    let account = gcp.service_account_json.clone();
    let account = account.or_else(|| (building.env)(ENVIRONMENT));
    let fetcher = match &account {
        Some(account) => Fetcher::new(account, verify),
        None => Err(format!(
            "auth.gcp has no service_account_json, and {ENVIRONMENT} is not set"
        )),
    };
    if let Err(error) = &fetcher {
        let name = &instance.name;
        building.warnings.push(format!(
            "instance '{name}': auth.gcp: {error}; requests to it will fail"
        ));
    }
    let identity = Identity {
        account: account.unwrap_or_default(),
        early: gcp.expire_early_secs,
        max: gcp.max_ttl,
        verify,
    };
    Some(Arc::new(GcpAuth::new(identity, fetcher)))
}

/// Names the account for whoever configures none.
const ENVIRONMENT: &str = "GCP_SERVICE_ACCOUNT";
