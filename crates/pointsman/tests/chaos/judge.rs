//! Whether a request ever reached an instance that was known to be unhealthy: see the top of `chaos.rs`.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::load::{Instance, Sent, Shown, Switch, Verdicts};

/// From the one moment to the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span(pub(crate) Instant, pub(crate) Instant);

impl Span {
    fn holds(self, from: Instant, to: Instant) -> bool {
        self.0 < from && to < self.1
    }
}

/// When an instance was known to be healthy, or unhealthy: see the top of this file.
fn known(instance: &Instance, at: usize, shown: &[Shown<Verdicts>], healthy: bool) -> Vec<Span> {
    let switches = instance.switches.lock().expect("not poisoned").clone();
    let probes = instance.upstream.probes();
    let end = shown.last().expect("it was watched").answered;
    let span = |(index, switch): (usize, &Switch)| {
        let over = switches.get(index + 1).map_or(end, |next| next.before);
        let probe = probes.iter().find(|probe| probe.at > switch.after)?.at;
        let known = shown
            .iter()
            .find(|shown| shown.asked > probe && shown.what.usable[at] == Some(healthy))?;
        (known.answered < over).then_some(Span(known.answered, over))
    };
    let to = |(_, switch): &(usize, &Switch)| switch.to_healthy == healthy;
    switches
        .iter()
        .enumerate()
        .filter(to)
        .filter_map(span)
        .collect()
}

/// What the judge found.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) violations: Vec<String>,
    /// Requests that arrived where they may, while somebody else was known to be unhealthy.
    pub(crate) passed: usize,
    /// Times in which somebody was known to be unhealthy.
    pub(crate) outages: usize,
}

/// When each of the instances was known to be healthy, or unhealthy, by verdicts alone.
pub(crate) fn known_of_all(
    instances: &[Instance],
    shown: &[Shown<Verdicts>],
    healthy: bool,
) -> Vec<Vec<Span>> {
    let each = instances.iter().enumerate();
    each.map(|(at, instance)| known(instance, at, shown, healthy))
        .collect()
}

/// Looks at every arrival at every instance: `bad` and `good` say when each was known to be what.
pub(crate) fn judge(
    instances: &[Instance],
    bad: &[Vec<Span>],
    good: &[Vec<Span>],
    sent: &HashMap<String, Sent>,
) -> Verdict {
    let mut arrivals: HashMap<String, Vec<(Instant, usize)>> = HashMap::new();
    for (at, instance) in instances.iter().enumerate() {
        for received in instance.upstream.requests() {
            let id = received.header("x-id").expect("sent by us").to_owned();
            arrivals.entry(id).or_default().push((received.at, at));
        }
    }
    let mut verdict = Verdict {
        outages: bad.iter().map(Vec::len).sum(),
        ..Verdict::default()
    };
    let within = |spans: &[Span], from, to| spans.iter().any(|span| span.holds(from, to));
    for (id, sent) in sent {
        let mut of_request = arrivals.remove(id).unwrap_or_default();
        of_request.sort_unstable();
        let mut cause = sent.before;
        for &(arrived, at) in &of_request {
            let mut others = (0..instances.len()).filter(|&other| other != at);
            let is_bad = within(&bad[at], cause, arrived);
            if is_bad && (others.clone()).any(|other| within(&good[other], cause, arrived)) {
                let name = instances[at].name;
                let story = format!("{id} to {name}, {:?} after its cause", arrived - cause);
                verdict.violations.push(story);
            }
            verdict.passed +=
                usize::from(!is_bad && others.any(|other| within(&bad[other], cause, arrived)));
            cause = arrived;
        }
        // With somebody who answers all the time there is an answer.
        let was_good = |spans: &Vec<Span>| within(spans, sent.before, sent.after);
        if sent.status != 200 && good.iter().any(was_good) {
            verdict
                .violations
                .push(format!("{id} got {}: {of_request:?}", sent.status));
        }
    }
    assert!(arrivals.is_empty(), "nobody sent these: {arrivals:?}");
    verdict
}

/// From each deciding probe's arrival to the last request that arrived behind it in that outage, though
/// somebody else was known to be healthy all the while: by the stand-ins' own logs alone, so that sending
/// the answer, taking it in, publishing and what was on its way are all in it.
fn last_arrivals(instances: &[Instance], good: &[Vec<Span>]) -> Vec<Duration> {
    let mut found = Vec::new();
    for (at, instance) in instances.iter().enumerate() {
        let switches = instance.switches.lock().expect("not poisoned").clone();
        let (probes, requests) = (instance.upstream.probes(), instance.upstream.requests());
        for (index, switch) in switches.iter().enumerate() {
            if switch.to_healthy {
                continue;
            }
            let over = switches.get(index + 1).map(|next| next.before);
            let decided = probes.iter().find(|probe| probe.at > switch.after);
            let (Some(decided), Some(over)) = (decided.map(|probe| probe.at), over) else {
                continue;
            };
            if decided > over {
                continue;
            }
            let others = || good.iter().enumerate().filter(|(other, _)| *other != at);
            let avoidable = |to| {
                let mut spans = others().flat_map(|(_, spans)| spans);
                spans.any(|span| span.holds(decided, to))
            };
            if !avoidable(decided) {
                continue;
            }
            let arrivals = requests.iter().map(|request| request.at);
            let last = arrivals.filter(|&to| decided < to && to < over && avoidable(to));
            found.push(last.max().map_or(Duration::ZERO, |last| last - decided));
        }
    }
    found.sort_unstable();
    found
}

/// Says how soon verdicts were obeyed. What it says is no claim: this is a build without optimisation, and
/// the clients share its cores (`pointsman-bench verdict` measures).
#[expect(clippy::print_stdout, reason = "how soon is worth a look")]
pub(crate) fn tell_last_arrivals(instances: &[Instance], good: &[Vec<Span>]) {
    let found = last_arrivals(instances, good);
    assert!(!found.is_empty(), "no outage was decided by a probe");
    let share = |share: usize| found[(found.len() * share / 100).min(found.len() - 1)];
    println!(
        "from the deciding probe to the last request: p50 {:?}, p99 {:?}, longest {:?} of {}",
        share(50),
        share(99),
        share(100),
        found.len()
    );
}

impl Verdict {
    /// No violation, in a world in which there could have been some.
    #[expect(clippy::print_stdout, reason = "how much was tried is worth a look")]
    pub(crate) fn check(&self, sent: &HashMap<String, Sent>) {
        let (count, passed, outages) = (sent.len(), self.passed, self.outages);
        println!("{count} requests, {passed} of them past one of {outages} outages");
        assert!(self.violations.is_empty(), "{:#?}", self.violations);
        assert!(outages > 1 && passed > 100, "too little was tried");
    }
}
