//! Bad input of sensors, clocks and engines: no figure becomes negative, `NaN` or silently zero.

use super::tests::{attribution, info, joules, ms, read};
use super::*;
use crate::energy::sensors::Coverage;
use crate::energy::sensors::counter::{Counter, Overflow};
use crate::energy::work::WorkRow;
use crate::units::{Joules, Watts};

const A: AttemptId = AttemptId(1);
const B: AttemptId = AttemptId(2);

fn package(attribution: &mut Attribution) -> DeviceId {
    attribution.add_device(
        info("package-0", Some(Watts(2.0))),
        Scope::Shared(Coverage::Processor),
        ms(0),
    )
}

fn span(start: u64, end: u64, rows: &[(AttemptId, u32, u32)]) -> WorkSpan {
    let row = |&(attempt, prefill_tokens, decode_tokens)| WorkRow {
        attempt,
        prefill_tokens,
        decode_tokens,
    };
    WorkSpan { start: ms(start), end: ms(end), rows: rows.iter().map(row).collect() }
}

#[test]
fn an_attempt_that_no_engine_received_used_nothing_with_and_without_devices() {
    let (mut attribution, model): (Attribution, Arc<str>) = (attribution(), "m".into());
    attribution.unserved(&model, A, ms(1));
    let settled = attribution.settle(ms(2), 9);
    assert_eq!(
        (settled[0].marginal.joules, settled[0].marginal.is_final),
        (Some(Joules(0.0)), true)
    );
    assert_eq!(settled[0].amortised.joules, Some(Joules(0.0)));
    // An opened attempt is unchanged.
    attribution.open(&model, B, ms(3));
    attribution.unserved(&model, B, ms(4));
    assert_eq!(attribution.settle(ms(5), 9), []);
    assert_eq!(attribution.snapshot(ms(5)).unknown_settlements, 0);
}

/// One settlement of each attempt, by attempt.
fn settle(attribution: &mut Attribution, now: u64) -> BTreeMap<AttemptId, Settled> {
    let settled = attribution.settle(ms(now), usize::MAX);
    assert_eq!(attribution.conservation_error(), Microjoules(0));
    for figure in settled.iter().flat_map(|one| [one.marginal, one.amortised]) {
        for joules in [figure.joules, figure.low, figure.high].into_iter().flatten() {
            assert!(joules.0 >= 0.0 && joules.0.is_finite(), "{figure:?}");
        }
    }
    settled.into_iter().map(|one| (one.attempt, one)).collect()
}

#[test]
fn attempts_open_at_a_counter_reset_are_unknown_and_later_ones_are_not() {
    let (mut attribution, model): (Attribution, Arc<str>) = (attribution(), "m".into());
    let device = package(&mut attribution);
    let mut counter = Counter::starting_at(9_000_000, ms(0), "p".into(), Overflow::Never)
        .rated(Some(100_000_000));
    attribution.open(&model, A, ms(0));
    attribution.work(&model, span(0, 40, &[(A, 0, 1)]), ms(40));
    let after_reload = counter.advance(400_000, ms(50)).unwrap();
    attribution.reading(device, ms(50), after_reload);
    attribution.faults(device, counter.resets(), counter.glitches());
    assert_eq!(joules(attribution.provisional(A)), None);
    attribution.close(&model, A, ms(50));
    attribution.open(&model, B, ms(55));
    attribution.work(&model, span(55, 90, &[(B, 0, 1)]), ms(90));
    attribution.close(&model, B, ms(90));
    attribution.reading(device, ms(100), counter.advance(900_000, ms(100)).unwrap());
    let settled = settle(&mut attribution, 101);
    assert_eq!(joules(settled[&A].marginal), None);
    assert_eq!(joules(settled[&B].marginal), Some(0.4), "0.5 J less 2 W idle");
    let snapshot = attribution.snapshot(ms(101));
    assert_eq!((snapshot.unknown_settlements, snapshot.devices[0].resets), (1, 1));
    assert_eq!(snapshot.devices[0].account.total, Microjoules(900_000));
}

#[test]
fn a_counter_that_jumps_is_charged_to_no_attempt() {
    let (mut attribution, model): (Attribution, Arc<str>) = (attribution(), "m".into());
    let device = package(&mut attribution);
    let mut counter = Counter::starting_at(1000, ms(0), "p".into(), Overflow::Never);
    attribution.open(&model, A, ms(0));
    attribution.work(&model, span(0, 40, &[(A, 0, 1)]), ms(40));
    attribution.close(&model, A, ms(45));
    // The quarantine ends when the counter has gone on from there for two seconds.
    for tick in 0..50 {
        let now = ms(50 + tick * 50);
        let sample = counter.advance(u64::MAX / 2 + tick * 1_000_000, now).unwrap();
        attribution.reading(device, now, sample);
    }
    assert_eq!(joules(settle(&mut attribution, 2501)[&A].marginal), None);
    let account = attribution.snapshot(ms(2501)).devices[0].account;
    assert!(account.total < Microjoules(50_000_000) && account.unknown > Microjoules(0));
}

