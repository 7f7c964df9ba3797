//! What AI instances may be told beyond APISIX: retries, cool-downs, circuits. All of it is off unless
//! written down; APISIX ignores these fields, so that one document serves both.

use std::time::Duration;

use pointsman_balance::Breaker;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `retry`: the same instance once more, before another is asked.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// Further attempts at one instance. Default 0: none.
    #[schemars(range(max = 10))]
    pub attempts: u32,
    /// Milliseconds before the first of them; doubles with each, and varies by a half. Default 100.
    #[schemars(range(min = 1, max = 60_000))]
    pub backoff_ms: u64,
    /// The longest wait of an instance's asking that is waited out, milliseconds. Default 1000.
    #[schemars(range(max = 600_000))]
    pub max_wait_ms: u64,
}

/// `cooldown`: an instance that asks to be left alone is, and so is a credential or model that it does
/// not know.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Cooldown {
    /// The longest cool-down, milliseconds, whatever was asked for. Default five minutes.
    #[schemars(range(min = 1, max = 86_400_000))]
    pub max_ms: u64,
    /// After a 429 that does not say how long, milliseconds. Default 0: none.
    #[schemars(range(max = 86_400_000))]
    pub default_ms: u64,
    /// How long a credential is left out that was refused with 401 or 403, milliseconds. Default 30
    /// seconds; 0: not at all.
    #[schemars(range(max = 86_400_000))]
    pub auth_failure_ms: u64,
    /// How long a model is left out that an instance does not have, milliseconds. Default one minute;
    /// 0: not at all.
    #[schemars(range(max = 86_400_000))]
    pub model_missing_ms: u64,
}

/// `circuit_breaker`: an instance that fails too often is left alone, then tried with single requests.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CircuitBreaker {
    /// Failures in a row. Default 5; 0: they do not count.
    #[schemars(range(max = 10_000))]
    pub failures: u32,
    /// Percent of failures in one window. Default 0: they do not count.
    #[schemars(range(max = 100))]
    pub error_percent: u32,
    /// Requests in a window before the percentage counts. Default 20.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub min_requests: u32,
    /// Milliseconds of a window. Default 10 seconds.
    #[schemars(range(min = 100, max = 3_600_000))]
    pub window_ms: u64,
    /// Milliseconds until the first trial; doubles with each that fails. Default 10 seconds.
    #[schemars(range(min = 10, max = 3_600_000))]
    pub open_ms: u64,
    /// The longest time until the next trial, milliseconds. Default two minutes.
    #[schemars(range(min = 10, max = 86_400_000))]
    pub max_open_ms: u64,
    /// Trials in a row that must succeed. Default 1.
    #[schemars(range(min = 1, max = 100))]
    pub trials: u32,
}

/// `on_all_unhealthy`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum OnAllUnhealthy {
    /// Ask them nevertheless, as APISIX does.
    #[default]
    UseAll,
    /// 503, with the time of the soonest possible recovery in `Retry-After`.
    Reject,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 0,
            backoff_ms: 100,
            max_wait_ms: 1000,
        }
    }
}

impl Default for Cooldown {
    fn default() -> Self {
        Self {
            max_ms: 300_000,
            default_ms: 0,
            auth_failure_ms: 30_000,
            model_missing_ms: 60_000,
        }
    }
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self {
            failures: 5,
            error_percent: 0,
            min_requests: 20,
            window_ms: 10_000,
            open_ms: 10_000,
            max_open_ms: 120_000,
            trials: 1,
        }
    }
}

impl CircuitBreaker {
    /// Its run form.
    pub fn rules(&self) -> Breaker {
        Breaker {
            failures: self.failures,
            error_percent: self.error_percent,
            min_attempts: self.min_requests,
            window: Duration::from_millis(self.window_ms),
            open: Duration::from_millis(self.open_ms),
            open_max: Duration::from_millis(self.max_open_ms.max(self.open_ms)),
            trials: self.trials,
        }
    }
}
