//! Reading what `observe/access_log/picks.rs` writes. Lines come from outside: each part is checked.

use pointsman_balance::{Decision, Drawn};
use serde_json::{Map, Value};

use super::Request;
use crate::forward::picks::{Members, Reason};

/// A line of the access log.
pub(super) struct Entry(Map<String, Value>);

/// A pick as the log has it.
pub(super) struct Logged {
    pub(super) member: String,
    pub(super) epoch: u64,
    pub(super) failed_open: bool,
    pub(super) trial: bool,
    pub(super) excluded_count: usize,
    pub(super) outcome: String,
    pub(super) by: By,
    pub(super) tried: Members,
    /// By [`Reason`].
    pub(super) out: [Members; Reason::ALL.len()],
    /// Whom it was not to take is not written down.
    pub(super) is_too_large: bool,
}

/// What a pick went by.
pub(super) enum By {
    /// What the picker read.
    Decision(Decision),
    /// The order of likeness.
    Order(Vec<usize>),
    /// The same member was asked once more.
    Again,
    /// No picker decided, or what it read is not written down.
    Nothing,
    /// The line does not say.
    Unknown,
}

impl By {
    /// The algorithm that goes by such a thing, in the words of the configuration.
    pub(super) const fn algorithm(&self) -> Option<&'static str> {
        match self {
            Self::Decision(Decision::Position(_)) => Some("roundrobin"),
            Self::Decision(Decision::Hash(_)) => Some("chash"),
            Self::Decision(Decision::InFlight { .. }) => Some("least_conn"),
            Self::Decision(Decision::Drawn { .. }) => Some("ewma"),
            Self::Order(_) => Some("semantic"),
            Self::Again | Self::Nothing | Self::Unknown => None,
        }
    }
}

impl Entry {
    pub(super) fn parse(line: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(line).map_err(|error| {
            let what = if error.is_eof() {
                "it is cut off"
            } else {
                "it is no JSON"
            };
            format!("{what} ({error}): give lines of the access log as they were written")
        })?;
        let Value::Object(entry) = value else {
            return Err("it is no JSON object: give lines of the access log".to_owned());
        };
        if ["time", "method", "status"]
            .iter()
            .any(|key| !entry.contains_key(*key))
        {
            return Err(
                "it is no line of the access log: it has no time, method or status".to_owned(),
            );
        }
        Ok(Self(entry))
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.as_str()
    }

    pub(super) fn request(&self) -> Request {
        let text = |key: &str| self.text(key).map(str::to_owned);
        Request {
            time: text("time").unwrap_or_default(),
            method: text("method").unwrap_or_default(),
            uri: text("uri").unwrap_or_default(),
            status: self
                .0
                .get("status")
                .and_then(Value::as_u64)
                .unwrap_or_default(),
            route: text("route_id"),
            id: text("request_id"),
        }
    }

    /// The pool's identity, and the digest of its configuration.
    pub(super) fn pool(&self) -> Result<(&str, &str), String> {
        let part = |key: &str| self.text(key).ok_or_else(|| format!("`{key}` is no text"));
        Ok((part("pool")?, part("pool_digest")?))
    }

    /// Its picks; or why there are none to be made again.
    pub(super) fn picks(&self) -> Result<Result<Vec<Logged>, String>, String> {
        let Some(picks) = self.0.get("picks") else {
            let why = if self.0.contains_key("upstream_addr") {
                "the line is of an earlier version: it says nothing of an attempt at the only member of a pool"
            } else {
                "it reached no target: the gateway answered it"
            };
            return Ok(Err(why.to_owned()));
        };
        if !self.0.contains_key("pool") {
            let why = "the line is of an earlier version: it does not say what its picks went by";
            return Ok(Err(why.to_owned()));
        }
        let picks = picks.as_array().ok_or("`picks` is no list")?;
        let read = picks.iter().enumerate().map(|(index, pick)| {
            Logged::parse(pick)
                .map_err(|wrong| format!("picks[{index}]: {wrong} is missing or wrong"))
        });
        read.collect::<Result<_, _>>().map(Ok)
    }
}

impl Logged {
    /// The pick; or the name of what is wrong with it.
    fn parse(pick: &Value) -> Result<Self, &'static str> {
        let replay = &pick["replay"];
        let flag = |key: &str| pick[key].as_bool();
        let set = |value: &Value, name| match value {
            Value::Null => Ok(Members::default()),
            text => text.as_str().and_then(Members::parse).ok_or(name),
        };
        let mut out: [Members; Reason::ALL.len()] = Default::default();
        for (reason, members) in Reason::ALL.into_iter().zip(&mut out) {
            *members = set(&replay["out"][reason.as_str()], "replay.out")?;
        }
        Ok(Self {
            member: pick["member"].as_str().ok_or("member")?.to_owned(),
            epoch: pick["epoch"].as_u64().ok_or("epoch")?,
            failed_open: flag("failed_open").ok_or("failed_open")?,
            trial: flag("trial").unwrap_or_default(),
            excluded_count: number(&pick["excluded_count"]).ok_or("excluded_count")?,
            outcome: outcome(pick),
            by: by(replay)?,
            tried: set(&replay["tried"], "replay.tried")?,
            out,
            is_too_large: replay["too_large"].as_bool().unwrap_or_default(),
        })
    }
}

fn outcome(pick: &Value) -> String {
    match (pick["status"].as_u64(), pick["error"].as_str()) {
        (Some(status), None) => format!("answered {status}"),
        (Some(status), Some(error)) => format!("answered {status}, then: {error}"),
        (None, Some(error)) => error.to_owned(),
        (None, None) => "had no answer".to_owned(),
    }
}

fn by(replay: &Value) -> Result<By, &'static str> {
    let Some(by) = replay.get("by") else {
        return Ok(By::Unknown);
    };
    Ok(match by.as_str().unwrap_or_default() {
        "roundrobin" => {
            let position = replay["position"].as_u64().ok_or("replay.position")?;
            By::Decision(Decision::Position(position))
        }
        "chash" => {
            let hash = number(&replay["hash"]).ok_or("replay.hash")?;
            By::Decision(Decision::Hash(hash))
        }
        "least_conn" => By::Decision(Decision::InFlight {
            first: number(&replay["first"]).ok_or("replay.first")?,
            counts: numbers(&replay["in_flight"])
                .ok_or("replay.in_flight")?
                .into(),
        }),
        "ewma" => By::Decision(drawn(&replay["drawn"]).ok_or("replay.drawn")?),
        "semantic" => By::Order(numbers(&replay["order"]).ok_or("replay.order")?),
        "again" => By::Again,
        "nothing" => By::Nothing,
        _ => return Err("replay.by"),
    })
}

fn number<T: TryFrom<u64>>(value: &Value) -> Option<T> {
    T::try_from(value.as_u64()?).ok()
}

fn numbers<T: TryFrom<u64>>(value: &Value) -> Option<Vec<T>> {
    value.as_array()?.iter().map(number).collect()
}

fn drawn(value: &Value) -> Option<Decision> {
    let one = |value: &Value| {
        let [member, latency] = value.as_array()?.as_slice() else {
            return None;
        };
        Some(Drawn {
            member: number(member)?,
            latency: latency.as_f64()? as f32,
        })
    };
    match value.as_array()?.as_slice() {
        [only] => Some(Decision::Drawn {
            one: one(only)?,
            other: None,
        }),
        [first, other] => Some(Decision::Drawn {
            one: one(first)?,
            other: Some(one(other)?),
        }),
        _ => None,
    }
}
