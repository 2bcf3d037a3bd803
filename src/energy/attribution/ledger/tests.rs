//! Attribution of single intervals.

use super::*;
use crate::energy::work::WorkRow;

pub(super) const MS: u64 = 1_000_000;

pub(super) fn at(ms: u64) -> MonotonicNs {
    MonotonicNs(ms * MS)
}

pub(super) fn interval(start: u64, end: u64, energy: u64) -> Interval {
    Interval { start: at(start), end: at(end), energy: Microjoules(energy), whole: true }
}

/// A step that decodes one token for each attempt named.
pub(super) fn step(start: u64, end: u64, attempts: &[u64]) -> WorkSpan {
    span(start, end, &attempts.iter().map(|&attempt| (attempt, 0, 1)).collect::<Vec<_>>())
}

pub(super) fn span(start: u64, end: u64, rows: &[(u64, u32, u32)]) -> WorkSpan {
    let row = |&(attempt, prefill_tokens, decode_tokens)| WorkRow {
        attempt: AttemptId(attempt),
        prefill_tokens,
        decode_tokens,
    };
    WorkSpan { start: at(start), end: at(end), rows: rows.iter().map(row).collect() }
}

pub(super) fn ledger(idle_watts: u64, attempts: &[u64]) -> Ledger {
    let mut ledger = Ledger::new(IdlePower::known(idle_watts * 1_000_000), true);
    for &attempt in attempts {
        ledger.open(AttemptId(attempt), TokenWeights::DEFAULT, at(0));
    }
    ledger
}

pub(super) fn share(ledger: &Ledger, attempt: u64) -> (u64, u64) {
    let (share, _) = ledger.share(AttemptId(attempt)).unwrap();
    (share.marginal.0, share.idle.0)
}

#[test]
fn a_lone_attempt_gets_all_active_energy_and_all_idle() {
    let mut ledger = ledger(2, &[1]);
    ledger.work(&step(10, 20, &[1]));
    ledger.interval(interval(0, 50, 300_007));
    ledger.close_until(at(50));
    // 2 W over 50 ms are 100,000 µJ.
    assert_eq!(share(&ledger, 1), (200_007, 100_000));
    assert_eq!(ledger.conservation_error(), Microjoules(0));
}

#[test]
fn energy_between_requests_is_unattributed() {
    let mut ledger = ledger(0, &[1]);
    ledger.work(&step(0, 50, &[1]));
    ledger.interval(interval(0, 50, 10));
    ledger.interval(interval(50, 100, 70));
    ledger.work(&step(100, 150, &[1]));
    ledger.interval(interval(100, 150, 5));
    ledger.close_until(at(150));
    assert_eq!(share(&ledger, 1), (15, 0));
    assert_eq!(ledger.account().unattributed, Microjoules(70));
}

#[test]
fn active_energy_follows_tokens_and_not_presence() {
    let mut ledger = ledger(0, &[1, 2, 3]);
    // 100 prompt tokens weigh as much as 15 generated ones.
    ledger.work(&span(0, 50, &[(1, 100, 0), (2, 0, 15), (3, 0, 0)]));
    ledger.interval(interval(0, 50, 1000));
    ledger.close_until(at(50));
    assert_eq!(
        [share(&ledger, 1), share(&ledger, 2), share(&ledger, 3)],
        [(500, 0), (500, 0), (0, 0)]
    );
}

#[test]
fn each_attempt_has_the_weights_of_its_model() {
    let mut ledger = ledger(0, &[1]);
    let large = TokenWeights { prefill: 0, decode: 3 * TokenWeights::DEFAULT.decode };
    ledger.open(AttemptId(2), large, at(0));
    ledger.work(&step(0, 50, &[1]));
    ledger.work(&step(0, 50, &[2]));
    ledger.interval(interval(0, 50, 1000));
    ledger.close_until(at(50));
    assert_eq!([share(&ledger, 1).0, share(&ledger, 2).0], [250, 750]);
}

