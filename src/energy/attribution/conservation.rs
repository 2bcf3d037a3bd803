//! Conservation through counters, devices and ledgers: counters wrap, reset, hold garbage, get
//! stuck, fail to read and are suspended, while attempts work, end early and are cancelled, models
//! load and engines die. Not a microjoule may be lost.
//!
//! Plays about ten thousand intervals; `WATTGATE_INTERVALS=1000000` plays that many.

use std::cell::RefCell;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::tests::{attribution, engine, info, joules, ms};
use super::*;
use crate::energy::sensors::Coverage;
use crate::energy::sensors::counter::{Counter, Overflow};
use crate::energy::sensors::power_integral::PowerIntegral;
use crate::energy::sensors::sensor::{Sample, SensorError};
use crate::energy::work::WorkRow;
use crate::units::Watts;

const TICKS: u32 = 100;
const DEVICES: usize = 4;
/// Indices of the devices: a package whose counter wraps, a card whose counter is reset, a board
/// that reports power, an engine's CPU time.
const PACKAGE: usize = 0;
const CARD: usize = 1;
const BOARD: usize = 2;
const ENGINE: usize = 3;

/// Range of the package's counter.
const RANGE: u64 = 40_000_000;
/// Power readings of the board further apart than this are a gap.
const LONGEST_GAP: Duration = Duration::from_millis(2500);

fn cases() -> u32 {
    let wanted = std::env::var("WATTGATE_INTERVALS").ok().and_then(|text| text.parse().ok());
    let intervals: u32 = wanted.unwrap_or(15_000);
    intervals.div_ceil(TICKS * u32::try_from(DEVICES).unwrap())
}

/// One tick of the meter.
#[derive(Clone, Debug)]
struct Tick {
    length_ms: u64,
    /// Energy of package, card and engine.
    used: [u64; 3],
    microwatts: u64,
    fault: Fault,
    opened: bool,
    /// Duration of the step and the tokens of each attempt in it; `None` if its report is lost.
    step: Option<(u64, u32, u32)>,
    closed: Option<usize>,
    /// Whether a load begins, or the running one ends.
    load: bool,
}

#[derive(Clone, Debug)]
enum Fault {
    None,
    Unreadable(usize),
    Reset,
    Garbage(u64),
    /// No counter changes for so long that all are stuck.
    Still,
    Sleep,
    /// The engine restarts; whether its last reading succeeded.
    Death(bool),
}

fn tick() -> impl Strategy<Value = Tick> {
    let fault = prop_oneof![
        14 => Just(Fault::None),
        4 => (0..DEVICES).prop_map(Fault::Unreadable),
        1 => Just(Fault::Reset),
        1 => any::<u64>().prop_map(Fault::Garbage),
        1 => Just(Fault::Still),
        1 => Just(Fault::Sleep),
        1 => any::<bool>().prop_map(Fault::Death),
    ];
    (
        prop_oneof![8 => Just(50u64), 1 => 1u64..50, 1 => 50u64..9000],
        [0u64..3_000_000, 0u64..9_000_000, 0u64..400_000],
        0u64..400_000_000,
        fault,
        any::<bool>(),
        prop::option::weighted(0.8, (1u64..400, 0u32..500, 0u32..3)),
        prop::option::weighted(0.4, 0usize..8),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(length_ms, used, microwatts, fault, opened, step, closed, load)| Tick {
            length_ms: if matches!(fault, Fault::Still) { length_ms + 6000 } else { length_ms },
            used: if matches!(fault, Fault::Still) { [0; 3] } else { used },
            microwatts,
            fault,
            opened,
            step,
            closed,
            load,
        })
}

/// Counts of each event over all cases: an event that the generator never produces is not tested.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    intervals: u32,
    wraps: u32,
    resets: u32,
    garbage: u32,
    gaps: u32,
    standstills: u32,
    sleeps: u32,
    unreadable: u32,
    deaths: u32,
    loads: u32,
    /// Attempts closed during a step that is reported afterwards.
    cancels: u32,
    unknown: u32,
}

