//! Joins devices, engines and attempts: when an interval may be closed, when an attempt's energy is final, and what a
//! person is told of it until then.
//!
//! Pure: readings, reports and the time come in; figures come out. The meter thread is the only writer of readings.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::cpu_model::CpuModel;
use super::device::{Device, DeviceBook, Serves};
use super::estimate::{Estimator, ExpectedTime, load_before_any};
use super::figure::{EnergyFigure, Quality, Source};
use super::ledger::TokenWeights;
use super::profile::{Linear, ModelProfile, Profile};
use super::sensor::{DeviceInfo, Sample};
use super::work::{Tokens, WorkSpan};
use crate::units::{AttemptId, Joules, Microjoules, MonotonicNs};

/// Names a device of the accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceId(usize);

/// All devices, engines and unsettled attempts of one meter.
#[derive(Debug)]
pub struct Accounts {
    settings: Settings,
    devices: Vec<Device>,
    /// End of the last step each engine reported.
    steps: BTreeMap<Arc<str>, MonotonicNs>,
    attempts: BTreeMap<AttemptId, Attempt>,
    estimator: Estimator,
    /// How often each model was loaded.
    loads: BTreeMap<Arc<str>, u64>,
    unknown_settlements: u64,
    /// Models that devices elsewhere work for: nothing here is spent on them.
    elsewhere: BTreeSet<Arc<str>>,
}

#[derive(Debug)]
struct Attempt {
    model: Arc<str>,
    opened: MonotonicNs,
    closed: Option<MonotonicNs>,
    /// An engine has heard of it.
    served: bool,
}

/// The constants of the books.
#[derive(Clone, Debug)]
pub struct Settings {
    pub cadence: Duration,
    /// Of models that the profile does not know.
    pub weights: TokenWeights,
    pub prior: Linear,
    pub profile: Arc<Profile>,
    pub cpu_model: CpuModel,
    /// What is named as the source of a figure nobody could read.
    pub source: Source,
}

impl Settings {
    fn weights_of(&self, model: &str) -> TokenWeights {
        let measured = self.profile.model(model).and_then(ModelProfile::weights);
        measured.unwrap_or(self.weights)
    }

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

/// The energy of one attempt, once nothing can change it any more.
#[derive(Clone, Debug, PartialEq)]
pub struct Settled {
    pub attempt: AttemptId,
    pub model: Arc<str>,
    /// What the attempt added.
    pub marginal: EnergyFigure,
    /// That plus its share of idle energy.
    pub amortised: EnergyFigure,
}

/// A snapshot of all devices.
#[derive(Clone, Debug, PartialEq)]
pub struct Books {
    pub devices: Vec<DeviceBook>,
    /// Attempts not settled yet.
    pub open_attempts: usize,
    /// Attempts that settled as unknown because a device could not be read in time, or lost energy of theirs.
    pub unknown_settlements: u64,
    /// CPU time that metering has taken.
    pub meter_cpu: Duration,
}

impl Books {
    /// How far all books together are from adding up; anything but 0 is a bug.
    pub fn conservation_error(&self) -> Microjoules {
        self.devices.iter().map(|device| device.conservation_error).sum()
    }
}

/// How long an interval waits for work to be reported before it is closed with what is known.
const REPORT_LAG: Duration = Duration::from_secs(10);
/// How long a finished attempt waits for a device's reading before it is given up as unknown.
const SETTLE_DEADLINE: Duration = Duration::from_secs(15);
/// The same for one elsewhere, whose meter may be scraped every 20 s only; receipts wait for 30 s.
const SETTLE_DEADLINE_ELSEWHERE: Duration = Duration::from_secs(28);

impl Accounts {
    pub fn new(settings: Settings) -> Self {
        let profile = Arc::clone(&settings.profile);
        let estimator = Estimator::new(settings.prior, settings.cpu_model, profile);
        Self {
            settings,
            devices: Vec::new(),
            steps: BTreeMap::new(),
            attempts: BTreeMap::new(),
            estimator,
            loads: BTreeMap::new(),
            unknown_settlements: 0,
            elsewhere: BTreeSet::new(),
        }
    }

