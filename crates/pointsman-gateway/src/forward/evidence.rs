//! What an attempt's end says about the health of its target, and to whom that is told.
//!
//! Fault attribution is here and nowhere else: a request that is wrong is nobody's fault but its
//! client's; a refused credential takes out the credential; a missing model takes out the model; a 429
//! is a quota, which waits but is no illness; everything of 500 and above, and a connection that fails,
//! is the target's.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, StatusCode};
use pointsman_ai::Complaint;
use pointsman_balance::{Availability, Passive, ProbeOutcome, TargetId, Trial};

use crate::{
    clock,
    config::plugin::ai_proxy::Cooldown,
    exchange::Exchange,
    failure::{Failure, TransportFault},
    forward::{Outcome, ai::AiPlan, http::PlainPlan, wait},
    plugins::ai_proxy::{AiInstance, Watch, is_credential},
    upstream::evidence::Evidence,
};

/// How an attempt came to be, as far as that decides what its end means.
pub struct Bid {
    /// Its member in the pool.
    pub member: usize,
    /// The right to try a half-open circuit.
    pub trial: Option<Trial>,
    /// Nobody was usable.
    pub failed_open: bool,
}

/// Whose fault the end of an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// There is none.
    Nobody,
    /// The request is wrong, or the client has gone.
    Client,
    /// It was a limit of ours, or our configuration.
    Gateway,
    /// A quota is used up.
    Quota,
    /// The credential was refused.
    Credential,
    /// There is no such model.
    Model,
    /// The target failed.
    Target,
}

/// Tells what an attempt at an AI instance has shown.
pub fn of_attempt(exchange: &mut Exchange, plan: &AiPlan, bid: &mut Bid, outcome: &Outcome) {
    let instance = &plan.target.instances[bid.member];
    let Some(watch) = instance.watch.as_deref() else {
        return;
    };
    let mut fault = fault_of(instance, watch, outcome, plan.complaint());
    // Whoever brings a key brings its quota: that of others is not used up.
    // (A session gets none of the client's.)
    if fault == Fault::Quota && !watch.has_credential && !plan.is_session() && brings_key(exchange)
    {
        fault = Fault::Client;
    }
    let attempt = exchange.attempts.last();
    let began = attempt.map_or(exchange.started, |attempt| attempt.started);
    let now = clock::now();
    // A stream that has begun may still break: it is judged by its end.
    let is_open =
        fault == Fault::Nobody && (exchange.ai.as_ref()).is_some_and(|call| call.is_open());
    if is_open {
        if let Some(attempt) = exchange.attempts.last_mut() {
            attempt.trial = bid.trial.take();
        }
    } else {
        tell_trial(exchange, bid.trial.take(), fault);
        tell_circuit(exchange, watch, fault, began, now);
    }
    if let Some(cooldown) = &watch.cooldown {
        cool_down(exchange, watch, cooldown, fault, outcome, now);
    }
    if let Some(passive) = &watch.passive
        && !is_open
        && let Some(seen) = seen(outcome, fault)
    {
        let targets = plan.target.pool.targets(bid.member);
        report(exchange, targets, passive, seen, began);
    }
}

/// Tells that there is no access token for a member, without which it cannot be asked.
pub fn of_missing_token(exchange: &Exchange, plan: &AiPlan, member: usize) {
    let watch = plan.target.instances[member].watch.as_deref();
    if let Some(watch) = watch
        && let (Some(rules), Some(guard)) = (&watch.cooldown, watch.credential)
        && rules.auth_failure_ms > 0
    {
        // It is asked for again all the time, and may be here sooner than a refused key works again.
        let wait = Duration::from_millis(rules.auth_failure_ms.min(rules.max_ms)).min(TOKEN_WAIT);
        exchange.gateway().report(Evidence::CoolDown {
            guard,
            until: clock::now() + wait,
            cause: "it has no access token",
        });
    }
}

/// How a stream ended that had begun.
#[derive(Clone, Copy, Debug)]
pub enum StreamEnd {
    /// As its protocol wants it.
    Well,
    /// It says itself that something is wrong: as a status.
    Said(u16),
    /// It broke off, or was silent for too long.
    Broken(TransportFault),
}

