//! Energy or power from a Prometheus server: Kepler, DCGM, smart-plug exporters.
//!
//! Each poll is an instant query over HTTP that must return one number. The lookback of the query
//! is the age at which a figure is stale, so that a dead exporter is detected.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::polled::PolledSensor;
use crate::energy::figure::Quality;
use crate::energy::polling::http_config::{URL_RULE, http_url, validate_pace, validate_url};
use crate::energy::polling::poller::PollTarget;
use crate::energy::sensors::coverage::Coverage;
use crate::energy::sensors::discovered::{Discovered, Kind, SkipReason, info};
use crate::energy::sensors::latest_figure::Figure;
use crate::energy::sensors::sensor::Band;
use crate::validate::{Diagnostics, Validate};

/// `[energy.prometheus.NAME]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Root URL of the Prometheus server. Required.
    pub url: String,
    /// `PromQL` expression that returns one number. Required.
    pub query: String,
    /// Unit of the number. Default `joules`.
    pub unit: Unit,
    /// Part covered: another machine (`elsewhere`, the default), or this `machine`, its `processor`
    /// or an `accelerator`.
    pub covers: Coverage,
    /// Models whose engines run on the other machine; required for `elsewhere`, else forbidden.
    pub models: Vec<String>,
    /// Quality of the exporter's figures. Default `estimated`: exporters in virtual machines use
    /// models.
    pub quality: Quality,
    /// Milliseconds between polls, 500 to 60000. Default 5000.
    pub every_ms: u64,
    /// Timeout of a poll in milliseconds, 100 to 30000. Default 2000.
    pub timeout_ms: u64,
    /// Seconds after which a figure is stale, 2 to 3600. Default 60.
    pub stale_after_s: u64,
    /// Environment variable with a bearer token. Default unset: no token is sent.
    pub token_env: Option<String>,
}

/// Unit of a query's number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// An energy counter.
    #[default]
    Joules,
    /// A power gauge, integrated over time.
    Watts,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: String::new(),
            query: String::new(),
            unit: Unit::Joules,
            covers: Coverage::Elsewhere,
            models: Vec::new(),
            quality: Quality::Estimated,
            every_ms: 5000,
            timeout_ms: 2000,
            stale_after_s: 60,
            token_env: None,
        }
    }
}

impl Config {
    fn poll_target(&self) -> Option<PollTarget> {
        let mut url = http_url(&self.url)?;
        url.path_segments_mut().ok()?.pop_if_empty().extend(["api", "v1", "query"]);
        url.query_pairs_mut()
            .append_pair("query", &self.query)
            .append_pair("lookback_delta", &format!("{}s", self.stale_after_s));
        Some(PollTarget {
            url,
            secret: self.token_env.as_deref().and_then(PollTarget::bearer),
            every: Duration::from_millis(self.every_ms),
            timeout: Duration::from_millis(self.timeout_ms),
        })
    }
}

impl Validate for Config {
    fn validate(&self, out: &mut Diagnostics) {
        validate_url(&self.url, out);
        out.rule(
            "query",
            !self.query.trim().is_empty(),
            "is missing: a PromQL expression that gives one number",
        );
        out.rule(
            "models",
            (self.covers == Coverage::Elsewhere) != self.models.is_empty(),
            "must name the models whose engines run on that other machine, and is for other machines only",
        );
        out.rule(
            "covers",
            self.covers != Coverage::Memory,
            "must be `elsewhere`, `machine`, `processor` or `accelerator`",
        );
        out.rule(
            "quality",
            matches!(self.quality, Quality::Measured | Quality::Estimated),
            "must be `measured` or `estimated`",
        );
        validate_pace(self.every_ms, self.timeout_ms, out);
        out.range("stale_after_s", self.stale_after_s, 2..=3600, " seconds");
    }
}

