//! Raw counters with wraps, resets, garbage, gaps and sleep, through counters, devices and ledgers, while attempts come,
//! work, leave early and are cancelled: not a microjoule may go astray.
//!
//! Plays some ten thousand intervals; `WATTGATE_INTERVALS=1000000` plays that many.

use proptest::prelude::*;

use super::super::counter::{Counter, Overflow};
use super::super::integral::PowerIntegral;
use super::super::sensor::{Sample, SensorError};
use super::super::work::WorkRow;
use super::tests::{accounts, info, joules, ms};
use super::*;
use crate::units::Watts;

const BEATS: u32 = 100;
const DEVICES: u32 = 3;

fn cases() -> u32 {
    let wanted = std::env::var("WATTGATE_INTERVALS").ok().and_then(|text| text.parse().ok());
    let intervals: u32 = wanted.unwrap_or(15_000);
    intervals.div_ceil(BEATS * DEVICES)
}

/// One beat of the meter.
#[derive(Clone, Debug)]
struct Beat {
    length_ms: u64,
    used: [u64; 2],
    microwatts: u64,
    fault: Fault,
    opened: bool,
    /// How long the step took and the tokens of each attempt in it; none if its report is lost.
    step: Option<(u64, u32, u32)>,
    closed: Option<usize>,
}

#[derive(Clone, Debug)]
enum Fault {
    None,
    Unreadable(usize),
    Reset,
    Garbage(u64),
    Sleep,
}

fn beat() -> impl Strategy<Value = Beat> {
    let fault = prop_oneof![
        12 => Just(Fault::None),
        3 => (0usize..3).prop_map(Fault::Unreadable),
        1 => Just(Fault::Reset),
        1 => any::<u64>().prop_map(Fault::Garbage),
        1 => Just(Fault::Sleep),
    ];
    (
        prop_oneof![8 => Just(50u64), 1 => 1u64..50, 1 => 50u64..9000],
        [0u64..3_000_000, 0u64..9_000_000],
        0u64..400_000_000,
        fault,
        any::<bool>(),
        prop::option::weighted(0.8, (1u64..400, 0u32..500, 0u32..3)),
        prop::option::weighted(0.4, 0usize..8),
    )
        .prop_map(|(length_ms, used, microwatts, fault, opened, step, closed)| Beat {
            length_ms,
            used,
            microwatts,
            fault,
            opened,
            step,
            closed,
        })
}

/// A package whose counter wraps, a card whose counter is reset, and a board that tells its power.
struct Rig {
    accounts: Accounts,
    model: Arc<str>,
    ids: [DeviceId; 3],
    package: Counter,
    card: Counter,
    board: PowerIntegral,
    raw: [u64; 2],
    /// What each sensor has said in all.
    said: [u64; 3],
    now: u64,
    open: Vec<AttemptId>,
    opened: u64,
    settled: Vec<Settled>,
}

const RANGE: u64 = 40_000_000;

impl Rig {
    fn new() -> Self {
        let mut accounts = accounts();
        let ids = ["package-0", "nvidia-0", "board"].map(|name| {
            accounts.add_device(info(name, Some(Watts(3.0))), Serves::AllEngines, ms(0))
        });
        let never = Overflow::Never;
        Self {
            accounts,
            model: "m".into(),
            ids,
            package: Counter::starting_at(
                1,
                ms(0),
                "package-0".into(),
                Overflow::WrapsAt(Microjoules(RANGE)),
            ),
            card: Counter::starting_at(1, ms(0), "nvidia-0".into(), never),
            board: PowerIntegral::starting_at(0, ms(0), Duration::from_millis(2500)),
            raw: [1, 1],
            said: [0; 3],
            now: 0,
            open: Vec::new(),
            opened: 0,
            settled: Vec::new(),
        }
    }

    fn play(&mut self, beat: &Beat) {
        if beat.opened {
            self.opened += 1;
            let attempt = AttemptId(self.opened);
            self.accounts.open(&self.model, attempt, ms(self.now));
            self.open.push(attempt);
        }
        self.now += beat.length_ms;
        if let Some((length, prefill_tokens, decode_tokens)) = beat.step {
            let row = |&attempt| WorkRow { attempt, prefill_tokens, decode_tokens };
            let rows = self.open.iter().map(row).collect();
            let span =
                WorkSpan { start: ms(self.now.saturating_sub(length)), end: ms(self.now), rows };
            self.accounts.work(&self.model, span, ms(self.now));
        }
        if let Some(index) = beat.closed.filter(|&index| index < self.open.len()) {
            let attempt = self.open.remove(index);
            self.accounts.close(&self.model, attempt, ms(self.now));
        }
        self.raw[0] = (self.raw[0] + beat.used[0]) % RANGE;
        self.raw[1] += beat.used[1];
        self.read(beat);
        self.settle();
    }

    fn read(&mut self, beat: &Beat) {
        let now = ms(self.now);
        let mut shown = self.raw;
        match beat.fault {
            Fault::Reset => {
                self.raw[1] = beat.used[1] / 2;
                shown = self.raw;
            }
            Fault::Garbage(garbage) => shown = [garbage, garbage],
            Fault::Sleep => self.accounts.slept(Duration::from_hours(1)),
            Fault::None | Fault::Unreadable(_) => {}
        }
        for device in 0..3 {
            let failed = matches!(beat.fault, Fault::Unreadable(broken) if broken == device);
            let sample = match device {
                _ if failed => Err(SensorError::Gone { path: "/".into() }),
                0 => self.package.advance(shown[0], now),
                1 => self.card.advance(shown[1], now),
                _ => Ok(self.board.add(beat.microwatts, now)),
            };
            self.book(device, &sample);
        }
    }

    fn book(&mut self, device: usize, sample: &Result<Sample, SensorError>) {
        match *sample {
            Ok(sample) => {
                self.said[device] = sample.total.0;
                self.accounts.reading(self.ids[device], ms(self.now), sample, 0);
            }
            Err(_) => self.accounts.read_failed(self.ids[device]),
        }
    }

    fn settle(&mut self) {
        let settled = self.accounts.settle(ms(self.now), 100);
        assert_eq!(self.accounts.conservation_error(), Microjoules(0));
        self.settled.extend(settled);
    }

    /// Closes everything, and lets the deadline of what a dead counter holds up pass.
    fn finish(&mut self) {
        for attempt in std::mem::take(&mut self.open) {
            self.accounts.close(&self.model, attempt, ms(self.now));
        }
        self.now += 16_000;
        while !self.accounts.attempts.is_empty() {
            self.settle();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn not_a_microjoule_goes_astray(beats in prop::collection::vec(beat(), BEATS as usize)) {
        let mut rig = Rig::new();
        for beat in &beats {
            rig.play(beat);
        }
        rig.finish();
        let books = rig.accounts.books(ms(rig.now));
        prop_assert_eq!(books.conservation_error(), Microjoules(0));
        prop_assert_eq!(rig.settled.len() as u64, rig.opened);
        for (book, said) in books.devices.iter().zip(rig.said) {
            prop_assert_eq!(book.account.total + book.pending, Microjoules(said));
        }
        for settled in &rig.settled {
            let (marginal, amortised) = (joules(settled.marginal), joules(settled.amortised));
            prop_assert_eq!(marginal.is_some(), amortised.is_some());
            if let (Some(marginal), Some(amortised)) = (marginal, amortised) {
                prop_assert!(marginal >= 0.0 && amortised >= marginal && amortised.is_finite());
            }
        }
    }
}