#[test]
fn idle_energy_follows_the_time_open() {
    let mut ledger = ledger(1, &[1]);
    ledger.open(AttemptId(2), TokenWeights::DEFAULT, at(30));
    ledger.close(AttemptId(1), at(40));
    ledger.interval(interval(0, 50, 60_000));
    ledger.close_until(at(50));
    // Open for 40 ms and 20 ms of 50,000 µJ.
    assert_eq!((share(&ledger, 1).1, share(&ledger, 2).1), (33_333, 16_667));
    let account = ledger.account();
    assert_eq!((account.unattributed.0, account.idle_occupied.0), (10_000, 50_000));
}

#[test]
fn a_late_span_moves_to_the_next_open_interval_and_is_counted() {
    let mut ledger = ledger(0, &[1]);
    ledger.interval(interval(0, 50, 10));
    ledger.close_until(at(50));
    ledger.work(&step(10, 40, &[1]));
    ledger.close(AttemptId(1), at(45));
    assert!(!ledger.is_final(AttemptId(1), at(50)), "its work is pending");
    ledger.interval(interval(50, 100, 20));
    ledger.close_until(at(100));
    // The 10 µJ of an interval without work are what the device draws anyway.
    assert_eq!((share(&ledger, 1).0, ledger.late_reports().late_spans), (11, 1));
    assert!(ledger.is_final(AttemptId(1), at(100)));
}

#[test]
fn final_means_closed_read_and_booked() {
    let mut ledger = ledger(0, &[1]);
    ledger.work(&step(0, 60, &[1]));
    ledger.interval(interval(0, 50, 10));
    ledger.close_until(at(50));
    assert!(!ledger.is_final(AttemptId(1), at(50)), "still open");
    ledger.close(AttemptId(1), at(60));
    assert!(!ledger.is_final(AttemptId(1), at(50)), "not read up to its end");
    ledger.interval(interval(50, 100, 6));
    assert!(!ledger.is_final(AttemptId(1), at(100)), "not booked");
    ledger.close_until(at(100));
    assert!(ledger.is_final(AttemptId(1), at(100)));
    assert_eq!(ledger.take_out(AttemptId(1), true).unwrap().share.marginal, Microjoules(16));
    ledger.work(&step(60, 70, &[1]));
    assert_eq!(ledger.late_reports().dropped_rows, 1);
}

#[test]
fn the_largest_numbers_do_not_overflow() {
    let mut ledger = ledger(0, &[1, 2]);
    let end = MonotonicNs(u64::MAX);
    let row = |attempt| WorkRow {
        attempt: AttemptId(attempt),
        prefill_tokens: u32::MAX,
        decode_tokens: u32::MAX,
    };
    ledger.work(&WorkSpan { start: MonotonicNs(0), end, rows: vec![row(1), row(2), row(2)] });
    let energy = Microjoules(u64::MAX / 4);
    ledger.interval(Interval { start: MonotonicNs(0), end, energy, whole: true });
    ledger.close_until(end);
    let (one, two) = (share(&ledger, 1).0, share(&ledger, 2).0);
    assert_eq!(one + two, u64::MAX / 4);
    assert!(two.abs_diff(one * 2) < 8, "{one} {two}");
}

/// The ledger of a device that draws `watts` without work, read each `cadence` ms.
fn after_a_minute(watts: u64, cadence: u64, idle: IdlePower) -> Ledger {
    let mut ledger = Ledger::new(idle, true);
    for tick in 0..60_000 / cadence {
        ledger.interval(interval(tick * cadence, (tick + 1) * cadence, watts * cadence * 1000));
    }
    ledger.close_until(at(60_000));
    ledger
}