/// The sensor of one query, named after its config table.
pub fn candidate(name: &str, config: &Config) -> Discovered {
    let band = match config.unit {
        // What the exporter reads is not known: as a processor's counter.
        Unit::Joules => Band::PROCESSOR,
        Unit::Watts => Band::SAMPLED,
    };
    let info = info(name, Kind::Prometheus, config.quality, band);
    let unit = config.unit;
    let parse = Box::new(move |body: &[u8]| number(body).map(|number| unit.figure(number)));
    let stale_after = Duration::from_secs(config.stale_after_s);
    let sensor = match config.poll_target() {
        None => Err(SkipReason::Absent(URL_RULE)),
        Some(target) => PolledSensor::create(info.clone(), target, stale_after, parse),
    };
    Discovered {
        kind: Kind::Prometheus,
        info,
        coverage: config.covers,
        at: config.url.clone(),
        sensor,
    }
}

impl Unit {
    fn figure(self, number: f64) -> Figure {
        match self {
            Self::Joules => Figure::Joules(number),
            Self::Watts => Figure::Watts(number),
        }
    }
}

/// The number in the response to an instant query.
fn number(body: &[u8]) -> Result<f64, String> {
    let body: Value = serde_json::from_slice(body)
        .map_err(|_| "response is not that of a Prometheus query".to_owned())?;
    let data = &body["data"];
    let value = match (data["resultType"].as_str(), data["result"].as_array()) {
        (Some("scalar"), Some(value)) => value,
        (Some("vector"), Some(series)) => match series.as_slice() {
            [] => return Err("the query finds nothing: check that the exporter is up".to_owned()),
            [one] => one["value"].as_array().ok_or("response is not that of a Prometheus query")?,
            more => {
                let count = more.len();
                return Err(format!("the query returns {count} series: aggregate them with sum()"));
            }
        },
        _ => return Err("the query returns no single number".to_owned()),
    };
    let text = value.get(1).and_then(Value::as_str).unwrap_or_default();
    text.parse().map_err(|_| "the query returns no number".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::Diagnostic;

    fn config() -> Config {
        Config {
            url: "http://127.0.0.1:9090/prom/".into(),
            query: "sum(kepler_node_cpu_joules_total)".into(),
            models: vec!["vllm".into()],
            ..Config::default()
        }
    }

    #[test]
    fn the_question_is_an_instant_query_below_the_servers_path() {
        let url = config().poll_target().unwrap().url;
        assert_eq!(
            url.as_str(),
            "http://127.0.0.1:9090/prom/api/v1/query?query=sum%28kepler_node_cpu_joules_total%29&lookback_delta=60s"
        );
    }

    #[test]
    fn one_number_is_read_and_anything_else_refused_with_a_reason() {
        let read = |text: &str| number(text.as_bytes());
        let vector = |series: &str| {
            format!(
                r#"{{"status":"success","data":{{"resultType":"vector","result":[{series}]}}}}"#
            )
        };
        let one = r#"{"metric":{},"value":[1.7e9,"123.25"]}"#;
        assert_eq!(read(&vector(one)), Ok(123.25));
        assert_eq!(read(r#"{"data":{"resultType":"scalar","result":[1,"7"]}}"#), Ok(7.0));
        assert!(read(&vector("")).unwrap_err().contains("finds nothing"));
        assert!(read(&vector(&format!("{one},{one}"))).unwrap_err().contains("sum()"));
        for wrong in ["", "[]", "{}", r#"{"data":{"resultType":"matrix","result":[]}}"#] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(read(&vector(r#"{"value":[1,"many"]}"#)).is_err());
        assert!(read(&vector(r#"{"value":[1,"NaN"]}"#)).unwrap().is_nan(), "refused by the latest");
    }

    #[test]
    fn every_invalid_key_is_listed() {
        assert_eq!(config().diagnostics(), []);
        let wrong = Config {
            url: "http://me:secret@h/".into(),
            query: " ".into(),
            covers: Coverage::Memory,
            quality: Quality::Calibrated,
            every_ms: 1,
            timeout_ms: 1,
            stale_after_s: 1,
            ..config()
        };
        let problems = wrong.diagnostics();
        let keys: Vec<String> = problems.iter().map(Diagnostic::key).collect();
        assert_eq!(
            keys,
            [
                "url",
                "query",
                "models",
                "covers",
                "quality",
                "every_ms",
                "timeout_ms",
                "stale_after_s"
            ]
        );
        assert!(!format!("{problems:?}").contains("secret"));
    }
}
