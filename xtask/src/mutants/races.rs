//! Mutants of races: what is broken, and which scenario from outside must notice.

use super::Mutant;

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "each user of a target has one of its own",
        file: "crates/pointsman-gateway/src/upstream/health.rs",
        text: "hostname: configured.to_owned(),",
        replacement: "hostname: format!(\"{configured} of {owner} {member}\"),",
        test: "-p pointsman --test races r02",
    },
    Mutant {
        name: "an address that changes its name starts healthy, where every answer is another",
        file: "crates/pointsman-balance/src/health/group/departed.rs",
        text: "here.any(is_down) || self.groups.departed.has(place, now)",
        replacement: "here.any(is_down) && self.groups.departed.has(place, now)",
        test: "-p pointsman --test races r08",
    },
    Mutant {
        name: "an address that comes back starts healthy",
        file: "crates/pointsman-balance/src/health/group/departed.rs",
        text: "here.any(is_down) || self.groups.departed.has(place, now)",
        replacement: "here.any(is_down)",
        test: "-p pointsman --test races r15_an_address",
    },
    Mutant {
        name: "an idle connection to an address that is gone, under load",
        file: "crates/pointsman/src/http_client/pool.rs",
        text: "to.is_none_or(|to| idle.connection.address.ip() == to)",
        replacement: "to.is_none_or(|_| true)",
        test: "-p pointsman --test races r04",
    },
    Mutant {
        name: "a worker's requests share the addresses that they were picked for",
        file: "crates/pointsman-gateway/src/forward/ai.rs",
        text: "        let Located { addresses, group } = std::mem::take(&mut self.located);",
        replacement: "        thread_local! {\n            static LAST: std::cell::RefCell<Located> = \
                      std::cell::RefCell::new(Located::default());\n        }\n        \
                      let own = std::mem::take(&mut self.located);\n        \
                      let Located { addresses, group } = \
                      LAST.with_borrow_mut(|last| std::mem::replace(last, own));",
        test: "-p pointsman --test races r05",
    },
    Mutant {
        name: "a request goes by the newest configuration, not by its own",
        file: "crates/pointsman-gateway/src/forward/ai.rs",
        text: "        let target = Arc::clone(&call.target);",
        replacement: "        let newest = exchange.gateway().snapshot();\n        \
                      let target = match newest.pools.get(&call.target.key) {\n            \
                      Some(PoolRef::Ai(target)) => Arc::clone(target),\n            \
                      _ => Arc::clone(&call.target),\n        };",
        test: "-p pointsman --test races r06_uploads",
    },
    Mutant {
        name: "what a verdict goes with has no name",
        file: "crates/pointsman-gateway/src/upstream/health.rs",
        text: "format!(\"{:?}\", (owner, member, node.host, port, configured))",
        replacement: "format!(\"{:?}\", (owner, node.host, port, configured))",
        test: "-p pointsman --test races r07",
    },
    Mutant {
        name: "what a verdict goes with is written without separators",
        file: "crates/pointsman-gateway/src/upstream/health.rs",
        text: "format!(\"{:?}\", (owner, member, node.host, port, configured))",
        replacement: "format!(\"{owner}{member}{}{port}{configured}\", node.host)",
        test: "-p pointsman --test races r09_names",
    },
    Mutant {
        name: "other checks of an address are taken for those before",
        file: "crates/pointsman-balance/src/health/monitor/settle.rs",
        text: "            if let Some(&id) = self.by_definition.get(&wish.definition) {",
        replacement: "            let same = wish.ancestors.first();\n            \
                      if let Some(&id) = self.by_definition.get(&wish.definition).or(same) {",
        test: "-p pointsman --test races r09_numbers",
    },
    Mutant {
        name: "a document is known by its CRC-32",
        file: "crates/pointsman/src/config_source/file.rs",
        text: "        digest.copy_from_slice(digest::digest(&digest::SHA256, &bytes).as_ref());",
        replacement: "        let _ = digest::digest(&digest::SHA256, &[]);\n        \
                      let crc = bytes.iter().fold(!0u32, |state, byte| {\n            \
                      (0..8).fold(state ^ u32::from(*byte), |state, _| {\n                \
                      (state >> 1) ^ if state & 1 == 1 { 0xedb8_8320 } else { 0 }\n            })\n        });\n        \
                      digest[..4].copy_from_slice(&crc.to_le_bytes());",
        test: "-p pointsman --test races r10",
    },
    Mutant {
        name: "epochs are used again, seen from outside",
        file: "crates/pointsman-balance/src/health/availability.rs",
        text: "        self.epoch += 1;",
        replacement: "        self.epoch = (self.epoch + 1) % 4;",
        test: "-p pointsman --test races r11",
    },
    Mutant {
        name: "what is new is not probed by itself",
        file: "crates/pointsman-balance/src/health/monitor/settle.rs",
        text: "            self.settle_wishes(wanted, groups, now);\n        }\n        self.schedule.let_go(now);",
        replacement: "            self.settle_wishes(wanted, groups, now);\n        }",
        test: "-p pointsman --test races r14",
    },
    Mutant {
        name: "a reload resets the counters, seen from outside",
        file: "crates/pointsman-balance/src/health/monitor/settle.rs",
        text: "                ids.push(id);\n                continue;",
        replacement: "                ids.push(id);\n                if let Some(target) = self.targets.get_mut(&id) {\n                    \
                      target.state.counters = Default::default();\n                }\n                continue;",
        test: "-p pointsman --test races r15_who",
    },
    Mutant {
        name: "what stays is probed anew with every reload",
        file: "crates/pointsman-balance/src/health/schedule.rs",
        text: "            let phase = match earlier.map(|entry| entry.phase) {",
        replacement: "            let phase = match earlier.map(|entry| entry.phase).filter(|_| false) {",
        test: "-p pointsman --test races r16",
    },
    Mutant {
        name: "what is gone is probed on",
        file: "crates/pointsman-balance/src/health/monitor/settle.rs",
        text: "            let wanted = self.wishes(|line| !targets.contains(line));",
        replacement: "            let wanted = self.wishes(|line| !targets.contains(line) || true);",
        test: "-p pointsman --test races r16",
    },
    Mutant {
        name: "whoever else is picked for evicts a picker, which begins anew",
        file: "crates/pointsman-balance/src/picker/round_robin.rs",
        text: "        let mut position = self.cursor.0.load(Ordering::Relaxed);",
        replacement: "        static LAST: std::sync::atomic::AtomicUsize = \
                      std::sync::atomic::AtomicUsize::new(0);\n        \
                      let own = std::ptr::from_ref(self).addr();\n        \
                      if LAST.swap(own, Ordering::Relaxed) != own {\n            \
                      self.cursor.0.store(0, Ordering::Relaxed);\n        }\n        \
                      let mut position = self.cursor.0.load(Ordering::Relaxed);",
        test: "-p pointsman --test races r19",
    },
];