/// Tells how a stream ended that had begun, or another response whose head had been passed on.
pub fn of_stream(exchange: &mut Exchange, end: StreamEnd) {
    let attempt = exchange.attempts.last_mut();
    let trial = attempt.and_then(|attempt| attempt.trial.take());
    let (Some(call), Some(attempt)) = (&exchange.ai, exchange.attempts.last()) else {
        return;
    };
    let Some(member) = call.target.pool.member_by_name(&attempt.member) else {
        return;
    };
    let Some(watch) = call.target.instances[member].watch.as_deref() else {
        return;
    };
    let (fault, seen) = match end {
        StreamEnd::Broken(broken) => (Fault::Target, outcome_of(broken)),
        // What is no stream was judged when it was here.
        _ if !call.is_open() => return,
        StreamEnd::Well => (Fault::Nobody, ProbeOutcome::Status(attempt.status)),
        StreamEnd::Said(status) => {
            let instance = &call.target.instances[member];
            let fault = fault_of_status(instance, watch, status, None);
            (fault, ProbeOutcome::Status(status))
        }
    };
    tell_trial(exchange, trial, fault);
    tell_circuit(exchange, watch, fault, attempt.started, clock::now());
    if let Some(passive) = &watch.passive
        && matches!(fault, Fault::Nobody | Fault::Target)
    {
        let targets = call.target.pool.targets(member);
        report(exchange, targets, passive, seen, attempt.started);
    }
}

/// Tells that a try at a node of a plain upstream failed and another follows (APISIX 3.18).
pub fn of_failed_try(exchange: &Exchange, plan: &PlainPlan, member: usize, failure: &Failure) {
    let (Some(passive), Some(attempt)) =
        (&plan.upstream.passive.at_retry, exchange.attempts.last())
    else {
        return;
    };
    let Failure::PlainTransport(fault) = failure else {
        return;
    };
    if *fault == TransportFault::Exhausted {
        return;
    }
    let targets = plan.upstream.pool.targets(member);
    report(
        exchange,
        targets,
        passive,
        outcome_of(*fault),
        attempt.started,
    );
}

/// Tells the final status of a request to a plain upstream (APISIX 3.18, log phase).
pub fn of_end(exchange: &Exchange) {
    let upstream = match exchange.backend() {
        Some(crate::config::snapshot::Backend::Upstream(upstream)) => upstream,
        _ => return,
    };
    let (Some(passive), None) = (&upstream.passive.at_end, &exchange.ai) else {
        return;
    };
    if let (Some(attempt), Some(status)) = (exchange.attempts.last(), exchange.response.status)
        && let Some(member) = upstream.pool.member_by_name(&attempt.member)
    {
        let seen = ProbeOutcome::Status(status.as_u16());
        let targets = upstream.pool.targets(member);
        report(exchange, targets, passive, seen, attempt.started);
    }
}

/// Whether the client's own key may have been passed on.
fn brings_key(exchange: &Exchange) -> bool {
    let mut names = exchange.request.headers.keys();
    names.any(|name| is_credential(name.as_str()))
}

fn fault_of(
    instance: &AiInstance,
    watch: &Watch,
    outcome: &Outcome,
    complaint: Option<Complaint>,
) -> Fault {
    let status = match outcome {
        Outcome::Answer(answer) | Outcome::ErrorStatus(answer) => answer.response.status().as_u16(),
        Outcome::Overtaken | Outcome::Failed(Failure::Transport(TransportFault::Exhausted)) => {
            return Fault::Gateway;
        }
        Outcome::Failed(Failure::Transport(_) | Failure::BadAnswer(_) | Failure::NoFirstToken) => {
            return Fault::Target;
        }
        // What stands in a stream before its content is what the status would have been.
        Outcome::Failed(Failure::BadStream(error)) => error.status,
        Outcome::Failed(failure) => {
            return match failure.blame() {
                crate::failure::Blame::Client => Fault::Client,
                _ => Fault::Gateway,
            };
        }
    };
    fault_of_status(instance, watch, status, complaint)
}

/// Whose fault an answer with `status` is, or an error within a stream that stands for it.
fn fault_of_status(
    instance: &AiInstance,
    watch: &Watch,
    status: u16,
    complaint: Option<Complaint>,
) -> Fault {
    match status {
        429 => Fault::Quota,
        // 402: the account behind the credential has no credit left.
        401..=403 if watch.credential.is_some() && complaint.is_none() => Fault::Credential,
        // A model that the client has chosen is the client's affair.
        _ if complaint == Some(Complaint::ModelMissing) && instance.model.is_some() => Fault::Model,
        400..=499 => Fault::Client,
        500.. => Fault::Target,
        _ => Fault::Nobody,
    }
}

/// What the fault of an attempt says about whether its target works; `None`: nothing.
fn works(fault: Fault) -> Option<bool> {
    match fault {
        Fault::Nobody | Fault::Client => Some(true),
        Fault::Target => Some(false),
        Fault::Gateway | Fault::Quota | Fault::Credential | Fault::Model => None,
    }
}

/// The same of a trial, where any answer proves that somebody answers again: quotas, credentials and models
/// have guards of their own.
fn proves(fault: Fault) -> Option<bool> {
    match fault {
        Fault::Quota | Fault::Credential | Fault::Model => Some(true),
        _ => works(fault),
    }
}

/// Tells how a trial ended. One that says nothing is given back.
fn tell_trial(exchange: &Exchange, trial: Option<Trial>, fault: Fault) {
    if let (Some(trial), Some(succeeded)) = (trial, proves(fault)) {
        exchange
            .gateway()
            .report(Evidence::Trial { succeeded, trial });
    }
}

