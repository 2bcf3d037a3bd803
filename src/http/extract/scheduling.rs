//! Reads what a client's headers ask about the order of work: priority and deadline.

use std::time::Duration;

use axum::http::HeaderMap;

use crate::backends::{Priority, SchedulingOptions};
use crate::http::error::ApiError;
use crate::units::MonotonicNs;

/// `high`, `normal` or `low`: the order of requests that wait for the same local model.
pub const PRIORITY: &str = "x-wattgate-priority";

/// Milliseconds from arrival after which the answer is of no use: the request then ends wherever it
/// is.
pub const DEADLINE_MS: &str = "x-wattgate-deadline-ms";

/// Longest deadline, a day: a longer one is a mistake of units.
const LONGEST: Duration = Duration::from_hours(24);

/// The request's terms, its deadline counted from `arrived`.
pub fn scheduling(
    headers: &HeaderMap,
    arrived: MonotonicNs,
) -> Result<SchedulingOptions, ApiError> {
    let priority = match text(headers, PRIORITY) {
        None | Some("normal") => Priority::Normal,
        Some("high") => Priority::High,
        Some("low") => Priority::Low,
        Some(_) => return Err(wrong(PRIORITY, "must be high, normal or low")),
    };
    let deadline = text(headers, DEADLINE_MS).map(|text| {
        let wait = text.parse().map(Duration::from_millis).unwrap_or_default();
        if wait.is_zero() || wait > LONGEST {
            return Err(wrong(DEADLINE_MS, "must be whole milliseconds, from 1 to 86400000"));
        }
        let nanoseconds = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
        Ok(MonotonicNs(arrived.0.saturating_add(nanoseconds)))
    });
    let deadline = deadline.transpose()?;
    Ok(SchedulingOptions { priority, deadline, ..SchedulingOptions::default() })
}

/// A header's value; bytes that are not text are refused like an unknown word.
fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("?").trim())
}

fn wrong(header: &str, rule: &str) -> ApiError {
    ApiError::InvalidField {
        param: header.to_owned(),
        message: format!("the header `{header}` {rule}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &'static str, value: &str) -> Result<SchedulingOptions, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        scheduling(&headers, MonotonicNs(7))
    }

    #[test]
    fn headers_become_scheduling_options() {
        assert_eq!(
            scheduling(&HeaderMap::new(), MonotonicNs(7)).unwrap(),
            SchedulingOptions::default()
        );
        assert_eq!(read(PRIORITY, "low").unwrap().priority, Priority::Low);
        assert_eq!(read(DEADLINE_MS, " 2 ").unwrap().deadline, Some(MonotonicNs(2_000_007)));
    }

    #[test]
    fn an_invalid_priority_or_deadline_is_refused_with_the_name_of_its_header() {
        for (name, value) in [
            (PRIORITY, "urgent"),
            (PRIORITY, ""),
            (PRIORITY, "\u{e9}"),
            (DEADLINE_MS, "0"),
            (DEADLINE_MS, "-1"),
            (DEADLINE_MS, "1.5"),
            (DEADLINE_MS, "86400001"),
            (DEADLINE_MS, "99999999999999999999"),
        ] {
            let error = read(name, value).unwrap_err();
            assert!(
                matches!(&error, ApiError::InvalidField { param, .. } if param == name),
                "{error}"
            );
        }
    }
}
