//! What makes a target, as a text that is the same in every process and every build.
//!
//! Health is kept over a restart under a name made from this text, so it must hold all that makes
//! two targets different and nothing else. It holds credentials, too: it is to be hashed under a
//! key, and never to be written anywhere.

use std::fmt::Display;

use pointsman_balance::{Breaker, GuardSpec, Policy};

use crate::upstream::health::{ProbeKind, ProbeRequest, ProbeSpec};

/// The canonical text of a definition. Every part has its name and its length in bytes before it,
/// so no two definitions have one text.
pub fn canonical(probe: &ProbeSpec, policy: &Policy) -> String {
    let mut text = Text::new();
    // Taken apart in full, so that a new field cannot be forgotten here.
    let ProbeSpec {
        kind,
        host,
        port,
        hostname,
    } = probe;
    text.add("host", host);
    text.add("port", port);
    text.add("hostname", hostname);
    match kind {
        ProbeKind::Tcp => text.add("kind", "tcp"),
        ProbeKind::Http(request) => {
            text.add("kind", "http");
            text.request(request);
        }
        ProbeKind::Https {
            request,
            server_name,
            verify,
        } => {
            text.add("kind", "https");
            text.request(request);
            text.add("server_name", server_name);
            text.add("verify", verify);
        }
    }
    text.policy(policy);
    text.into_string()
}

/// The canonical text of a guard, which no target has.
pub fn canonical_guard(spec: &GuardSpec) -> String {
    let mut text = Text::new();
    let GuardSpec { key, breaker } = spec;
    text.add("guard", key);
    if let Some(breaker) = breaker {
        let Breaker {
            failures,
            error_percent,
            min_attempts,
            window,
            open,
            open_max,
            trials,
        } = breaker;
        text.add("failures", failures);
        text.add("error_percent", error_percent);
        text.add("min_attempts", min_attempts);
        text.add("window", window.as_nanos());
        text.add("open", open.as_nanos());
        text.add("open_max", open_max.as_nanos());
        text.add("trials", trials);
    }
    text.into_string()
}

/// A text of parts, each with its name and its length: equal iff all parts are. For identities that
/// outlive the process, which `Debug` must not decide about: what that writes is nobody's promise.
pub(crate) struct Text(String);

impl Text {
    /// Without parts.
    pub(crate) fn new() -> Self {
        Self(String::with_capacity(512))
    }

    /// The whole.
    pub(crate) fn into_string(mut self) -> String {
        self.0.shrink_to_fit();
        self.0
    }

    /// One part more.
    pub(crate) fn add(&mut self, name: &str, value: impl Display) {
        let value = value.to_string();
        self.0
            .push_str(&format!("{name} {} {value}\n", value.len()));
    }

    fn request(&mut self, request: &ProbeRequest) {
        let ProbeRequest {
            method,
            target,
            host,
            lines,
            body,
            reuse,
        } = request;
        self.add("method", method);
        self.add("target", target);
        self.add("host_line", host);
        self.add("lines", lines.len());
        for line in lines {
            self.add("line", line);
        }
        self.add("body", body);
        // Only if it is set: the texts of all others stay as they were without it.
        if *reuse {
            self.add("reuse", reuse);
        }
    }

