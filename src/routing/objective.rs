//! Objectives: the quantity that a rule minimises or maximises, and a candidate's cost under it.
//! Pure.

use serde::{Deserialize, Serialize};

use super::candidate::Costs;

/// Quantity to minimise among adequate models.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    #[default]
    Joules,
    Dollars,
    /// Time to the first token.
    Latency,
    /// Grams of CO2 equivalent.
    Carbon,
    /// Maximises adequacy instead of minimising a cost.
    Quality,
    /// Maximises `p - lambda · costs`.
    Tradeoff,
}

/// Adequacy that a unit of each cost is worth under [`Objective::Tradeoff`]; 0: nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lambda {
    pub per_joule: f64,
    pub per_dollar: f64,
    /// Per second to the first token.
    pub per_second: f64,
    /// Per gram of CO2 equivalent.
    pub per_gram: f64,
}

impl Lambda {
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    fn terms(self, costs: &Costs) -> [(f64, Option<f64>); 4] {
        [
            (self.per_joule, costs.joules.map(|joules| joules.0)),
            (self.per_dollar, costs.dollars.map(|dollars| dollars.0)),
            (self.per_second, costs.ttft_ms.map(|ms| ms / 1e3)),
            (self.per_gram, costs.grams.map(|grams| grams.0)),
        ]
    }
}

impl Objective {
    pub const ALL: [Self; 6] =
        [Self::Joules, Self::Dollars, Self::Latency, Self::Carbon, Self::Quality, Self::Tradeoff];

    /// Cost of an answer of adequacy `p`: less is better, and only comparable under one objective.
    /// Infinite if unknown, so that a model without figures does not win.
    pub fn cost(self, lambda: Lambda, p: f64, costs: &Costs) -> f64 {
        let known = match self {
            Self::Joules => costs.joules.map(|joules| joules.0),
            Self::Dollars => costs.dollars.map(|dollars| dollars.0),
            Self::Latency => costs.ttft_ms,
            Self::Carbon => costs.grams.map(|grams| grams.0),
            Self::Quality => Some(-p),
            Self::Tradeoff => lambda
                .terms(costs)
                .into_iter()
                .filter(|(weight, _)| *weight > 0.0)
                .try_fold(-p, |sum, (weight, cost)| Some(sum + weight * cost?)),
        };
        known.filter(|cost| !cost.is_nan()).unwrap_or(f64::INFINITY)
    }

    /// Whether costs are in units of adequacy.
    pub fn is_in_adequacy(self) -> bool {
        matches!(self, Self::Quality | Self::Tradeoff)
    }

    pub fn label(self) -> &'static str {
        match self {
            Self::Joules => "joules",
            Self::Dollars => "dollars",
            Self::Latency => "latency",
            Self::Carbon => "carbon",
            Self::Quality => "quality",
            Self::Tradeoff => "tradeoff",
        }
    }

    /// A cost under this objective, with its unit, in ASCII.
    pub fn show(self, cost: f64) -> String {
        if cost.is_infinite() {
            return format!("unknown {}", self.label());
        }
        match self {
            Self::Joules => crate::units::Joules(cost).to_string(),
            Self::Dollars => crate::units::Dollars(cost).to_string(),
            Self::Latency => format!("{cost:.0} ms"),
            Self::Carbon => format!("{} CO2e", crate::units::Grams(cost)),
            Self::Quality => format!("p = {:.2}", -cost),
            Self::Tradeoff => format!("p - lambda cost = {:.3}", -cost),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{Dollars, Joules};

    const KNOWN: Costs = Costs {
        joules: Some(Joules(10.0)),
        dollars: Some(Dollars(0.01)),
        ttft_ms: Some(500.0),
        grams: None,
    };

    #[test]
    fn a_trade_off_adds_each_cost_times_its_lambda() {
        let lambda = Lambda { per_joule: 0.01, per_dollar: 10.0, per_second: 0.2, per_gram: 0.0 };
        let cost = Objective::Tradeoff.cost(lambda, 0.9, &KNOWN);
        assert!((cost - (-0.9 + 0.1 + 0.1 + 0.1)).abs() < 1e-12, "{cost}");
        assert_eq!(Objective::Tradeoff.show(cost), "p - lambda cost = 0.600");
    }

    #[test]
    fn an_unknown_cost_is_infinite_unless_its_lambda_is_zero() {
        assert!(Objective::Carbon.cost(Lambda::default(), 1.0, &KNOWN).is_infinite());
        let carbon = Lambda { per_gram: 1.0, ..Lambda::default() };
        assert!(Objective::Tradeoff.cost(carbon, 1.0, &KNOWN).is_infinite());
        let unread = Costs { joules: Some(Joules(f64::NAN)), ..KNOWN };
        assert!(Objective::Joules.cost(carbon, 1.0, &unread).is_infinite());
        assert_eq!(Objective::Joules.show(f64::INFINITY), "unknown joules");
    }
}
