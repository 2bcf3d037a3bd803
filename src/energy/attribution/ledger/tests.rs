//! Attribution of single intervals.

use super::*;
use crate::energy::work::WorkRow;

pub(super) const MS: u64 = 1_000_000;

pub(super) fn at(ms: u64) -> MonotonicNs {
    MonotonicNs(ms * MS)
}

pub(super) fn interval(start: u64, end: u64, energy: u64) -> Interval {
    Interval { start: at(start), end: at(end), energy: Microjoules(energy) }
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
    let mut ledger = Ledger::new(idle_watts * 1_000_000);
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
    assert_eq!((share(&ledger, 1).0, ledger.late_reports().late_spans), (20, 1));
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
    assert_eq!(ledger.take_out(AttemptId(1)).unwrap().0.marginal, Microjoules(16));
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
    ledger.interval(Interval { start: MonotonicNs(0), end, energy: Microjoules(u64::MAX / 4) });
    ledger.close_until(end);
    let (one, two) = (share(&ledger, 1).0, share(&ledger, 2).0);
    assert_eq!(one + two, u64::MAX / 4);
    assert!(two.abs_diff(one * 2) < 8, "{one} {two}");
}
