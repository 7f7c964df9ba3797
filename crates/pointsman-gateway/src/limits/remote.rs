//! Counters in Redis: which server, and the scripts that do there what the rest of [`super`] does here.
//!
//! A script reads and changes one key, so nothing comes between, and a cluster knows where it belongs.
//! Time is the server's, so gateways whose clocks differ agree. What a script says are whole numbers;
//! whoever asked reads them ([`spent`], [`wait`]), and takes anything else for no answer.

use std::time::Duration;

use super::{Rate, Spent};
use crate::ports::Unanswered;

/// Where counters are, and how to get there. Has no `Debug`, as it holds passwords.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Server {
    /// Which servers.
    pub place: Place,
    /// Who the gateway is, if it is to say so.
    pub login: Login,
    /// Which of the server's databases.
    pub database: u32,
    /// TLS, if there is any.
    pub tls: Option<Verify>,
    /// For connecting.
    pub connect_timeout: Duration,
    /// For one decision, waiting for a connection included.
    pub timeout: Duration,
    /// A connection that nobody used for so long is closed.
    pub keepalive: Duration,
}

/// Which servers.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Place {
    /// One.
    One(Address),
    /// A cluster, of which these are members.
    Cluster(Vec<Address>),
    /// Whichever sentinels call the master.
    Sentinels {
        /// Where they are.
        sentinels: Vec<Address>,
        /// The master's name.
        master: String,
        /// Who the gateway is to them.
        login: Login,
    },
}

/// Host and port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// A name or an address.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// Name and password, each if there is one. Has no `Debug`.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Login {
    /// Name.
    pub username: Option<String>,
    /// Password.
    pub password: Option<String>,
}

/// Whether certificates must be good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verify {
    /// They must.
    Certificates,
    /// Any will do.
    Nothing,
}

/// One run of a script.
#[derive(Clone, Debug)]
pub struct Call {
    /// Which.
    pub script: Script,
    /// Of which counter.
    pub key: String,
    /// What else it goes by.
    pub arguments: Vec<String>,
}

/// What can be done to a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    /// Use of a window that begins with its first use. Limit, length (ms), cost, whether it is charged
    /// anyhow.
    Fixed,
    /// Use of a window that goes along. Limit, length (µs), cost, whether it is charged anyhow.
    Sliding,
    /// One more in a bucket. Rate, burst.
    Pour,
    /// A place among those under way. How many there are, how long it is kept (ms), its name.
    Enter,
    /// A place given back. Its name.
    Leave,
}

impl Script {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] = [
        Self::Fixed,
        Self::Sliding,
        Self::Pour,
        Self::Enter,
        Self::Leave,
    ];

    /// Its text, in Lua.
    pub fn text(self) -> &'static str {
        match self {
            Self::Fixed => FIXED,
            Self::Sliding => SLIDING,
            Self::Pour => POUR,
            Self::Enter => ENTER,
            Self::Leave => LEAVE,
        }
    }
}

/// A limit in a window, as [`super::Window`] has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteWindow {
    /// How much.
    pub limit: u64,
    /// For how long.
    pub seconds: u64,
    /// Whether it goes along.
    pub slides: bool,
}

impl RemoteWindow {
    /// Uses up one of what is left under `key`.
    pub fn take(&self, key: String) -> Call {
        self.call(key, 1, "0")
    }

    /// Uses up `cost` under `key`, whether or not that much is left: it has been used already.
    pub fn charge(&self, key: String, cost: u64) -> Call {
        self.call(key, cost, "1")
    }

    fn call(&self, key: String, cost: u64, is_used: &str) -> Call {
        let seconds = self.seconds.min(SECONDS_MAX);
        let (script, length) = if self.slides {
            (Script::Sliding, seconds * 1_000_000)
        } else {
            (Script::Fixed, seconds * 1_000)
        };
        Call {
            script,
            key,
            arguments: vec![
                self.limit.to_string(),
                length.to_string(),
                cost.to_string(),
                is_used.to_owned(),
            ],
        }
    }
}

/// What became of a use: whether it was within the limit, what is left, and when the window ends (µs).
///
/// # Errors
/// When that is not what `answer` is.
pub fn spent(answer: &[i64]) -> Result<Spent, Unanswered> {
    let &[within, remaining, reset] = answer else {
        return Err(Unanswered);
    };
    let is_within = flag(within)?;
    Ok(Spent {
        is_within,
        remaining: if is_within { number(remaining)? } else { 0 },
        reset: Duration::from_micros(number(reset)?),
    })
}

/// One more request at `rate` under `key`.
pub fn pour(rate: &Rate, key: String) -> Call {
    let (rate, burst) = rate.numbers();
    Call {
        script: Script::Pour,
        key,
        arguments: vec![rate.to_string(), burst.to_string()],
    }
}

/// How long the request has to wait (µs), if it does not come too early for that.
///
/// # Errors
/// When that is not what `answer` is.
pub fn wait(answer: &[i64]) -> Result<Option<Duration>, Unanswered> {
    match answer {
        [-1] => Ok(None),
        &[wait] => Ok(Some(Duration::from_micros(number(wait)?))),
        _ => Err(Unanswered),
    }
}

/// A place called `name` among at most `most` under `key`, which is given up after `kept`.
pub fn enter(key: String, most: u64, kept: Duration, name: &str) -> Call {
    Call {
        script: Script::Enter,
        key,
        arguments: vec![
            most.to_string(),
            kept.as_millis().to_string(),
            name.to_owned(),
        ],
    }
}

