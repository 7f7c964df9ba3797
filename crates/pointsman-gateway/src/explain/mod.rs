//! Why a request went where it went: the picks of a line of the access log, made again.
//!
//! A line holds what each pick went by: whom the verdicts of that moment left out and why, whom the
//! request had tried, and what the picker read. Together with the configuration that is all that a pick
//! is a function of. So the same [`Pool`] is asked once more, and must come to the same member. Nothing
//! here looks at what is known of targets now.

mod read;
mod show;
mod words;

use std::time::Duration;

use pointsman_balance::{Ask, Availability, Basis, Exhausted, Picked, Pool, TargetId, Tier, Tried};

use self::read::{By, Entry, Logged};
use crate::{
    config::snapshot::{PoolRef, Snapshot},
    forward::picks::{Members, Reason, Used},
};

/// A line of the access log, explained.
#[derive(Debug)]
pub struct Explanation {
    /// Which request it was.
    pub request: Request,
    /// Its picks, or why there are none to explain.
    pub picks: Result<Picks, String>,
}

/// What a line says of its request.
#[derive(Debug)]
pub struct Request {
    /// When it came, as written.
    pub time: String,
    /// Its method.
    pub method: String,
    /// Its target, with credentials starred out.
    pub uri: String,
    /// What the client got.
    pub status: u64,
    /// Which route took it.
    pub route: Option<String>,
    /// What the plugin `request-id` called it.
    pub id: Option<String>,
}

/// The picks of one request.
#[derive(Debug)]
pub struct Picks {
    /// The identity of the pool.
    pub pool: String,
    /// How it picks, in the words of the configuration.
    pub algorithm: &'static str,
    /// How many members it has.
    pub members: usize,
    /// One for each attempt.
    pub attempts: Vec<Attempt>,
}

/// One pick and its replay. Members are named.
#[derive(Debug)]
pub struct Attempt {
    /// Who was picked.
    pub member: String,
    /// The epoch of the verdicts that the pick saw.
    pub epoch: u64,
    /// Health was ignored, because nobody was usable.
    pub failed_open: bool,
    /// It was to find out whether a circuit may close.
    pub trial: bool,
    /// What came of the attempt.
    pub outcome: String,
    /// Who could not be picked any more, having been tried.
    pub tried: Vec<String>,
    /// Who was left out, and why.
    pub left_out: Vec<(String, Vec<&'static str>)>,
    /// Who could be picked, tier by tier: the earliest comes first.
    pub eligible: Vec<(Standing, Vec<String>)>,
    /// The tier that the member picked is in.
    pub tier: Option<Standing>,
    /// What decided, in words.
    pub decided: String,
    /// What the replay says.
    pub replay: Replay,
}

/// Where a tier stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Higher is used first.
    pub priority: i32,
    /// Its members have weight 0.
    pub is_last_resort: bool,
}

/// What came of making a pick again.
#[derive(Debug)]
pub enum Replay {
    /// The same answer.
    Same,
    /// Another answer: who would have been picked if anybody, and what differs.
    Differs(Option<String>, Vec<String>),
    /// It cannot be made again, for that reason.
    Impossible(String),
}

/// Explains `line`, by the configuration in `snapshot`.
///
/// # Errors
/// If it is no line of the access log, or the configuration is not the one that it was written under.
pub fn explain(line: &[u8], snapshot: &Snapshot) -> Result<Explanation, String> {
    let entry = Entry::parse(line)?;
    let request = entry.request();
    let logged = match entry.picks()? {
        Ok(logged) => logged,
        Err(why) => {
            return Ok(Explanation {
                request,
                picks: Err(why),
            });
        }
    };
    let (key, digest) = entry.pool()?;
    let pool = snapshot.pools.get(key).ok_or_else(|| {
        format!(
            "the pool {key} is not in this configuration: give the configuration that was in force then"
        )
    })?;
    let now = format!("{:016x}", pool.pool().digest());
    if digest != now {
        return Err(format!(
            "the configuration of the pool {key} has changed since (its digest was {digest} and is {now}): \
             give the configuration that was in force then"
        ));
    }
    let used = used(key, pool);
    let algorithm = algorithm(&used);
    let attempts = logged.iter().enumerate().map(|(index, logged)| {
        attempt(&used, algorithm, logged).map_err(|error| format!("picks[{index}]: {error}"))
    });
    let attempts = attempts.collect::<Result<Vec<_>, String>>()?;
    Ok(Explanation {
        request,
        picks: Ok(Picks {
            pool: key.to_owned(),
            algorithm,
            members: used.pool.len(),
            attempts,
        }),
    })
}

