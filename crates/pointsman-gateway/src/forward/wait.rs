//! How long a target asks to be left alone.

use std::time::{Duration, SystemTime};

use http::HeaderMap;

/// The wait that the headers of a 429 ask for, at wall time `now`.
///
/// In this order: [`retry_after`], `x-ratelimit-reset-*` of whatever is used up (OpenAI: `6m0s`, `120ms`), and
/// `x-ratelimit-reset` (seconds to go, or a Unix time in seconds or milliseconds). What cannot be read
/// counts as absent; a date in the past is no wait.
pub fn asked(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    retry_after(headers, now)
        .or_else(|| limits_reset(headers))
        .or_else(|| until_moment(text(headers, "x-ratelimit-reset")?, now))
}

/// The wait that any response asks for in so many words: `retry-after-ms` (OpenAI, Azure), or
/// `Retry-After` in seconds or as a date (RFC 9110 §10.2.3). Limits are in other headers of every
/// response, and say nothing about a server's error.
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let millis = text(headers, "retry-after-ms").and_then(|text| scaled(text, 1e-3));
    millis.or_else(|| {
        let text = text(headers, "retry-after")?;
        scaled(text, 1.0).or_else(|| until_date(text, now))
    })
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

fn scaled(text: &str, seconds: f64) -> Option<Duration> {
    let value: f64 = text.parse().ok()?;
    Duration::try_from_secs_f64(value * seconds).ok()
}

fn until_date(text: &str, now: SystemTime) -> Option<Duration> {
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// The longest reset of those limits of which nothing is left; if none says so, the shortest of all.
fn limits_reset(headers: &HeaderMap) -> Option<Duration> {
    let mut used_up: Option<Duration> = None;
    let mut any: Option<Duration> = None;
    for (name, value) in headers {
        let Some(limit) = name.as_str().strip_prefix("x-ratelimit-reset-") else {
            continue;
        };
        let Some(wait) = value.to_str().ok().and_then(duration) else {
            continue;
        };
        any = Some(any.map_or(wait, |other| other.min(wait)));
        let left = headers.get(format!("x-ratelimit-remaining-{limit}"));
        if left.is_some_and(|left| left.as_bytes() == b"0") {
            used_up = Some(used_up.map_or(wait, |other| other.max(wait)));
        }
    }
    used_up.or(any)
}

/// `1h2m3.5s`, `120ms`, or plain seconds.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if let Some(wait) = scaled(rest, 1.0) {
        return Some(wait);
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (value, tail) = rest.split_at(digits);
        let unit = tail
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let seconds = match unit {
            "d" => 86_400.0,
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            _ => return None,
        };
        total = total.checked_add(scaled(value, seconds)?)?;
        rest = tail;
    }
    (!text.trim().is_empty()).then_some(total)
}

/// Seconds to go, or a moment since 1970 in seconds or milliseconds, by its size.
fn until_moment(text: &str, now: SystemTime) -> Option<Duration> {
    let value: f64 = text.parse().ok()?;
    if value < 1e9 {
        return Duration::try_from_secs_f64(value).ok();
    }
    let seconds = if value >= 1e12 { value / 1e3 } else { value };
    let moment = SystemTime::UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?)?;
    Some(moment.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_as_providers_write_them() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let check = |lines: &[(&'static str, &str)], millis: Option<u64>| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(*name, value.parse().expect("a header"));
            }
            assert_eq!(
                asked(&headers, now),
                millis.map(Duration::from_millis),
                "{lines:?}"
            );
        };
        check(&[], None);
        check(&[("retry-after", "7")], Some(7000));
        check(&[("retry-after", " 0.25 ")], Some(250));
        check(
            &[("retry-after", "7"), ("retry-after-ms", "1500")],
            Some(1500),
        );
        check(
            &[("retry-after", "Fri, 15 Jan 2027 08:00:10 GMT")],
            Some(10_000),
        );
        check(&[("retry-after", "Fri, 15 Jan 2027 07:00:00 GMT")], Some(0));
        for odd in ["", "soon", "-1", "NaN", "inf", "1e400"] {
            check(&[("retry-after", odd)], None);
        }
        let of = |left: &'static str, reset: &'static str| {
            [
                ("x-ratelimit-remaining-requests", left),
                ("x-ratelimit-reset-requests", reset),
            ]
        };
        check(&of("0", "6m0s"), Some(360_000));
        check(&of("0", "1h2m3.5s"), Some(3_723_500));
        check(&of("9", "120ms"), Some(120));
        check(&of("0", "9"), Some(9000));
        check(&of("0", "s"), None);
        check(&of("0", "5 s"), None);
        check(
            &[
                ("x-ratelimit-remaining-requests", "0"),
                ("x-ratelimit-reset-requests", "20s"),
                ("x-ratelimit-reset-tokens", "1h"),
                ("x-ratelimit-remaining-tokens", "5000"),
            ],
            Some(20_000),
        );
        check(&[("x-ratelimit-reset", "30")], Some(30_000));
        check(&[("x-ratelimit-reset", "1800000060")], Some(60_000));
        check(&[("x-ratelimit-reset", "1800000060000")], Some(60_000));
        check(&[("x-ratelimit-reset", "1700000000")], Some(0));
    }
}