struct Rig<'a> {
    attribution: Attribution,
    model: Arc<str>,
    loading: Arc<str>,
    ids: [DeviceId; DEVICES],
    package: Counter,
    card: Counter,
    board: PowerIntegral,
    raw: [u64; 2],
    /// CPU energy of the current engine process.
    spent: u64,
    /// Total of each sensor's readings, including earlier engine processes.
    said: [u64; DEVICES],
    /// These totals at the start of the current engine process.
    before: u64,
    now: u64,
    open: Vec<AttemptId>,
    cancelled: Option<AttemptId>,
    loads_now: bool,
    opened: u64,
    settled: Vec<Settled>,
    seen: &'a RefCell<Seen>,
}

impl<'a> Rig<'a> {
    fn new(seen: &'a RefCell<Seen>) -> Self {
        let mut attribution = attribution();
        let model: Arc<str> = "m".into();
        let mut shared = |name| {
            attribution.add_device(
                info(name, Some(Watts(3.0))),
                Scope::Shared(Coverage::Processor),
                ms(0),
            )
        };
        let [package, card, board] = ["package-0", "nvidia-0", "board"].map(&mut shared);
        let ids = [package, card, board, engine(&mut attribution, &model, ms(0))];
        let wraps = Overflow::WrapsAt(Microjoules(RANGE));
        Self {
            attribution,
            model,
            loading: "n".into(),
            ids,
            package: Counter::starting_at(1, ms(0), "package-0".into(), wraps),
            card: Counter::starting_at(1, ms(0), "nvidia-0".into(), Overflow::Never),
            board: PowerIntegral::starting_at(0, ms(0), LONGEST_GAP),
            raw: [1, 1],
            spent: 0,
            said: [0; DEVICES],
            before: 0,
            now: 0,
            open: Vec::new(),
            cancelled: None,
            loads_now: false,
            opened: 0,
            settled: Vec::new(),
            seen,
        }
    }

    fn play(&mut self, tick: &Tick) {
        if tick.opened {
            self.opened += 1;
            let attempt = AttemptId(self.opened);
            self.attribution.open(&self.model, attempt, ms(self.now));
            self.open.push(attempt);
        }
        self.now += tick.length_ms;
        self.seen.borrow_mut().gaps += u32::from(tick.length_ms > 2500);
        self.work(tick);
        if let Some(index) = tick.closed.filter(|&index| index < self.open.len()) {
            let attempt = self.open.remove(index);
            self.attribution.close(&self.model, attempt, ms(self.now));
            self.cancelled = Some(attempt);
        }
        if tick.load {
            self.load();
        }
        let used = self.raw[PACKAGE] + tick.used[0];
        self.seen.borrow_mut().wraps += u32::from(used >= RANGE);
        self.raw = [used % RANGE, self.raw[CARD] + tick.used[1]];
        self.spent += tick.used[2];
        self.read(tick);
        self.settle();
    }

    /// A step for all open attempts and those cancelled during it.
    fn work(&mut self, tick: &Tick) {
        let cancelled = self.cancelled.take();
        let Some((length, prefill_tokens, decode_tokens)) = tick.step else { return };
        self.seen.borrow_mut().cancels += u32::from(cancelled.is_some());
        let row = |&attempt| WorkRow { attempt, prefill_tokens, decode_tokens };
        let rows = self.open.iter().chain(&cancelled).map(row).collect();
        let start = ms(self.now.saturating_sub(length));
        self.attribution.work(
            &self.model,
            WorkSpan { start, end: ms(self.now), rows },
            ms(self.now),
        );
    }

    fn load(&mut self) {
        self.loads_now = !self.loads_now;
        if self.loads_now {
            self.seen.borrow_mut().loads += 1;
            self.attribution.load_started(&self.loading, ms(self.now));
        } else {
            self.attribution.load_ended(&self.loading, true, ms(self.now));
        }
    }

    fn read(&mut self, tick: &Tick) {
        let now = ms(self.now);
        let mut shown = self.raw;
        let mut seen = self.seen.borrow_mut();
        match tick.fault {
            Fault::None | Fault::Still => {}
            Fault::Unreadable(_) => seen.unreadable += 1,
            Fault::Reset => {
                seen.resets += 1;
                self.raw[CARD] = tick.used[1] / 2;
                shown = self.raw;
            }
            Fault::Garbage(garbage) => {
                seen.garbage += 1;
                shown = [garbage, garbage];
            }
            Fault::Sleep => {
                seen.sleeps += 1;
                self.attribution.suspended(Duration::from_hours(1));
            }
            Fault::Death(_) => seen.deaths += 1,
        }
        drop(seen);
        if let Fault::Death(was_read) = tick.fault {
            self.replace_engine(was_read);
        }
        for device in 0..DEVICES {
            let failed = matches!(tick.fault, Fault::Unreadable(broken) if broken == device);
            let sample = match device {
                _ if failed => Err(SensorError::Gone { path: "/".into() }),
                PACKAGE => self.package.advance(shown[0], now),
                CARD => self.card.advance(shown[1], now),
                BOARD => Ok(self.board.add(tick.microwatts, now)),
                _ => Ok(Sample { at: now, total: Microjoules(self.spent), whole: true }),
            };
            self.book(device, &sample);
        }
    }

