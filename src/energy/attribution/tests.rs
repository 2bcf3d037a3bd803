//! Settlement of attempts, and their estimates before.

use super::*;
use crate::energy::config::Config;
use crate::energy::figure::Quality;
use crate::energy::sensors::sensor::Band;
use crate::energy::work::{Tokens, WorkRow};
use crate::units::{Joules, Watts};

const CADENCE: Duration = Duration::from_millis(50);

pub(super) fn ms(ms: u64) -> MonotonicNs {
    MonotonicNs(ms * 1_000_000)
}

pub(super) fn attribution() -> Attribution {
    Attribution::new(Parameters {
        cadence: CADENCE,
        weights: TokenWeights::DEFAULT,
        prior: Config::default().prior_cost(),
        profile: Arc::default(),
        cpu_model: CpuModel::DEFAULT,
        source: Source::CpuModel,
        per_engine: false,
        missing: Tally::default(),
    })
}

pub(super) fn info(name: &str, idle: Option<Watts>) -> DeviceInfo {
    let (source, quality) = (Source::CpuModel, Quality::Estimated);
    DeviceInfo { name: name.into(), source, quality, band: Band { low: 0.5, high: 2.0 }, idle }
}

pub(super) fn engine(attribution: &mut Attribution, model: &Arc<str>, at: MonotonicNs) -> DeviceId {
    attribution.add_device(info("engine:m", None), Scope::Engine(Arc::clone(model)), at)
}

/// A device's sample of this instant.
pub(super) fn read(attribution: &mut Attribution, device: DeviceId, at: MonotonicNs, total: u64) {
    let sample = Sample { at, total: Microjoules(total), whole: true };
    attribution.reading(device, at, sample);
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
    let (mut attribution, model): (Attribution, Arc<str>) = (attribution(), "m".into());
    let device = engine(&mut attribution, &model, ms(0));
    attribution.open(&model, A, ms(10));
    attribution.work(&model, decode(10, 40, 1), ms(40));
    attribution.close(&model, A, ms(60));
    read(&mut attribution, device, ms(50), 3_000_000);
    assert_eq!(attribution.settle(ms(61), 9), []);
    read(&mut attribution, device, ms(100), 4_000_000);
    let settled = attribution.settle(ms(101), 9);
    let [Settled { attempt: A, marginal, .. }] = settled[..] else { panic!("{settled:?}") };
    assert_eq!((marginal.joules, marginal.is_final), (Some(Joules(3.0)), true));
    assert_eq!((marginal.low, marginal.high), (Some(Joules(1.5)), Some(Joules(6.0))));
    assert_eq!(
        attribution.snapshot(ms(101)).devices[0].account.unattributed,
        Microjoules(1_000_000)
    );
}

#[test]
fn an_interval_stays_open_while_a_step_in_it_is_running() {
    let (mut attribution, model): (Attribution, Arc<str>) = (attribution(), "m".into());
    let device = engine(&mut attribution, &model, ms(0));
    attribution.open(&model, A, ms(0));
    for tick in 1..=4 {
        read(&mut attribution, device, ms(tick * 50), tick * 1_000_000);
        attribution.settle(ms(tick * 50), 9);
    }
    let before = attribution.snapshot(ms(200));
    assert_eq!(before.devices[0].pending, Microjoules(4_000_000));
    assert_eq!(before.devices[0].watts, Some(Watts(20.0)));
    attribution.work(&model, decode(0, 190, 1), ms(200));
    attribution.settle(ms(200), 9);
    let account = attribution.snapshot(ms(200)).devices[0].account;
    assert_eq!(
        (account.attributed, account.unattributed),
        (Microjoules(3_000_000), Microjoules(0))
    );
}

#[test]
fn an_engine_without_reports_delays_booking_by_ten_seconds_only() {
    let (mut attribution, model): (Attribution, Arc<str>) = (attribution(), "m".into());
    let device = engine(&mut attribution, &model, ms(0));
    attribution.open(&model, A, ms(0));
    for second in 1..=11 {
        read(&mut attribution, device, ms(second * 1000), second);
        attribution.settle(ms(second * 1000), 9);
    }
    assert_eq!(attribution.snapshot(ms(11_000)).devices[0].account.unattributed, Microjoules(1));
    attribution.work(&model, decode(0, 11_000, 1), ms(11_000));
    assert_eq!(attribution.snapshot(ms(11_000)).devices[0].late_reports.late_spans, 1);
}

