//! What a joule causes beside heat: grams of CO2-equivalent by the grid it comes from, and a bill. Nothing unless
//! configured.

use serde::Deserialize;

use super::emissions::{Basis, CarbonFigure, GramsPerKwh, Grid};
use super::intensity;
use super::live_intensity::{self, LiveIntensity};
use super::tariff::{self, Tariff};
use crate::energy::figure::EnergyFigure;

/// `[energy.carbon]`: the grid this machine is at. Without either key, carbon is absent everywhere.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CarbonConfig {
    /// ISO 3166-1 alpha-3 code of the country, or `world`. Default: unset.
    pub zone: Option<String>,
    /// The operator's own figure, 0 to 5000, instead of the table's. Default: unset.
    pub grams_per_kwh: Option<f64>,
    /// A source of the hour's figure. Default unset: the year's average stands.
    pub live: live::Config,
}

impl CarbonConfig {
    /// The grid by table or by the operator's word; none unless configured.
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

    /// What is wrong with it: the key at fault, and why.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let zone = self.zone.as_deref().and_then(zone_problem);
        let own = self.grams_per_kwh.filter(|own| !(0.0..=5000.0).contains(own));
        let own = own.map(|own| format!("must be 0 to 5000 grams, not {own}"));
        let alone = self.live.url.is_some() && self.zone.is_none() && self.grams_per_kwh.is_none();
        let zone =
            zone.or(alone.then(|| "is needed: its figure stands in for the live one".to_owned()));
        [("zone", zone), ("grams_per_kwh", own)]
            .into_iter()
            .filter_map(|(key, problem)| Some((key, problem?)))
            .collect()
    }
}

/// Why a zone is none; nothing if it is one.
pub fn zone_problem(zone: &str) -> Option<String> {
    intensity::find(zone).is_none().then(|| {
        let known: Vec<&str> = intensity::TABLE.iter().map(|row| row.zone).collect();
        format!(
            "must be the three-letter code of a country that is in the table, or `world`, not `{zone}`; known are {}",
            known.join(", ")
        )
    })
}

/// The rates in force.
#[derive(Debug, Default)]
pub struct Rates {
    here: Option<Grid>,
    live: Option<LiveIntensity>,
    tariff: Option<Tariff>,
}

impl Rates {
    /// Starts asking the live source, if there is one.
    pub fn new(carbon: &CarbonConfig, price: &tariff::Config) -> Self {
        let here = carbon.grid();
        let live = here.as_ref().and_then(|_| LiveIntensity::start(&carbon.live));
        Self { here, live, tariff: price.tariff() }
    }

    /// What electricity costs here; none unless configured.
    pub fn tariff(&self) -> Option<&Tariff> {
        self.tariff.as_ref()
    }

    /// The grid of this machine; none unless configured.
    pub fn here(&self) -> Option<Grid> {
        let here = self.here.as_ref()?;
        let live = self.live.as_ref().and_then(LiveIntensity::grams_per_kwh);
        Some(match live {
            None => here.clone(),
            Some(grams_per_kwh) => Grid { grams_per_kwh, basis: Basis::Live, ..here.clone() },
        })
    }

    /// The grid of somebody else's machine in `zone`, the world's average where nobody knows; none unless this
    /// machine's is configured, since half a sum would pass for the whole.
    pub fn elsewhere(&self, zone: Option<&str>) -> Option<Grid> {
        self.here.as_ref()?;
        Some(zone.and_then(Grid::of_zone).unwrap_or_else(Grid::world))
    }

    /// Carbon of energy used here.
    pub fn carbon_here(&self, energy: EnergyFigure) -> Option<CarbonFigure> {
        Some(self.here()?.carbon(energy))
    }

    /// Carbon of energy used elsewhere.
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
    fn what_is_no_zone_or_no_figure_is_said() {
        let config = CarbonConfig {
            zone: Some("EUR".into()),
            grams_per_kwh: Some(f64::NAN),
            ..CarbonConfig::default()
        };
        let keys: Vec<&str> = config.problems().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["zone", "grams_per_kwh"]);
        assert_eq!(CarbonConfig { zone: Some("world".into()), ..config }.problems().len(), 1);
    }
}
