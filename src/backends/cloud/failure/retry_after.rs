//! How long an upstream asks to be left alone. Pure.

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};

use super::said::Said;

/// The headers' word comes before that of the message.
pub(super) fn retry_after(headers: &HeaderMap, said: &Said, now: SystemTime) -> Option<Duration> {
    let header = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let precise = header("retry-after-ms").and_then(|value| value.parse::<f64>().ok());
    precise
        .and_then(|ms| seconds(ms / 1e3))
        .or_else(|| in_header(header(RETRY_AFTER.as_str())?, now))
        .or_else(|| in_message(said.message.as_deref()?))
}

/// `Retry-After`: seconds, with decimals at some servers, or a date (RFC 9110 §10.2.3).
fn in_header(value: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(number) = value.parse() {
        return seconds(number);
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// As in "Please try again in 1m7.5s".
fn in_message(message: &str) -> Option<Duration> {
    let message = message.to_ascii_lowercase();
    let (_, rest) = message.split_once("try again in ").or(message.split_once("retry in "))?;
    let word = rest.split_whitespace().next()?.trim_end_matches(['.', ',', ')']);
    let (mut sum, mut rest) = (0.0, word);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit = &rest[end..];
        let unit = &unit[..unit.find(|c: char| c.is_ascii_digit()).unwrap_or(unit.len())];
        sum += number
            * match unit {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                _ => return None,
            };
        rest = &rest[end + unit.len()..];
    }
    (!word.is_empty()).then(|| seconds(sum))?
}

fn seconds(number: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[(&'static str, &str)], message: &str) -> Option<f64> {
        let now = httpdate::parse_http_date("Wed, 21 Oct 2026 07:28:00 GMT").unwrap();
        let headers = headers.iter().map(|(name, value)| {
            (reqwest::header::HeaderName::from_static(name), value.parse().unwrap())
        });
        let said = Said { message: Some(message.to_owned()), ..Said::default() };
        retry_after(&headers.collect(), &said, now).map(|wait| wait.as_secs_f64())
    }

    #[test]
    fn headers_are_read_as_seconds_milliseconds_and_dates() {
        for (value, expected) in [
            ("17", Some(17.0)),
            ("0.5", Some(0.5)),
            ("46.72", Some(46.72)),
            ("Wed, 21 Oct 2026 07:29:30 GMT", Some(90.0)),
            ("Wed, 21 Oct 2026 07:00:00 GMT", Some(0.0)),
            ("soon", None),
            ("-1", None),
            ("NaN", None),
            ("1e300", None),
        ] {
            assert_eq!(read(&[("retry-after", value)], ""), expected, "{value}");
        }
        assert_eq!(read(&[("retry-after", "9"), ("retry-after-ms", "1500")], ""), Some(1.5));
    }

    #[test]
    fn a_message_may_say_it() {
        for (message, expected) in [
            ("Please try again in 7.5s. Visit us.", Some(7.5)),
            ("Please try again in 1m7s.", Some(67.0)),
            ("Please try again in 250ms.", Some(0.25)),
            ("Please retry in 34s.", Some(34.0)),
            ("Please try again in a while.", None),
            ("Please try again in", None),
            ("try again in ...", None),
        ] {
            assert_eq!(read(&[], message), expected, "{message}");
        }
        assert_eq!(read(&[("retry-after", "9")], "try again in 7.5s"), Some(9.0));
    }
}