    /// Adds a device whose sensor counts from 0 at `at`, or continues the books of one with that name.
    pub fn add_device(&mut self, info: DeviceInfo, serves: Serves, at: MonotonicNs) -> DeviceId {
        if let Serves::Elsewhere(models) = &serves {
            self.elsewhere.extend(models.iter().cloned());
        }
        let known = self.devices.iter().position(|device| device.info.name == info.name);
        let index = known.unwrap_or(self.devices.len());
        match self.devices.get_mut(index) {
            Some(device) => device.restart(info, at),
            None => self.devices.push(Device::new(info, serves, at)),
        }
        let device = &mut self.devices[index];
        for (&id, attempt) in &self.attempts {
            let elsewhere = self.elsewhere.contains(&attempt.model);
            if attempt.closed.is_none() && device.serves.model(&attempt.model, elsewhere) {
                device.ledger.open(id, self.settings.weights_of(&attempt.model), attempt.opened);
            }
        }
        DeviceId(index)
    }

    /// Whether devices elsewhere work for the model, so that its attempts are metered though it does not run here.
    pub fn meters_elsewhere(&self, model: &str) -> bool {
        self.elsewhere.contains(model)
    }

    fn devices_of(&mut self, model: &str) -> impl Iterator<Item = &mut Device> {
        let elsewhere = self.elsewhere.contains(model);
        self.devices.iter_mut().filter(move |device| device.serves.model(model, elsewhere))
    }

    /// A good reading of a device at `now`, and how often its counter has started over.
    pub fn reading(&mut self, id: DeviceId, now: MonotonicNs, sample: Sample, resets: u64) {
        let cadence_ns = nanoseconds(self.settings.cadence);
        let device = &mut self.devices[id.0];
        device.reading(now, sample, cadence_ns);
        device.set_resets(resets);
    }

    /// The machine slept for `missed` since the last readings.
    pub fn slept(&mut self, missed: Duration) {
        for device in &mut self.devices {
            device.slept(missed);
        }
    }

    /// A reading failed: nothing is booked, and the next good one covers the time.
    pub fn read_failed(&mut self, id: DeviceId) {
        self.devices[id.0].read_errors += 1;
    }

    /// The device has ended; its last reading stands.
    pub fn retire(&mut self, id: DeviceId) {
        self.devices[id.0].retire();
    }

    /// A model begins to load. Devices that are added for it must be there.
    pub fn load_started(&mut self, model: &Arc<str>, now: MonotonicNs) {
        for device in self.devices_of(model) {
            device.ledger.load_started(model, now);
        }
    }

    /// It has loaded, or its engine has ended. Counts as a load only if it `succeeded`.
    pub fn load_ended(&mut self, model: &Arc<str>, succeeded: bool, now: MonotonicNs) {
        for device in self.devices_of(model) {
            device.ledger.load_ended(model, now);
        }
        if succeeded {
            *self.loads.entry(Arc::clone(model)).or_default() += 1;
        }
    }

    /// Expected energy of loading the model from a file of `bytes`: the mean of its loads so far, failed tries included; until
    /// some energy of one was read, what the profile says, or else assumed from the size.
    pub fn load_energy(&self, model: &str, bytes: u64) -> EnergyFigure {
        let count = self.loads.get(model).copied().unwrap_or(0);
        let figures = self.devices.iter().filter(|_| count > 0).filter_map(|device| {
            let total = device.ledger.loads().get(model).copied()?;
            (total > Microjoules::ZERO).then(|| device.figure(Microjoules(total.0 / count), false))
        });
        let assumed = || load_before_any(self.settings.cpu_model, bytes);
        let measured = || self.settings.measured_load(model);
        figures.reduce(EnergyFigure::plus).or_else(measured).unwrap_or_else(assumed)
    }

    /// Opening twice changes nothing.
    pub fn open(&mut self, model: &Arc<str>, id: AttemptId, now: MonotonicNs) {
        self.attempts.entry(id).or_insert_with(|| Attempt {
            model: Arc::clone(model),
            opened: now,
            closed: None,
            served: true,
        });
        let weights = self.settings.weights_of(model);
        for device in self.devices_of(model) {
            device.ledger.open(id, weights, now);
        }
    }

    /// A step of the model's engine.
    pub fn work(&mut self, model: &Arc<str>, mut span: WorkSpan, now: MonotonicNs) {
        // No step ends in the future; one that says so would keep attempts from ever being final.
        span.end = span.end.min(now);
        let last = self.steps.entry(Arc::clone(model)).or_insert(span.end);
        *last = span.end.max(*last);
        for device in self.devices_of(model) {
            device.ledger.work(&span);
        }
    }

