//! An amount of energy together with how far it can be trusted. No figure leaves Wattgate without this.

use serde::{Deserialize, Serialize};

use crate::units::Joules;

/// How a figure came about, best first; a sum takes the worst of its parts (`Ord`: greater is worse).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quality {
    /// Read from an energy counter of the device, or from a meter of its mean power.
    Measured,
    /// A model fitted against a wall meter on this machine.
    Calibrated,
    /// A model with published coefficients driven by something measured here (CPU seconds), or power that was only
    /// sampled.
    Estimated,
    /// A table row about somebody else's hardware.
    Assumed,
}

impl Quality {
    pub fn label(self) -> &'static str {
        match self {
            Self::Measured => "measured",
            Self::Calibrated => "calibrated",
            Self::Estimated => "estimated",
            Self::Assumed => "assumed",
        }
    }
}

/// Where a figure was read or computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Intel/AMD running average power limit counters.
    Rapl,
    /// NVIDIA's driver.
    Nvml,
    /// Drivers that show energy or power in `/sys/class/hwmon`.
    Hwmon,
    /// Power monitors of Jetson boards.
    Ina3221,
    /// Apple's own energy model.
    Apple,
    /// A laptop's battery.
    Battery,
    /// A query to a Prometheus server.
    Prometheus,
    /// A meter between the machine and the wall.
    Wall,
    /// CPU seconds of the engine times watts per busy core.
    CpuModel,
    /// The table of cloud model classes.
    CloudTable,
    /// The upstream reported its own figure.
    Upstream,
    /// Parts from different sources.
    Mixed,
}

impl Source {
    pub fn label(self) -> &'static str {
        match self {
            Self::Rapl => "rapl",
            Self::Nvml => "nvml",
            Self::Hwmon => "hwmon",
            Self::Ina3221 => "ina3221",
            Self::Apple => "apple",
            Self::Battery => "battery",
            Self::Prometheus => "prometheus",
            Self::Wall => "wall",
            Self::CpuModel => "cpu_model",
            Self::CloudTable => "cloud_table",
            Self::Upstream => "upstream",
            Self::Mixed => "mixed",
        }
    }
}

/// Energy with its band, quality and source; part of the receipt (DESIGN §10).
///
/// `joules` is `None` when it is unknown, which is not zero.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EnergyFigure {
    pub joules: Option<Joules>,
    /// Lower end of the band, equal to `joules` for a counter.
    pub low: Option<Joules>,
    /// Upper end of the band.
    pub high: Option<Joules>,
    pub quality: Quality,
    pub source: Source,
    /// Whether the figure can still change: a request's energy settles with the first sample after its end.
    #[serde(rename = "final")]
    pub is_final: bool,
}

impl EnergyFigure {
    /// A figure nobody could read.
    pub fn unknown(source: Source) -> Self {
        Self {
            joules: None,
            low: None,
            high: None,
            quality: Quality::Assumed,
            source,
            is_final: true,
        }
    }

    /// What was never begun has used nothing. That is certain, so it makes no sum less good.
    pub fn nothing(source: Source) -> Self {
        let zero = Some(Joules(0.0));
        let quality = Quality::Measured;
        Self { joules: zero, low: zero, high: zero, quality, source, is_final: true }
    }

    /// Sum of two figures: bands add (their errors are systematic), the worst quality wins, unknown stays unknown.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let add = |a: Option<Joules>, b: Option<Joules>| Some(a? + b?);
        Self {
            joules: add(self.joules, other.joules),
            low: add(self.low, other.low),
            high: add(self.high, other.high),
            quality: self.quality.max(other.quality),
            source: if self.source == other.source { self.source } else { Source::Mixed },
            is_final: self.is_final && other.is_final,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_keeps_the_worst_quality_and_the_unknown() {
        let counted = EnergyFigure {
            joules: Some(Joules(2.0)),
            low: Some(Joules(2.0)),
            high: Some(Joules(2.0)),
            quality: Quality::Measured,
            source: Source::Rapl,
            is_final: true,
        };
        let guessed =
            EnergyFigure { quality: Quality::Assumed, source: Source::CloudTable, ..counted };
        let sum = counted.plus(guessed);
        assert_eq!(
            (sum.joules, sum.quality, sum.source),
            (Some(Joules(4.0)), Quality::Assumed, Source::Mixed)
        );
        assert_eq!(counted.plus(EnergyFigure::unknown(Source::CloudTable)).joules, None);
    }
}
