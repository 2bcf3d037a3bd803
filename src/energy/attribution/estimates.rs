//! Estimates before energy is final: of running attempts, of answers and loads to come. Pure.

use super::{Attribution, Parameters};
use crate::energy::figure::{EnergyFigure, Quality};
use crate::energy::prediction::estimate::{ExpectedTime, load_before_any};
use crate::energy::work::Tokens;
use crate::units::{AttemptId, Joules, Microjoules};

impl Attribution {
    /// Expected energy of loading the model from a file of `bytes`: the mean of its loads so far,
    /// failed ones included. Before any energy of a load was read, the profile's figure; without
    /// one, an assumption from the file size.
    pub fn load_energy(&self, model: &str, bytes: u64) -> EnergyFigure {
        let count = self.loads.get(model).copied().unwrap_or(0);
        let figures = self.devices.iter().filter(|_| count > 0).filter_map(|device| {
            let total = device.ledger.loads().get(model).copied()?;
            (total > Microjoules::ZERO).then(|| device.figure(Microjoules(total.0 / count), false))
        });
        let assumed = || load_before_any(self.parameters.cpu_model, bytes);
        let measured = || self.parameters.measured_load(model);
        figures.reduce(EnergyFigure::plus).or_else(measured).unwrap_or_else(assumed)
    }

    /// Marginal energy of an attempt so far: the booked part, plus an estimate for work in
    /// intervals still open. Unknown while neither exists; never final.
    pub fn provisional(&self, id: AttemptId) -> EnergyFigure {
        let nothing_known =
            EnergyFigure { is_final: false, ..EnergyFigure::unknown(self.parameters.source) };
        let Some(attempt) = self.attempts.get(&id).filter(|_| !self.is_incomplete(id)) else {
            return nothing_known;
        };
        let mut booked: Option<EnergyFigure> = None;
        let mut booked_energy = Microjoules::ZERO;
        let mut waiting = Tokens::NONE;
        for device in &self.devices {
            let Some((share, unbooked)) = device.ledger.share(id) else { continue };
            waiting = waiting.max(unbooked);
            booked_energy += share.marginal;
            let own = device.figure(share.marginal, false);
            booked = Some(booked.map_or(own, |sum| sum.plus(own)));
        }
        match booked {
            None => nothing_known,
            Some(_) if waiting == Tokens::NONE && booked_energy == Microjoules::ZERO => {
                nothing_known
            }
            Some(booked) if waiting == Tokens::NONE => booked,
            Some(booked) => {
                let estimate = self.estimator.expected_part(&attempt.model, waiting);
                if booked_energy == Microjoules::ZERO { estimate } else { booked.plus(estimate) }
            }
        }
    }

    /// Expected marginal energy of an answer by a local model; see
    /// [`expected`](crate::energy::prediction::estimate::Estimator::expected).
    pub fn expected(&self, model: &str, tokens: Tokens) -> EnergyFigure {
        self.estimator.expected(model, tokens)
    }

    /// Expected time of an answer on an idle machine; `None` if the model is not in the profile.
    pub fn expected_time(&self, model: &str, tokens: Tokens) -> Option<ExpectedTime> {
        self.estimator.expected_time(model, tokens)
    }
}

impl Parameters {
    fn measured_load(&self, model: &str) -> Option<EnergyFigure> {
        let profile = self.profile.model(model)?;
        let joules = profile.load_joules?;
        Some(EnergyFigure {
            joules: Some(joules),
            low: Some(Joules(joules.0 * profile.alone.low)),
            high: Some(Joules(joules.0 * profile.alone.high)),
            quality: profile.quality.max(Quality::Estimated),
            source: profile.source,
            is_final: false,
        })
    }
}
