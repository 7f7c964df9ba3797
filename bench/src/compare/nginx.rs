//! nginx as the plain proxy that Pointsman is compared with.

use std::fmt::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use super::child::{self, Child, Errors};
use super::gateway::{self, Gateway};
use super::interrupt::Interrupt;
use super::programs::Programs;
use super::scenario::Scenario;

pub(super) fn start(
    programs: &Programs,
    folder: &Path,
    mocks: &[SocketAddr],
    scenario: Scenario,
    interrupt: &Interrupt,
) -> Result<Gateway, String> {
    let address = gateway::free_address()?;
    let file = folder.join("nginx.conf");
    gateway::write(&file, &conf(address, mocks, Buffering::of(scenario)))?;
    let program = programs
        .nginx
        .as_deref()
        .ok_or("nginx was not looked for")?;
    let mut command = child::command(programs.gateway_core, program);
    command
        .arg("-p")
        .arg(folder)
        .args(["-e", "stderr"])
        .arg("-c")
        .arg(file);
    if scenario != Scenario::Rss {
        command.envs(KEEP_FREED_MEMORY);
    }
    let mut process = Child::start("nginx", &mut command, folder, Errors::ToFile)?;
    process.wait_for(interrupt, |_| TcpStream::connect(address).ok())?;
    Ok(Gateway {
        address,
        process: Some(process),
    })
}

/// Whether nginx collects an answer before it passes it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Buffering {
    On,
    Off,
}

impl Buffering {
    /// On, as by default, except for streams, which would otherwise not be streams.
    fn of(scenario: Scenario) -> Self {
        if scenario.is_stream() {
            Self::Off
        } else {
            Self::On
        }
    }
}

/// Relative paths are below the folder given with `-p`. Request bodies are buffered, as by default,
/// but always in memory: Pointsman doesn't write them to disk either. The limits on requests per
/// connection are lifted because reconnecting isn't what is compared.
fn conf(listen: SocketAddr, mocks: &[SocketAddr], buffering: Buffering) -> String {
    let buffering = match buffering {
        Buffering::On => "on",
        Buffering::Off => "off",
    };
    let servers = mocks.iter().fold(String::new(), |mut servers, mock| {
        // Writing to a string cannot fail.
        let _ = writeln!(servers, "    server {mock};");
        servers
    });
    format!(
        "daemon off;
worker_processes 1;
pid nginx.pid;
events {{ worker_connections 4096; }}
http {{
  access_log access.log;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  client_body_buffer_size 512k;
  client_max_body_size 16m;
  keepalive_timeout 300s;
  keepalive_requests 1000000000;
  upstream mock {{
{servers}    keepalive 128;
    keepalive_requests 1000000000;
  }}
  server {{
    listen {listen};
    location / {{
      proxy_pass http://mock;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      proxy_buffering {buffering};
    }}
  }}
}}
"
    )
}

/// With a 256 KiB body, glibc may return the freed buffer to the kernel after each request and get
/// it back page by page for the next, or may not, as the heap happens to lie: nginx then costs half
/// as much again in some runs. Told to keep what is freed, it is at its best in every run. It
/// doesn't get this help where memory is what is measured.
const KEEP_FREED_MEMORY: [(&str, &str); 2] = [
    ("MALLOC_TRIM_THRESHOLD_", "67108864"),
    ("MALLOC_MMAP_THRESHOLD_", "33554432"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_streams_are_unbuffered() {
        let address = SocketAddr::from(([127, 0, 0, 1], 8080));
        let text = |scenario| conf(address, &[address, address], Buffering::of(scenario));
        assert!(text(Scenario::SseBurst).contains("proxy_buffering off;"));
        assert!(text(Scenario::Rss).contains("proxy_buffering on;"));
        assert_eq!(
            text(Scenario::Json1k)
                .matches("    server 127.0.0.1:8080;")
                .count(),
            2
        );
    }
}