/// Other meters report 0 W here.
#[test]
fn a_stuck_counter_settles_its_attempts_as_unknown_and_has_no_power() {
    let (mut attribution, model): (Attribution, Arc<str>) = (attribution(), "m".into());
    let device = package(&mut attribution);
    let mut counter = Counter::starting_at(1000, ms(0), "p".into(), Overflow::Never);
    attribution.open(&model, A, ms(0));
    attribution.work(&model, span(0, 40, &[(A, 0, 1)]), ms(40));
    attribution.close(&model, A, ms(45));
    let mut settled = BTreeMap::new();
    for tick in 1..=400 {
        match counter.advance(1000, ms(tick * 50)) {
            Ok(sample) => attribution.reading(device, ms(tick * 50), sample),
            Err(_) => attribution.read_failed(device),
        }
        settled.extend(settle(&mut attribution, tick * 50));
    }
    assert_eq!(joules(settled[&A].marginal), None);
    let book = attribution.snapshot(ms(20_000)).devices.remove(0);
    assert_eq!((book.watts, book.read_errors), (None, 301), "an error from the fifth second on");
}

/// Other meters learn the idle power from the first load, or let it vanish under load.
#[test]
fn idle_power_is_the_configured_one_from_the_first_interval_to_the_busiest() {
    let (mut attribution, model): (Attribution, Arc<str>) = (attribution(), "m".into());
    let device = package(&mut attribution);
    attribution.open(&model, A, ms(0));
    for second in 1..=10 {
        attribution.work(
            &model,
            span((second - 1) * 1000, second * 1000, &[(A, 0, 1)]),
            ms(second * 1000),
        );
        read(&mut attribution, device, ms(second * 1000), second * 200_000_000);
    }
    settle(&mut attribution, 10_000);
    let account = attribution.snapshot(ms(10_000)).devices[0].account;
    assert_eq!(account.idle_occupied, Microjoules(10 * 2_000_000), "2 W of 200");
}

#[test]
fn an_engine_that_ends_without_a_reading_makes_its_open_attempts_unknown_and_no_earlier_ones() {
    let (mut attribution, model): (Attribution, Arc<str>) = (attribution(), "m".into());
    let device = super::tests::engine(&mut attribution, &model, ms(0));
    for (attempt, start) in [(A, 0), (B, 50)] {
        attribution.open(&model, attempt, ms(start));
        attribution.work(&model, span(start, start + 40, &[(attempt, 0, 1)]), ms(start + 40));
        attribution.close(&model, attempt, ms(start + 45));
    }
    read(&mut attribution, device, ms(50), 3_000_000);
    attribution.lost(device, ms(100));
    let settled = settle(&mut attribution, 101);
    assert_eq!((joules(settled[&A].marginal), joules(settled[&B].marginal)), (Some(3.0), None));
}

#[test]
fn attempts_open_during_suspension_are_unknown_and_the_time_is_a_gap() {
    let (mut attribution, model): (Attribution, Arc<str>) = (attribution(), "m".into());
    let device = package(&mut attribution);
    attribution.open(&model, A, ms(0));
    attribution.work(&model, span(0, 40, &[(A, 0, 1)]), ms(40));
    read(&mut attribution, device, ms(50), 5_000_000);
    attribution.suspended(Duration::from_hours(8));
    read(&mut attribution, device, ms(100), 9_000_000);
    attribution.close(&model, A, ms(110));
    attribution.open(&model, B, ms(120));
    attribution.work(&model, span(120, 140, &[(B, 0, 1)]), ms(140));
    attribution.close(&model, B, ms(140));
    read(&mut attribution, device, ms(150), 10_000_000);
    let settled = settle(&mut attribution, 151);
    assert_eq!(joules(settled[&A].marginal), None);
    assert!(joules(settled[&B].marginal).is_some());
    assert_eq!(attribution.snapshot(ms(151)).devices[0].gap, Duration::from_hours(8));
}

