//! Plausibility of one device's readings, by its rated power and its own history. Pure.

use crate::units::Microjoules;

/// The rated power and the history of one device.
#[derive(Clone, Debug, Default)]
pub struct Plausibility {
    /// Highest power the device is allowed to draw, in microwatts; `None` if no file tells.
    rated: Option<u64>,
    /// Powers of the first steps, from which `usual` starts.
    first: Vec<u64>,
    /// Highest power accepted so far, in microwatts; `None` during the first steps.
    usual: Option<u64>,
    /// Mean time between two steps, in nanoseconds.
    step_ns: u64,
}

/// How a gain compares with what the device can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Usual,
    /// More than it ever drew, and not impossible.
    Unusual,
    Impossible,
}

/// Peaks above the rated power last milliseconds and stay below twice of it: NVIDIA's boards and
/// ATX 3.0 supplies are specified for excursions to 200 %, Intel's PL2 and PL4 lie below.
const PEAK_OVER_RATED: u64 = 2;
/// A gain of more than this many times the highest power so far is unusual.
const UNUSUAL: u64 = 4;
/// And of more than this, without a rated power, impossible: between deep idle and full load lie
/// factors of up to 85 (a package of 3 to 250 W, a card of 10 to 700 W).
const IMPOSSIBLE: u64 = 100;
/// Limit for a device of which nothing is known yet: a megawatt, which only tells garbage.
const ANYTHING: u64 = 1_000_000_000_000;
/// Steps before the history counts.
const FIRST_STEPS: usize = 8;

impl Plausibility {
    /// `rated_microwatts`: the highest power limit that the device states.
    pub fn rated(rated_microwatts: Option<u64>) -> Self {
        Self { rated: rated_microwatts.filter(|&rated| rated > 0), ..Self::default() }
    }

    pub fn is_rated(&self) -> bool {
        self.rated.is_some()
    }

    /// Whether a power is beyond what the device states, however long it lasts.
    pub fn exceeds_rating(&self, microwatts: u64) -> bool {
        self.peak().is_some_and(|peak| microwatts > peak)
    }

    /// Whether a rated power or a history tells anything of the device.
    pub fn is_known(&self) -> bool {
        self.rated.is_some() || self.usual.is_some()
    }

    /// Judges a gain over `elapsed_ns`. A slow or irregular counter may show the energy of one more
    /// of its steps.
    pub fn judge(&self, gained: Microjoules, elapsed_ns: u64) -> Verdict {
        let longest_ns = elapsed_ns.saturating_add(self.step_ns);
        let exceeds = |limit: Option<u64>| {
            limit.is_some_and(|limit| gained > Microjoules::of_power(limit, longest_ns))
        };
        if exceeds(self.impossible()) {
            Verdict::Impossible
        } else if exceeds(self.unusual()) {
            Verdict::Unusual
        } else {
            Verdict::Usual
        }
    }

    /// Judges a reading of power.
    pub fn judge_power(&self, microwatts: u64) -> Verdict {
        let exceeds = |limit: Option<u64>| limit.is_some_and(|limit| microwatts > limit);
        if exceeds(self.impossible()) { Verdict::Impossible } else { Verdict::Usual }
    }

    /// Takes an accepted gain into the history.
    pub fn accept(&mut self, gained: Microjoules, elapsed_ns: u64) {
        self.step_ns = match self.step_ns {
            0 => elapsed_ns,
            mean => mean - mean / 8 + elapsed_ns / 8,
        };
        if elapsed_ns > 0 {
            self.accept_power(gained.mean_power(elapsed_ns));
        }
    }

    /// Takes an accepted reading of power into the history.
    pub fn accept_power(&mut self, microwatts: u64) {
        if let Some(usual) = &mut self.usual {
            *usual = microwatts.max(*usual);
            return;
        }
        self.first.push(microwatts);
        if self.first.len() == FIRST_STEPS {
            // The median, so that a glitch among the first steps sets no standard.
            self.first.sort_unstable();
            self.usual = Some(self.first[FIRST_STEPS / 2]).filter(|&usual| usual > 0);
            self.first.clear();
        }
    }

    /// Whether `gained` is what a counter that started over from 0 within `elapsed_ns` may show.
    /// `None` if neither a rated power nor a history tells.
    pub fn could_start_over(&self, gained: Microjoules, elapsed_ns: u64) -> Option<bool> {
        let limit = self.unusual().or(self.rated)?;
        Some(gained <= Microjoules::of_power(limit, elapsed_ns.saturating_add(self.step_ns)))
    }

    fn impossible(&self) -> Option<u64> {
        let history = self.usual.map(|usual| usual.saturating_mul(IMPOSSIBLE));
        match (self.peak(), history) {
            (Some(peak), Some(history)) => Some(peak.min(history)),
            (peak, history) => peak.or(history).or(Some(ANYTHING)),
        }
    }

    fn peak(&self) -> Option<u64> {
        self.rated.map(|rated| rated.saturating_mul(PEAK_OVER_RATED))
    }

    fn unusual(&self) -> Option<u64> {
        self.usual.map(|usual| usual.saturating_mul(UNUSUAL))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn energy(microwatts: u64, ns: u64) -> Microjoules {
        Microjoules::of_power(microwatts, ns)
    }

    const TICK_NS: u64 = 50_000_000;

    /// A device that has drawn `watts` for a while.
    fn after(watts: u64, rated: Option<u64>) -> Plausibility {
        let mut plausibility = Plausibility::rated(rated.map(|watts| watts * 1_000_000));
        for _ in 0..20 {
            plausibility.accept(energy(watts * 1_000_000, TICK_NS), TICK_NS);
        }
        plausibility
    }

    #[test]
    fn limits_come_from_the_device_and_not_from_a_constant() {
        let judge = |device: &Plausibility, watts: u64| {
            device.judge(energy(watts * 1_000_000, TICK_NS), TICK_NS)
        };
        let (handheld, rack) = (after(6, None), after(45_000, None));
        assert_eq!(judge(&handheld, 14_000), Verdict::Impossible);
        assert_eq!(judge(&rack, 60_000), Verdict::Usual);
        let package = after(12, Some(125));
        for (watts, verdict) in
            [(60, Verdict::Usual), (300, Verdict::Unusual), (600, Verdict::Impossible)]
        {
            assert_eq!(judge(&package, watts), verdict, "{watts} W");
        }
        assert_eq!(judge(&Plausibility::default(), 900_000), Verdict::Usual, "nothing is known");
    }

    #[test]
    fn a_glitch_among_the_first_steps_sets_no_standard() {
        let mut device = Plausibility::default();
        for step in 0..8 {
            let watts = if step == 2 { 14_000 } else { 6 };
            device.accept(energy(watts * 1_000_000, TICK_NS), TICK_NS);
        }
        let glitch = energy(14_000_000_000, TICK_NS);
        assert_eq!(device.judge(glitch, TICK_NS), Verdict::Impossible);
    }
}
