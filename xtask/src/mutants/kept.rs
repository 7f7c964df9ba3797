//! Mutants of the health file: what is believed of it, what is written, and when.

use super::Mutant;

const FILE: &str = "crates/pointsman/src/health_file/mod.rs";
const FORMAT: &str = "crates/pointsman/src/health_file/format.rs";
const FINGERPRINT: &str = "crates/pointsman-gateway/src/upstream/fingerprint.rs";

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "a health file is used however old",
        file: FILE,
        text: "if self.time.age(at_ms) > age_max(policy) {",
        replacement: "if self.time.age(at_ms) > age_max(policy) && false {",
        test: "-p pointsman --test restart an_old_file",
    },
    Mutant {
        name: "a health file from the future is used",
        file: FILE,
        text: "if contents.saved_ms > wall_ms.saturating_add(CLOCK_SLACK_MS) {",
        replacement: "if contents.saved_ms > wall_ms.saturating_add(CLOCK_SLACK_MS) && false {",
        test: "-p pointsman --test restart a_file_from_the_future",
    },
    Mutant {
        name: "a damaged health file is used",
        file: FORMAT,
        text: "    if sum != checksum(body) {",
        replacement: "    if sum != checksum(body) && false {",
        test: "-p pointsman --test restart a_damaged_file",
    },
    Mutant {
        name: "a health file of another version is used",
        file: FORMAT,
        text: "    if lines.next() != Some(VERSION) {",
        replacement: "    if lines.next() != Some(VERSION) && false {",
        test: "-p pointsman --test restart a_damaged_file",
    },
    Mutant {
        name: "a health file is replaced before it was read",
        file: FILE,
        text: "let left = self.left.get()?;",
        replacement: "let left = self.left.get().unwrap_or(&None);",
        test: "-p pointsman --test restart verdicts_wait",
    },
    Mutant {
        name: "the end of the process writes nothing",
        file: FILE,
        text: "        self.save();\n        if let Some(file) = &self.file",
        replacement: "        if let Some(file) = &self.file",
        test: "-p pointsman --test restart a_drain_writes",
    },
    Mutant {
        name: "a target has one name in all health files",
        file: FILE,
        text: "        let salt = rand::random();",
        replacement: "        let salt = [7; 32];",
        test: "-p pointsman --test restart the_file_says_nothing",
    },
    Mutant {
        name: "a restart forgets what was counted",
        file: FILE,
        text: "            counters: line.counters,",
        replacement: "            counters: Counters::default(),",
        test: "-p pointsman --test restart a_restart_in_an_outage",
    },
    Mutant {
        name: "what was kept is taken in after the first requests",
        file: "crates/pointsman/src/publisher.rs",
        text: "            file.restore(&self.health, clock::now());",
        replacement: "            let (file, health) = (Arc::clone(file), Arc::clone(&self.health));\n            \
                      std::thread::spawn(move || {\n                \
                      std::thread::sleep(std::time::Duration::from_millis(200));\n                \
                      file.restore(&health, clock::now());\n            });",
        test: "-p pointsman --test restart a_restart_under_load",
    },
    Mutant {
        name: "a restart forgets cool-downs",
        file: FILE,
        text: ".filter(|until_ms| *until_ms > self.time.wall_ms)",
        replacement: ".filter(|until_ms| *until_ms > self.time.wall_ms && false)",
        test: "-p pointsman --test restart cool_downs_and_open",
    },
    Mutant {
        name: "a restart forgets open circuits",
        file: FILE,
        text: "Circuit::Open(until_ms) if is_recent(until_ms) => {",
        replacement: "Circuit::Open(until_ms) if is_recent(until_ms) && false => {",
        test: "-p pointsman --test restart cool_downs_and_open",
    },
    Mutant {
        name: "the probe is no part of a target's name in the health file",
        file: FINGERPRINT,
        text: "            text.add(\"kind\", \"http\");\n            text.request(request);",
        replacement: "            text.add(\"kind\", \"http\");\n            let _ = request;",
        test: "-p pointsman --test restart another_configuration",
    },
    Mutant {
        name: "all guards have one name in the health file",
        file: FINGERPRINT,
        text: "    text.add(\"guard\", key);",
        replacement: "    text.add(\"guard\", &key[..0]);",
        test: "-p pointsman --test restart cool_downs_and_open",
    },
    Mutant {
        name: "the end of a probe in a panic goes unnoticed",
        file: "crates/pointsman/src/prober.rs",
        text: "                probe.await;\n                drop(watched);",
        replacement: "                drop(watched);\n                probe.await;",
        test: "-p pointsman --bin pointsman panics_ends",
    },
    Mutant {
        name: "the end of a look-up in a panic goes unnoticed",
        file: "crates/pointsman/src/names.rs",
        text: "let _watched = Watched(Arc::clone(&signals));",
        replacement: "drop(Watched(Arc::clone(&signals)));",
        test: "-p pointsman --bin pointsman panics_ends",
    },
    Mutant {
        name: "who keeps health no longer writes nothing",
        file: "crates/pointsman/src/run.rs",
        text: "                    keeper.finish();\n                    return Err(lost);",
        replacement: "                    return Err(lost);",
        test: "-p pointsman --bin pointsman panics_ends",
    },
    Mutant {
        name: "durations go by the wall clock",
        file: "crates/pointsman-gateway/src/clock.rs",
        text: "    Instant::now()\n}",
        replacement: "    static START: OnceLock<(Instant, SystemTime)> = OnceLock::new();\n    \
                      let (at, then) = *START.get_or_init(|| (Instant::now(), SystemTime::now()));\n    \
                      match SystemTime::now().duration_since(then) {\n        \
                      Ok(since) => at + since,\n        \
                      Err(before) => at.checked_sub(before.duration()).unwrap_or(at),\n    }\n}",
        test: "-p pointsman --test clock",
    },
    Mutant {
        name: "the health file goes by the time of its first write",
        file: "crates/pointsman/src/health_file/mod.rs",
        text: "                now,\n                wall_ms: clock::unix_millis(),",
        replacement: "                now,\n                wall_ms: {\n                    \
                      static START: OnceLock<(Instant, u64)> = OnceLock::new();\n                    \
                      let (at, ms) = *START.get_or_init(|| (now, clock::unix_millis()));\n                    \
                      ms + millis(now.saturating_duration_since(at))\n                },",
        test: "-p pointsman --test clock the_health_file_follows",
    },
];
