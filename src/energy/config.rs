//! The `[energy]` config section: sensors, cadence and the constants of estimates, with their
//! limits.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::grid::rates::CarbonConfig;
use super::grid::tariff;
use super::prediction::estimate::PRIOR_CPU_SECONDS;
use super::prediction::profile::{Linear, nanojoules};
use super::sensors::discovered::Kind;
use super::sensors::library::nvml;
use super::sensors::process::cpu_model::CpuModel;
use super::sensors::remote::{prometheus, wall};
use super::sensors::sysfs::rapl;
use super::work::TokenWeights;
use crate::units::Watts;
use crate::validate::{Diagnostics, Validate, above_zero_to};

/// Config of the energy meter.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Which sensors to use. Default `auto`: the best that do not overlap.
    pub sensors: SensorChoice,
    /// Milliseconds between readings, 10 to 1000. Default 50.
    pub cadence_ms: u64,
    /// Mount point of sysfs. Default `/sys`; in a container, the path of a bind mount of the
    /// host's.
    pub sysfs_root: PathBuf,
    /// Mount point of this process's own procfs. Default `/proc`.
    pub proc_root: PathBuf,
    /// CPU model: watts of one busy core above idle, above 0 and up to 1000. Default 3.3.
    pub watts_per_busy_core: Watts,
    /// CPU model: lower end of the band. Default 1.1.
    pub watts_per_busy_core_low: Watts,
    /// CPU model: upper end of the band. Default 8.
    pub watts_per_busy_core_high: Watts,
    /// Idle watts of one CPU package, 0 to 10000; at most the smallest power seen counts. Default
    /// unset: learned from times without requests.
    pub idle_watts: Option<Watts>,
    /// Weight of a computed prompt token of a model without a profile when energy is divided, 0 to
    /// 1000. Default 0.15.
    pub prefill_weight: f64,
    /// Weight of a generated token, above 0 and up to 1000. Default 1.
    pub decode_weight: f64,
    /// RAPL counters of the processor.
    pub rapl: rapl::Config,
    /// NVIDIA cards.
    pub nvml: nvml::Config,
    /// Energy and power channels in `/sys/class/hwmon`.
    pub hwmon: Switch,
    /// Power monitors of Jetson boards.
    pub ina3221: Switch,
    /// The energy model of Apple's chips.
    pub apple: Switch,
    /// Queries to Prometheus servers, by name. Default none.
    pub prometheus: BTreeMap<String, prometheus::Config>,
    /// A wall meter. Default none.
    pub wall: wall::Config,
    /// Price of electricity. Default unset: its cost is absent.
    pub price: tariff::Config,
    /// Grid of this machine. Default unset: emissions are absent.
    pub carbon: CarbonConfig,
    /// Profile written by `wattgate measure`: joules and seconds per token of its models, and the
    /// calibration of the sensors. Default: none.
    pub profile: Option<PathBuf>,
}

/// The kinds of sensors to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SensorChoice {
    /// The best readable sensors that do not overlap; the CPU model if none covers the processor.
    #[default]
    Auto,
    /// Only this kind; the gateway does not start without it. Likewise below.
    Rapl,
    Nvml,
    Hwmon,
    Ina3221,
    Apple,
    Prometheus,
    Wall,
    CpuModel,
    /// Local energy stays unknown.
    None,
}

impl SensorChoice {
    /// The value in the config.
    pub fn label(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::CpuModel => "cpu_model",
            Self::None => "none",
            _ => self.kind().map_or("", Kind::label),
        }
    }

    /// The required kind of sensor, if any.
    pub fn kind(self) -> Option<Kind> {
        match self {
            Self::Auto | Self::CpuModel | Self::None => None,
            Self::Rapl => Some(Kind::Rapl),
            Self::Nvml => Some(Kind::Nvml),
            Self::Hwmon => Some(Kind::Hwmon),
            Self::Ina3221 => Some(Kind::Ina3221),
            Self::Apple => Some(Kind::Apple),
            Self::Prometheus => Some(Kind::Prometheus),
            Self::Wall => Some(Kind::Wall),
        }
    }
}

/// Whether `auto` uses a kind of sensor. Default true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Switch {
    pub enabled: bool,
}

