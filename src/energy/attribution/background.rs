//! Power of one device while no request is worked on: idle power, known or not, and other programs.
//! Pure.
//!
//! An interval that a request worked in for a part only, as those of a slow counter, holds this
//! power for the rest of its time.

use crate::units::Microjoules;

/// A mean that follows changes within seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Background {
    microwatts: Option<u64>,
}

/// Time over which older readings are forgotten.
const MEMORY_NS: u64 = 5_000_000_000;

impl Background {
    /// Takes in an interval in which nothing was worked on.
    pub fn observe(&mut self, energy: Microjoules, length_ns: u64) {
        if length_ns == 0 {
            return;
        }
        let power = energy.mean_power(length_ns);
        let weight = length_ns.min(MEMORY_NS);
        self.microwatts = Some(match self.microwatts {
            None => power,
            Some(mean) => {
                let sum = u128::from(mean) * u128::from(MEMORY_NS - weight)
                    + u128::from(power) * u128::from(weight);
                u64::try_from(sum / u128::from(MEMORY_NS)).unwrap_or(u64::MAX)
            }
        });
    }

    /// What the device uses above an idle power in a time without work; `None` if that was never
    /// seen. Idle power may have been learned since.
    pub fn energy_above(&self, idle_microwatts: u64, ns: u64) -> Option<Microjoules> {
        let above = self.microwatts?.saturating_sub(idle_microwatts);
        Some(Microjoules::of_power(above, ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_a_change_of_power() {
        let mut background = Background::default();
        assert_eq!(background.energy_above(0, 1_000_000_000), None);
        background.observe(Microjoules(500_000), 50_000_000);
        assert_eq!(background.energy_above(0, 1_000_000_000), Some(Microjoules(10_000_000)));
        for _ in 0..600 {
            background.observe(Microjoules(1_500_000), 50_000_000);
        }
        assert!(background.energy_above(29_000_000, 1_000_000_000).unwrap().0 < 1_100_000);
        let after = background.energy_above(0, 1_000_000_000).unwrap();
        assert!(after.0.abs_diff(30_000_000) < 100_000, "{after:?}");
        background.observe(Microjoules(60_000_000), 60_000_000_000);
        assert_eq!(background.energy_above(0, 1_000_000_000), Some(Microjoules(1_000_000)));
    }
}