#[test]
fn a_clock_that_steps_back_changes_nothing() {
    let (mut attribution, model): (Attribution, Arc<str>) = (attribution(), "m".into());
    let device = package(&mut attribution);
    attribution.open(&model, A, ms(90));
    read(&mut attribution, device, ms(100), 1_000_000);
    read(&mut attribution, device, ms(40), 1_500_000);
    attribution.work(&model, span(120, 90, &[(A, 0, 1)]), ms(120));
    attribution.close(&model, A, ms(80));
    read(&mut attribution, device, ms(150), 2_000_000);
    assert!(settle(&mut attribution, 151).contains_key(&A));
    assert_eq!(attribution.snapshot(ms(151)).devices[0].account.total, Microjoules(2_000_000));
}

#[test]
fn no_tokens_cost_no_active_energy_and_a_million_prompt_tokens_their_share() {
    let (mut attribution, model): (Attribution, Arc<str>) = (attribution(), "m".into());
    let device = package(&mut attribution);
    let (none, long, short) = (AttemptId(1), AttemptId(2), AttemptId(3));
    for attempt in [none, long, short] {
        attribution.open(&model, attempt, ms(0));
    }
    attribution.work(
        &model,
        span(0, 50, &[(none, 0, 0), (long, 1_000_000, 0), (short, 0, 1)]),
        ms(50),
    );
    for attempt in [none, long, short] {
        attribution.close(&model, attempt, ms(50));
    }
    read(&mut attribution, device, ms(50), 100_000 + 150_001);
    let settled = settle(&mut attribution, 51);
    // 0.15 of a token a million times against one.
    assert_eq!(joules(settled[&none].marginal), Some(0.0));
    assert_eq!(joules(settled[&long].marginal), Some(0.15));
    assert_eq!(joules(settled[&short].marginal), Some(1e-6));
    assert!(joules(settled[&none].amortised) > Some(0.0), "it took a third of the idle energy");
}

#[test]
fn five_hundred_engines_share_one_package_to_the_microjoule() {
    let mut attribution = attribution();
    let device = package(&mut attribution);
    let models: Vec<Arc<str>> = (0..500).map(|n| format!("m{n}").into()).collect();
    let attempts = || models.iter().zip(1..).map(|(model, id)| (model, AttemptId(id)));
    for (model, attempt) in attempts() {
        attribution.open(model, attempt, ms(0));
    }
    for step in 0..20 {
        for (model, attempt) in attempts() {
            let (start, end) = (step * 50 + attempt.0 % 7, (step + 1) * 50);
            attribution.work(model, span(start, end, &[(attempt, 1, 1)]), ms(end));
        }
        read(&mut attribution, device, ms((step + 1) * 50), (step + 1) * 7_777_777);
        assert!(settle(&mut attribution, (step + 1) * 50).is_empty());
    }
    for (model, attempt) in attempts() {
        attribution.close(model, attempt, ms(1000));
    }
    read(&mut attribution, device, ms(1001), 20 * 7_777_777 + 1);
    let settled = settle(&mut attribution, 1002);
    let sum: f64 = settled.values().map(|one| joules(one.marginal).unwrap() * 1e6).sum();
    let account = attribution.snapshot(ms(1002)).devices[0].account;
    assert_eq!(settled.len(), 500);
    assert!((sum - account.attributed.0 as f64).abs() < 0.5, "{sum} {account:?}");
    assert!(settled.values().all(|one| joules(one.marginal) > Some(0.0)));
}

#[test]
fn settlement_waits_for_a_rarely_scraped_remote_meter_which_charges_its_models_only() {
    let (mut attribution, near, far): (Attribution, Arc<str>, Arc<str>) =
        (attribution(), "near".into(), "far".into());
    let package = package(&mut attribution);
    let scope = Scope::Elsewhere([Arc::clone(&far)].into());
    let box_far = attribution.add_device(info("box", None), scope, ms(0));
    assert!(attribution.meters_elsewhere("far") && !attribution.meters_elsewhere("near"));
    for (model, attempt) in [(&near, A), (&far, B)] {
        attribution.open(model, attempt, ms(0));
        attribution.work(model, span(0, 100, &[(attempt, 0, 1)]), ms(100));
        attribution.close(model, attempt, ms(100));
    }
    read(&mut attribution, package, ms(150), 1_300_000);
    let first = settle(&mut attribution, 150);
    assert_eq!(joules(first[&A].marginal), Some(1.0), "1.3 J less 2 W idle");
    assert!(settle(&mut attribution, 20_000).is_empty());
    read(&mut attribution, box_far, ms(20_000), 7_000_000);
    let second = settle(&mut attribution, 20_001);
    let charged = second[&B].marginal;
    assert_eq!(joules(charged), Some(0.035), "7 J in 20 s, of which it worked for 100 ms");
    assert_eq!(charged.high, Some(Joules(14.0)), "at most all of it, and twice for the band");
}
