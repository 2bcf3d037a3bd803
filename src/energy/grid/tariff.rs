//! Electricity price by time of day and week. Pure: the time is an argument.

use std::ops::RangeInclusive;

use jiff::Timestamp;
use jiff::civil::{DateTime, Time, Weekday};
use jiff::tz::TimeZone;
use serde::Deserialize;

use super::emissions::JOULES_PER_KWH;
use crate::units::{Dollars, Joules};
use crate::validate::{Diagnostics, Validate};

/// `[energy.price]`: price of this machine's electricity. Without `dollars_per_kwh`, its cost is
/// absent everywhere.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Price outside all windows in dollars, 0 to 10. Default unset: the cost is absent.
    pub dollars_per_kwh: Option<f64>,
    /// IANA time zone of the windows. Default `UTC`.
    pub time_zone: String,
    /// Times with another price; the first match applies.
    pub windows: Vec<Window>,
}

/// A time window with another price.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// `HH:MM`, included.
    pub from: String,
    /// `HH:MM`, excluded; on the next day if at or before `from`.
    pub to: String,
    /// Days on which the window begins. Default: all.
    #[serde(default)]
    pub days: Vec<Day>,
    /// Price in dollars, 0 to 10.
    pub dollars_per_kwh: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Default for Config {
    fn default() -> Self {
        Self { dollars_per_kwh: None, time_zone: "UTC".to_owned(), windows: Vec::new() }
    }
}

impl Config {
    /// The tariff; `None` without a price.
    pub fn tariff(&self) -> Option<Tariff> {
        Some(Tariff {
            base: self.dollars_per_kwh?,
            zone: TimeZone::get(&self.time_zone).ok()?,
            windows: self.windows.clone(),
        })
    }
}

impl Validate for Config {
    fn validate(&self, out: &mut Diagnostics) {
        out.range_if_set("dollars_per_kwh", self.dollars_per_kwh, DOLLARS_PER_KWH, " dollars");
        let zone = &self.time_zone;
        out.rule(
            "time_zone",
            TimeZone::get(zone).is_ok(),
            format_args!("must be a zone like `Europe/Berlin`, not `{zone}`"),
        );
        out.rule(
            "windows",
            self.dollars_per_kwh.is_some() || self.windows.is_empty(),
            "need `dollars_per_kwh` for the rest of the day",
        );
        for window in &self.windows {
            let (from, to) = (&window.from, &window.to);
            out.rule(
                "windows",
                window.times().is_some(),
                format_args!("must have times as in \"07:30\", not `{from}` and `{to}`"),
            );
            out.rule(
                "windows",
                DOLLARS_PER_KWH.contains(&window.dollars_per_kwh),
                "must have prices of 0 to 10 dollars",
            );
        }
    }
}

/// Prices that an operator may state.
const DOLLARS_PER_KWH: RangeInclusive<f64> = 0.0..=10.0;

impl Window {
    fn times(&self) -> Option<(Time, Time)> {
        let time = |text: &str| Time::strptime("%H:%M", text).ok();
        Some((time(&self.from)?, time(&self.to)?))
    }

    fn holds(&self, at: DateTime) -> bool {
        let Some((from, to)) = self.times() else { return false };
        let begins = |day: Weekday| self.days.is_empty() || self.days.iter().any(|one| one.is(day));
        let (today, now) = (at.date().weekday(), at.time());
        if from < to {
            begins(today) && from <= now && now < to
        } else {
            (begins(today) && from <= now) || (begins(today.previous()) && now < to)
        }
    }
}

impl Day {
    fn is(self, day: Weekday) -> bool {
        let own = match self {
            Self::Mon => Weekday::Monday,
            Self::Tue => Weekday::Tuesday,
            Self::Wed => Weekday::Wednesday,
            Self::Thu => Weekday::Thursday,
            Self::Fri => Weekday::Friday,
            Self::Sat => Weekday::Saturday,
            Self::Sun => Weekday::Sunday,
        };
        own == day
    }
}

/// Prices by time.
#[derive(Clone, Debug)]
pub struct Tariff {
    base: f64,
    zone: TimeZone,
    windows: Vec<Window>,
}

