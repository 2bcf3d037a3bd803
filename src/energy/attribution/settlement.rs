//! Settlement: closes intervals once all work in them is reported, and takes out attempts whose
//! energy is final. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use super::device::Scope;
use super::{Attribution, Settled, nanoseconds};
use crate::energy::figure::{EnergyFigure, Quality};
use crate::energy::work::Tokens;
use crate::units::{AttemptId, Joules, MonotonicNs};

/// How long an interval waits for reports of work before it is closed without them.
const REPORT_LAG: Duration = Duration::from_secs(10);
/// How long a closed attempt waits for a device's reading before it settles as unknown.
const SETTLE_DEADLINE: Duration = Duration::from_secs(15);
/// The same for an attempt metered on another machine, whose meter may be scraped only every 20 s.
/// Receipts wait 30 s.
const SETTLE_DEADLINE_ELSEWHERE: Duration = Duration::from_secs(28);

impl Attribution {
    /// Closes complete intervals and takes out attempts that are final by now, at most `room` of
    /// them.
    pub fn settle(&mut self, now: MonotonicNs, room: usize) -> Vec<Settled> {
        for index in 0..self.devices.len() {
            let watermark = self.watermark(&self.devices[index].scope, now);
            self.devices[index].ledger.close_until(watermark);
        }
        let ready: Vec<(AttemptId, bool)> = self
            .attempts
            .iter()
            .filter_map(|(&id, attempt)| {
                let closed = attempt.closed?;
                let is_final = self
                    .devices
                    .iter()
                    .all(|device| device.ledger.is_final(id, device.read_until()));
                let elsewhere = self.elsewhere.contains(&attempt.model);
                let deadline = if elsewhere { SETTLE_DEADLINE_ELSEWHERE } else { SETTLE_DEADLINE };
                let expired = now - closed > nanoseconds(deadline);
                (is_final || expired).then_some((id, is_final))
            })
            .take(room)
            .collect();
        ready.into_iter().filter_map(|(id, is_final)| self.take_out(id, is_final)).collect()
    }

    /// The time up to which all work on a device has been reported. An engine with open attempts
    /// has reported up to the end of its last step, or up to the opening of the first of them; one
    /// without, up to now. An engine without reports delays the watermark by at most
    /// [`REPORT_LAG`].
    fn watermark(&self, scope: &Scope, now: MonotonicNs) -> MonotonicNs {
        let mut holds: BTreeMap<&str, MonotonicNs> = BTreeMap::new();
        for attempt in self.attempts.values() {
            let elsewhere = self.elsewhere.contains(&attempt.model);
            if attempt.closed.is_none() && scope.covers(&attempt.model, elsewhere) {
                let first = holds.entry(&attempt.model).or_insert(attempt.opened);
                *first = attempt.opened.min(*first);
            }
        }
        let reported = holds.into_iter().map(|(model, first_open)| {
            self.steps.get(model).map_or(first_open, |&last_step| last_step.max(first_open))
        });
        let oldest = MonotonicNs(now.0.saturating_sub(nanoseconds(REPORT_LAG)));
        reported.min().unwrap_or(now).clamp(oldest, now)
    }

    fn take_out(&mut self, id: AttemptId, is_final: bool) -> Option<Settled> {
        let attempt = self.attempts.remove(&id)?;
        if !attempt.served {
            let nothing = EnergyFigure::nothing(self.parameters.source);
            let (model, marginal, amortised) = (attempt.model, nothing, nothing);
            return Some(Settled { attempt: id, model, marginal, amortised });
        }
        let mut figures: Option<(EnergyFigure, EnergyFigure)> = None;
        let mut tokens = Tokens::NONE;
        let is_known = is_final && !self.is_incomplete(id);
        for device in &mut self.devices {
            let Some((share, of_its_work)) = device.ledger.take_out(id) else { continue };
            tokens = tokens.max(of_its_work);
            let own = (device.figure(share.marginal, true), device.figure(share.amortised(), true));
            figures = Some(figures.map_or(own, |sum| (sum.0.plus(own.0), sum.1.plus(own.1))));
        }
        if !is_known {
            self.unknown_settlements += 1;
        }
        let figures = figures.or_else(|| self.without_device(&attempt.model));
        let unknown = EnergyFigure::unknown(self.parameters.source);
        let (marginal, amortised) = figures.filter(|_| is_known).unwrap_or((unknown, unknown));
        self.estimator.learn(&attempt.model, marginal, tokens);
        Some(Settled { attempt: id, model: attempt.model, marginal, amortised })
    }

    /// Figures of an attempt that no device knows: 0 J where each engine is a device and none was
    /// started, else `None`.
    fn without_device(&self, model: &str) -> Option<(EnergyFigure, EnergyFigure)> {
        let no_engine = self.parameters.per_engine && !self.elsewhere.contains(model);
        no_engine.then(|| {
            let nothing = Some(Joules(0.0));
            let unknown = EnergyFigure::unknown(self.parameters.source);
            let quality = Quality::Estimated;
            let figure =
                EnergyFigure { joules: nothing, low: nothing, high: nothing, quality, ..unknown };
            (figure, figure)
        })
    }
}