fn used<'a>(key: &'a str, pool: &'a PoolRef) -> Used<'a> {
    match pool {
        PoolRef::Upstream(upstream) => Used {
            key,
            pool: &upstream.pool,
            target: None,
        },
        PoolRef::Ai(target) => Used::of_plugin(target),
    }
}

fn algorithm(used: &Used<'_>) -> &'static str {
    let is_semantic = used.target.is_some_and(|target| target.semantic.is_some());
    words::algorithm(used.pool.algorithm(), is_semantic)
}

/// What a pick was made from.
struct Scene<'a> {
    used: &'a Used<'a>,
    logged: &'a Logged,
    /// Who was picked.
    member: usize,
    availability: Availability,
    tried: Tried,
    tiers: Vec<Tier>,
}

fn attempt(used: &Used<'_>, algorithm: &str, logged: &Logged) -> Result<Attempt, String> {
    let member = used.pool.member_by_name(&logged.member).ok_or_else(|| {
        format!(
            "the pool has no member `{}`: is this the line as it was written?",
            logged.member
        )
    })?;
    if let Some(other) = logged.by.algorithm().filter(|by| *by != algorithm) {
        return Err(format!(
            "it was picked by {other}, and the pool picks by {algorithm} now: give the configuration \
             that was in force then"
        ));
    }
    let mut tried = Tried::new();
    logged.tried.iter().for_each(|member| tried.mark(member));
    let scene = Scene {
        used,
        logged,
        member,
        availability: availability(used, logged, member)?,
        tried,
        tiers: used.pool.tiers().collect(),
    };
    Ok(scene.explain())
}

/// The verdicts that the pick saw, as far as they are about this pool.
fn availability(used: &Used<'_>, logged: &Logged, member: usize) -> Result<Availability, String> {
    let mut out: Vec<TargetId> = Vec::new();
    for (reason, members) in Reason::ALL.into_iter().zip(&logged.out) {
        for member in members.iter() {
            if member >= used.pool.len() {
                return Err(format!(
                    "`out` names member {member}, of {}",
                    used.pool.len()
                ));
            }
            let before = out.len();
            match reason {
                Reason::Unhealthy => out.extend(used.pool.targets(member)),
                _ => out.extend(reason.guard(used.target, member)),
            }
            if out.len() == before {
                return Err(format!(
                    "`{}` cannot be out for `{}`: nothing of it is checked for that",
                    used.pool.name(member),
                    reason.as_str()
                ));
            }
        }
    }
    let circuit = Reason::Circuit.guard(used.target, member);
    let trial = circuit.filter(|_| logged.trial);
    let trial = trial.map(|circuit| (member, circuit));
    Ok(used.pool.recorded(logged.epoch, out, trial))
}