impl Tariff {
    /// Dollars per kilowatt-hour at a time in milliseconds since the Unix epoch.
    pub fn dollars_per_kwh(&self, unix_ms: u64) -> f64 {
        let moment =
            i64::try_from(unix_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
        let Some(moment) = moment else { return self.base };
        let local = self.zone.to_datetime(moment);
        let window = self.windows.iter().find(|window| window.holds(local));
        window.map_or(self.base, |window| window.dollars_per_kwh)
    }

    /// Cost of `joules` at a time in milliseconds since the Unix epoch.
    pub fn cost(&self, joules: Joules, unix_ms: u64) -> Dollars {
        Dollars(joules.0 / JOULES_PER_KWH * self.dollars_per_kwh(unix_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::Diagnostic;

    fn config(text: &str) -> Config {
        let config: Config = toml::from_str(text).unwrap();
        assert_eq!(config.diagnostics(), []);
        config
    }

    fn price(tariff: &Tariff, moment: &str) -> f64 {
        let moment: Timestamp = moment.parse().unwrap();
        tariff.dollars_per_kwh(u64::try_from(moment.as_millisecond()).unwrap())
    }

    #[test]
    fn without_a_price_there_is_no_cost_and_a_kilowatt_hour_costs_its_price() {
        assert!(Config::default().tariff().is_none());
        let tariff = config("dollars_per_kwh = 0.3").tariff().unwrap();
        assert_eq!(tariff.cost(Joules(3.6e6), 0), Dollars(0.3));
    }

    #[test]
    fn a_night_reaches_over_midnight_and_belongs_to_the_day_it_begins() {
        let tariff = config(
            r#"
            dollars_per_kwh = 0.3
            windows = [
                { from = "22:00", to = "06:00", days = ["fri"], dollars_per_kwh = 0.1 },
                { from = "17:00", to = "20:00", dollars_per_kwh = 0.5 },
            ]"#,
        );
        let tariff = tariff.tariff().unwrap();
        // 2026-11-20 is a Friday.
        for (moment, expected) in [
            ("2026-11-20T05:59:00Z", 0.3),
            ("2026-11-20T22:00:00Z", 0.1),
            ("2026-11-21T05:59:59Z", 0.1),
            ("2026-11-21T06:00:00Z", 0.3),
            ("2026-11-21T23:00:00Z", 0.3),
            ("2026-11-21T17:00:00Z", 0.5),
            ("2026-11-21T20:00:00Z", 0.3),
        ] {
            assert!((price(&tariff, moment) - expected).abs() < 1e-12, "{moment}");
        }
    }

    #[test]
    fn windows_follow_the_zones_clock_over_summer_time() {
        let tariff = config(
            r#"
            dollars_per_kwh = 0.3
            time_zone = "Europe/Berlin"
            windows = [{ from = "12:00", to = "13:00", dollars_per_kwh = 0.1 }]"#,
        );
        let tariff = tariff.tariff().unwrap();
        assert!((price(&tariff, "2026-01-15T11:30:00Z") - 0.1).abs() < 1e-12);
        assert!((price(&tariff, "2026-07-15T11:30:00Z") - 0.3).abs() < 1e-12);
        assert!((price(&tariff, "2026-07-15T10:30:00Z") - 0.1).abs() < 1e-12);
    }

    /// Berlin skips 02:00 to 03:00 on 2026-03-29 and has it twice on 2026-10-25.
    #[test]
    fn in_the_nights_that_clocks_are_set_each_moment_has_the_price_of_what_the_clock_shows() {
        let tariff = config(
            r#"
            dollars_per_kwh = 0.3
            time_zone = "Europe/Berlin"
            windows = [
                { from = "02:00", to = "03:00", dollars_per_kwh = 0.1 },
                { from = "22:00", to = "06:00", days = ["sat"], dollars_per_kwh = 0.2 },
            ]"#,
        );
        let tariff = tariff.tariff().unwrap();
        for (moment, expected) in [
            // 01:59:59, and a second later 03:00: the skipped hour has no price.
            ("2026-03-29T00:59:59Z", 0.2),
            ("2026-03-29T01:00:00Z", 0.2),
            ("2026-03-29T03:59:59Z", 0.2),
            ("2026-03-29T04:00:00Z", 0.3),
            // 02:00 in summer time, 02:59:59 in winter time an hour later, 03:00.
            ("2026-10-25T00:00:00Z", 0.1),
            ("2026-10-25T01:59:59Z", 0.1),
            ("2026-10-25T02:00:00Z", 0.2),
            ("2026-10-25T04:59:59Z", 0.2),
            ("2026-10-25T05:00:00Z", 0.3),
        ] {
            assert!((price(&tariff, moment) - expected).abs() < 1e-12, "{moment}");
        }
    }

    #[test]
    fn every_invalid_key_is_listed() {
        let wrong = r#"
            time_zone = "Mars/Olympus"
            windows = [{ from = "25:00", to = "6", dollars_per_kwh = -1.0 }]"#;
        let problems = toml::from_str::<Config>(wrong).unwrap().diagnostics();
        let keys: Vec<String> = problems.iter().map(Diagnostic::key).collect();
        assert_eq!(keys, ["time_zone", "windows", "windows", "windows"]);
        let negative: Config = toml::from_str("dollars_per_kwh = -0.1").unwrap();
        assert_eq!(negative.diagnostics()[0].key(), "dollars_per_kwh");
    }
}
