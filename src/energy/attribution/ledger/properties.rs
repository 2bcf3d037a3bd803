//! Properties of the ledger for any sequence of readings and reports, late, lost or out of order.

use proptest::prelude::*;

use super::tests::{MS, at, interval, ledger, share, span};
use super::*;

#[derive(Clone, Debug)]
enum Event {
    Read { gap: u64, length: u64, energy: u64, whole: bool },
    Open(u64),
    Close(u64),
    Work { back: u64, length: u64, rows: Vec<(u64, u32, u32)> },
    CloseUntil { back: u64 },
    TakeOut(u64, bool),
}

fn event() -> impl Strategy<Value = Event> {
    let row = (0u64..6, 0u32..300, 0u32..3);
    prop_oneof![
        4 => (prop_oneof![4 => Just(0u64), 1 => 1u64..100], 1u64..80, 0u64..1_000_000, prop::bool::weighted(0.9))
            .prop_map(|(gap, length, energy, whole)| Event::Read { gap, length, energy, whole }),
        2 => (0u64..6).prop_map(Event::Open),
        1 => (0u64..6).prop_map(Event::Close),
        4 => (0u64..300, 0u64..100, proptest::collection::vec(row, 0..5))
            .prop_map(|(back, length, rows)| Event::Work { back, length, rows }),
        2 => (0u64..200).prop_map(|back| Event::CloseUntil { back }),
        1 => (0u64..6, any::<bool>()).prop_map(|(attempt, known)| Event::TakeOut(attempt, known)),
    ]
}

fn idle() -> impl Strategy<Value = IdlePower> {
    prop_oneof![
        (0u64..5_000_000).prop_map(IdlePower::known),
        prop::option::of(0u64..5_000_000).prop_map(IdlePower::learned),
        Just(IdlePower::unknown()),
    ]
}

/// Plays events against a ledger and checks conservation after each. Returns the ledger and the
/// total energy.
fn play(events: &[Event], idle: IdlePower, shared: bool) -> (Ledger, u64) {
    let (mut ledger, mut now, mut fed) = (Ledger::new(idle, shared), 100, 0);
    for event in events {
        match *event {
            Event::Read { gap, length, energy, whole } => {
                let interval = interval(now + gap, now + gap + length, energy);
                ledger.interval(Interval { whole, ..interval });
                now += gap + length;
                fed += energy;
            }
            Event::Open(attempt) => ledger.open(AttemptId(attempt), TokenWeights::DEFAULT, at(now)),
            Event::Close(attempt) => ledger.close(AttemptId(attempt), at(now)),
            Event::Work { back, length, ref rows } => {
                let start = now.saturating_sub(back);
                ledger.work(&span(start, start + length, rows));
            }
            Event::CloseUntil { back } => ledger.close_until(at(now.saturating_sub(back))),
            Event::TakeOut(attempt, known) => {
                if let Some(taken) = ledger.take_out(AttemptId(attempt), known) {
                    let share = taken.share.marginal;
                    assert!(taken.least <= share && share <= taken.most, "{taken:?}");
                }
            }
        }
        assert_eq!(ledger.conservation_error(), Microjoules(0), "after {event:?}");
    }
    ledger.close_until(at(now));
    (ledger, fed)
}

proptest! {
    #[test]
    fn every_microjoule_is_booked_once(
        events in proptest::collection::vec(event(), 0..120), idle in idle(), shared: bool,
    ) {
        let (ledger, fed) = play(&events, idle, shared);
        prop_assert_eq!(ledger.conservation_error(), Microjoules(0));
        prop_assert_eq!(ledger.account().total, Microjoules(fed));
        prop_assert_eq!(ledger.pending(), Microjoules(0));
    }

    #[test]
    fn finer_readings_change_no_total_and_no_lone_attempts_share(
        energies in proptest::collection::vec(0u64..1_000_000, 1..30), cut in 1u64..49,
    ) {
        let coarse: Vec<Interval> = energies
            .iter()
            .zip(0u64..)
            .map(|(&energy, k)| interval(k * 50, (k + 1) * 50, energy))
            .collect();
        let fine = coarse.iter().flat_map(|whole| {
            let middle = MonotonicNs(whole.start.0 + cut * MS);
            let first = Microjoules(whole.energy.0 * cut / 50);
            let second = whole.energy.saturating_sub(first);
            [
                Interval { end: middle, energy: first, ..*whole },
                Interval { start: middle, energy: second, ..*whole },
            ]
        });
        let book = |intervals: Vec<Interval>| {
            let mut ledger = ledger(0, &[1]);
            ledger.work(&span(0, energies.len() as u64 * 50, &[(1, 7, 3)]));
            for each in intervals {
 ledger.interval(each);
 }
            ledger.close_until(MonotonicNs(u64::MAX));
            (ledger.account(), share(&ledger, 1))
        };
        prop_assert_eq!(book(coarse.clone()), book(fine.collect()));
    }

    #[test]
    fn the_order_of_reports_and_rows_does_not_matter(
        rows in proptest::collection::vec((1u64..5, 0u32..300, 0u32..3), 1..8),
        starts in proptest::collection::vec(0u64..400, 1..8),
        energies in proptest::collection::vec(0u64..1_000_000, 10),
    ) {
        let book = |backwards: bool| {
            let attempts = if backwards { [4, 3, 2, 1] } else { [1, 2, 3, 4] };
            let mut ledger = ledger(1, &attempts);
            let mut spans: Vec<WorkSpan> = starts.iter().map(|&start| span(start, start + 90, &rows)).collect();
            if backwards {
                spans.reverse();
                for span in &mut spans {
 span.rows.reverse();
 }
            }
            for span in &spans {
 ledger.work(span);
 }
            for (&energy, k) in energies.iter().zip(0u64..) {
                ledger.interval(interval(k * 50, (k + 1) * 50, energy));
            }
            ledger.close_until(at(500));
            (ledger.account(), [1, 2, 3, 4].map(|attempt| share(&ledger, attempt)))
        };
        prop_assert_eq!(book(false), book(true));
    }

    #[test]
    fn without_weight_there_is_no_share(
        energies in proptest::collection::vec(0u64..1_000_000, 1..20),
    ) {
        let mut ledger = ledger(0, &[1, 2]);
        for (&energy, k) in energies.iter().zip(0u64..) {
            ledger.work(&span(k * 50, (k + 1) * 50, &[(1, 1, 1), (2, 0, 0)]));
            ledger.interval(interval(k * 50, (k + 1) * 50, energy));
        }
        ledger.close_until(MonotonicNs(u64::MAX));
        prop_assert_eq!(share(&ledger, 2), (0, 0));
        prop_assert_eq!(share(&ledger, 1).0, energies.iter().sum::<u64>());
    }
}
