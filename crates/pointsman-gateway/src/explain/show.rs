//! An explanation as text for people and as JSON for programs.

use std::fmt;

use serde_json::{Value, json};

use super::{Attempt, Explanation, Picks, Replay, Request, Standing, words::list};

impl Explanation {
    /// As JSON; `line` is its number in the log.
    pub fn json(&self, line: usize) -> Value {
        let request = &self.request;
        let mut value = json!({
            "line": line,
            "time": request.time,
            "method": request.method,
            "uri": request.uri,
            "status": request.status,
            "route_id": request.route,
            "request_id": request.id,
        });
        match &self.picks {
            Err(why) => value["nothing_to_explain"] = json!(why),
            Ok(picks) => {
                value["pool"] = json!(picks.pool);
                value["algorithm"] = json!(picks.algorithm);
                value["members"] = json!(picks.members);
                value["picks"] = picks.attempts.iter().map(Attempt::json).collect();
            }
        }
        value
    }
}

impl Attempt {
    fn json(&self) -> Value {
        let left_out = self.left_out.iter();
        let left_out =
            left_out.map(|(member, reasons)| json!({"member": member, "reasons": reasons}));
        let eligible = self.eligible.iter().map(|(tier, members)| {
            let mut tier = tier.json();
            tier["members"] = json!(members);
            tier
        });
        let (same, replayed, differences) = match &self.replay {
            Replay::Same => (Some(true), Some(&self.member), &[][..]),
            Replay::Differs(replayed, differences) => {
                (Some(false), replayed.as_ref(), &differences[..])
            }
            Replay::Impossible(_) => (None, None, &[][..]),
        };
        let impossible = match &self.replay {
            Replay::Impossible(why) => Some(why),
            _ => None,
        };
        json!({
            "member": self.member,
            "epoch": self.epoch,
            "failed_open": self.failed_open,
            "trial": self.trial,
            "outcome": self.outcome,
            "tried": self.tried,
            "excluded": left_out.collect::<Value>(),
            "eligible": eligible.collect::<Value>(),
            "tier": self.tier.map(Standing::json),
            "decided": self.decided,
            "replayed": replayed,
            "same": same,
            "differences": differences,
            "not_replayable": impossible,
        })
    }
}

impl Standing {
    fn json(self) -> Value {
        json!({ "priority": self.priority, "last_resort": self.is_last_resort })
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.request)?;
        match &self.picks {
            Err(why) => writeln!(f, "  nothing to explain: {why}"),
            Ok(picks) => write!(f, "{picks}"),
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            time,
            method,
            uri,
            status,
            ..
        } = self;
        write!(f, "{time} {method} {uri}: {status}")?;
        if let Some(route) = &self.route {
            write!(f, ", route {route}")?;
        }
        match &self.id {
            Some(id) => write!(f, ", request {id}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Picks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            pool,
            algorithm,
            members,
            ..
        } = self;
        writeln!(f, "  pool {pool}: {algorithm}, {members} member(s)")?;
        for (number, attempt) in (1..).zip(&self.attempts) {
            let Attempt { member, epoch, .. } = attempt;
            let outcome = &attempt.outcome;
            writeln!(
                f,
                "  attempt {number} went to {member}, by the verdicts of epoch {epoch}; {outcome}"
            )?;
            write!(f, "{attempt}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left_out = self.left_out.iter();
        let left_out = left_out.map(|(name, reasons)| format!("{name} ({})", reasons.join(", ")));
        writeln!(f, "    left out: {}", list(left_out))?;
        if self.failed_open {
            writeln!(f, "    nobody was usable, so health was ignored")?;
        }
        if !self.tried.is_empty() {
            writeln!(f, "    tried before: {}", list(self.tried.iter()))?;
        }
        for (tier, members) in &self.eligible {
            writeln!(f, "    eligible at {tier}: {}", list(members.iter()))?;
        }
        if let Some(tier) = self.tier {
            writeln!(f, "    picked at {tier}")?;
        }
        writeln!(f, "    decided by: {}", self.decided)?;
        match &self.replay {
            Replay::Same => writeln!(f, "    replayed: {}; same answer: yes", self.member),
            Replay::Differs(replayed, differences) => {
                let name = replayed.as_deref().unwrap_or("nobody");
                writeln!(
                    f,
                    "    replayed: {name}; same answer: no: {}",
                    differences.join("; ")
                )
            }
            Replay::Impossible(why) => writeln!(f, "    not replayable: {why}"),
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = if self.is_last_resort {
            ", weight 0"
        } else {
            ""
        };
        write!(f, "priority {}{last}", self.priority)
    }
}
