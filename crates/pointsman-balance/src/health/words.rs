//! Outcomes and statuses as words, for reports and for what is kept over a restart.

use std::fmt;
use std::str::FromStr;

use super::{ProbeOutcome, Status};

/// A word that names no outcome, or no status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownWord;

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("neither an outcome nor a status")
    }
}

impl std::error::Error for UnknownWord {}

/// `status_503`, `tcp_ok`, `tcp_failure`, `timeout` or `not_http`.
impl fmt::Display for ProbeOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "{STATUS}{status}"),
            Self::TcpOk => f.write_str("tcp_ok"),
            Self::TcpFailure => f.write_str("tcp_failure"),
            Self::Timeout => f.write_str("timeout"),
            Self::NotHttp => f.write_str("not_http"),
        }
    }
}

impl FromStr for ProbeOutcome {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        if let Some(status) = word.strip_prefix(STATUS) {
            return status.parse().map(Self::Status).map_err(|_| UnknownWord);
        }
        [Self::TcpOk, Self::TcpFailure, Self::Timeout, Self::NotHttp]
            .into_iter()
            .find(|outcome| outcome.to_string() == word)
            .ok_or(UnknownWord)
    }
}

impl FromStr for Status {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        [
            Self::Healthy,
            Self::MostlyHealthy,
            Self::MostlyUnhealthy,
            Self::Unhealthy,
        ]
        .into_iter()
        .find(|status| status.as_str() == word)
        .ok_or(UnknownWord)
    }
}

const STATUS: &str = "status_";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_are_written() {
        for (outcome, word) in [
            (ProbeOutcome::Status(503), "status_503"),
            (ProbeOutcome::TcpOk, "tcp_ok"),
            (ProbeOutcome::TcpFailure, "tcp_failure"),
            (ProbeOutcome::Timeout, "timeout"),
            (ProbeOutcome::NotHttp, "not_http"),
        ] {
            assert_eq!(outcome.to_string(), word);
            assert_eq!(word.parse(), Ok(outcome));
        }
        for word in ["", "status_", "status_70000", "status_-1", "ok", "TIMEOUT"] {
            assert_eq!(word.parse::<ProbeOutcome>(), Err(UnknownWord), "{word:?}");
        }
        for status in [
            Status::Healthy,
            Status::MostlyHealthy,
            Status::MostlyUnhealthy,
            Status::Unhealthy,
        ] {
            assert_eq!(status.as_str().parse(), Ok(status));
        }
        assert_eq!("Healthy".parse::<Status>(), Err(UnknownWord));
    }
}