impl Default for Switch {
    fn default() -> Self {
        Self { enabled: true }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            sensors: SensorChoice::Auto,
            cadence_ms: 50,
            sysfs_root: "/sys".into(),
            proc_root: "/proc".into(),
            watts_per_busy_core: CpuModel::DEFAULT.watts_per_busy_core,
            watts_per_busy_core_low: CpuModel::DEFAULT.low,
            watts_per_busy_core_high: CpuModel::DEFAULT.high,
            idle_watts: None,
            prefill_weight: 0.15,
            decode_weight: 1.0,
            rapl: rapl::Config::default(),
            nvml: nvml::Config::default(),
            hwmon: Switch::default(),
            ina3221: Switch::default(),
            apple: Switch::default(),
            prometheus: BTreeMap::new(),
            wall: wall::Config::default(),
            price: tariff::Config::default(),
            carbon: CarbonConfig::default(),
            profile: None,
        }
    }
}

impl Config {
    pub fn cpu_model(&self) -> CpuModel {
        CpuModel {
            watts_per_busy_core: self.watts_per_busy_core,
            low: self.watts_per_busy_core_low,
            high: self.watts_per_busy_core_high,
        }
    }

    /// Cost assumed for a model without a profile: the prior for a token of weight 1.
    pub fn prior_cost(&self) -> Linear {
        let [_, seconds, _] = PRIOR_CPU_SECONDS;
        let joules = seconds * self.watts_per_busy_core.0;
        Linear {
            fixed: 0.0,
            prefill_token: self.prefill_weight * joules,
            decode_token: self.decode_weight * joules,
        }
    }

    pub fn token_weights(&self) -> TokenWeights {
        let Linear { prefill_token, decode_token, .. } = self.prior_cost();
        TokenWeights { prefill: nanojoules(prefill_token), decode: nanojoules(decode_token) }
    }
}

impl Validate for Config {
    fn validate(&self, out: &mut Diagnostics) {
        const BAND: &str = "the band must hold `watts_per_busy_core`";
        out.range("cadence_ms", self.cadence_ms, 10..=1000, " milliseconds");
        let watts = self.watts_per_busy_core.0;
        out.range("watts_per_busy_core", watts, above_zero_to(1000.0), " W");
        let (low, high) = (self.watts_per_busy_core_low.0, self.watts_per_busy_core_high.0);
        out.range("watts_per_busy_core_low", low, 0.0..=watts, " W").hint(BAND);
        out.range("watts_per_busy_core_high", high, watts..=1000.0, " W").hint(BAND);
        validate_idle_watts(self.idle_watts, out);
        out.range("prefill_weight", self.prefill_weight, 0.0..=1000.0, "");
        out.range("decode_weight", self.decode_weight, above_zero_to(1000.0), "");
        out.inside("nvml", |out| validate_idle_watts(self.nvml.idle_watts, out));
        out.table("carbon", &self.carbon);
        out.table("price", &self.price);
        out.table("wall", &self.wall);
        out.inside("prometheus", |out| {
            for (name, query) in &self.prometheus {
                out.table(name, query);
            }
        });
    }
}

fn validate_idle_watts(watts: Option<Watts>, out: &mut Diagnostics) {
    out.range_if_set("idle_watts", watts.map(|watts| watts.0), 0.0..=10_000.0, " W");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::Diagnostic;

    #[test]
    fn the_default_is_usable_and_an_empty_section_is_the_default() {
        assert_eq!(Config::default().diagnostics(), []);
        assert_eq!(toml::from_str::<Config>("").unwrap(), Config::default());
        assert_eq!(Config::default().token_weights(), TokenWeights::DEFAULT);
        assert_eq!(Config::default().cpu_model(), CpuModel::DEFAULT);
    }

    #[test]
    fn every_problem_is_reported_with_its_key() {
        let text = r#"
            sensors = "cpu_model"
            cadence_ms = 5
            watts_per_busy_core = 3.0
            watts_per_busy_core_low = 4.0
            watts_per_busy_core_high = 2.0
            idle_watts = -1.0
            prefill_weight = nan
            decode_weight = 0.0
        "#;
        let config: Config = toml::from_str(text).unwrap();
        assert_eq!(config.sensors, SensorChoice::CpuModel);
        let keys: Vec<String> = config.diagnostics().iter().map(Diagnostic::key).collect();
        assert_eq!(
            keys,
            [
                "cadence_ms",
                "watts_per_busy_core_low",
                "watts_per_busy_core_high",
                "idle_watts",
                "prefill_weight",
                "decode_weight",
            ]
        );
    }

    #[test]
    fn an_unknown_key_is_refused() {
        assert!(toml::from_str::<Config>("cadence = 5").is_err());
    }
}