impl Scene<'_> {
    fn explain(&self) -> Attempt {
        let (logged, pool) = (self.logged, self.used.pool);
        let name = |member: usize| pool.name(member).to_owned();
        let left_out = (0..pool.len()).filter(|&member| !pool.usable(member, &self.availability));
        let reasons = |member: usize| {
            let all = Reason::ALL.into_iter().zip(&logged.out);
            let holding = all.filter(|(_, members): &(_, &Members)| members.contains(member));
            holding.map(|(reason, _)| reason.as_str()).collect()
        };
        let own_tier = self.tiers.iter().find(|t| t.members.contains(&self.member));
        Attempt {
            member: logged.member.clone(),
            epoch: logged.epoch,
            failed_open: logged.failed_open,
            trial: logged.trial,
            outcome: logged.outcome.clone(),
            tried: logged
                .tried
                .iter()
                .filter(|&m| m < pool.len())
                .map(name)
                .collect(),
            left_out: left_out
                .map(|member| (name(member), reasons(member)))
                .collect(),
            eligible: self.eligible(),
            tier: own_tier.map(standing),
            decided: words::decided(self.used, logged, own_tier),
            replay: self.replay(),
        }
    }

    fn eligible(&self) -> Vec<(Standing, Vec<String>)> {
        let pool = self.used.pool;
        let is_eligible = |&member: &usize| {
            let usable = self.logged.failed_open || pool.usable(member, &self.availability);
            usable && !self.tried.contains(member)
        };
        let tiers = self.tiers.iter().map(|tier| {
            let members = tier.members.iter().copied().filter(is_eligible);
            (
                standing(tier),
                members.map(|member| pool.name(member).to_owned()).collect(),
            )
        });
        tiers
            .filter(|(_, members): &(_, Vec<_>)| !members.is_empty())
            .collect()
    }

    fn replay(&self) -> Replay {
        if let Some(why) = self.impossible() {
            return Replay::Impossible(why);
        }
        let logged = self.logged;
        let mut differences = Vec::new();
        let found = self.pick();
        let replayed = match &found {
            Ok(picked) => {
                let name = self.used.pool.name(picked.member());
                for (what, then, now) in [
                    ("failed_open", logged.failed_open, picked.failed_open()),
                    ("trial", logged.trial, picked.is_trial()),
                ] {
                    if then != now {
                        differences.push(format!("{what} was {then} and is {now}"));
                    }
                }
                if picked.member() != self.member {
                    differences.push(format!("it was `{}` and is `{name}`", logged.member));
                }
                Some(name.to_owned())
            }
            Err(why) => {
                differences.push(format!("it was `{}` and is nobody: {why}", logged.member));
                None
            }
        };
        let count = self.excluded_count();
        if logged.excluded_count != count {
            let then = logged.excluded_count;
            differences.push(format!("excluded_count was {then} and is {count}"));
        }
        if differences.is_empty() {
            Replay::Same
        } else {
            Replay::Differs(replayed, differences)
        }
    }

    /// The pick, made again.
    fn pick(&self) -> Result<Picked, Exhausted> {
        let pool: &Pool = self.used.pool;
        let ask = Ask {
            key: None,
            now: Duration::ZERO,
            tried: &self.tried,
        };
        match &self.logged.by {
            By::Again => {
                let again = pool.again(self.member, &self.availability);
                again.ok_or(Exhausted::NothingToPick)
            }
            By::Order(order) => pool.pick_in_order(order, &ask, &self.availability),
            // With one member there is nothing that a picker could have read.
            _ if pool.len() == 1 => pool.pick(&ask, &self.availability),
            By::Decision(decision) => {
                pool.pick_by(&ask, Basis::Given(Some(decision)), &self.availability)
            }
            By::Nothing | By::Unknown => pool.pick_by(&ask, Basis::Given(None), &self.availability),
        }
    }

    fn impossible(&self) -> Option<String> {
        let is_lone = self.used.pool.len() == 1;
        let why = match self.logged.by {
            By::Unknown if !is_lone => "the line does not say what it went by",
            _ if self.logged.is_too_large => "the pool is too large to log whom a pick left out",
            // Where nobody was usable, a trial comes before any picker.
            By::Nothing if !(is_lone || self.logged.trial && self.logged.failed_open) => {
                "the tier is too large to log what was under way"
            }
            _ => return None,
        };
        Some(why.to_owned())
    }

    /// How many the log counts as excluded.
    fn excluded_count(&self) -> usize {
        let pool = self.used.pool;
        let out = (0..pool.len()).filter(|&member| !pool.usable(member, &self.availability));
        // Whose trial it was is not excluded, unless everybody is.
        out.filter(|&member| self.logged.failed_open || member != self.member)
            .count()
    }
}

fn standing(tier: &Tier) -> Standing {
    Standing {
        priority: tier.priority,
        is_last_resort: tier.is_last_resort,
    }
}