    /// Closing what is not open, or twice, changes nothing.
    pub fn close(&mut self, model: &str, id: AttemptId, now: MonotonicNs) {
        let Some(attempt) = self.attempts.get_mut(&id) else { return };
        attempt.closed.get_or_insert(now);
        for device in self.devices_of(model) {
            device.ledger.close(id, now);
        }
    }

    /// The attempt ended before an engine heard of it: it has used nothing, and no device needs to be read to know that.
    /// Changes nothing for one that was opened.
    pub fn unserved(&mut self, model: &Arc<str>, id: AttemptId, now: MonotonicNs) {
        self.attempts.entry(id).or_insert_with(|| Attempt {
            model: Arc::clone(model),
            opened: now,
            closed: Some(now),
            served: false,
        });
    }

    /// Closes what can be closed and returns the attempts that are final by now, at most `room` of them; the rest wait.
    pub fn settle(&mut self, now: MonotonicNs, room: usize) -> Vec<Settled> {
        for index in 0..self.devices.len() {
            let watermark = self.watermark(&self.devices[index].serves, now);
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

    /// Up to when all work on a device has been reported. An engine with open attempts has told everything up to the end
    /// of its last step, or up to when the first of them was opened; without any, up to now. An engine that stays silent
    /// holds the books up for `REPORT_LAG` and no longer.
    fn watermark(&self, serves: &Serves, now: MonotonicNs) -> MonotonicNs {
        let mut holds: BTreeMap<&str, MonotonicNs> = BTreeMap::new();
        for attempt in self.attempts.values() {
            let elsewhere = self.elsewhere.contains(&attempt.model);
            if attempt.closed.is_none() && serves.model(&attempt.model, elsewhere) {
                let first = holds.entry(&attempt.model).or_insert(attempt.opened);
                *first = attempt.opened.min(*first);
            }
        }
        let told = holds.into_iter().map(|(model, first_open)| {
            self.steps.get(model).map_or(first_open, |&last_step| last_step.max(first_open))
        });
        let oldest = MonotonicNs(now.0.saturating_sub(nanoseconds(REPORT_LAG)));
        told.min().unwrap_or(now).clamp(oldest, now)
    }

    fn take_out(&mut self, id: AttemptId, is_final: bool) -> Option<Settled> {
        let attempt = self.attempts.remove(&id)?;
        if !attempt.served {
            let nothing = EnergyFigure::nothing(self.settings.source);
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
        let unknown = EnergyFigure::unknown(self.settings.source);
        let (marginal, amortised) = figures.filter(|_| is_known).unwrap_or((unknown, unknown));
        self.estimator.learn(&attempt.model, marginal, tokens);
        Some(Settled { attempt: id, model: attempt.model, marginal, amortised })
    }

    /// Whether a device lost energy of the attempt's time.
    fn is_incomplete(&self, id: AttemptId) -> bool {
        self.devices.iter().any(|device| device.ledger.is_incomplete(id))
    }

    /// The marginal energy of an attempt so far: what is booked, plus, for work in intervals still open, what such work has
    /// cost before. Unknown while nothing of it is known; never final.
    pub fn provisional(&self, id: AttemptId) -> EnergyFigure {
        let nothing_known =
            EnergyFigure { is_final: false, ..EnergyFigure::unknown(self.settings.source) };
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

    /// Expected marginal energy of an answer by a local model; see [`Estimator::expected`].
    pub fn expected(&self, model: &str, tokens: Tokens) -> EnergyFigure {
        self.estimator.expected(model, tokens)
    }

    /// Expected time of an answer with nobody else there, of a model in the profile.
    pub fn expected_time(&self, model: &str, tokens: Tokens) -> Option<ExpectedTime> {
        self.estimator.expected_time(model, tokens)
    }

    /// See [`super::ledger::Ledger::conservation_error`]; must be 0.
    pub fn conservation_error(&self) -> Microjoules {
        self.devices.iter().map(|device| device.ledger.conservation_error()).sum()
    }

    pub fn books(&self, now: MonotonicNs) -> Books {
        Books {
            devices: self.devices.iter().map(|device| device.book(now)).collect(),
            open_attempts: self.attempts.len(),
            unknown_settlements: self.unknown_settlements,
            meter_cpu: Duration::ZERO,
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod conservation;
#[cfg(test)]
mod simulation;

#[cfg(test)]
mod tests {
    use super::super::config::Config;
    use super::super::sensor::Band;
    use super::super::work::WorkRow;
    use super::*;
    use crate::units::Watts;

    const CADENCE: Duration = Duration::from_millis(50);

    pub(super) fn ms(ms: u64) -> MonotonicNs {
        MonotonicNs(ms * 1_000_000)
    }

    pub(super) fn accounts() -> Accounts {
        Accounts::new(Settings {
            cadence: CADENCE,
            weights: TokenWeights::DEFAULT,
            prior: Config::default().prior_cost(),
            profile: Arc::default(),
            cpu_model: CpuModel::DEFAULT,
            source: Source::CpuModel,
        })
    }

    pub(super) fn info(name: &str, idle: Option<Watts>) -> DeviceInfo {
        let (source, quality) = (Source::CpuModel, Quality::Estimated);
        DeviceInfo { name: name.into(), source, quality, band: Band { low: 0.5, high: 2.0 }, idle }
    }

    pub(super) fn engine(accounts: &mut Accounts, model: &Arc<str>, at: MonotonicNs) -> DeviceId {
        accounts.add_device(info("engine:m", None), Serves::Engine(Arc::clone(model)), at)
    }

    /// A device's sample of this instant.
    pub(super) fn read(accounts: &mut Accounts, device: DeviceId, at: MonotonicNs, total: u64) {
        let sample = Sample { at, total: Microjoules(total), whole: true };
        accounts.reading(device, at, sample, 0);
    }

    fn decode(start: u64, end: u64, attempt: u64) -> WorkSpan {
        let row = WorkRow { attempt: AttemptId(attempt), prefill_tokens: 0, decode_tokens: 1 };
        WorkSpan { start: ms(start), end: ms(end), rows: vec![row] }
    }

    pub(super) fn joules(figure: EnergyFigure) -> Option<f64> {
        figure.joules.map(|joules| joules.0)
    }

    const A: AttemptId = AttemptId(1);
    const B: AttemptId = AttemptId(2);

    #[test]
    fn an_attempt_settles_with_the_first_reading_past_its_end() {
        let (mut accounts, model): (Accounts, Arc<str>) = (accounts(), "m".into());
        let device = engine(&mut accounts, &model, ms(0));
        accounts.open(&model, A, ms(10));
        accounts.work(&model, decode(10, 40, 1), ms(40));
        accounts.close(&model, A, ms(60));
        read(&mut accounts, device, ms(50), 3_000_000);
        assert_eq!(accounts.settle(ms(61), 9), []);
        read(&mut accounts, device, ms(100), 4_000_000);
        let settled = accounts.settle(ms(101), 9);
        let [Settled { attempt: A, marginal, .. }] = settled[..] else { panic!("{settled:?}") };
        assert_eq!((marginal.joules, marginal.is_final), (Some(Joules(3.0)), true));
        assert_eq!((marginal.low, marginal.high), (Some(Joules(1.5)), Some(Joules(6.0))));
        assert_eq!(accounts.books(ms(101)).devices[0].account.unattributed, Microjoules(1_000_000));
    }

    #[test]
    fn an_interval_waits_for_the_step_that_is_still_running() {
        let (mut accounts, model): (Accounts, Arc<str>) = (accounts(), "m".into());
        let device = engine(&mut accounts, &model, ms(0));
        accounts.open(&model, A, ms(0));
        for tick in 1..=4 {
            read(&mut accounts, device, ms(tick * 50), tick * 1_000_000);
            accounts.settle(ms(tick * 50), 9);
        }
        let before = accounts.books(ms(200));
        assert_eq!(before.devices[0].pending, Microjoules(4_000_000));
        assert_eq!(before.devices[0].watts, Some(Watts(20.0)));
        accounts.work(&model, decode(0, 190, 1), ms(200));
        accounts.settle(ms(200), 9);
        let account = accounts.books(ms(200)).devices[0].account;
        assert_eq!(
            (account.attributed, account.unattributed),
            (Microjoules(3_000_000), Microjoules(0))
        );
    }

    #[test]
    fn a_silent_engine_holds_the_books_up_for_ten_seconds_only() {
        let (mut accounts, model): (Accounts, Arc<str>) = (accounts(), "m".into());
        let device = engine(&mut accounts, &model, ms(0));
        accounts.open(&model, A, ms(0));
        for second in 1..=11 {
            read(&mut accounts, device, ms(second * 1000), second);
            accounts.settle(ms(second * 1000), 9);
        }
        assert_eq!(accounts.books(ms(11_000)).devices[0].account.unattributed, Microjoules(1));
        accounts.work(&model, decode(0, 11_000, 1), ms(11_000));
        assert_eq!(accounts.books(ms(11_000)).devices[0].lateness.late_spans, 1);
    }

    #[test]
    fn a_device_that_cannot_be_read_settles_its_attempts_as_unknown() {
        let (mut accounts, model): (Accounts, Arc<str>) = (accounts(), "m".into());
        let device = engine(&mut accounts, &model, ms(0));
        accounts.open(&model, A, ms(0));
        accounts.work(&model, decode(0, 30, 1), ms(30));
        accounts.close(&model, A, ms(40));
        accounts.read_failed(device);
        assert_eq!(accounts.settle(ms(15_000), 9), []);
        let settled = accounts.settle(ms(15_100), 9);
        assert_eq!((settled.len(), settled[0].marginal.joules), (1, None));
        // The counter ran on: when it can be read again, the energy is in the books, but nobody's.
        read(&mut accounts, device, ms(15_200), 500);
        accounts.settle(ms(15_200), 9);
        let books = accounts.books(ms(15_200));
        assert_eq!(books.devices[0].account.unattributed, Microjoules(500));
        let gap = Duration::from_millis(15_150);
        assert_eq!((books.devices[0].read_errors, books.devices[0].gap), (1, gap));
        assert_eq!((books.unknown_settlements, books.conservation_error()), (1, Microjoules(0)));
    }

    #[test]
    fn an_engine_that_dies_and_returns_keeps_one_book() {
        let (mut accounts, model): (Accounts, Arc<str>) = (accounts(), "m".into());
        let device = engine(&mut accounts, &model, ms(0));
        accounts.open(&model, A, ms(0));
        accounts.work(&model, decode(0, 40, 1), ms(40));
        read(&mut accounts, device, ms(50), 70);
        accounts.retire(device);
        accounts.close(&model, A, ms(90));
        let settled = accounts.settle(ms(95), 9);
        assert_eq!(settled[0].marginal.joules, Some(Joules(70e-6)), "its last reading stands");
        accounts.open(&model, B, ms(100));
        assert_eq!(engine(&mut accounts, &model, ms(120)), device);
        read(&mut accounts, device, ms(170), 5);
        accounts.close(&model, B, ms(171));
        accounts.settle(ms(172), 9);
        let books = accounts.books(ms(172));
        assert_eq!(books.devices[0].account.total, Microjoules(75));
        assert!(books.devices[0].live);
    }

    #[test]
    fn without_any_device_energy_is_unknown_at_once() {
        let (mut accounts, model): (Accounts, Arc<str>) = (accounts(), "m".into());
        accounts.open(&model, A, ms(0));
        accounts.close(&model, A, ms(1));
        assert_eq!(accounts.settle(ms(2), 9)[0].marginal.joules, None);
    }

    #[test]
    fn a_provisional_figure_estimates_what_is_not_booked_and_says_so() {
        let (mut accounts, model): (Accounts, Arc<str>) = (accounts(), "m".into());
        let device = engine(&mut accounts, &model, ms(0));
        accounts.open(&model, A, ms(0));
        assert_eq!(accounts.provisional(A).joules, None, "unknown is not zero");
        accounts.work(&model, decode(0, 50, 1), ms(50));
        let prior = accounts.provisional(A);
        assert_eq!((joules(prior), prior.quality), (Some(0.0825), Quality::Assumed));
        read(&mut accounts, device, ms(50), 2_000_000);
        accounts.settle(ms(50), 9);
        let booked = accounts.provisional(A);
        assert_eq!((joules(booked), booked.quality), (Some(2.0), Quality::Estimated));
        assert!(!booked.is_final);
        accounts.close(&model, A, ms(50));
        accounts.settle(ms(51), 9);
        // The next attempt's waiting token is expected to cost what the first one's did.
        accounts.open(&model, B, ms(60));
        accounts.work(&model, decode(60, 70, 2), ms(70));
        assert_eq!(joules(accounts.provisional(B)), Some(2.0));
        assert_eq!(joules(accounts.expected("m", Tokens { prefill: 0, decode: 3 })), Some(6.0));
    }

    #[test]
    fn settlements_wait_while_there_is_no_room() {
        let (mut accounts, model): (Accounts, Arc<str>) = (accounts(), "m".into());
        for id in [A, B] {
            accounts.open(&model, id, ms(0));
            accounts.close(&model, id, ms(1));
        }
        assert_eq!(accounts.settle(ms(2), 0), []);
        assert_eq!((accounts.settle(ms(2), 1).len(), accounts.settle(ms(2), 1).len()), (1, 1));
    }
}
