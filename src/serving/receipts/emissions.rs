//! What the energy of a request causes: carbon by the grid of each model, and dollars of this machine's electricity.

use std::collections::HashMap;
use std::sync::Arc;

use crate::energy::carbon::CarbonFigure;
use crate::energy::{MeterHandle, Source};
use crate::routing::Route;
use crate::serving::models::model::{Kind, Model};
use crate::traffic::Attempt;
use crate::units::Dollars;

/// Knows which grid each model draws from.
pub struct Emissions {
    meter: MeterHandle,
    /// Zone of each model elsewhere, where the operator named one.
    zones: HashMap<Arc<str>, String>,
}

impl Emissions {
    pub fn new(meter: MeterHandle, models: &[Model]) -> Self {
        let zone = |model: &Model| match &model.kind {
            Kind::Cloud(config) => Some((Arc::clone(&model.name), config.carbon_zone.clone()?)),
            Kind::Local { .. } => None,
        };
        Self { meter, zones: models.iter().filter_map(zone).collect() }
    }

    /// Carbon of one attempt; none unless a grid is configured, or where nothing ran.
    pub fn carbon(&self, attempt: &Attempt) -> Option<CarbonFigure> {
        let (energy, rates) = (attempt.energy?, self.meter.rates());
        match attempt.route {
            Route::Local => rates.carbon_here(energy),
            Route::Cloud => {
                let zone = self.zones.get(&attempt.model).map(String::as_str);
                rates.carbon_elsewhere(zone, energy)
            }
        }
    }

    /// Carbon of a request.
    pub fn carbon_of_all(&self, attempts: &[Attempt]) -> Option<CarbonFigure> {
        let figures = attempts.iter().filter_map(|attempt| self.carbon(attempt));
        figures.reduce(|sum, figure| sum.plus(&figure))
    }

    /// What the electricity of an attempt costs the operator; none without a price, or where its energy is unknown. A
    /// provider's electricity is in the provider's price.
    pub fn electricity(&self, attempt: &Attempt, unix_ms: u64) -> Option<Dollars> {
        let tariff = self.meter.rates().tariff()?;
        match attempt.energy {
            Some(energy) if is_own(attempt.route, energy.source) => {
                Some(tariff.cost(energy.joules?, unix_ms))
            }
            _ => Some(Dollars(0.0)),
        }
    }

    /// The electricity of a request.
    pub fn electricity_of_all(&self, attempts: &[Attempt], unix_ms: u64) -> Option<Dollars> {
        self.meter.rates().tariff()?;
        attempts.iter().map(|attempt| self.electricity(attempt, unix_ms)).sum()
    }
}

/// Whether the operator pays for it: this machine, or one elsewhere that is metered for the operator.
fn is_own(route: Route, source: Source) -> bool {
    route == Route::Local || source == Source::Prometheus
}