/// How many there are with it, if there was a place.
///
/// # Errors
/// When that is not what `answer` is.
pub fn entered(answer: &[i64]) -> Result<Option<u64>, Unanswered> {
    let &[is_in, count] = answer else {
        return Err(Unanswered);
    };
    let count = number(count)?;
    Ok(flag(is_in)?.then_some(count))
}

/// The place called `name` is free again; also if it was never taken, or is free already.
pub fn leave(key: String, name: &str) -> Call {
    Call {
        script: Script::Leave,
        key,
        arguments: vec![name.to_owned()],
    }
}

fn flag(number: i64) -> Result<bool, Unanswered> {
    match number {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Unanswered),
    }
}

fn number(number: i64) -> Result<u64, Unanswered> {
    u64::try_from(number).map_err(|_| Unanswered)
}

/// A hundred years: in microseconds, a number in Lua is still exact.
const SECONDS_MAX: u64 = 100 * 366 * 86_400;

/// The key holds what was spent, and ends with its window.
const FIXED: &str = r"
local limit, cost = tonumber(ARGV[1]), tonumber(ARGV[3])
local spent = tonumber(redis.call('GET', KEYS[1])) or 0
local left = redis.call('PTTL', KEYS[1])
if left <= 0 then
  spent, left = 0, tonumber(ARGV[2])
end
if spent + cost > limit and ARGV[4] ~= '1' then
  return {0, 0, left * 1000}
end
if spent == 0 then
  redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[2])
else
  redis.call('INCRBY', KEYS[1], ARGV[3])
end
return {1, math.max(limit - spent - cost, 0), left * 1000}
";

/// The key holds when the window began, what was spent in it and in the one before. It is estimated as
/// in `window.rs`.
const SLIDING: &str = r"
local limit, length, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local kept = redis.call('HMGET', KEYS[1], 'started', 'spent', 'before')
local started, spent, before = tonumber(kept[1]), tonumber(kept[2]) or 0, tonumber(kept[3]) or 0
if started then
  local passed = math.floor(math.max(now - started, 0) / length)
  if passed == 1 then
    started, spent, before = started + length, 0, spent
  elseif passed > 1 then
    started = nil
  end
end
if not started then
  started, spent, before = now, 0, 0
end
local ahead = length - math.min(math.max(now - started, 0), length)
local still = math.min(before, limit) * ahead / length
local within = spent + still < limit or ARGV[4] == '1'
if within then
  spent = spent + cost
  local function text(number) return string.format('%.0f', number) end
  redis.call('HSET', KEYS[1], 'started', text(started), 'spent', text(spent), 'before', text(before))
  redis.call('PEXPIRE', KEYS[1], text(math.ceil((length + ahead) / 1000)))
end
return {within and 1 or 0, math.max(limit - spent - math.ceil(still), 0), ahead}
";

/// The key holds what came ahead of the rate, and when. As in `bucket.rs`.
const POUR: &str = r"
local rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local kept = redis.call('HMGET', KEYS[1], 'last', 'excess')
local last, excess = tonumber(kept[1]), 0
if last then
  excess = (tonumber(kept[2]) or 0) - rate * math.max(now - last, 0) / 1000000 + 1
  excess = math.max(excess, 0)
  if excess > burst then
    return {-1}
  end
end
local wait = excess / rate
redis.call('HSET', KEYS[1], 'last', string.format('%.0f', now), 'excess', string.format('%.17g', excess))
local emptied = math.min(wait + 1 / rate, 1000000000) * 1000
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.ceil(emptied) + 1))
return {math.floor(math.min(wait, 1000000000) * 1000000)}
";

/// The key holds who is under way, and until when that is believed.
const ENTER: &str = r"
local most, keep = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
local count = redis.call('ZCARD', KEYS[1])
if not redis.call('ZSCORE', KEYS[1], ARGV[3]) then
  if count >= most then
    return {0, count}
  end
  count = count + 1
end
redis.call('ZADD', KEYS[1], string.format('%.0f', now + keep), ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return {1, count}
";

const LEAVE: &str = r"
return {redis.call('ZREM', KEYS[1], ARGV[1])}
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_no_answer() {
        let reset = Duration::from_micros(7);
        let within = |is_within, remaining| Spent {
            is_within,
            remaining,
            reset,
        };
        for (answer, expected) in [
            (&[1, 2, 7][..], Ok(within(true, 2))),
            (&[0, 2, 7], Ok(within(false, 0))),
            (&[2, 2, 7], Err(Unanswered)),
            (&[1, -1, 7], Err(Unanswered)),
            (&[1, 2, -1], Err(Unanswered)),
            (&[1, 2], Err(Unanswered)),
            (&[], Err(Unanswered)),
        ] {
            assert_eq!(spent(answer), expected, "{answer:?}");
        }
        assert_eq!(wait(&[-1]), Ok(None));
        assert_eq!(wait(&[7]), Ok(Some(reset)));
        for answer in [&[-2][..], &[], &[1, 1]] {
            assert_eq!(wait(answer), Err(Unanswered), "{answer:?}");
        }
        assert_eq!(entered(&[1, 3]), Ok(Some(3)));
        assert_eq!(entered(&[0, 3]), Ok(None));
        for answer in [&[1][..], &[3, 1], &[1, -1], &[1, 1, 1]] {
            assert_eq!(entered(answer), Err(Unanswered), "{answer:?}");
        }
    }

    /// Their numbers are their places in the list of all.
    #[test]
    fn scripts_are_listed_in_order() {
        for (index, script) in Script::ALL.into_iter().enumerate() {
            assert_eq!(script as usize, index);
        }
    }
}