/// Counts the attempt for the instance's circuit.
fn tell_circuit(exchange: &Exchange, watch: &Watch, fault: Fault, began: Instant, now: Instant) {
    if let (Some(tally), Some(guard), Some(succeeded)) = (&watch.tally, watch.circuit, works(fault))
        && tally.record(succeeded, began, now)
    {
        exchange.gateway().report(Evidence::Trip { guard });
    }
}

/// Takes out for a while what asked for it, or is known not to work for a while.
fn cool_down(
    exchange: &Exchange,
    watch: &Watch,
    rules: &Cooldown,
    fault: Fault,
    outcome: &Outcome,
    now: Instant,
) {
    let asked = match outcome {
        Outcome::Answer(answer) | Outcome::ErrorStatus(answer) => {
            wait_asked(answer.response.status(), answer.response.headers())
        }
        Outcome::Failed(_) | Outcome::Overtaken => None,
    };
    let millis = |millis: u64| (millis > 0).then(|| Duration::from_millis(millis));
    let (guard, wait, cause) = match fault {
        Fault::Quota => {
            let wait = asked.or_else(|| millis(rules.default_ms));
            (watch.guard, wait, "its quota is used up")
        }
        Fault::Target => (watch.guard, asked, "it asked for time"),
        Fault::Credential => {
            let wait = millis(rules.auth_failure_ms);
            (watch.credential, wait, "the credential was refused")
        }
        Fault::Model => {
            let wait = millis(rules.model_missing_ms);
            (watch.guard, wait, "it does not have the model")
        }
        Fault::Nobody | Fault::Client | Fault::Gateway => return,
    };
    if let (Some(guard), Some(wait)) = (guard, wait) {
        let until = now + wait.min(Duration::from_millis(rules.max_ms));
        exchange.gateway().report(Evidence::CoolDown {
            guard,
            until,
            cause,
        });
    }
}

/// The wait that a response with this status asks for.
pub fn wait_asked(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    if status == StatusCode::TOO_MANY_REQUESTS {
        wait::asked(headers, clock::wall())
    } else {
        wait::retry_after(headers, clock::wall())
    }
}

/// How long an instance without an access token is out.
const TOKEN_WAIT: Duration = Duration::from_secs(5);

/// What passive checks see in the end of an attempt at an AI instance: never a status of the client's
/// making, nor a used-up quota.
fn seen(outcome: &Outcome, fault: Fault) -> Option<ProbeOutcome> {
    match (outcome, fault) {
        (Outcome::Failed(Failure::Transport(fault)), Fault::Target) => Some(outcome_of(*fault)),
        (Outcome::Failed(Failure::NoFirstToken), _) => Some(ProbeOutcome::Timeout),
        (
            Outcome::Failed(failure @ (Failure::BadAnswer(_) | Failure::BadStream(..))),
            Fault::Target,
        ) => Some(ProbeOutcome::Status(failure.status().as_u16())),
        (Outcome::Answer(answer) | Outcome::ErrorStatus(answer), Fault::Nobody | Fault::Target) => {
            Some(ProbeOutcome::Status(answer.response.status().as_u16()))
        }
        _ => None,
    }
}

fn outcome_of(fault: TransportFault) -> ProbeOutcome {
    if fault.is_timeout() {
        ProbeOutcome::Timeout
    } else {
        ProbeOutcome::TcpFailure
    }
}

/// Hands in what was seen of a member's targets, if it can change anything.
fn report(
    exchange: &Exchange,
    targets: &[TargetId],
    passive: &Arc<Passive>,
    outcome: ProbeOutcome,
    began: Instant,
) {
    if !passive.matters(outcome) {
        return;
    }
    let gateway = exchange.gateway();
    let dialled = exchange.attempts.last().and_then(|last| last.dialled);
    let is_success = passive.is_success(outcome);
    let concerned: Vec<TargetId> = {
        let availability = gateway.availability();
        let says_something = |id: &TargetId| !(is_success && availability.settled(*id));
        let of_address = |&target: &TargetId| concerned(target, dialled, &availability);
        let targets = targets.iter().filter_map(of_address);
        targets.filter(says_something).collect()
    };
    for target in concerned {
        gateway.report(Evidence::Request {
            target,
            outcome,
            passive: Arc::clone(passive),
            began,
        });
    }
}

/// Of what is at a name, the address that was dialled, if it is one of its addresses still.
fn concerned(
    target: TargetId,
    dialled: Option<SocketAddr>,
    availability: &Availability,
) -> Option<TargetId> {
    let addresses = availability.addresses(target);
    if addresses.is_empty() {
        return Some(target);
    }
    let ip = dialled.map(|address| address.ip());
    addresses.iter().find(|address| address.ip == ip)?.target
}
