//! What the kernel says about other processes, read from `/proc`: CPU time, memory, children,
//! allowed cores.
//!
//! Linux only. A process that ends while it is being read simply counts for nothing; its parent is
//! charged with its CPU time once it has been waited for, which is why the waited-for children are
//! part of every sum.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A process id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Pid(pub(crate) u32);

/// The part of `/proc/<pid>/stat` that matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) parent: Pid,
    /// Process group; unlike the parent it stays when the parent dies.
    pub(crate) group: Pid,
    /// Ended, but its parent hasn't waited for it yet.
    pub(crate) ended: bool,
    /// User and system time of all threads, live and ended, and of children that were waited for.
    pub(crate) cpu: Duration,
}

/// Resident memory of one or more processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Memory {
    /// Sum of `VmRSS`; pages shared by two of the processes count twice.
    pub(crate) rss_kib: u64,
    /// Sum of `Pss`, where a shared page is divided among all that map it.
    pub(crate) pss_kib: u64,
}

/// What is known of a live process, or `None` if there is none of that id.
pub(crate) fn stat(pid: Pid) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{}/stat", pid.0)).ok()?)
}

/// The process and all its descendants. Walks the whole of `/proc`, so it takes milliseconds.
pub(crate) fn tree(root: Pid) -> Vec<Pid> {
    let mut children: HashMap<Pid, Vec<Pid>> = HashMap::new();
    for (pid, stat) in all() {
        children.entry(stat.parent).or_default().push(pid);
    }
    let mut found = vec![root];
    let mut at = 0;
    while let Some(parent) = found.get(at) {
        let born = children.remove(parent);
        found.extend(born.into_iter().flatten());
        at += 1;
    }
    found
}

/// The members of a process group, orphans included. One that has ended but wasn't waited for
/// doesn't count.
pub(crate) fn group(group: Pid) -> Vec<Pid> {
    all()
        .filter(|(_, stat)| stat.group == group && !stat.ended)
        .map(|(pid, _)| pid)
        .collect()
}

/// CPU time so far of the given processes, user and system.
pub(crate) fn cpu(pids: &[Pid]) -> Duration {
    pids.iter()
        .filter_map(|&pid| stat(pid))
        .map(|stat| stat.cpu)
        .sum()
}

/// Resident memory now of the given processes.
pub(crate) fn memory(pids: &[Pid]) -> Memory {
    let kib = |pid: Pid, file: &str, key: &str| {
        let text = fs::read_to_string(format!("/proc/{}/{file}", pid.0)).unwrap_or_default();
        parse_kib(&text, key).unwrap_or(0)
    };
    Memory {
        rss_kib: pids.iter().map(|&pid| kib(pid, "status", "VmRSS")).sum(),
        pss_kib: pids
            .iter()
            .map(|&pid| kib(pid, "smaps_rollup", "Pss"))
            .sum(),
    }
}

/// The cores this process may run on, in order; empty if the kernel doesn't say.
pub(crate) fn allowed_cores() -> Vec<usize> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    field(&status, "Cpus_allowed_list")
        .and_then(parse_list)
        .unwrap_or_default()
}

fn all() -> impl Iterator<Item = (Pid, Stat)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid));
    pids.filter_map(|pid| Some((pid, stat(pid)?)))
}

/// The name of a process comes second, in parentheses, and may itself hold spaces and parentheses.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, after_name) = text.rsplit_once(')')?;
    let fields: Vec<&str> = after_name.split_ascii_whitespace().collect();
    let number = |position: usize| {
        fields
            .get(position - FIRST_FIELD_AFTER_NAME)?
            .parse::<u64>()
            .ok()
    };
    let ticks: u64 = [number(14)?, number(15)?, number(16)?, number(17)?]
        .iter()
        .sum();
    Some(Stat {
        ended: fields.first() == Some(&"Z"),
        parent: Pid(u32::try_from(number(4)?).ok()?),
        group: Pid(u32::try_from(number(5)?).ok()?),
        cpu: Duration::from_millis(ticks * MILLIS_PER_TICK),
    })
}

fn parse_kib(text: &str, key: &str) -> Option<u64> {
    field(text, key)?
        .strip_suffix("kB")?
        .trim_end()
        .parse()
        .ok()
}

/// The value of a line `key: value`.
fn field<'text>(text: &'text str, key: &str) -> Option<&'text str> {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
        .map(str::trim)
}

/// A list such as `0-3,8`.
fn parse_list(text: &str) -> Option<Vec<usize>> {
    let mut cores = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cores.extend(first.trim().parse::<usize>().ok()?..=last.trim().parse().ok()?);
    }
    Some(cores)
}

/// Fields of `stat` are numbered from 1 in proc(5); 1 and 2 are the id and the name.
const FIRST_FIELD_AFTER_NAME: usize = 3;

/// `USER_HZ` is 100 on every architecture we run on, whatever the kernel's own tick; it is part of
/// its interface.
const MILLIS_PER_TICK: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_past_an_awkward_name() {
        let text =
            "812 (a) S 1) (b) R 77 812 812 0 -1 4194560 9 8 7 6 120 30 4 5 20 0 3 0 987654 1 2 3";
        assert_eq!(
            parse_stat(text),
            Some(Stat {
                ended: false,
                parent: Pid(77),
                group: Pid(812),
                cpu: Duration::from_millis(1590),
            })
        );
        let ended = parse_stat(&text.replace(") R", ") Z"));
        assert!(ended.is_some_and(|stat| stat.ended));
        assert_eq!(parse_stat("812 (a) S 1"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn memory_lines_are_found_by_their_whole_name() {
        let status = "Name:\tx\nVmRSSx:\t9 kB\nVmRSS:\t    5120 kB\nCpus_allowed_list:\t0-1\n";
        assert_eq!(parse_kib(status, "VmRSS"), Some(5120));
        assert_eq!(parse_kib(status, "Pss"), None);
        assert_eq!(parse_kib("Pss_Anon: 1 kB\nPss:  77 kB\n", "Pss"), Some(77));
        assert_eq!(field(status, "Cpus_allowed_list"), Some("0-1"));
    }

    #[test]
    fn core_lists() {
        assert_eq!(parse_list("0-3,8"), Some(vec![0, 1, 2, 3, 8]));
        assert_eq!(parse_list("5"), Some(vec![5]));
        assert_eq!(parse_list("x"), None);
    }

    #[test]
    fn this_process_is_found_and_has_memory() {
        let me = Pid(std::process::id());
        let pids = tree(me);
        assert!(pids.contains(&me));
        let memory = memory(&pids);
        assert!(memory.rss_kib > 0 && memory.pss_kib > 0);
        let mine = stat(me).unwrap();
        assert!(tree(mine.parent).contains(&me));
        assert!(group(mine.group).contains(&me));
    }
}
