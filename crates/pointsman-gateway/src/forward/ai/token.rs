//! Access tokens in requests.

use http::HeaderValue;

use super::AiPlan;
use crate::{clock, exchange::Exchange, failure::Failure, plugins::ai_proxy::AiInstance};

impl AiPlan {
    /// Waits for the access token of the instance `member`, if it has none yet, as long as a connection
    /// may take.
    pub async fn await_token(&self, exchange: &Exchange, member: usize) {
        let Some(gcp) = &self.target.instances[member].gcp else {
            return;
        };
        let now = clock::now();
        if gcp.token(now).is_none() {
            let gateway = std::rc::Rc::clone(exchange.gateway());
            let due = now + self.target.timeouts.connect;
            gcp.wait(due, gateway.upstreams()).await;
        }
    }
}

/// `Authorization` by which Google knows `instance`; `None` if its configuration has no `auth.gcp`.
pub(super) fn of(instance: &AiInstance) -> Result<Option<HeaderValue>, Failure> {
    let Some(gcp) = &instance.gcp else {
        return Ok(None);
    };
    let late = || Err("the token endpoint has not answered yet".to_owned());
    let token = gcp.token(clock::now()).unwrap_or_else(late);
    token
        .map(Some)
        .map_err(|reason| Failure::NoToken(format!("failed to get gcp access token: {reason}")))
}
