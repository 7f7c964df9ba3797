//! The attempt loop: pick, prepare, send, judge; again, or answer.
//!
//! There is one loop for every kind of traffic. What differs between a plain upstream and an LLM
//! instance is data (retry rules) and how a request is prepared and its answer received; that is
//! in [`http`] and [`ai`]. The verdicts are read anew for every attempt, so a retry never goes to
//! a target that has fallen since the request began.

pub mod ai;
pub mod evidence;
pub mod forwarded;
pub mod http;
pub mod judge;
pub mod picks;
pub mod relay;
pub(crate) mod semantic;
pub mod wait;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ::http::Response;
use pointsman_balance::{Ask, Availability, Exhausted, Picked, Pool, Tried};

use crate::{
    body::Body,
    clock,
    config::snapshot::Backend,
    exchange::Exchange,
    failure::{Failure, TransportFault},
    forward::{
        ai::AiPlan,
        evidence::Bid,
        http::PlainPlan,
        judge::{Held, Ruling},
    },
    plugin::Phases,
    ports::{Answer, Attempt},
    upstream::{HashKey, resolve::Located},
};

/// Sends the request to one target after the other until there is an answer.
pub async fn run(exchange: &mut Exchange) -> Result<Response<Body>, Failure> {
    let mut response = answer(exchange).await?;
    semantic::show(exchange, response.headers_mut());
    Ok(response)
}

async fn answer(exchange: &mut Exchange) -> Result<Response<Body>, Failure> {
    if later_needs_body(exchange) {
        exchange.read_body_for_variables().await?;
    }
    semantic::rank(exchange).await;
    let mut plan = Plan::of(exchange)?;
    let mut tried = plan.unable()?;
    let mut held: Option<Held> = None;
    let began = clock::now();
    // Attempts that count against the request's retries; trials are none that it has asked for.
    let mut attempts = 0;
    // The answer that is held is one, and no failure: it is passed on as it is.
    let mut as_it_is = false;
    let mut overtaken = 0;
    loop {
        let mut picked = match plan.pick(exchange, &tried) {
            Ok(picked) => picked,
            Err(_) if as_it_is && let Some(held) = held => return plan.stop(exchange, held).await,
            Err(exhausted) => return plan.give_up(exchange, held, exhausted).await,
        };
        let mut bid = Bid {
            member: picked.member(),
            trial: picked.take_trial(),
            failed_open: picked.failed_open(),
        };
        if bid.failed_open && bid.trial.is_none() && plan.rejects() {
            return match held {
                Some(held) if as_it_is => plan.stop(exchange, held).await,
                held => plan.reject(exchange, held).await,
            };
        }
        // Without anybody to fall back to, a trial is an attempt like any other.
        let is_trial = bid.trial.is_some() && !bid.failed_open;
        let outcome = attempt(exchange, &mut plan, &mut held, picked, &mut bid).await;
        if matches!(outcome, Outcome::Overtaken) && overtaken < OVERTAKEN_MAX {
            overtaken += 1;
            continue;
        }
        tried.mark(bid.member);
        attempts += usize::from(!is_trial);
        if (is_trial || plan.has_room(exchange, attempts))
            && plan.keep_larger(bid.member, &mut tried)
            && let Outcome::Answer(answer) | Outcome::ErrorStatus(answer) = outcome
        {
            (held, as_it_is) = (Some(Held::Answer(answer)), true);
            continue;
        }
        as_it_is = false;
        let ruling = plan.judge(exchange, outcome, attempts, is_trial, began);
        match ruling {
            Ruling::Accept(accepted) => return Ok(plan.deliver(exchange, accepted)),
            Ruling::Retry(failed) => {
                plan.tell_retry(exchange, bid.member, &failed);
                held = held.or(Some(failed));
            }
            Ruling::Stop(failed) => return plan.stop(exchange, failed).await,
        }
    }
}

