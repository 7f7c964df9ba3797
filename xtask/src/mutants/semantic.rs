//! Mutants of balancing by meaning: the order, and what comes before it.

use super::Mutant;

const ORDER: &str = "crates/pointsman-balance/src/pool/in_order.rs";
const RANK: &str = "crates/pointsman-balance/src/semantic.rs";
const KEEPER: &str = "crates/pointsman-gateway/src/semantic/keeper.rs";
const SEMANTIC: &str = "crates/pointsman-gateway/src/semantic/mod.rs";

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "likeness comes before health",
        file: ORDER,
        text: "untried(member) && usable(member));",
        replacement: "untried(member) && (usable(member) || true));",
        test: "-p pointsman --test semantic health_comes_before",
    },
    Mutant {
        name: "no fail-open in an order",
        file: ORDER,
        text: "        let fails_open = !self.any_usable(availability);",
        replacement: "        let fails_open = !self.any_usable(availability) && false;",
        test: "-p pointsman --test semantic health_comes_before",
    },
    Mutant {
        name: "fail-open in an order once all usable ones were tried",
        file: ORDER,
        text: "        if fails_open && let Some(&member) =",
        replacement: "        if (fails_open || true) && let Some(&member) =",
        test: "-p pointsman-balance --test properties i2_i3_i23_a_pick_in_order",
    },
    Mutant {
        name: "an order offers whom it offered before",
        file: ORDER,
        text: "member < self.len() && !ask.tried.contains(member);",
        replacement: "member < self.len() && !(ask.tried.contains(member) && false);",
        test: "-p pointsman --test semantic a_retry_goes",
    },
    Mutant {
        name: "those who suit least come first",
        file: RANK,
        text: "    best_first.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));",
        replacement: "    best_first.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));",
        test: "-p pointsman-balance --lib those_who_clear",
    },
    Mutant {
        name: "thresholds of likeness are ignored",
        file: RANK,
        text: "scores[*member] + ROUNDING >= thresholds[*member];",
        replacement: "scores[*member] + ROUNDING >= thresholds[*member] || true;",
        test: "-p pointsman --test semantic an_instance_may_ask",
    },
    Mutant {
        name: "a member is as suitable as its worst example",
        file: RANK,
        text: "best.fold(-1.0, f32::max).min(1.0)",
        replacement: "best.fold(1.0, f32::min).max(-1.0)",
        test: "-p pointsman-balance --lib a_member_is_as_suitable",
    },
    Mutant {
        name: "a reload loses the vectors of examples",
        file: KEEPER,
        text: "                semantic.publish(references);",
        replacement: "                let _ = references;",
        test: "-p pointsman --test semantic vectors_outlive",
    },
    Mutant {
        name: "a batch that failed is never tried again",
        file: KEEPER,
        text: "                entry.due = Some(now + wait);",
        replacement: "                entry.due = None;",
        test: "-p pointsman --test semantic examples_are_tried",
    },
    Mutant {
        name: "an endpoint that is out is asked by every request",
        file: SEMANTIC,
        text: "        if self.outage.is_on() {",
        replacement: "        if self.outage.is_on() && false {",
        test: "-p pointsman --test semantic an_endpoint_that_is_out",
    },
    Mutant {
        name: "without scores the fallback is not the first",
        file: SEMANTIC,
        text: "std::iter::once(self.fallback).chain(others).collect()",
        replacement: "others.chain(std::iter::once(self.fallback)).collect()",
        test: "-p pointsman --test semantic without_a_vector",
    },
];
