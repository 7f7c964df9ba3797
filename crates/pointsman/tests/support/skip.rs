//! What this machine cannot show is skipped, and everybody sees it.

use std::{
    io::Write,
    net::{Ipv6Addr, TcpListener},
};

/// Says so past the harness, which keeps what tests that pass have printed to itself.
pub(crate) fn loudly(what: &str, why: &str) {
    let line = format!("\n*** SKIPPED: {what} cannot be tested here: {why} ***\n\n");
    // Nobody who could be told is left if this fails.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Whether nobody can listen at `::1`, so that `what` is skipped. Under CI that is an error if the machine
/// has IPv6: then only the loopback address is missing, and a gate that looks away from that proves less
/// than it says.
pub(crate) fn without_ipv6(what: &str) -> bool {
    let Err(error) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) else {
        return false;
    };
    // One line for each address; nothing, or no file, where IPv6 is off.
    let addresses = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(
        !is_ci || addresses.is_empty(),
        "{what} must be tested under CI: the machine has IPv6, but nobody can listen at ::1: {error}"
    );
    loudly(what, &format!("nobody can listen at ::1: {error}"));
    true
}
