//! Sums of one rule over many requests, separated by the origin of each figure. Pure.

use super::simulate::Simulation;
use crate::energy::EnergyFigure;
use crate::routing::Route;
use crate::traffic::Record;
use crate::units::{Dollars, Joules};

/// Sums over requests. Unknown figures are counted, never taken for zero.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    pub requests: u64,
    /// Requests with an answer; `local` of them on this machine.
    pub answered: u64,
    pub local: u64,
    /// Logged energy of requests that end as in the log and of attempts that failed on the way.
    pub metered: Option<EnergyFigure>,
    pub metered_requests: u64,
    /// Predicted energy of answers that were never given.
    pub predicted: Joules,
    pub predicted_requests: u64,
    pub unknown_energy_requests: u64,
    /// Known prices: billed if the request ends as in the log, else predicted.
    pub dollars: Dollars,
    pub unknown_price_requests: u64,
    /// Sum of the predicted adequacy of the answering models; a request without an answer adds 0.
    adequacy: f64,
    /// Sum and number of the labels of answers that are the logged ones.
    labels: f64,
    pub labelled: u64,
}

impl Summary {
    /// Of requests without an answer.
    pub fn unanswered(requests: u64) -> Self {
        Self { requests, metered_requests: requests, ..Self::default() }
    }

    pub fn add(&mut self, record: &Record, play: &Simulation) {
        self.requests += 1;
        if let Some(answer) = &play.answer {
            self.answered += 1;
            self.local += u64::from(answer.route == Route::Local);
            self.adequacy += answer.p;
        }
        self.add_energy(play);
        self.add_price(record, play);
        if let (true, Some(_), Some(label)) = (play.logged, &play.answer, record.label) {
            self.labels += label;
            self.labelled += 1;
        }
    }

    /// Mean predicted adequacy over all requests, 0 to 1.
    pub fn expected_quality(&self) -> Option<f64> {
        mean(self.adequacy, self.requests)
    }

    /// Mean label, 0 to 1, over the requests for which the rule's answer is the logged one and has
    /// a label.
    pub fn observed_quality(&self) -> Option<f64> {
        mean(self.labels, self.labelled)
    }

    /// Share of the answers that come from this machine, 0 to 1.
    pub fn share_local(&self) -> Option<f64> {
        mean(self.local as f64, self.answered)
    }

    /// All known energy, metered and predicted.
    pub fn joules(&self) -> Joules {
        self.metered.and_then(|figure| figure.joules).unwrap_or_default() + self.predicted
    }

    fn add_energy(&mut self, play: &Simulation) {
        // An answer that is neither logged nor predicted stays unknown; a request without an answer
        // takes no more.
        let predicted = match &play.answer {
            Some(answer) if !play.logged => Some(answer.joules),
            _ => None,
        };
        let unread = play.metered.is_some_and(|figure| figure.joules.is_none());
        if unread || predicted == Some(None) {
            self.unknown_energy_requests += 1;
        } else if predicted.is_some() {
            self.predicted_requests += 1;
        } else {
            self.metered_requests += 1;
        }
        self.predicted += predicted.flatten().unwrap_or_default();
        if let Some(figure) = play.metered.filter(|figure| figure.joules.is_some()) {
            self.metered = Some(self.metered.map_or(figure, |sum| sum.plus(figure)));
        }
    }

    fn add_price(&mut self, record: &Record, play: &Simulation) {
        let price = match &play.answer {
            _ if play.logged => record.dollars,
            Some(answer) => answer.dollars,
            None => Some(Dollars(0.0)),
        };
        match price {
            Some(price) => self.dollars = self.dollars + price,
            None => self.unknown_price_requests += 1,
        }
    }
}

fn mean(sum: f64, count: u64) -> Option<f64> {
    (count > 0).then(|| sum / count as f64)
}
