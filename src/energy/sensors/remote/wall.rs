//! Wall meters: Shelly plugs of both generations, and Tasmota.
//!
//! A wall meter covers the whole machine, fans and losses included: it is the reference of
//! calibrations and, where no other sensor can be read, the machine's total; never a part of a sum.
//! Its power is integrated, because its energy counter is too coarse.

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

/// `[energy.wall]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Root URL of the meter. Default unset: no meter.
    pub url: Option<String>,
    /// Interface of the meter. Default `shelly_gen2`.
    pub api: Api,
    /// Index of the channel, from 0. Default 0.
    pub channel: u8,
    /// Milliseconds between polls, 500 to 60000. Default 1000.
    pub every_ms: u64,
    /// Timeout of a poll in milliseconds, 100 to 30000. Default 2000.
    pub timeout_ms: u64,
}

/// Interface of a wall meter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Api {
    /// Shelly Plus, Pro and later, with a switch.
    #[default]
    ShellyGen2,
    /// Shelly of those generations without a switch (PM Mini).
    ShellyGen2Pm,
    /// Shelly of the first generation (Plug, 1PM, EM).
    ShellyGen1,
    Tasmota,
}

impl Default for Config {
    fn default() -> Self {
        Self { url: None, api: Api::ShellyGen2, channel: 0, every_ms: 1000, timeout_ms: 2000 }
    }
}

impl Config {
    fn poll_target(&self) -> Option<PollTarget> {
        let mut url = http_url(self.url.as_deref()?)?;
        let (path, query) = self.api.path_and_query(self.channel);
        url.path_segments_mut().ok()?.pop_if_empty().extend(path);
        url.set_query(query.as_deref());
        Some(PollTarget {
            url,
            secret: None,
            every: Duration::from_millis(self.every_ms),
            timeout: Duration::from_millis(self.timeout_ms),
        })
    }

    /// Energy between readings further apart than this is unknown.
    fn longest_gap(&self) -> Duration {
        Duration::from_millis(3 * self.every_ms + self.timeout_ms)
    }
}

impl Validate for Config {
    fn validate(&self, out: &mut Diagnostics) {
        if let Some(url) = &self.url {
            validate_url(url, out);
        }
        validate_pace(self.every_ms, self.timeout_ms, out);
    }
}

/// The configured meter, if any.
pub fn find(config: &Config) -> Vec<Discovered> {
    let Some(at) = config.url.clone() else { return Vec::new() };
    let info = info("wall", Kind::Wall, Quality::Measured, Band::WALL);
    let (api, channel) = (config.api, usize::from(config.channel));
    let parse = Box::new(move |body: &[u8]| api.watts(channel, body).map(Figure::Watts));
    let sensor = match config.poll_target() {
        None => Err(SkipReason::Absent(URL_RULE)),
        Some(target) => PolledSensor::create(info.clone(), target, config.longest_gap(), parse),
    };
    vec![Discovered { kind: Kind::Wall, info, coverage: Coverage::Machine, at, sensor }]
}

impl Api {
    /// Path of a channel's power below the root URL.
    pub fn path_and_query(self, channel: u8) -> (Vec<&'static str>, Option<String>) {
        match self {
            Self::ShellyGen2 => (vec!["rpc", "Switch.GetStatus"], Some(format!("id={channel}"))),
            Self::ShellyGen2Pm => (vec!["rpc", "PM1.GetStatus"], Some(format!("id={channel}"))),
            Self::ShellyGen1 => (vec!["status"], None),
            Self::Tasmota => (vec!["cm"], Some("cmnd=Status%208".to_owned())),
        }
    }

    /// The power in a response body.
    pub fn watts(self, channel: usize, body: &[u8]) -> Result<f64, String> {
        let body: Value =
            serde_json::from_slice(body).map_err(|_| "response is not JSON".to_owned())?;
        let value = match self {
            Self::ShellyGen2 | Self::ShellyGen2Pm => &body["apower"],
            Self::ShellyGen1 => {
                let meters = if body["meters"][channel].is_object() { "meters" } else { "emeters" };
                let meter = &body[meters][channel];
                if meter["is_valid"] == Value::Bool(false) {
                    return Err("the meter marks its reading as not valid".to_owned());
                }
                &meter["power"]
            }
            // A device with several channels returns a list of powers.
            Self::Tasmota => match &body["StatusSNS"]["ENERGY"]["Power"] {
                Value::Array(powers) => powers.get(channel).unwrap_or(&Value::Null),
                power => power,
            },
        };
        value.as_f64().ok_or_else(|| {
            "response has no power reading: check energy.wall.api and energy.wall.channel"
                .to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(api: Api) -> String {
        let config =
            Config { url: Some("http://10.0.0.9".into()), api, channel: 1, ..Config::default() };
        config.poll_target().unwrap().url.to_string()
    }

    #[test]
    fn each_kind_is_asked_in_its_own_way() {
        assert_eq!(url(Api::ShellyGen2), "http://10.0.0.9/rpc/Switch.GetStatus?id=1");
        assert_eq!(url(Api::ShellyGen2Pm), "http://10.0.0.9/rpc/PM1.GetStatus?id=1");
        assert_eq!(url(Api::ShellyGen1), "http://10.0.0.9/status");
        assert_eq!(url(Api::Tasmota), "http://10.0.0.9/cm?cmnd=Status%208");
    }

    #[test]
    fn the_power_is_found_in_each_kind_of_answer() {
        let cases = [
            (
                Api::ShellyGen2,
                r#"{"id":0,"output":true,"apower":61.3,"aenergy":{"total":120.5}}"#,
                61.3,
            ),
            (
                Api::ShellyGen1,
                r#"{"meters":[{"power":0},{"power":48.02,"is_valid":true,"total":9}]}"#,
                48.02,
            ),
            (Api::ShellyGen1, r#"{"emeters":[{"power":1},{"power":250.5}]}"#, 250.5),
            (Api::Tasmota, r#"{"StatusSNS":{"ENERGY":{"Total":1.23,"Power":77}}}"#, 77.0),
            (Api::Tasmota, r#"{"StatusSNS":{"ENERGY":{"Power":[5,9]}}}"#, 9.0),
        ];
        for (api, body, watts) in cases {
            assert_eq!(api.watts(1, body.as_bytes()), Ok(watts), "{body}");
        }
    }

    #[test]
    fn an_answer_without_power_is_no_zero() {
        for api in [Api::ShellyGen2, Api::ShellyGen2Pm, Api::ShellyGen1, Api::Tasmota] {
            for body in ["", "[]", "{}", r#"{"apower":"61"}"#, r#"{"meters":[]}"#] {
                assert!(api.watts(0, body.as_bytes()).is_err(), "{api:?} {body}");
            }
        }
        let invalid = br#"{"meters":[{"power":0,"is_valid":false}]}"#;
        assert!(Api::ShellyGen1.watts(0, invalid).unwrap_err().contains("not valid"));
    }
}
