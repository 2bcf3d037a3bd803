//! Sums over the attempts of a request. Pure but for the grid's present figures.

use super::emissions::Emissions;
use crate::energy::EnergyFigure;
use crate::energy::grid::emissions::CarbonFigure;
use crate::traffic::Attempt;
use crate::units::Dollars;

/// Energy of a request and its consequences.
#[derive(Clone, Debug)]
pub struct Totals {
    /// `None` if no attempt ran.
    pub energy: Option<EnergyFigure>,
    pub carbon: Option<CarbonFigure>,
    pub electricity_dollars: Option<Dollars>,
}

impl Totals {
    pub fn of(attempts: &[Attempt], emissions: &Emissions, unix_ms: u64) -> Self {
        Self {
            energy: attempts.iter().filter_map(|one| one.energy).reduce(EnergyFigure::plus),
            carbon: emissions.carbon_of_all(attempts),
            electricity_dollars: emissions.electricity_of_all(attempts, unix_ms),
        }
    }
}
