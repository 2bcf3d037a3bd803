//! Wraps, restarts, glitches and jumps of counters, with tables of reported ones.

use proptest::prelude::*;

use super::*;

const RANGE: u64 = 262_143_328_850;

fn ms(ms: u64) -> MonotonicNs {
    MonotonicNs(ms * 1_000_000)
}

fn counter(raw: u64, overflow: Overflow) -> Counter {
    Counter::starting_at(raw, ms(0), "c".into(), overflow)
}

fn sample(at: u64, total: u64, whole: bool) -> Sample {
    Sample { at: ms(at), total: Microjoules(total), whole }
}

#[test]
fn a_wrapping_counter_goes_on_past_its_range() {
    let mut counter = counter(990, Overflow::WrapsAt(Microjoules(1000)));
    assert_eq!(counter.advance(5, ms(50)).unwrap(), sample(50, 15, true));
    assert_eq!(counter.advance(25, ms(100)).unwrap(), sample(100, 35, true));
    assert_eq!(counter.resets(), 0);
}

/// Others added 2⁶⁴ here, and a driver reload became 1.8 · 10¹⁶ J.
#[test]
fn a_restart_counts_what_it_shows_if_the_device_can_have_used_it() {
    let mut counter = counter(5_000_000_000, Overflow::Never).rated(Some(100_000_000));
    assert_eq!(counter.advance(5_001_000_000, ms(50)).unwrap(), sample(50, 1_000_000, true));
    assert_eq!(counter.advance(300, ms(100)).unwrap(), sample(100, 1_000_300, false));
    assert_eq!(counter.resets(), 1);
    assert!(counter.advance(400, ms(150)).unwrap().whole);
}

#[test]
fn a_restart_of_an_unknown_device_counts_nothing_of_what_it_shows() {
    for overflow in [Overflow::WrapsAt(Microjoules(RANGE)), Overflow::Never] {
        let mut counter = counter(200_000_000_000, overflow);
        assert_eq!(counter.advance(40, ms(50)).unwrap(), sample(50, 0, false), "{overflow:?}");
        assert_eq!(counter.resets(), 1);
    }
}

/// Others returned 0 for a failed read, and took the next good one for a wrap.
#[test]
fn a_read_error_leaves_the_counter_where_it_was() {
    let mut counter = counter(700_000, Overflow::WrapsAt(Microjoules(RANGE)));
    assert_eq!(counter.advance(900_000, ms(2000)).unwrap(), sample(2000, 200_000, true));
    assert_eq!(counter.resets(), 0);
}

#[test]
fn a_slow_counters_step_covers_the_time_since_the_step_before() {
    let mut counter = counter(0, Overflow::Never);
    assert_eq!(counter.advance(7, ms(100)).unwrap(), sample(100, 7, true));
    assert_eq!(counter.advance(7, ms(150)).unwrap(), sample(100, 7, true));
    assert_eq!(counter.advance(19, ms(200)).unwrap(), sample(200, 19, true));
}

/// Others printed 0 W.
#[test]
fn a_stuck_counter_is_an_error_and_its_missed_energy_unknown() {
    let mut counter = counter(5, Overflow::Never);
    counter.advance(6, ms(100)).unwrap();
    assert!(counter.advance(6, ms(5000)).is_ok());
    assert_eq!(counter.advance(6, ms(5100)).unwrap_err().label(), "frozen");
    assert_eq!(counter.advance(16, ms(6000)).unwrap(), sample(6000, 11, false));
    assert_eq!(counter.advance(17, ms(6050)).unwrap(), sample(6050, 12, true));
}

/// A device of constant power whose register is off by some microjoules at some times.
struct Faulty {
    start_uj: u64,
    milliwatts: u64,
    rated_watts: Option<u64>,
    /// Every so many milliseconds, for so many, by so much.
    every_ms: u64,
    for_ms: u64,
    off_by_uj: i64,
}

/// The counter after a minute of ticks, and the samples that were not whole.
fn minute(device: &Faulty) -> (Counter, u64, u32) {
    let raw = |at: u64| {
        let truth = device.start_uj + at * device.milliwatts;
        let faulty = at > 3000 && at % device.every_ms < device.for_ms;
        truth.saturating_add_signed(if faulty { device.off_by_uj } else { 0 })
    };
    let rated = device.rated_watts.map(|watts| watts * 1_000_000);
    let mut counter = counter(raw(0), Overflow::WrapsAt(Microjoules(RANGE))).rated(rated);
    let (mut doubtful, mut last) = (0, 0);
    for at in (50..60_000).step_by(50) {
        let sample = counter.advance(raw(at), ms(at)).unwrap();
        assert!(sample.total.0 >= last, "the total never falls");
        doubtful += u32::from(!sample.whole && sample.at == ms(at));
        last = sample.total.0;
    }
    (counter, 59_950 * device.milliwatts, doubtful)
}