    /// The engine dies; the next process counts from 0.
    fn replace_engine(&mut self, was_read: bool) {
        let now = ms(self.now);
        if was_read {
            let total = Microjoules(self.spent);
            self.book(ENGINE, &Ok(Sample { at: now, total, whole: true }));
            self.attribution.retire(self.ids[ENGINE]);
        } else {
            self.attribution.lost(self.ids[ENGINE], now);
        }
        self.before = self.said[ENGINE];
        self.spent = 0;
        assert_eq!(engine(&mut self.attribution, &self.model, now), self.ids[ENGINE]);
    }

    fn book(&mut self, device: usize, sample: &Result<Sample, SensorError>) {
        let mut seen = self.seen.borrow_mut();
        match *sample {
            Ok(sample) => {
                seen.intervals += 1;
                let before = if device == ENGINE { self.before } else { 0 };
                self.said[device] = before + sample.total.0;
                self.attribution.reading(self.ids[device], ms(self.now), sample);
            }
            Err(ref error) => {
                seen.standstills += u32::from(error.label() == "frozen");
                self.attribution.read_failed(self.ids[device]);
            }
        }
    }

    fn settle(&mut self) {
        let settled = self.attribution.settle(ms(self.now), 100);
        assert_eq!(self.attribution.conservation_error(), Microjoules(0));
        self.settled.extend(settled);
    }

    /// Closes all attempts and passes the deadline for those that wait for a dead counter.
    fn finish(&mut self) {
        for attempt in std::mem::take(&mut self.open) {
            self.attribution.close(&self.model, attempt, ms(self.now));
        }
        self.now += 16_000;
        while !self.attribution.attempts.is_empty() {
            self.settle();
        }
    }
}

fn lose_nothing(ticks: &[Tick], seen: &RefCell<Seen>) -> Result<(), TestCaseError> {
    let mut rig = Rig::new(seen);
    for tick in ticks {
        rig.play(tick);
    }
    rig.finish();
    let snapshot = rig.attribution.snapshot(ms(rig.now));
    prop_assert_eq!(snapshot.conservation_error(), Microjoules(0));
    prop_assert_eq!(rig.settled.len() as u64, rig.opened);
    for (book, said) in snapshot.devices.iter().zip(rig.said) {
        prop_assert_eq!(book.account.total + book.pending, Microjoules(said));
    }
    for settled in &rig.settled {
        let (marginal, amortised) = (joules(settled.marginal), joules(settled.amortised));
        prop_assert_eq!(marginal.is_some(), amortised.is_some());
        if let (Some(marginal), Some(amortised)) = (marginal, amortised) {
            prop_assert!(marginal >= 0.0 && amortised >= marginal && amortised.is_finite());
        }
        seen.borrow_mut().unknown += u32::from(marginal.is_none());
    }
    Ok(())
}

#[test]
fn not_a_microjoule_goes_astray() {
    let seen = RefCell::default();
    let config =
        ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases()) };
    let ticks = prop::collection::vec(tick(), TICKS as usize);
    let played = TestRunner::new(config).run(&ticks, |ticks| lose_nothing(&ticks, &seen));
    played.unwrap_or_else(|failure| panic!("{failure}"));
    let seen = seen.into_inner();
    println!("error 0 uJ: {seen:?}");
    let Seen { wraps, resets, garbage, gaps, standstills, sleeps, .. } = seen;
    let Seen { unreadable, deaths, loads, cancels, unknown, .. } = seen;
    let kinds = [
        wraps,
        resets,
        garbage,
        gaps,
        standstills,
        sleeps,
        unreadable,
        deaths,
        loads,
        cancels,
        unknown,
    ];
    assert!(kinds.iter().all(|&count| count >= 20), "an event was too rare: {seen:?}");
}