/// pynvml#18, a smart plug: a request of 80 ms in an interval of a second got all of its energy.
#[test]
fn a_request_gets_the_part_of_an_interval_that_it_worked_in_and_its_band_says_the_rest() {
    for cadence in [50, 200, 1000, 2000] {
        // 30 W of which nothing is known to be idle, and 70 W while a request is worked on.
        let mut ledger = after_a_minute(30, cadence, IdlePower::unknown());
        ledger.open(AttemptId(1), TokenWeights::DEFAULT, at(60_100));
        ledger.work(&step(60_100, 60_180, &[1]));
        ledger.close(AttemptId(1), at(60_180));
        for tick in 60_000 / cadence..64_000 / cadence {
            let (start, end) = (tick * cadence, (tick + 1) * cadence);
            let worked = end.min(60_180).saturating_sub(start.max(60_100));
            ledger.interval(interval(start, end, 30_000 * cadence + 40_000 * worked));
        }
        ledger.close_until(at(64_000));
        let TakenOut { share, least, most, .. } = ledger.take_out(AttemptId(1), true).unwrap();
        let truth = 70 * 80_000;
        assert!(share.marginal.0.abs_diff(truth) <= truth / 100, "{cadence} ms: {share:?}");
        assert!(least.0 <= share.marginal.0 && most.0 >= truth, "{cadence} ms: {least} {most}");
        assert_eq!(ledger.conservation_error(), Microjoules(0));
    }
}

#[test]
fn above_a_learned_idle_power_a_request_is_charged_what_it_added() {
    for cadence in [50, 1000] {
        let mut ledger = after_a_minute(30, cadence, IdlePower::learned(None));
        ledger.open(AttemptId(1), TokenWeights::DEFAULT, at(60_100));
        ledger.work(&step(60_100, 60_180, &[1]));
        ledger.close(AttemptId(1), at(60_180));
        for tick in 60_000 / cadence..62_000 / cadence {
            let (start, end) = (tick * cadence, (tick + 1) * cadence);
            let worked = end.min(60_180).saturating_sub(start.max(60_100));
            ledger.interval(interval(start, end, 30_000 * cadence + 40_000 * worked));
        }
        ledger.close_until(at(62_000));
        let taken = ledger.take_out(AttemptId(1), true).unwrap();
        // Each microwatt of idle power is rounded down.
        assert!(taken.share.marginal.0.abs_diff(40 * 80_000) < 10, "{cadence} ms: {taken:?}");
        assert!(taken.share.idle.0.abs_diff(30 * 80_000) < 10, "{cadence} ms: {taken:?}");
    }
}

#[test]
fn energy_that_cannot_be_told_apart_is_unknown_and_so_is_that_of_an_unknown_attempt() {
    let mut ledger = ledger(1, &[1, 2]);
    ledger.work(&step(0, 100, &[1, 2]));
    ledger.interval(interval(0, 50, 150_000));
    ledger.interval(Interval { whole: false, ..interval(50, 100, 70_000) });
    ledger.close_until(at(100));
    assert_eq!(ledger.account().unknown, Microjoules(70_000));
    assert_eq!(ledger.unsettled(), Microjoules(100_000));
    ledger.take_out(AttemptId(1), true);
    ledger.take_out(AttemptId(2), false);
    let account = ledger.account();
    assert_eq!((account.attributed.0, account.unknown.0), (50_000, 120_000));
    assert_eq!((account.parts(), ledger.conservation_error()), (account.total, Microjoules(0)));
}

/// Before idle power is learned, all power is background; afterwards only what is above idle is.
#[test]
fn power_that_is_learned_to_be_idle_is_no_background() {
    let mut ledger = Ledger::new(IdlePower::learned(None), true);
    for tick in 0..22 {
        ledger.interval(interval(tick * 50, (tick + 1) * 50, 10 * 50_000));
    }
    ledger.open(AttemptId(1), TokenWeights::DEFAULT, at(1450));
    ledger.work(&step(1450, 1600, &[1]));
    // A counter in quarantine for half a second: 10 W, and 20 W more for 150 ms.
    ledger.interval(interval(1100, 1600, 10 * 500_000 + 20 * 150_000));
    ledger.close_until(at(1600));
    assert_eq!(share(&ledger, 1).0, 3_000_000);
}