/// powerstat#16 (a counter 696 J too high for a second), amdsmi#115 (3 J back for 60 ms), and
/// neighbours: shorter, smaller, larger, of young counters, with and without a rated power.
#[test]
fn glitches_are_in_no_total_and_their_time_is_covered_by_the_next_good_reading() {
    let handheld = |for_ms, off_by_uj| Faulty {
        start_uj: 30_000_000_000,
        milliwatts: 6_300,
        rated_watts: None,
        every_ms: 5000,
        for_ms,
        off_by_uj,
    };
    let package = |start_uj, off_by_uj, rated_watts| Faulty {
        start_uj,
        milliwatts: 30_000,
        rated_watts,
        every_ms: 3000,
        for_ms: 60,
        off_by_uj,
    };
    for (case, device) in [
        ("696 J up for 1 s", handheld(1000, 696_000_000)),
        ("696 J up for 0.12 s", handheld(120, 696_000_000)),
        ("10 J up for 1 s", handheld(1000, 10_000_000)),
        ("to the end of the range", handheld(200, 230_000_000_000)),
        ("3 J back", package(400_000_000, -3_000_000, None)),
        ("3 J back, a young counter", package(9_000_000, -3_000_000, None)),
        ("3 J back, rated", package(400_000_000, -3_000_000, Some(105))),
        ("50 J up, rated", package(400_000_000, 50_000_000, Some(105))),
        ("half of it back", package(4_000_000_000, -2_100_000_000, None)),
    ] {
        let (counter, truth, doubtful) = minute(&device);
        assert_eq!((counter.last.total.0, counter.resets(), doubtful), (truth, 0, 0), "{case}");
        assert!(counter.glitches() >= 10, "{case}: {}", counter.glitches());
    }
}

/// A glitch too small to be told from a load is booked at once and given back over the next
/// readings: the total is right as soon as the counter has caught up.
#[test]
fn a_small_glitch_is_given_back() {
    let device = Faulty {
        start_uj: 30_000_000_000,
        milliwatts: 6_300,
        rated_watts: None,
        every_ms: 5000,
        for_ms: 100,
        off_by_uj: 1_000_000,
    };
    let (counter, truth, _) = minute(&device);
    assert!(counter.last.total.0.abs_diff(truth) <= 1_000_000);
    assert_eq!(counter.resets(), 0);
}

#[test]
fn a_lasting_jump_is_never_booked_and_its_time_is_unknown() {
    let mut counter = counter(1_000_000_000, Overflow::Never);
    let (mut doubtful, mut last) = (0, counter.last);
    for tick in 1..=200_u64 {
        let jump = if tick > 50 { 5_000_000_000 } else { 0 };
        let next = counter.advance(1_000_000_000 + jump + tick * 1_500_000, ms(tick * 50)).unwrap();
        doubtful += u32::from(!next.whole && next.at != last.at);
        last = next;
    }
    assert_eq!((counter.resets(), doubtful), (1, 1));
    // All but the step of the jump itself.
    assert_eq!(last.total, Microjoules(199 * 1_500_000));
}

#[test]
fn a_load_far_above_the_usual_power_is_booked_whole() {
    // A card of 10 W that draws 700 W from one tick to the next.
    let mut counter = counter(5, Overflow::Never);
    let mut raw = 5;
    for tick in 1..=100_u64 {
        raw += if tick > 50 { 35_000_000 } else { 500_000 };
        let sample = counter.advance(raw, ms(tick * 50)).unwrap();
        assert!(sample.whole);
    }
    assert_eq!(counter.last.total.0, raw - 5);
    assert_eq!(counter.resets(), 0);
}

proptest! {
    #[test]
    fn wraps_lose_and_invent_nothing(
        start in 0u64..1000, gains in proptest::collection::vec(0u64..400, 0..50),
    ) {
        let range = 1000;
        let mut counter = counter(start, Overflow::WrapsAt(Microjoules(range))).rated(Some(1_000_000));
        let mut truth = start;
        for (gain, at) in gains.iter().zip(1..) {
            truth += gain;
            counter.advance(truth % range, ms(at * 50)).unwrap();
        }
        prop_assert_eq!(counter.resets(), 0);
        prop_assert!(counter.suspect.is_some() || counter.last.total == Microjoules(truth - start));
    }

    #[test]
    fn no_reading_whatever_makes_the_total_fall_or_exceed_what_the_device_can_draw(
        readings in proptest::collection::vec((any::<u64>(), 0u64..10_000), 0..60), wraps: bool,
    ) {
        let overflow = if wraps { Overflow::WrapsAt(Microjoules(RANGE)) } else { Overflow::Never };
        let mut counter = counter(RANGE / 2, overflow).rated(Some(100_000_000));
        let (mut now, mut total, mut longest) = (0, 0, 0);
        for (raw, passed) in readings {
            now += passed;
            longest = passed.max(longest);
            let Ok(sample) = counter.advance(raw, ms(now)) else { continue };
            prop_assert!(sample.total.0 >= total && sample.at <= ms(now));
            total = sample.total.0;
        }
        // Twice 100 W for all the time, and for one more step at each reading.
        prop_assert!(total <= (now + 60 * longest) * 200_000, "{total} in {now} ms");
    }
}
