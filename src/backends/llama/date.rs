//! The date as chat templates ask for it: a little of `strftime`, in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// Writes `time` by the conversions that chat templates use; others are kept as they are written.
pub fn strftime(format: &str, time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (year, month, day) = civil_date(seconds / 86_400);
    let named = MONTHS.into_iter().zip(1..).find(|&(_, number)| number == month);
    let name = named.map_or("", |(name, _)| name);
    let mut text = String::with_capacity(format.len() + 8);
    let mut chars = format.chars();
    while let Some(char) = chars.next() {
        let conversion = if char == '%' { chars.next() } else { None };
        let written = match conversion {
            Some('Y') => year.to_string(),
            Some('m') => format!("{month:02}"),
            Some('d') => format!("{day:02}"),
            Some('b') => name[..3].to_owned(),
            Some('B') => name.to_owned(),
            Some('H') => format!("{:02}", seconds / 3600 % 24),
            Some('M') => format!("{:02}", seconds / 60 % 60),
            Some('S') => format!("{:02}", seconds % 60),
            Some(other) => format!("%{other}"),
            None => char.to_string(),
        };
        text.push_str(&written);
    }
    text
}

/// Year, month and day of a day counted from 1970-01-01: Howard Hinnant's `civil_from_days`, for dates since then.
fn civil_date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_follow_the_calendar() {
        // Expected values from `date -u`.
        let at = |format, seconds| strftime(format, UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at("%d %b %Y %H:%M:%S", 1_709_210_096), "29 Feb 2024 12:34:56");
        assert_eq!(at("%Y-%m-%d, %B, 100%", 946_684_800), "2000-01-01, January, 100%");
        assert_eq!(at("%Y-%m-%d %q", 0), "1970-01-01 %q");
    }
}