/// One attempt, and those that follow it at the same target: each by the newest verdicts, and told to
/// whom it concerns.
async fn attempt(
    exchange: &mut Exchange,
    plan: &mut Plan,
    held: &mut Option<Held>,
    mut picked: Picked,
    bid: &mut Bid,
) -> Outcome {
    let is_trial = bid.trial.is_some();
    let mut repeats = 0;
    let mut last = None;
    loop {
        if let Plan::Ai(plan) = plan {
            plan.await_token(exchange, picked.member()).await;
        }
        let outcome = match plan.prepare(exchange, picked) {
            Ok(attempt) => {
                // What an earlier attempt sent back is not needed once another is under way.
                if held.is_some() || repeats > 0 {
                    exchange.note_answer_dropped();
                }
                plan.send(exchange, attempt).await
            }
            // A target that cannot be asked must not take the others' chance.
            Err(failure) => {
                exchange.note_failure(&failure);
                if let (Plan::Ai(ai), Failure::NoToken(_)) = (&*plan, &failure) {
                    evidence::of_missing_token(exchange, ai, bid.member);
                }
                // What is held was said by another one, in its own protocol.
                if held.is_some()
                    && let Plan::Ai(ai) = plan
                {
                    ai.take_back(exchange);
                }
                return Outcome::Failed(failure);
            }
        };
        if matches!(outcome, Outcome::Overtaken) {
            return last.unwrap_or(outcome);
        }
        drop((held.take(), last.take()));
        let Plan::Ai(ai) = plan else {
            return outcome;
        };
        evidence::of_attempt(exchange, ai, bid, &outcome);
        let wait = ai.wait_for_same(&outcome, repeats);
        let Some(wait) = wait.filter(|_| !is_trial) else {
            return outcome;
        };
        exchange.pause();
        let due = clock::now() + wait;
        let gateway = std::rc::Rc::clone(exchange.gateway());
        gateway.upstreams().sleep_until(due).await;
        let pool = &ai.target.pool;
        let availability = gateway.availability();
        let Some(again) = pool.again(bid.member, &availability) else {
            return outcome;
        };
        if again.failed_open() && ai.target.rejects {
            return outcome;
        }
        picks::note_again(exchange, &again, &availability);
        plan.locate(bid.member, &availability);
        bid.failed_open = again.failed_open();
        (picked, last) = (again, Some(outcome));
        repeats += 1;
    }
}

