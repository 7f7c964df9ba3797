//! Dates as logs write them, all in UTC.
//!
//! Written by hand because one of them is in every line of the access log. There is no time zone
//! here: where nginx writes the machine's local time, we write UTC and say so in the offset.

/// `2026-01-31T12:00:00.000Z`: RFC 3339 with milliseconds; years have four digits.
pub(crate) fn rfc_3339(unix_ms: u64, out: &mut Vec<u8>) {
    let mut text = *b"0000-00-00T00:00:00.000Z";
    put_date_and_time(unix_ms, &mut text);
    text[20..23].copy_from_slice(&four(unix_ms % 1000)[1..]);
    out.extend_from_slice(&text);
}

/// `2026-01-31T12:00:00+00:00`: nginx's `$time_iso8601`.
pub(crate) fn iso_8601(unix_ms: u64) -> String {
    let mut text = *b"0000-00-00T00:00:00+00:00";
    put_date_and_time(unix_ms, &mut text);
    text.iter().copied().map(char::from).collect()
}

/// `31/Jan/2026:12:00:00 +0000`: nginx's `$time_local`.
pub(crate) fn common_log(unix_ms: u64) -> String {
    let (days, second) = (unix_ms / 86_400_000, unix_ms / 1000 % 86_400);
    let (year, month, day) = civil(days);
    let month = MONTHS[(month - 1) as usize];
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000")
}

/// Fills the first 19 characters of `0000-00-00T00:00:00`.
fn put_date_and_time(unix_ms: u64, text: &mut [u8]) {
    let seconds = unix_ms / 1000;
    let (days, second_of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    text[..4].copy_from_slice(&four(year));
    for (place, value) in [
        (5, month),
        (8, day),
        (11, second_of_day / 3600),
        (14, second_of_day / 60 % 60),
        (17, second_of_day % 60),
    ] {
        text[place..place + 2].copy_from_slice(&four(value)[2..]);
    }
}

/// The last four digits of a number.
pub(crate) fn four(value: u64) -> [u8; 4] {
    [1000, 100, 10, 1].map(|place| b'0' + (value / place % 10) as u8)
}

/// Year, month and day of a day since 1970, by counting in 400-year cycles from 1 March 0000.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let cycle = days / 146_097;
    let day_of_cycle = days % 146_097;
    let year_of_cycle =
        (day_of_cycle - day_of_cycle / 1460 + day_of_cycle / 36_524 - day_of_cycle / 146_096) / 365;
    let day_of_year =
        day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_cycle + cycle * 400 + u64::from(month <= 2);
    (year, month, day)
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_have_their_formats() {
        let check = |ms: u64, rfc: &str, iso: &str, common: &str| {
            let mut out = Vec::new();
            rfc_3339(ms, &mut out);
            assert_eq!(String::from_utf8_lossy(&out), rfc);
            assert_eq!(
                (iso_8601(ms).as_str(), common_log(ms).as_str()),
                (iso, common)
            );
        };
        check(
            0,
            "1970-01-01T00:00:00.000Z",
            "1970-01-01T00:00:00+00:00",
            "01/Jan/1970:00:00:00 +0000",
        );
        check(
            951_782_400_123,
            "2000-02-29T00:00:00.123Z",
            "2000-02-29T00:00:00+00:00",
            "29/Feb/2000:00:00:00 +0000",
        );
        check(
            1_767_225_599_999,
            "2025-12-31T23:59:59.999Z",
            "2025-12-31T23:59:59+00:00",
            "31/Dec/2025:23:59:59 +0000",
        );
        check(
            4_102_444_800_000,
            "2100-01-01T00:00:00.000Z",
            "2100-01-01T00:00:00+00:00",
            "01/Jan/2100:00:00:00 +0000",
        );
    }
}
