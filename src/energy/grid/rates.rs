//! Configured rates of energy: carbon intensity of the grid and price of electricity. Absent unless
//! configured.

use serde::Deserialize;

use super::emissions::{Basis, CarbonFigure, GramsPerKwh, Grid};
use super::intensity;
use super::live_intensity::{self, LiveIntensity};
use super::tariff::{self, Tariff};
use crate::energy::figure::EnergyFigure;
use crate::energy::polling::poller::Poller;
use crate::validate::{Diagnostics, Validate};

/// `[energy.carbon]`: the grid of this machine. Without a zone or a figure, emissions are absent
/// everywhere.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CarbonConfig {
    /// ISO 3166-1 alpha-3 code of the country, or `world`. Default: unset.
    pub zone: Option<String>,
    /// Grams per kilowatt-hour, 0 to 5000, instead of the table's. Default: unset.
    pub grams_per_kwh: Option<f64>,
    /// A source of live figures. Default unset: the yearly average is used.
    pub live: live_intensity::Config,
}

impl CarbonConfig {
    /// The configured grid, or the table's for the configured zone; `None` without either.
    pub fn grid(&self) -> Option<Grid> {
        let zone = self.zone.as_deref();
        match self.grams_per_kwh {
            None => zone.and_then(Grid::of_zone),
            Some(own) => Some(Grid {
                zone: zone.unwrap_or("here").into(),
                grams_per_kwh: GramsPerKwh(own),
                basis: Basis::Configured,
            }),
        }
    }
}

impl Validate for CarbonConfig {
    fn validate(&self, out: &mut Diagnostics) {
        let alone = self.live.url.is_some() && self.zone.is_none() && self.grams_per_kwh.is_none();
        out.rule("zone", !alone, "is required: its figure is the fallback for the live one");
        validate_zone("zone", self.zone.as_deref(), out);
        out.range_if_set("grams_per_kwh", self.grams_per_kwh, 0.0..=5000.0, " grams");
        out.table("live", &self.live);
    }
}

/// Reports `key` if its zone is not in the table.
pub fn validate_zone(key: &str, zone: Option<&str>, out: &mut Diagnostics) {
    let Some(zone) = zone.filter(|zone| intensity::find(zone).is_none()) else { return };
    let known: Vec<&str> = intensity::TABLE.iter().map(|row| row.zone).collect();
    out.reject(
        key,
        format!(
            "`{key}` must be the three-letter code of a country that is in the table, or `world`, not `{zone}`; known are {}",
            known.join(", ")
        ),
    );
}

/// The configured rates.
#[derive(Debug, Default)]
pub struct Rates {
    here: Option<Grid>,
    live: Option<LiveIntensity>,
    tariff: Option<Tariff>,
}

impl Rates {
    /// Live figures are used once the task of [`Rates::take_poller`] runs.
    pub fn new(carbon: &CarbonConfig, price: &tariff::Config) -> Self {
        let here = carbon.grid();
        let live = here.as_ref().and_then(|_| LiveIntensity::new(&carbon.live));
        Self { here, live, tariff: price.tariff() }
    }

    /// Takes the poll task of the live source.
    pub fn take_poller(&mut self) -> Option<Poller> {
        self.live.as_mut().and_then(LiveIntensity::take_poller)
    }

    /// The price of electricity here; `None` unless configured.
    pub fn tariff(&self) -> Option<&Tariff> {
        self.tariff.as_ref()
    }

    /// The grid of this machine; `None` unless configured.
    pub fn here(&self) -> Option<Grid> {
        let here = self.here.as_ref()?;
        let live = self.live.as_ref().and_then(LiveIntensity::grams_per_kwh);
        Some(match live {
            None => here.clone(),
            Some(grams_per_kwh) => Grid { grams_per_kwh, basis: Basis::Live, ..here.clone() },
        })
    }

    /// The grid of another machine in `zone`, the world's average if the zone is unknown. `None`
    /// unless this machine's grid is configured: a sum over only some attempts would be misleading.
    pub fn elsewhere(&self, zone: Option<&str>) -> Option<Grid> {
        self.here.as_ref()?;
        Some(zone.and_then(Grid::of_zone).unwrap_or_else(Grid::world))
    }

    /// Emissions of energy used here.
    pub fn carbon_here(&self, energy: EnergyFigure) -> Option<CarbonFigure> {
        Some(self.here()?.carbon(energy))
    }

    /// Emissions of energy used elsewhere.
    pub fn carbon_elsewhere(
        &self,
        zone: Option<&str>,
        energy: EnergyFigure,
    ) -> Option<CarbonFigure> {
        Some(self.elsewhere(zone)?.carbon(energy))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::Diagnostic;

    #[test]
    fn nothing_is_configured_by_default_and_no_country_is_guessed() {
        let rates = Rates::new(&CarbonConfig::default(), &tariff::Config::default());
        assert_eq!((rates.here(), rates.elsewhere(Some("DEU"))), (None, None));
    }

    #[test]
    fn the_operators_own_figure_beats_the_table_and_strangers_are_the_worlds() {
        let config = CarbonConfig {
            zone: Some("NOR".into()),
            grams_per_kwh: Some(5.0),
            ..CarbonConfig::default()
        };
        let rates = Rates::new(&config, &tariff::Config::default());
        let here = rates.here().unwrap();
        assert_eq!((here.grams_per_kwh, here.basis), (GramsPerKwh(5.0), Basis::Configured));
        assert_eq!(&*rates.elsewhere(None).unwrap().zone, "world");
        assert_eq!(&*rates.elsewhere(Some("usa")).unwrap().zone, "USA");
    }

    #[test]
    fn an_invalid_zone_and_an_invalid_figure_are_reported() {
        let config = CarbonConfig {
            zone: Some("EUR".into()),
            grams_per_kwh: Some(f64::NAN),
            ..CarbonConfig::default()
        };
        let keys: Vec<String> = config.diagnostics().iter().map(Diagnostic::key).collect();
        assert_eq!(keys, ["zone", "grams_per_kwh"]);
        assert_eq!(CarbonConfig { zone: Some("world".into()), ..config }.diagnostics().len(), 1);
    }
}
