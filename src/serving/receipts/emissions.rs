//! Consequences of a request's energy: carbon by the grid of each deployment, and dollars of this
//! machine's electricity.

use crate::energy::grid::emissions::CarbonFigure;
use crate::energy::{MeterHandle, Source};
use crate::routing::Route;
use crate::traffic::Attempt;
use crate::units::Dollars;

/// Applies the rates in force to the energy of attempts.
pub struct Emissions {
    meter: MeterHandle,
}

impl Emissions {
    pub fn new(meter: MeterHandle) -> Self {
        Self { meter }
    }

    /// Carbon of one attempt; none unless a grid is configured, or where nothing ran.
    pub fn carbon(&self, attempt: &Attempt) -> Option<CarbonFigure> {
        let (energy, rates) = (attempt.energy?, self.meter.rates());
        match attempt.route {
            Route::Local => rates.carbon_here(energy),
            Route::Cloud => rates.carbon_elsewhere(attempt.carbon_zone.as_deref(), energy),
        }
    }

    /// Carbon of a request.
    pub fn carbon_of_all(&self, attempts: &[Attempt]) -> Option<CarbonFigure> {
        let figures = attempts.iter().filter_map(|attempt| self.carbon(attempt));
        figures.reduce(|sum, figure| sum.plus(&figure))
    }

    /// Cost of an attempt's electricity to the operator; `None` without a tariff or where its
    /// energy is unknown. A provider's electricity is in its price.
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

/// Whether the operator pays for it: this machine, or one elsewhere that is metered for the
/// operator.
fn is_own(route: Route, source: Source) -> bool {
    route == Route::Local || source == Source::Prometheus
}
