//! Emissions of used energy, in grams of CO2-equivalent. Pure.
//!
//! Location-based: averages of the grid, without supply contracts and without the manufacture of
//! hardware.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::intensity;
use crate::energy::figure::{EnergyFigure, Quality};
use crate::units::{Grams, Joules};

/// Carbon intensity: grams of CO2-equivalent per kilowatt-hour.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GramsPerKwh(pub f64);

/// Joules per kilowatt-hour.
pub const JOULES_PER_KWH: f64 = 3.6e6;

/// Emissions of `joules` at that intensity.
pub fn grams(joules: Joules, intensity: GramsPerKwh) -> Grams {
    Grams(joules.0 / JOULES_PER_KWH * intensity.0)
}

/// The grid that supplies electricity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Grid {
    /// A country's ISO 3166-1 alpha-3 code, `world`, or a zone of the live source.
    pub zone: Arc<str>,
    pub grams_per_kwh: GramsPerKwh,
    pub basis: Basis,
}

/// Origin of a grid's intensity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The table's average of that year.
    Year(u16),
    /// The configured figure.
    Configured,
    /// A figure of the live source, at most an hour old.
    Live,
}

impl Basis {
    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Year(_) => "year",
            Self::Configured => "configured",
            Self::Live => "live",
        }
    }
}

impl Grid {
    /// The table's grid of a zone; `None` if the table has none.
    pub fn of_zone(zone: &str) -> Option<Self> {
        let row = intensity::find(zone)?;
        let grams_per_kwh = GramsPerKwh(f64::from(row.grams_per_kwh));
        Some(Self { zone: row.zone.into(), grams_per_kwh, basis: Basis::Year(row.year) })
    }

    /// The world's average, for electricity of unknown origin.
    pub fn world() -> Self {
        Self::of_zone(intensity::WORLD).unwrap_or(Self {
            zone: intensity::WORLD.into(),
            grams_per_kwh: GramsPerKwh(f64::from(intensity::TABLE[0].grams_per_kwh)),
            basis: Basis::Year(intensity::TABLE[0].year),
        })
    }

    /// Estimated for a figure of the hour or of the country, assumed for the world's average.
    pub fn quality(&self) -> Quality {
        if *self.zone == *intensity::WORLD && self.basis != Basis::Live {
            Quality::Assumed
        } else {
            Quality::Estimated
        }
    }

    /// Emissions of an amount of energy: the band scales, the worse quality applies, unknown stays
    /// unknown.
    pub fn carbon(&self, energy: EnergyFigure) -> CarbonFigure {
        let scale = |joules: Option<Joules>| joules.map(|joules| grams(joules, self.grams_per_kwh));
        CarbonFigure {
            grams: scale(energy.joules),
            low: scale(energy.low),
            high: scale(energy.high),
            quality: energy.quality.max(self.quality()),
            zone: Arc::clone(&self.zone),
            basis: Some(self.basis),
            is_final: energy.is_final,
        }
    }
}

/// The zone of a sum over several grids.
const MIXED: &str = "mixed";

/// Emissions with their band and quality; part of the receipt. The band covers only the energy, not
/// the difference between the hour's intensity and the grid's average.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CarbonFigure {
    /// `None` if the energy is unknown, which is not zero.
    pub grams: Option<Grams>,
    pub low: Option<Grams>,
    pub high: Option<Grams>,
    pub quality: Quality,
    /// The grid's zone; `mixed` for a sum over several.
    pub zone: Arc<str>,
    /// `None` for a sum of figures of different origin.
    pub basis: Option<Basis>,
    #[serde(rename = "final")]
    pub is_final: bool,
}

impl CarbonFigure {
    /// Sum of two figures: bands add, the worst quality applies, unknown stays unknown.
    #[must_use]
    pub fn plus(self, other: &Self) -> Self {
        let add = |a: Option<Grams>, b: Option<Grams>| Some(a? + b?);
        Self {
            grams: add(self.grams, other.grams),
            low: add(self.low, other.low),
            high: add(self.high, other.high),
            quality: self.quality.max(other.quality),
            basis: self.basis.filter(|basis| Some(*basis) == other.basis),
            zone: if self.zone == other.zone { self.zone } else { MIXED.into() },
            is_final: self.is_final && other.is_final,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::energy::figure::Source;

    fn energy(joules: f64) -> EnergyFigure {
        EnergyFigure {
            joules: Some(Joules(joules)),
            low: Some(Joules(joules / 2.0)),
            high: Some(Joules(joules * 2.0)),
            quality: Quality::Measured,
            source: Source::Rapl,
            is_final: true,
        }
    }

    #[test]
    fn a_kilowatt_hour_causes_what_the_grid_says() {
        assert_eq!(grams(Joules(3.6e6), GramsPerKwh(381.0)), Grams(381.0));
        let figure = Grid::of_zone("DEU").unwrap().carbon(energy(7.2e6));
        assert_eq!((figure.grams, figure.low), (Some(Grams(762.0)), Some(Grams(381.0))));
        assert_eq!((figure.quality, figure.basis), (Quality::Estimated, Some(Basis::Year(2023))));
    }

    #[test]
    fn the_world_is_assumed_and_unknown_energy_is_unknown_carbon() {
        let world = Grid::world();
        assert_eq!(world.carbon(energy(1.0)).quality, Quality::Assumed);
        assert_eq!(world.carbon(EnergyFigure::unknown(Source::Rapl)).grams, None);
    }

    #[test]
    fn a_sum_over_two_grids_says_so() {
        let [here, there] = ["FRA", "USA"].map(|zone| Grid::of_zone(zone).unwrap());
        let sum = here.carbon(energy(3.6e6)).plus(&there.carbon(energy(3.6e6)));
        assert_eq!((sum.grams, &*sum.zone), (Some(Grams(56.0 + 369.0)), "mixed"));
        let unknown = here.carbon(EnergyFigure::unknown(Source::Rapl));
        assert_eq!(unknown.plus(&there.carbon(energy(1.0))).grams, None);
    }
}
