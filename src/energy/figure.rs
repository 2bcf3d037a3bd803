//! Energy figures: an amount with its band, quality and source. No energy leaves Wattgate without
//! them.

use serde::{Deserialize, Serialize};

use crate::units::Joules;

/// Origin of a figure, best first; a sum takes the worst of its parts (`Ord`: greater is worse).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quality {
    /// Read from an energy counter of the device, or from a meter of its mean power.
    Measured,
    /// A model fitted against a wall meter on this machine.
    Calibrated,
    /// A model with published coefficients applied to a measured quantity (CPU seconds), or power
    /// that was only sampled.
    Estimated,
    /// A table row about hardware of a third party, or a prior.
    Assumed,
    /// No amount is known.
    Unknown,
}

impl Quality {
    pub fn label(self) -> &'static str {
        match self {
            Self::Measured => "measured",
            Self::Calibrated => "calibrated",
            Self::Estimated => "estimated",
            Self::Assumed => "assumed",
            Self::Unknown => "unknown",
        }
    }
}

/// Sensor, model or table a figure comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Running average power limit counters of Intel and AMD processors.
    Rapl,
    /// NVIDIA's management library.
    Nvml,
    /// Energy or power channels in `/sys/class/hwmon`.
    Hwmon,
    /// Power monitors of Jetson boards.
    Ina3221,
    /// The energy model of Apple's chips.
    Apple,
    /// A laptop's battery.
    Battery,
    /// A query to a Prometheus server.
    Prometheus,
    /// A wall meter.
    Wall,
    /// CPU seconds of a process times watts per busy core.
    CpuModel,
    /// The table of cloud model classes.
    CloudTable,
    /// A figure reported by the upstream.
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
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EnergyFigure {
    /// `None` if unknown, which is not zero.
    pub joules: Option<Joules>,
    /// Lower end of the band.
    pub low: Option<Joules>,
    /// Upper end of the band.
    pub high: Option<Joules>,
    pub quality: Quality,
    pub source: Source,
    /// False while the figure can still change: a request's energy settles with the first sample
    /// after its end.
    #[serde(rename = "final")]
    pub is_final: bool,
}

impl EnergyFigure {
    /// An unknown amount.
    pub fn unknown(source: Source) -> Self {
        Self {
            joules: None,
            low: None,
            high: None,
            quality: Quality::Unknown,
            source,
            is_final: true,
        }
    }

    /// Zero energy of work that was never started. Labelled measured, so that it does not lower the
    /// quality of a sum.
    pub fn nothing(source: Source) -> Self {
        let zero = Some(Joules(0.0));
        let quality = Quality::Measured;
        Self { joules: zero, low: zero, high: zero, quality, source, is_final: true }
    }

    /// Sum of two figures: bands add (errors are systematic), the worst quality applies, unknown
    /// stays unknown.
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
        let unknown = counted.plus(EnergyFigure::unknown(Source::CloudTable));
        assert_eq!((unknown.joules, unknown.quality), (None, Quality::Unknown));
    }
}
