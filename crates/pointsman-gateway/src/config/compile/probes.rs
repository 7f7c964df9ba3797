//! The first pass: which probes does a document want?
//!
//! Only what can be picked is probed. A route that turns out not to compile, or an upstream that
//! nobody can reach, is known only after the second pass; its probes are taken back then.

use std::collections::HashSet;

use pointsman_balance::TargetId;

use super::{Input, carriers::Carrier, carriers::Carriers, plugins};
use crate::{
    config::{problem::Report, resource::plugins::Plugins, snapshot::Checked, text::join},
    upstream::{build, health::Checker},
};

/// A checker and the resource that wants it.
pub(super) struct Plan<'a> {
    pub(super) checker: Checker,
    carrier: &'a Carrier<'a>,
    /// Path in the resource from which remarks count.
    path: String,
}

/// Everything that the documents want checked, in their order: plain upstreams that stand alone,
/// then plugins, then inline upstreams.
pub(super) fn plan<'a>(input: &Input<'_>, carriers: &'a Carriers<'a>) -> Vec<Plan<'a>> {
    let mut plans = Vec::new();
    let stands_alone = |carrier: &&Carrier<'_>| carrier.plugins.is_none();
    let of_upstream = |carrier: &'a Carrier<'a>| {
        let (upstream, path) = carrier.upstream?;
        let checker = build::checker(carrier.key, upstream)?;
        Some(Plan {
            checker,
            carrier,
            path: path.to_owned(),
        })
    };
    let all = carriers.all();
    plans.extend(all.iter().filter(stands_alone).filter_map(of_upstream));
    for carrier in all {
        for (name, conf) in carrier.plugins.into_iter().flat_map(Plugins::iter) {
            let kind = input.registry.kind(name);
            let Some(checkers) = kind.and_then(|kind| kind.checkers) else {
                continue;
            };
            let conf = conf.value();
            if plugins::is_disabled(&conf) {
                continue;
            }
            let conf = plugins::resolved(&conf, input.elsewhere());
            let found = checkers(&conf, carrier.key).into_iter();
            plans.extend(found.map(|checker| Plan {
                checker,
                carrier,
                path: join("plugins", name),
            }));
        }
    }
    let inline = all.iter().filter(|carrier| !stands_alone(carrier));
    plans.extend(inline.filter_map(of_upstream));
    plans
}

/// Tells what operators should know about the checks that apply.
pub(super) fn remarks(plans: &[Plan<'_>], report: &mut Report<'_>) {
    for plan in plans {
        for (path, text) in &plan.checker.remarks {
            let path = join(&plan.path, path);
            report.warning(plan.carrier.spot(), &path, text);
        }
    }
}

/// Keeps the plans whose pool exists; returns whether any is gone.
pub(super) fn drop_unbuilt(plans: &mut Vec<Plan<'_>>, built: &HashSet<String>) -> bool {
    let before = plans.len();
    plans.retain(|plan| built.contains(&plan.checker.owner));
    plans.len() < before
}

/// The health report's view of what is checked, one entry per checker.
pub(super) fn report(plans: Vec<Plan<'_>>, ids: &[Vec<TargetId>]) -> Vec<Checked> {
    // Made anew rather than in the room of the plans, which are larger.
    let mut checked = Vec::with_capacity(plans.len());
    for (plan, ids) in plans.into_iter().zip(ids) {
        let mut targets: Vec<(TargetId, _)> = Vec::with_capacity(ids.len());
        for (probe, id) in plan.checker.probes.into_iter().zip(ids) {
            // Two nodes that share address and probe port are one target.
            if !targets.iter().any(|(other, _)| other == id) {
                targets.push((*id, probe.wanted.probe));
            }
        }
        checked.push(Checked {
            collection: plan.carrier.collection,
            id: plan.carrier.id.to_owned(),
            report: plan.checker.report,
            kind: plan.checker.kind,
            targets,
        });
    }
    checked
}