/// Whether the request's body must be here before it goes out: a hash ring's key comes out of it,
/// or a plugin will look into it later.
fn later_needs_body(exchange: &Exchange) -> bool {
    let chains = [&exchange.chain, &exchange.snapshot().global];
    let reads = |phase| chains.iter().any(|chain| chain.reads_body(phase));
    reads(Phases::LOG)
        || reads(Phases::HEADER_FILTER)
        || exchange.backend().is_some_and(|backend| match backend {
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
    /// The target fell while the connection was made. No attempt at all: nothing was sent.
    Overtaken,
}

impl Plan {
    fn of(exchange: &mut Exchange) -> Result<Self, Failure> {
        if exchange.ai.is_some() {
            return AiPlan::new(exchange).map(Self::Ai);
        }
        let Some(backend) = exchange.backend() else {
            return Err(Failure::NoRoute);
        };
        match backend {
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

    /// Those who cannot be asked, whatever their health.
    fn unable(&self) -> Result<Tried, Failure> {
        match self {
            Self::Plain(_) => Ok(Tried::new()),
            Self::Ai(plan) => plan.unable(),
        }
    }

    /// A target for the next attempt, by the newest verdicts. The one before it is over.
    fn pick(&mut self, exchange: &mut Exchange, tried: &Tried) -> Result<Picked, Exhausted> {
        exchange.release();
        let (pool, key): (&Pool, Option<&str>) = match self {
            Self::Plain(plan) => (&plan.upstream.pool, plan.hash_key.as_deref()),
            Self::Ai(plan) => (&plan.target.pool, plan.hash_key.as_deref()),
        };
        let availability = exchange.gateway().availability();
        let ask = Ask {
            key: key.map(str::as_bytes),
            now: if pool.counts() {
                clock::since_start(clock::now())
            } else {
                Duration::ZERO
            },
            tried,
        };
        let ranked = exchange.ai.as_ref().and_then(|call| call.ranked.as_ref());
        let picked = match ranked {
            Some(ranked) => pool.pick_in_order(&ranked.ranking.order, &ask, &availability)?,
            None => pool.pick_by(&ask, picks::basis(exchange, pool), &availability)?,
        };
        picks::note(exchange, &picked, &availability, tried);
        self.locate(picked.member(), &availability);
        Ok(picked)
    }

    /// Settles at which addresses the member just picked may be reached, by the same verdicts.
    fn locate(&mut self, member: usize, availability: &Availability) {
        let (named, located) = match self {
            Self::Plain(plan) => (&plan.upstream.names[member], &mut plan.located),
            Self::Ai(plan) => (&plan.target.instances[member].named, &mut plan.located),
        };
        *located = Located::of(named.as_ref(), availability);
    }

    /// Whether nobody is asked when nobody is usable.
    fn rejects(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Ai(plan) => plan.target.rejects,
        }
    }

    /// Nobody is usable, and nobody is to be asked then: what an earlier attempt answered, or 503.
    async fn reject(
        self,
        exchange: &mut Exchange,
        held: Option<Held>,
    ) -> Result<Response<Body>, Failure> {
        match (self, held) {
            (Self::Ai(mut plan), Some(held)) => plan.give_up(exchange, held).await,
            (Self::Ai(plan), None) => {
                let availability = exchange.gateway().availability();
                let recovery = plan
                    .target
                    .pool
                    .soonest_recovery(&availability, clock::now());
                let seconds = recovery.map_or(1, |wait| wait.as_secs_f64().ceil().max(1.0) as u64);
                Err(Failure::AllUnhealthy(seconds))
            }
            (Self::Plain(_), _) => Err(Failure::NoUpstream),
        }
    }

    /// Whether another attempt may follow one that has a reason of its own for that.
    fn has_room(&self, exchange: &Exchange, attempts: usize) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Ai(plan) => {
                let took = exchange.last_attempt_took();
                plan.retry_policy().has_room(took, attempts)
            }
        }
    }

    /// See [`AiPlan::keep_larger`].
    fn keep_larger(&self, member: usize, tried: &mut Tried) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Ai(plan) => plan.keep_larger(member, tried),
        }
    }

    /// Tells what a failed try showed, if that is only told when another follows.
    fn tell_retry(&self, exchange: &Exchange, member: usize, held: &Held) {
        if let (Self::Plain(plan), Held::Failure(failure)) = (self, held) {
            evidence::of_failed_try(exchange, plan, member, failure);
        }
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
        if let Err(error) = &sent
            && error.fault == TransportFault::Overtaken
        {
            exchange.forget_attempt();
            match (self, sent) {
                (Self::Plain(plan), Err(error)) => plan.take_back(error.unsent),
                (Self::Ai(plan), _) => plan.take_back(exchange),
                (Self::Plain(_), Ok(_)) => {}
            }
            return Outcome::Overtaken;
        }
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
        attempts: usize,
        trial: bool,
        began: Instant,
    ) -> Ruling {
        match self {
            Self::Plain(plan) => judge::plain(plan, outcome, attempts, clock::now() - began),
            Self::Ai(plan) => judge::ai(
                plan.retry_policy(),
                outcome,
                attempts,
                exchange.last_attempt_took(),
                trial,
            ),
        }
    }

    fn deliver(self, exchange: &mut Exchange, accepted: judge::Accepted) -> Response<Body> {
        match self {
            Self::Plain(_) => http::deliver(exchange, accepted),
            Self::Ai(_) => ai::deliver_accepted(exchange, accepted),
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

/// How often a request is picked for anew because its target fell before anything was sent. Targets that flap
/// faster than connections are made would keep it for ever; beyond that, each counts as tried.
const OVERTAKEN_MAX: usize = 16;
