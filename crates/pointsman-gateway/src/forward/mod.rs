//! The attempt loop: pick, prepare, send, judge; again, or answer.
//!
//! There is one loop for every kind of traffic. What differs between a plain upstream and an LLM
//! instance is data (retry rules) and how a request is prepared and its answer received; that is
//! in [`http`] and [`ai`]. The verdicts are read anew for every attempt, so a retry never goes to
//! a target that has fallen since the request began.

pub mod ai;
pub mod forwarded;
pub mod http;
pub mod judge;
pub mod relay;

use std::{sync::Arc, time::Instant};

use ::http::Response;
use pointsman_balance::{Ask, Exhausted, Picked, Pool, Tried};

use crate::{
    body::Body,
    clock,
    config::snapshot::Backend,
    exchange::Exchange,
    failure::Failure,
    forward::{
        ai::AiPlan,
        http::PlainPlan,
        judge::{Held, Ruling},
    },
    plugin::Phases,
    ports::{Answer, Attempt},
    upstream::HashKey,
};

/// Sends the request to one target after the other until there is an answer.
pub async fn run(exchange: &mut Exchange) -> Result<Response<Body>, Failure> {
    if later_needs_body(exchange) {
        exchange.read_body_for_variables().await?;
    }
    let mut plan = Plan::of(exchange)?;
    let mut tried = Tried::new();
    let mut held: Option<Held> = None;
    let began = clock::now();
    loop {
        let picked = match plan.pick(exchange, &tried) {
            Ok(picked) => picked,
            Err(exhausted) => return plan.give_up(exchange, held, exhausted).await,
        };
        let member = picked.member();
        let outcome = match plan.prepare(exchange, picked) {
            Ok(attempt) => {
                // What an earlier attempt sent back is not needed once another is under way.
                if held.take().is_some() {
                    exchange.note_answer_dropped();
                }
                plan.send(exchange, attempt).await
            }
            // A target that cannot be asked must not take the others' chance.
            Err(failure) => {
                exchange.note_failure(&failure);
                Outcome::Failed(failure)
            }
        };
        tried.mark(member);
        match plan.judge(exchange, outcome, &tried, began) {
            Ruling::Accept(accepted) => return Ok(plan.deliver(exchange, accepted)),
            Ruling::Retry(failed) => held = held.or(Some(failed)),
            Ruling::Stop(failed) => return plan.stop(exchange, failed).await,
        }
    }
}

/// Whether the request's body must be here before it goes out: a hash ring's key comes out of it,
/// or a logger will look into it.
fn later_needs_body(exchange: &Exchange) -> bool {
    let logged = exchange.chain.reads_body(Phases::LOG)
        || exchange.snapshot().global.reads_body(Phases::LOG);
    logged
        || exchange.route().is_some_and(|route| match &route.backend {
            Backend::Upstream(upstream) => {
                upstream.hash_key.as_ref().is_some_and(HashKey::reads_body)
            }
            _ => false,
        })
}

/// What there is to do, by kind of traffic.
enum Plan {
    Plain(PlainPlan),
    Ai(AiPlan),
}

/// What came of an attempt.
pub enum Outcome {
    /// A response that may be passed on: its head is here and, where that is possible before
    /// anything is sent, its body too.
    Answer(Answer),
    /// A response whose status stands for a failure; nothing of its body has been read.
    ErrorStatus(Answer),
    /// No usable response.
    Failed(Failure),
}

impl Plan {
    fn of(exchange: &mut Exchange) -> Result<Self, Failure> {
        if exchange.ai.is_some() {
            return AiPlan::new(exchange).map(Self::Ai);
        }
        let Some(route) = exchange.route() else {
            return Err(Failure::NoRoute);
        };
        match &route.backend {
            Backend::Upstream(upstream) => {
                let upstream = Arc::clone(upstream);
                Ok(Self::Plain(PlainPlan::new(exchange, upstream)))
            }
            Backend::None => Err(Failure::NoUpstream),
            Backend::UpstreamMissing => Err(Failure::UpstreamMissing),
            Backend::ServiceMissing => Err(Failure::ServiceMissing),
            Backend::PluginConfigMissing => Err(Failure::PluginConfigMissing),
            Backend::NothingToPick => Err(Failure::NothingToPick),
        }
    }

    /// A target for the next attempt, by the newest verdicts.
    fn pick(&self, exchange: &Exchange, tried: &Tried) -> Result<Picked, Exhausted> {
        let (pool, key): (&Pool, Option<&str>) = match self {
            Self::Plain(plan) => (&plan.upstream.pool, plan.hash_key.as_deref()),
            Self::Ai(plan) => (&plan.target.pool, plan.hash_key.as_deref()),
        };
        let availability = exchange.gateway().availability();
        pool.pick(
            &Ask {
                key: key.map(str::as_bytes),
                tried,
            },
            &availability,
        )
    }

    fn prepare(&mut self, exchange: &mut Exchange, picked: Picked) -> Result<Attempt, Failure> {
        match self {
            Self::Plain(plan) => plan.prepare(exchange, picked),
            Self::Ai(plan) => plan.prepare(exchange, picked),
        }
    }

    async fn send(&mut self, exchange: &mut Exchange, attempt: Attempt) -> Outcome {
        let gateway = std::rc::Rc::clone(exchange.gateway());
        let sent = gateway.upstreams().send(attempt).await;
        exchange.note_head(&sent);
        match (self, sent) {
            (Self::Plain(plan), sent) => plan.receive(exchange, sent),
            (Self::Ai(plan), sent) => plan.receive(exchange, sent).await,
        }
    }

    fn judge(
        &mut self,
        exchange: &Exchange,
        outcome: Outcome,
        tried: &Tried,
        began: Instant,
    ) -> Ruling {
        match self {
            Self::Plain(plan) => judge::plain(plan, outcome, tried, clock::now() - began),
            Self::Ai(plan) => judge::ai(
                plan.retry_policy(),
                outcome,
                tried,
                exchange.last_attempt_took(),
            ),
        }
    }

    fn deliver(self, exchange: &mut Exchange, accepted: judge::Accepted) -> Response<Body> {
        match self {
            Self::Plain(_) => http::deliver(exchange, accepted),
            Self::Ai(_) => ai::deliver(accepted),
        }
    }

    /// No further attempt is allowed: the failure goes to the client as it is.
    async fn stop(self, exchange: &mut Exchange, held: Held) -> Result<Response<Body>, Failure> {
        match self {
            Self::Plain(_) => http::stop(exchange, held),
            Self::Ai(mut plan) => plan.stop(exchange, held).await,
        }
    }

    /// A further attempt would be allowed, but there is nobody left to try.
    async fn give_up(
        self,
        exchange: &mut Exchange,
        held: Option<Held>,
        exhausted: Exhausted,
    ) -> Result<Response<Body>, Failure> {
        match (self, held) {
            (Self::Plain(_), Some(held)) => http::stop(exchange, held),
            (Self::Ai(mut plan), Some(held)) => plan.give_up(exchange, held).await,
            (Self::Plain(_), None) => Err(match exhausted {
                Exhausted::NothingToPick => Failure::NothingToPick,
                Exhausted::AllTried => Failure::NoUpstream,
            }),
            (Self::Ai(_), None) => Err(Failure::AllServersTried),
        }
    }
}
