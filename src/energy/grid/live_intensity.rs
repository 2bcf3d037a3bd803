//! Live carbon intensity of the grid, polled from an HTTP source in the format of Electricity Maps.
//!
//! Readers never block: they get the newest figure, or `None` if it is stale; the table's yearly
//! average, labelled as such, is used then.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::header::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::Value;

use super::emissions::GramsPerKwh;
use crate::energy::polling::http_config::{http_url, validate_timeout, validate_url};
use crate::energy::polling::poller::{PollTarget, Poller};
use crate::units::MonotonicNs;
use crate::validate::{Diagnostics, Validate};

/// `[energy.carbon.live]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// URL of the source, including the zone. Default unset: no live figures.
    pub url: Option<String>,
    /// Environment variable with the token. Default unset: no token is sent.
    pub token_env: Option<String>,
    /// Header for the token. Default `auth-token`.
    pub token_header: String,
    /// Seconds between polls, 60 to 86400. Default 900.
    pub every_s: u64,
    /// Timeout of a poll in milliseconds, 100 to 30000. Default 5000.
    pub timeout_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: None,
            token_env: None,
            token_header: "auth-token".to_owned(),
            every_s: 900,
            timeout_ms: 5000,
        }
    }
}

impl Config {
    fn poll_target(&self) -> Option<PollTarget> {
        let secret = self.token_env.as_deref().and_then(|variable| {
            let mut value = HeaderValue::from_str(&std::env::var(variable).ok()?).ok()?;
            value.set_sensitive(true);
            Some((self.token_header.parse().ok()?, value))
        });
        Some(PollTarget {
            url: http_url(self.url.as_deref()?)?,
            secret,
            every: Duration::from_secs(self.every_s),
            timeout: Duration::from_millis(self.timeout_ms),
        })
    }
}

impl Validate for Config {
    fn validate(&self, out: &mut Diagnostics) {
        if let Some(url) = &self.url {
            validate_url(url, out);
        }
        let is_header = self.token_header.parse::<HeaderName>().is_ok();
        out.rule("token_header", is_header, "must be the name of an HTTP header");
        out.range("every_s", self.every_s, 60..=86_400, " seconds");
        validate_timeout(self.timeout_ms, out);
    }
}

/// The live source. Has figures once its poller runs.
#[derive(Debug)]
pub struct LiveIntensity {
    latest: Arc<Mutex<Latest>>,
    poller: Option<Poller>,
}

impl LiveIntensity {
    /// `None` without a configured source.
    pub fn new(config: &Config) -> Option<Self> {
        let target = config.poll_target()?;
        let latest = Arc::new(Mutex::new(Latest::of(target.every)));
        let into = Arc::clone(&latest);
        let deliver = move |at, answer: Result<Vec<u8>, String>| {
            into.lock().put(at, answer.and_then(|body| intensity(&body)));
        };
        match Poller::new(target, deliver) {
            Ok(poller) => Some(Self { latest, poller: Some(poller) }),
            Err(error) => {
                tracing::warn!(%error, "cannot poll the grid's live carbon intensity");
                None
            }
        }
    }

    /// The newest figure; `None` if it is stale.
    pub fn grams_per_kwh(&self) -> Option<GramsPerKwh> {
        self.latest.lock().fresh(MonotonicNs::now())
    }

    /// Takes the poll task.
    pub fn take_poller(&mut self) -> Option<Poller> {
        self.poller.take()
    }
}

/// Age up to which a figure is used: intensity changes over hours.
const FRESH: Duration = Duration::from_hours(1);

#[derive(Debug)]
struct Latest {
    fresh_for: Duration,
    figure: Option<(MonotonicNs, GramsPerKwh)>,
    failing: bool,
}

impl Latest {
    /// With a long poll interval, one poll may fail before the figure is stale.
    fn of(every: Duration) -> Self {
        Self { fresh_for: FRESH.max(every * 2), figure: None, failing: false }
    }

    fn put(&mut self, at: MonotonicNs, answer: Result<GramsPerKwh, String>) {
        match answer {
            Ok(figure) => {
                self.figure = Some((at, figure));
                self.failing = false;
            }
            Err(why) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(%why, "live carbon intensity unavailable; falling back to the yearly average");
                }
            }
        }
    }

    fn fresh(&self, now: MonotonicNs) -> Option<GramsPerKwh> {
        let (at, figure) = self.figure?;
        (u128::from(now - at) <= self.fresh_for.as_nanos()).then_some(figure)
    }
}

/// The intensity in a response body, in grams of CO2-equivalent per kilowatt-hour.
fn intensity(body: &[u8]) -> Result<GramsPerKwh, String> {
    let answer: Option<Value> = serde_json::from_slice(body).ok();
    let figure = answer.and_then(|answer| answer.get("carbonIntensity")?.as_f64());
    let figure = figure.ok_or("the response has no number `carbonIntensity`")?;
    let possible = (0.0..=5000.0).contains(&figure);
    possible
        .then_some(GramsPerKwh(figure))
        .ok_or_else(|| format!("the response has an implausible intensity, {figure} g/kWh"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::Diagnostic;

    fn at(minutes: u64) -> MonotonicNs {
        MonotonicNs(minutes * 60_000_000_000)
    }

    #[test]
    fn an_answer_is_read_and_nonsense_refused() {
        let body = br#"{"zone":"DE","carbonIntensity":302,"isEstimated":true}"#;
        assert_eq!(intensity(body), Ok(GramsPerKwh(302.0)));
        for wrong in [
            "",
            "{}",
            "[302]",
            "<html>302</html>",
            r#"{"error":"invalid auth token"}"#,
            r#"{"carbonIntensity":null}"#,
            r#"{"carbonIntensity":"302"}"#,
            r#"{"carbonIntensity":-3}"#,
            r#"{"carbonIntensity":1e9}"#,
        ] {
            assert!(intensity(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert!(intensity(&[0xff, 0xfe]).is_err());
    }

    #[test]
    fn a_figure_outlives_failures_for_an_hour_and_no_longer() {
        let mut latest = Latest::of(Duration::from_mins(15));
        assert_eq!(latest.fresh(at(0)), None);
        latest.put(at(0), Ok(GramsPerKwh(300.0)));
        latest.put(at(15), Err("no answer".to_owned()));
        assert_eq!(latest.fresh(at(60)), Some(GramsPerKwh(300.0)));
        assert_eq!(latest.fresh(at(61)), None);
    }

    #[test]
    fn invalid_keys_are_listed() {
        let wrong = Config {
            url: Some("ftp://grid".into()),
            token_header: "a b".into(),
            every_s: 1,
            timeout_ms: 0,
            ..Config::default()
        };
        let keys: Vec<String> = wrong.diagnostics().iter().map(Diagnostic::key).collect();
        assert_eq!(keys, ["url", "token_header", "every_s", "timeout_ms"]);
        assert_eq!(Config::default().diagnostics(), []);
    }
}
