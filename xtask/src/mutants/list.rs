//! The mutants: what is broken, and which test must notice.

use super::Mutant;

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "an unusable member is picked",
        file: "crates/pointsman-balance/src/health/availability.rs",
        text: "        bits & !self.unusable.get(word).copied().unwrap_or_default()",
        replacement: "        bits",
        test: "-p pointsman-balance --test properties i2_i3",
    },
    Mutant {
        name: "verdicts are not looked at",
        file: "crates/pointsman-balance/src/health/availability.rs",
        text: "        self.unusable.get(word).is_none_or(|bits| bits & bit == 0)",
        replacement: "        true",
        test: "-p pointsman-balance --test pick",
    },
    Mutant {
        name: "guards are not looked at",
        file: "crates/pointsman-balance/src/health/gate.rs",
        text: "self.has_usable_target(availability) && self.shut(availability).next().is_none()",
        replacement: "self.has_usable_target(availability)",
        test: "-p pointsman-balance --test guards a_cool_down",
    },
    Mutant {
        name: "members are carried over by their place",
        file: "crates/pointsman-balance/src/pool.rs",
        text: "find(names, by_name, previous.name(member))",
        replacement: "Some(member).filter(|_| names.len() == by_name.len())",
        test: "-p pointsman-balance --test properties i19_d16",
    },
    Mutant {
        name: "no fail-open",
        file: "crates/pointsman-balance/src/pool.rs",
        text: "        if self.any_usable(availability) {\n            return Err(",
        replacement: "        if true {\n            return Err(",
        test: "-p pointsman-balance --test pick d6_a_lone_member",
    },
    Mutant {
        name: "fail-open once all usable ones were tried",
        file: "crates/pointsman-balance/src/pool.rs",
        text: "        if self.any_usable(availability) {\n            return Err(",
        replacement: "        if false {\n            return Err(",
        test: "-p pointsman-balance --test pick i3_a_retry_ends",
    },
    Mutant {
        name: "a trial of a lower tier than what is offered",
        file: "crates/pointsman-balance/src/pool/trial.rs",
        text: "let mut asking = self.stages[..stages]",
        replacement: "let mut asking = self.stages[stages.min(0)..]",
        test: "-p pointsman-balance --test guards no_trial_of_a_lower",
    },
    Mutant {
        name: "a trial is claimed for ever",
        file: "crates/pointsman-balance/src/health/guard.rs",
        text: "        self.claim.store(false, Ordering::Release);",
        replacement: "",
        test: "-p pointsman-balance --test guards an_open_circuit",
    },
    Mutant {
        name: "two trials at once",
        file: "crates/pointsman-balance/src/health/guard.rs",
        text: "self.claim.swap(true, Ordering::AcqRel)",
        replacement: "self.claim.load(Ordering::Acquire)",
        test: "-p pointsman-balance --test guards an_open_circuit",
    },
    Mutant {
        name: "a trial of an earlier period counts",
        file: "crates/pointsman-balance/src/health/guard.rs",
        text: "if !Arc::ptr_eq(&trial.claim, claim) {",
        replacement: "if false {",
        test: "-p pointsman-balance --test guards",
    },
    Mutant {
        name: "a cool-down shrinks",
        file: "crates/pointsman-balance/src/health/guard.rs",
        text: "guard.cools_until.is_some_and(|earlier| earlier >= until)",
        replacement: "guard.cools_until.is_some_and(|earlier| earlier == until)",
        test: "-p pointsman-balance --test guards a_cool_down",
    },
    Mutant {
        name: "an old success ends a row of failures",
        file: "crates/pointsman-balance/src/health/guard.rs",
        text: "                && self.nanos(began) > self.failed_at.load(Ordering::Relaxed)",
        replacement: "                && self.nanos(began) < u64::MAX",
        test: "-p pointsman-balance --test guards an_old_success",
    },
    Mutant {
        name: "a stale success counts",
        file: "crates/pointsman-balance/src/health/monitor.rs",
        text: "self.failed_at.is_some_and(|failed_at| began < failed_at)",
        replacement: "self.failed_at.is_some_and(|failed_at| began < failed_at && false)",
        test: "-p pointsman-balance --test guards a_success_counts_only",
    },
    Mutant {
        name: "a lapsed ticket counts",
        file: "crates/pointsman-balance/src/health/schedule.rs",
        text: "self.serial == serial && known < self.void_at",
        replacement: "serial <= self.serial",
        test: "-p pointsman-balance --test schedule",
    },
    Mutant {
        name: "a probe of an older definition counts",
        file: "crates/pointsman-balance/src/health/monitor.rs",
        text: "            self.schedule.forget(id);\n",
        replacement: "",
        test: "-p pointsman-balance --test health i14",
    },
    Mutant {
        name: "a reload resets the counters",
        file: "crates/pointsman-balance/src/health/monitor.rs",
        text: "                ids.push(id);\n                continue;",
        replacement: "                ids.push(id);\n                if let Some(target) = self.targets.get_mut(&id) {\n                    \
                      target.state.counters = Counters::default();\n                }\n                continue;",
        test: "-p pointsman-balance --test health i6_i9_i10_i11",
    },
    Mutant {
        name: "another probe makes a verdict forgotten",
        file: "crates/pointsman-balance/src/health/monitor.rs",
        text: "ancestors.iter().all(|&id| self.availability.usable(id))",
        replacement: "ancestors.len() < usize::MAX",
        test: "-p pointsman-balance --test health d4",
    },
    Mutant {
        name: "epochs are used again",
        file: "crates/pointsman-balance/src/health/availability.rs",
        text: "        self.epoch += 1;",
        replacement: "        self.epoch = (self.epoch + 1) % 4;",
        test: "-p pointsman-balance --test health i6",
    },
    Mutant {
        name: "what was kept goes over newer evidence",
        file: "crates/pointsman-balance/src/health/monitor/kept.rs",
        text: "target.last.is_none() && target.state == State::with_verdict(true)",
        replacement: "target.last.is_none() || target.state != State::with_verdict(true)",
        test: "-p pointsman-balance --test kept evidence_of_its_own",
    },
    Mutant {
        name: "a lost answer keeps its slot",
        file: "crates/pointsman-balance/src/health/schedule.rs",
        text: "                self.release_slot(target);\n                self.place(target, Phase::Due(at));\n                continue;",
        replacement: "                self.place(target, Phase::Due(at));\n                continue;",
        test: "-p pointsman-balance --test schedule a_checker_full_of_lost",
    },
    Mutant {
        name: "load is never released",
        file: "crates/pointsman-balance/src/load.rs",
        text: "        self.gauge.in_flight.fetch_sub(1, Ordering::Relaxed);",
        replacement: "        self.gauge.in_flight.fetch_sub(0, Ordering::Relaxed);",
        test: "-p pointsman-balance --test load i26",
    },
    Mutant {
        name: "configuration before the verdicts that it needs",
        file: "crates/pointsman-gateway/src/gateway.rs",
        text: "        self.availability.store(availability);\n        self.snapshot.store(snapshot);",
        replacement: "        self.snapshot.store(snapshot);\n        std::thread::yield_now();\n        \
                      self.availability.store(availability);",
        test: "-p pointsman-gateway --test freshness",
    },
    Mutant {
        name: "a verdict is told and not published",
        file: "crates/pointsman-gateway/src/upstream/driver.rs",
        text: "        state.publish_availability(self.monitor.availability());\n        self.tell(&change, outcome);",
        replacement: "        self.tell(&change, outcome);\n        if false {\n            \
                      state.publish_availability(self.monitor.availability());\n        }",
        test: "-p pointsman-gateway --test freshness",
    },
    Mutant {
        name: "every second change of a verdict is not published",
        file: "crates/pointsman-gateway/src/gateway.rs",
        text: "        self.availability.store(availability);\n    }",
        replacement: "        if availability.epoch() % 2 == 0 {\n            \
                      self.availability.store(availability);\n        }\n    }",
        test: "-p pointsman --test chaos flapping",
    },
    Mutant {
        name: "a probe of an older definition counts, seen from outside",
        file: "crates/pointsman-balance/src/health/monitor.rs",
        text: "            self.schedule.forget(id);\n",
        replacement: "",
        test: "-p pointsman --test races r13",
    },
    Mutant {
        name: "retries go by the verdicts of the first attempt",
        file: "crates/pointsman-gateway/src/forward/mod.rs",
        text: "        let availability = exchange.gateway().availability();\n        let ask = Ask {",
        replacement: "        thread_local! {\n            static FIRST: \
                      std::cell::RefCell<Option<Arc<pointsman_balance::Availability>>> = \
                      const { std::cell::RefCell::new(None) };\n        }\n        \
                      let availability = FIRST.with_borrow_mut(|first| {\n            \
                      if exchange.attempts.is_empty() || first.is_none() {\n                \
                      *first = Some(Arc::clone(&exchange.gateway().availability()));\n            }\n            \
                      Arc::clone(first.as_ref().expect(\"just set\"))\n        });\n        let ask = Ask {",
        test: "-p pointsman --test races r18",
    },
    Mutant {
        name: "no look at the verdicts before sending",
        file: "crates/pointsman/src/http_client/mod.rs",
        text: "Ok((connection, _)) if !attempt.holds(connection.address.ip()) => {",
        replacement: "Ok((connection, _)) if !attempt.holds(connection.address.ip()) && false => {",
        test: "-p pointsman --test overtaken a_verdict_that_comes_while_connecting",
    },
    Mutant {
        name: "an idle connection to an address that is gone",
        file: "crates/pointsman/src/http_client/pool.rs",
        text: "to.is_none_or(|to| idle.connection.address.ip() == to)",
        replacement: "to.is_none_or(|_| true)",
        test: "-p pointsman --test names i15_r4",
    },
    Mutant {
        name: "an address that changes its name starts healthy",
        file: "crates/pointsman-balance/src/health/group.rs",
        text: "here.any(is_down) || self.groups.departed.has(place, now)",
        replacement: "here.any(is_down) && self.groups.departed.has(place, now)",
        test: "-p pointsman --test names a_swap",
    },
    Mutant {
        name: "a failed look-up takes the addresses away",
        file: "crates/pointsman-gateway/src/upstream/resolve.rs",
        text: "                (1, false) => Change::Stays,",
        replacement: "                (1, false) => {\n                    self.addresses.clear();\n                    Change::Addresses(0)\n                }",
        test: "-p pointsman --test names d11",
    },
    Mutant {
        name: "a repeat does not look at the verdicts",
        file: "crates/pointsman-balance/src/pool.rs",
        text: "        if failed_open && self.any_usable(availability) {\n            return None;",
        replacement: "        if failed_open && self.any_usable(availability) && false {\n            return None;",
        test: "-p pointsman --test evidence a_repeat_obeys",
    },
    Mutant {
        name: "what was tried is not marked",
        file: "crates/pointsman-gateway/src/forward/mod.rs",
        text: "        tried.mark(bid.member);",
        replacement: "",
        test: "-p pointsman --test ai_balancing retries_obey",
    },
    Mutant {
        name: "a request that may have been served is sent again",
        file: "crates/pointsman-gateway/src/forward/judge.rs",
        text: "                && plan.may_repeat();",
        replacement: "                && (plan.may_repeat() || true);",
        test: "-p pointsman --test gateway plain_upstreams_balance_retry",
    },
];
