//! Settlement: closes intervals once all work in them is reported, and takes out attempts whose
//! energy is final. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use super::device::Device;
use super::shortfall::{Tally, with_shortfall};
use super::{Attempt, Attribution, Settled, covers, nanoseconds};
use crate::energy::figure::{EnergyFigure, Quality, Source};
use crate::energy::work::Tokens;
use crate::units::{AttemptId, Joules, MonotonicNs};

/// How long an interval waits for reports of work before it is closed without them.
const REPORT_LAG: Duration = Duration::from_secs(10);
/// How long a closed attempt waits for a device's reading before it settles as unknown.
const SETTLE_DEADLINE: Duration = Duration::from_secs(15);
/// The same for an attempt metered on another machine, whose meter may be scraped only every 20 s.
/// Receipts wait 30 s.
const SETTLE_DEADLINE_ELSEWHERE: Duration = Duration::from_secs(28);

/// The devices that have settled an attempt, and those that have not.
#[derive(Clone, Copy, Default)]
struct Verdict {
    read: Tally,
    missing: Tally,
}

impl Verdict {
    /// Whether what was read gives a figure.
    fn is_enough(self) -> bool {
        with_shortfall(EnergyFigure::nothing(Source::Mixed), self.read, self.missing).is_some()
    }
}

impl Attribution {
    /// Closes complete intervals and takes out attempts that are final by now, at most `room` of
    /// them.
    pub fn settle(&mut self, now: MonotonicNs, room: usize) -> Vec<Settled> {
        for index in 0..self.devices.len() {
            let watermark = self.watermark(&self.devices[index], now);
            self.devices[index].ledger.close_until(watermark);
        }
        let ready: Vec<(AttemptId, Verdict)> = self
            .attempts
            .iter()
            .filter_map(|(&id, attempt)| {
                let closed = attempt.closed?;
                let deadline = if self.meters_elsewhere(&attempt.model) {
                    SETTLE_DEADLINE_ELSEWHERE
                } else {
                    SETTLE_DEADLINE
                };
                let expired = now - closed > nanoseconds(deadline);
                Some((id, self.verdict(id, attempt, now, expired)?))
            })
            .take(room)
            .collect();
        ready.into_iter().filter_map(|(id, verdict)| self.take_out(id, verdict)).collect()
    }

    /// What is known of a closed attempt; `None` while a device may still settle it.
    fn verdict(
        &self,
        id: AttemptId,
        attempt: &Attempt,
        now: MonotonicNs,
        expired: bool,
    ) -> Option<Verdict> {
        let mut verdict =
            Verdict { missing: self.missing_for(&attempt.model), ..Verdict::default() };
        let (mut waits, mut may_come_back) = (false, false);
        for device in self.devices.iter().filter(|device| device.ledger.knows(id)) {
            let is_final = device.ledger.is_final(id, device.read_until());
            if is_final && !device.ledger.is_incomplete(id) {
                device.count_in(&mut verdict.read);
            } else {
                device.count_in(&mut verdict.missing);
            }
            let silent = device.is_silent(now);
            waits |= !is_final && !silent;
            may_come_back |= !is_final && silent;
        }
        let settles = expired || !waits && (verdict.is_enough() || !may_come_back);
        settles.then_some(verdict)
    }

    /// The time up to which all work on a device has been reported. An engine with open attempts
    /// has reported up to the end of its last step, or up to the opening of the first of them; one
    /// without, up to now. An engine without reports delays the watermark by at most
    /// [`REPORT_LAG`].
    fn watermark(&self, device: &Device, now: MonotonicNs) -> MonotonicNs {
        let mut holds: BTreeMap<&str, MonotonicNs> = BTreeMap::new();
        for attempt in self.attempts.values() {
            if attempt.closed.is_none() && covers(device, &attempt.model, &self.reaches) {
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

    fn take_out(&mut self, id: AttemptId, verdict: Verdict) -> Option<Settled> {
        let attempt = self.attempts.remove(&id)?;
        if !attempt.served {
            let nothing = EnergyFigure::nothing(self.parameters.source);
            let (model, marginal, amortised) = (attempt.model, nothing, nothing);
            return Some(Settled { attempt: id, model, marginal, amortised });
        }
        let whole = |figure| with_shortfall(figure, verdict.read, verdict.missing);
        let is_known = verdict.is_enough();
        let mut figures: Option<(EnergyFigure, EnergyFigure)> = None;
        let mut tokens = Tokens::NONE;
        for device in &mut self.devices {
            let Some(taken) = device.ledger.take_out(id, is_known) else { continue };
            tokens = tokens.max(taken.tokens);
            let own = device.figures(taken);
            figures = Some(figures.map_or(own, |sum| (sum.0.plus(own.0), sum.1.plus(own.1))));
        }
        let figures = figures
            .and_then(|(marginal, amortised)| Some((whole(marginal)?, whole(amortised)?)))
            .or_else(|| self.without_device(&attempt.model).filter(|_| figures.is_none()));
        if figures.is_none() {
            self.unknown_settlements += 1;
        }
        let unknown = EnergyFigure::unknown(self.parameters.source);
        let (marginal, amortised) = figures.unwrap_or((unknown, unknown));
        self.estimator.learn(&attempt.model, marginal, tokens);
        Some(Settled { attempt: id, model: attempt.model, marginal, amortised })
    }

    /// Figures of an attempt that no device knows: 0 J where each engine is a device and none was
    /// started, else `None`.
    fn without_device(&self, model: &str) -> Option<(EnergyFigure, EnergyFigure)> {
        let no_engine = self.parameters.per_engine && !self.meters_elsewhere(model);
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
