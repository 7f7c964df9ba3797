//! What can stand between the load and the mock upstream, and how it is started.
//!
//! A gateway is started afresh for every measurement, on the gateway's core, with one worker and an
//! access log to a file. Its configuration is in the file that bears its name.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

use clap::ValueEnum;
use serde::Serialize;

use super::child::Child;
use super::interrupt::Interrupt;
use super::programs::Programs;
use super::scenario::Scenario;
use super::{nginx, pointsman};

/// What stands between the load and the mock upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Target {
    /// Nothing.
    Direct,
    /// `proxy_pass` and no more.
    Nginx,
    /// Key-auth, ai-proxy-multi with three health-checked instances, usage, metrics, access log.
    Pointsman,
    /// The same, with instances that speak Anthropic Messages.
    Translated,
}

/// A gateway that accepts connections.
#[derive(Debug)]
pub(super) struct Gateway {
    pub(super) address: SocketAddr,
    /// `None` for direct.
    pub(super) process: Option<Child>,
}

impl Target {
    /// Those measured unless asked otherwise.
    pub(super) const DEFAULT: [Self; 3] = [Self::Direct, Self::Nginx, Self::Pointsman];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Nginx => "nginx",
            Self::Pointsman => "pointsman",
            Self::Translated => "translated",
        }
    }

    /// Starts it in front of the mock's listeners and waits until it accepts connections.
    pub(super) fn start(
        self,
        programs: &Programs,
        folder: &Path,
        mocks: &[SocketAddr],
        scenario: Scenario,
        interrupt: &Interrupt,
    ) -> Result<Gateway, String> {
        match self {
            Self::Direct => {
                let address = *mocks.first().ok_or("the mock has no listener")?;
                Ok(Gateway {
                    address,
                    process: None,
                })
            }
            Self::Nginx => nginx::start(programs, folder, mocks, scenario, interrupt),
            Self::Pointsman => pointsman::start(programs, folder, mocks, None, interrupt),
            Self::Translated => {
                let protocol = Some("anthropic-messages");
                pointsman::start(programs, folder, mocks, protocol, interrupt)
            }
        }
    }
}

/// An address that was free a moment ago, for programs that can't say which port the system chose
/// for them.
pub(super) fn free_address() -> Result<SocketAddr, String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .map_err(|error| format!("no free port: {error}"))?;
    listener.local_addr().map_err(|error| error.to_string())
}

pub(super) fn write(file: &Path, text: &str) -> Result<(), String> {
    fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}