    fn policy(&mut self, policy: &Policy) {
        let Policy {
            healthy_interval,
            healthy_statuses,
            successes,
            unhealthy_interval,
            unhealthy_statuses,
            http_failures,
            tcp_failures,
            timeouts,
            timeout,
            concurrency,
        } = policy;
        let list = |statuses: &[u16]| {
            let words: Vec<String> = statuses.iter().map(ToString::to_string).collect();
            words.join(",")
        };
        self.add("healthy_interval", healthy_interval.as_nanos());
        self.add("healthy_statuses", list(healthy_statuses));
        self.add("successes", successes);
        self.add("unhealthy_interval", unhealthy_interval.as_nanos());
        self.add("unhealthy_statuses", list(unhealthy_statuses));
        self.add("http_failures", http_failures);
        self.add("tcp_failures", tcp_failures);
        self.add("timeouts", timeouts);
        self.add("timeout", timeout.as_nanos());
        self.add("concurrency", concurrency);
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use super::*;

    fn request() -> ProbeRequest {
        ProbeRequest {
            method: "GET".to_owned(),
            target: "/health".to_owned(),
            host: "a.com".to_owned(),
            lines: vec!["Authorization: Bearer x".to_owned()],
            body: String::new(),
            reuse: false,
        }
    }

    fn spec(kind: ProbeKind) -> ProbeSpec {
        ProbeSpec {
            kind,
            host: "10.0.0.1".to_owned(),
            port: 80,
            hostname: "a.com".to_owned(),
        }
    }

    fn https(request: ProbeRequest, server_name: &str, verify: bool) -> ProbeSpec {
        spec(ProbeKind::Https {
            request,
            server_name: server_name.to_owned(),
            verify,
        })
    }

    /// A change of this text makes every gateway forget, once, what it knew before an update.
    #[test]
    fn the_text_stays_as_it_is() {
        assert_eq!(
            canonical(&spec(ProbeKind::Http(request())), &Policy::default()),
            "host 8 10.0.0.1\nport 2 80\nhostname 5 a.com\nkind 4 http\nmethod 3 GET\n\
             target 7 /health\nhost_line 5 a.com\nlines 1 1\nline 23 Authorization: Bearer x\n\
             body 0 \nhealthy_interval 10 1000000000\nhealthy_statuses 7 200,302\n\
             successes 1 2\nunhealthy_interval 10 1000000000\n\
             unhealthy_statuses 31 429,404,500,501,502,503,504,505\nhttp_failures 1 5\n\
             tcp_failures 1 2\ntimeouts 1 3\ntimeout 10 1000000000\nconcurrency 2 10\n"
        );
    }

    #[test]
    fn every_part_of_a_definition_tells() {
        let probes = [
            spec(ProbeKind::Tcp),
            spec(ProbeKind::Http(request())),
            https(request(), "a.com", true),
            https(request(), "b.com", true),
            https(request(), "a.com", false),
            ProbeSpec {
                host: "10.0.0.2".to_owned(),
                ..spec(ProbeKind::Tcp)
            },
            ProbeSpec {
                port: 81,
                ..spec(ProbeKind::Tcp)
            },
            ProbeSpec {
                hostname: "b.com".to_owned(),
                ..spec(ProbeKind::Tcp)
            },
        ];
        let requests = [
            ProbeRequest {
                method: "POST".to_owned(),
                ..request()
            },
            ProbeRequest {
                target: "/health?key=1".to_owned(),
                ..request()
            },
            ProbeRequest {
                host: "b.com".to_owned(),
                ..request()
            },
            ProbeRequest {
                lines: vec!["Authorization: Bearer y".to_owned()],
                ..request()
            },
            ProbeRequest {
                // Passes for two parts if lengths are left out.
                lines: vec!["Authorization: Bearer x\nline 4 X: y".to_owned()],
                ..request()
            },
            ProbeRequest {
                lines: vec!["Authorization: Bearer x".to_owned(), "X: y".to_owned()],
                ..request()
            },
            ProbeRequest {
                body: "{}".to_owned(),
                ..request()
            },
            ProbeRequest {
                reuse: true,
                ..request()
            },
        ];
        let requests = requests.map(|request| spec(ProbeKind::Http(request)));
        let policies = policies();
        let tcp = spec(ProbeKind::Tcp);
        let texts: HashSet<String> = (probes.iter().chain(&requests))
            .map(|probe| canonical(probe, &Policy::default()))
            .chain(policies.iter().map(|policy| canonical(&tcp, policy)))
            .collect();
        assert_eq!(texts.len(), probes.len() + requests.len() + policies.len());
    }

    /// Each with one field that is not the default.
    fn policies() -> Vec<Policy> {
        let set: [fn(&mut Policy); 10] = [
            |policy| policy.healthy_interval = Duration::from_millis(1),
            |policy| policy.healthy_statuses = vec![200],
            |policy| policy.successes = 9,
            |policy| policy.unhealthy_interval = Duration::from_millis(1),
            |policy| policy.unhealthy_statuses = vec![500],
            |policy| policy.http_failures = 9,
            |policy| policy.tcp_failures = 9,
            |policy| policy.timeouts = 9,
            |policy| policy.timeout = Duration::from_millis(1),
            |policy| policy.concurrency = 9,
        ];
        let changed = set.map(|set| {
            let mut policy = Policy::default();
            set(&mut policy);
            policy
        });
        changed.into()
    }

    #[test]
    fn every_part_of_a_guard_tells() {
        let breaker = Breaker {
            failures: 1,
            error_percent: 2,
            min_attempts: 3,
            window: Duration::from_nanos(4),
            open: Duration::from_nanos(5),
            open_max: Duration::from_nanos(6),
            trials: 7,
        };
        let spec = |breaker| GuardSpec {
            key: "k".to_owned(),
            breaker,
        };
        assert_eq!(
            canonical_guard(&spec(Some(breaker))),
            "guard 1 k\nfailures 1 1\nerror_percent 1 2\nmin_attempts 1 3\nwindow 1 4\nopen 1 5\n\
             open_max 1 6\ntrials 1 7\n"
        );
        assert_eq!(canonical_guard(&spec(None)), "guard 1 k\n");
    }
}