#[test]
fn a_device_that_cannot_be_read_settles_its_attempts_as_unknown() {
    let (mut attribution, model): (Attribution, Arc<str>) = (attribution(), "m".into());
    let device = engine(&mut attribution, &model, ms(0));
    attribution.open(&model, A, ms(0));
    attribution.work(&model, decode(0, 30, 1), ms(30));
    attribution.close(&model, A, ms(40));
    attribution.read_failed(device);
    assert_eq!(attribution.settle(ms(15_000), 9), []);
    let settled = attribution.settle(ms(15_100), 9);
    assert_eq!((settled.len(), settled[0].marginal.joules), (1, None));
    // The counter kept counting: the next reading books the energy as unattributed.
    read(&mut attribution, device, ms(15_200), 500);
    attribution.settle(ms(15_200), 9);
    let snapshot = attribution.snapshot(ms(15_200));
    assert_eq!(snapshot.devices[0].account.unattributed, Microjoules(500));
    let gap = Duration::from_millis(15_150);
    assert_eq!((snapshot.devices[0].read_errors, snapshot.devices[0].gap), (1, gap));
    assert_eq!((snapshot.unknown_settlements, snapshot.conservation_error()), (1, Microjoules(0)));
}

#[test]
fn a_restarted_engine_continues_its_ledger() {
    let (mut attribution, model): (Attribution, Arc<str>) = (attribution(), "m".into());
    let device = engine(&mut attribution, &model, ms(0));
    attribution.open(&model, A, ms(0));
    attribution.work(&model, decode(0, 40, 1), ms(40));
    read(&mut attribution, device, ms(50), 70);
    attribution.retire(device);
    attribution.close(&model, A, ms(90));
    let settled = attribution.settle(ms(95), 9);
    assert_eq!(settled[0].marginal.joules, Some(Joules(70e-6)), "its last reading counts");
    attribution.open(&model, B, ms(100));
    assert_eq!(engine(&mut attribution, &model, ms(120)), device);
    read(&mut attribution, device, ms(170), 5);
    attribution.close(&model, B, ms(171));
    attribution.settle(ms(172), 9);
    let snapshot = attribution.snapshot(ms(172));
    assert_eq!(snapshot.devices[0].account.total, Microjoules(75));
    assert!(snapshot.devices[0].live);
}

#[test]
fn without_a_device_energy_settles_as_unknown_at_once() {
    let (mut attribution, model): (Attribution, Arc<str>) = (attribution(), "m".into());
    attribution.open(&model, A, ms(0));
    attribution.close(&model, A, ms(1));
    assert_eq!(attribution.settle(ms(2), 9)[0].marginal.joules, None);
}

#[test]
fn a_provisional_figure_includes_an_estimate_of_work_not_booked_and_is_labelled_so() {
    let (mut attribution, model): (Attribution, Arc<str>) = (attribution(), "m".into());
    let device = engine(&mut attribution, &model, ms(0));
    attribution.open(&model, A, ms(0));
    assert_eq!(attribution.provisional(A).joules, None, "unknown is not zero");
    attribution.work(&model, decode(0, 50, 1), ms(50));
    let prior = attribution.provisional(A);
    assert_eq!((joules(prior), prior.quality), (Some(0.0825), Quality::Assumed));
    read(&mut attribution, device, ms(50), 2_000_000);
    attribution.settle(ms(50), 9);
    let booked = attribution.provisional(A);
    assert_eq!((joules(booked), booked.quality), (Some(2.0), Quality::Estimated));
    assert!(!booked.is_final);
    attribution.close(&model, A, ms(50));
    attribution.settle(ms(51), 9);
    // The next attempt's token, not booked yet, is estimated at the cost of the first one's.
    attribution.open(&model, B, ms(60));
    attribution.work(&model, decode(60, 70, 2), ms(70));
    assert_eq!(joules(attribution.provisional(B)), Some(2.0));
    assert_eq!(joules(attribution.expected("m", Tokens { prefill: 0, decode: 3 })), Some(6.0));
}

#[test]
fn attempts_settle_later_while_the_channel_is_full() {
    let (mut attribution, model): (Attribution, Arc<str>) = (attribution(), "m".into());
    for id in [A, B] {
        attribution.open(&model, id, ms(0));
        attribution.close(&model, id, ms(1));
    }
    assert_eq!(attribution.settle(ms(2), 0), []);
    assert_eq!((attribution.settle(ms(2), 1).len(), attribution.settle(ms(2), 1).len()), (1, 1));
}
