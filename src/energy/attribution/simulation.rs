//! Random simulation of a small gateway: receipts and ledgers must add up to the sensors' energy.

use proptest::prelude::*;

use super::tests::{attribution, engine, info, joules, ms, read};
use super::*;
use crate::energy::sensors::Coverage;
use crate::energy::work::WorkRow;
use crate::units::Watts;

/// Events of one tick of a simulated gateway with two engines and shared packages.
#[derive(Clone, Debug)]
struct Tick {
    length_ms: u64,
    /// Per device: its energy, and whether the reading succeeds.
    devices: [(u64, bool); 3],
    opened: Option<usize>,
    /// Per engine: the duration of its step, and whether the report arrives.
    steps: [(u64, bool); 2],
    closed: Option<usize>,
    restart: bool,
}

fn tick() -> impl Strategy<Value = Tick> {
    let device = || (0u64..5_000_000, prop::bool::weighted(0.9));
    let step = || (1u64..400, prop::bool::weighted(0.8));
    (
        prop_oneof![8 => Just(50u64), 1 => 1u64..50, 1 => 50u64..9000],
        [device(), device(), device()],
        prop::option::of(0usize..2),
        [step(), step()],
        prop::option::weighted(0.4, 0usize..8),
        prop::bool::weighted(0.05),
    )
        .prop_map(|(length_ms, devices, opened, steps, closed, restart)| Tick {
            length_ms,
            devices,
            opened,
            steps,
            closed,
            restart,
        })
}

/// A small gateway: attempts are opened on two engines, steps are reported or lost, readings
/// succeed or fail.
struct Simulation {
    attribution: Attribution,
    models: [Arc<str>; 2],
    ids: Vec<DeviceId>,
    totals: [u64; 3],
    live: Vec<(usize, AttemptId)>,
    opened: u64,
    now: u64,
    settled: Vec<Settled>,
}

impl Simulation {
    fn new() -> Self {
        let mut attribution = attribution();
        let models: [Arc<str>; 2] = ["m".into(), "n".into()];
        let mut ids = vec![engine(&mut attribution, &models[0], ms(0))];
        for name in ["package-0", "package-1"] {
            ids.push(attribution.add_device(
                info(name, Some(Watts(3.0))),
                Scope::Shared(Coverage::Processor),
                ms(0),
            ));
        }
        Self {
            attribution,
            models,
            ids,
            totals: [0; 3],
            live: Vec::new(),
            opened: 0,
            now: 0,
            settled: Vec::new(),
        }
    }

    fn play(&mut self, tick: &Tick) {
        if let Some(engine) = tick.opened {
            self.opened += 1;
            let id = AttemptId(self.opened);
            self.attribution.open(&self.models[engine], id, ms(self.now));
            self.live.push((engine, id));
        }
        self.now += tick.length_ms;
        for (engine, &(step_ms, arrives)) in tick.steps.iter().enumerate() {
            let of_engine = self.live.iter().filter(|(of, _)| *of == engine);
            let rows = of_engine
                .map(|&(_, attempt)| WorkRow { attempt, prefill_tokens: 3, decode_tokens: 1 })
                .collect();
            let start = ms(self.now.saturating_sub(step_ms));
            let span = WorkSpan { start, end: ms(self.now), rows };
            if arrives {
                self.attribution.work(&self.models[engine], span, ms(self.now));
            }
        }
        if tick.restart {
            self.attribution.retire(self.ids[0]);
            engine(&mut self.attribution, &self.models[0], ms(self.now));
            // The old process's energy after its last good reading is lost.
            self.totals[0] = 0;
        }
        for (device, &(energy, readable)) in tick.devices.iter().enumerate() {
            self.totals[device] += energy;
            self.read_device(device, readable);
        }
        if let Some(index) = tick.closed.filter(|&index| index < self.live.len()) {
            let (engine, id) = self.live.remove(index);
            self.attribution.close(&self.models[engine], id, ms(self.now));
        }
        self.settle();
    }

    fn read_device(&mut self, device: usize, readable: bool) {
        if readable {
            // A reading at the instant of a restart is ignored; the next one covers it.
            let (id, total) = (self.ids[device], self.totals[device]);
            read(&mut self.attribution, id, ms(self.now), total);
        } else {
            self.attribution.read_failed(self.ids[device]);
        }
    }

    fn settle(&mut self) {
        self.settled.extend(self.attribution.settle(ms(self.now), 100));
        let snapshot = self.attribution.snapshot(ms(self.now));
        assert_eq!(snapshot.conservation_error(), Microjoules(0));
    }

    /// Closes all attempts and settles them.
    fn finish(&mut self) {
        for (engine, id) in std::mem::take(&mut self.live) {
            self.attribution.close(&self.models[engine], id, ms(self.now));
        }
        self.now += 50;
        (0..3).for_each(|device| self.read_device(device, true));
        self.settle();
    }
}

proptest! {
    #[test]
    fn receipts_and_books_add_up_to_the_meter(ticks in prop::collection::vec(tick(), 0..80)) {
        let mut simulation = Simulation::new();
        for tick in &ticks {
 simulation.play(tick);
 }
        simulation.finish();
        prop_assert_eq!(simulation.settled.len() as u64, simulation.opened);
        let snapshot = simulation.attribution.snapshot(ms(simulation.now));
        prop_assert_eq!(snapshot.open_attempts, 0);
        let sum = |pick: fn(&DeviceSnapshot) -> Microjoules| snapshot.devices.iter().map(pick).sum::<Microjoules>().0;
        let receipts = |pick: fn(&Settled) -> EnergyFigure| {
            simulation.settled.iter().map(|settled| joules(pick(settled)).unwrap_or(0.0)).sum::<f64>() * 1e6
        };
        let (unattributed, empty) = (sum(|d| d.account.unattributed + d.account.unknown), sum(|d| d.account.idle_empty));
        if snapshot.unknown_settlements == 0 {
            let total = sum(|d| d.account.total) as f64;
            let marginal_view =
                receipts(|s| s.marginal) + (unattributed + empty + sum(|d| d.account.idle_occupied)) as f64;
            let amortised_view = receipts(|s| s.amortised) + (unattributed + empty) as f64;
            prop_assert!((marginal_view - total).abs() < 0.5, "{marginal_view} {total}");
            prop_assert!((amortised_view - total).abs() < 0.5, "{amortised_view} {total}");
        }
        // Packages never restart, so all their energy is booked, also after failed readings.
        for device in 1..3 {
            let book = &snapshot.devices[device];
            prop_assert_eq!(book.account.total + book.pending, Microjoules(simulation.totals[device]));
        }
    }
}
