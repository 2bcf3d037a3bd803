//! What a figure says when some of the devices that worked for it could not be read. Pure.
//!
//! The joules that were read stay: they are booked. The band and the quality say that they are not
//! all; where what is missing did the work, the figure is unknown.

use crate::energy::figure::{EnergyFigure, Quality};
use crate::energy::sensors::Coverage;
use crate::units::Joules;

/// Devices by the part of the machine that they cover.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Devices that contain everything else: a board's input, a wall meter, another machine.
    pub wholes: u32,
    pub processors: u32,
    pub memories: u32,
    pub cards: u32,
    /// Engines whose CPU time was read, which stands for processors and their memory.
    pub engines: u32,
}

/// Power of a server's memory relative to that of its processors: 18 % to 61 % of the whole
/// (Barroso et al., "The Datacenter as a Computer", third edition, figure 1.9).
const MEMORY_TO_PROCESSORS: f64 = 0.3;

impl Tally {
    pub fn add(&mut self, coverage: Coverage) {
        match coverage {
            Coverage::Machine | Coverage::Elsewhere => self.wholes += 1,
            Coverage::Processor => self.processors += 1,
            Coverage::Memory => self.memories += 1,
            Coverage::Accelerator => self.cards += 1,
        }
    }

    pub fn of(places: impl IntoIterator<Item = Coverage>) -> Self {
        let mut tally = Self::default();
        for place in places {
            tally.add(place);
        }
        tally
    }

    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// The figure of what was `read` while `missing` could not be; `None` if it is unknown.
pub fn with_shortfall(figure: EnergyFigure, read: Tally, missing: Tally) -> Option<EnergyFigure> {
    if read.wholes > 0 || missing.is_empty() {
        return Some(figure);
    }
    let modelled = read.engines > 0;
    let mut factor = 1.0;
    if !modelled {
        factor *= share(read.processors, missing.processors)?;
        if missing.memories > 0 {
            factor *= 1.0 + MEMORY_TO_PROCESSORS;
        }
        if read.processors + read.cards == 0 {
            return None;
        }
    }
    factor *= share(read.cards, missing.cards)?;
    if factor > 1.0 {
        let high = figure.high.map(|high| Joules(high.0 * factor));
        let quality = figure.quality.max(Quality::Estimated);
        return Some(EnergyFigure { high, quality, ..figure });
    }
    Some(figure)
}

/// The whole relative to what was read of devices alike; `None` if none was.
fn share(read: u32, missing: u32) -> Option<f64> {
    match (read, missing) {
        (_, 0) => Some(1.0),
        (0, _) => None,
        _ => Some(f64::from(read + missing) / f64::from(read)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::energy::figure::Source;
    use Coverage::{Accelerator, Machine, Memory, Processor};

    fn lowered(read: &[Coverage], missing: &[Coverage]) -> Option<(Quality, f64)> {
        let ten = Some(Joules(10.0));
        let (quality, source) = (Quality::Measured, Source::Rapl);
        let figure =
            EnergyFigure { joules: ten, low: ten, high: ten, quality, source, is_final: true };
        let tally = |places: &[Coverage]| Tally::of(places.iter().copied());
        let lowered = with_shortfall(figure, tally(read), tally(missing))?;
        assert_eq!((lowered.joules, lowered.low), (ten, ten), "what was read is booked");
        Some((lowered.quality, lowered.high.unwrap().0.round()))
    }

    #[test]
    fn a_missing_part_lowers_the_quality_and_widens_the_band() {
        let estimated = |high| Some((Quality::Estimated, high));
        for (read, missing, expected) in [
            (&[Processor][..], &[][..], Some((Quality::Measured, 10.0))),
            (&[Processor], &[Processor], estimated(20.0)),
            (&[Processor; 3], &[Processor], estimated(13.0)),
            (&[Processor], &[Memory], estimated(13.0)),
            (&[Processor, Accelerator], &[Accelerator, Accelerator], estimated(30.0)),
            (&[Machine], &[Processor, Memory], Some((Quality::Measured, 10.0))),
            // What is missing did the work.
            (&[Memory], &[Processor], None),
            (&[Processor], &[Accelerator], None),
            (&[], &[Processor], None),
            (&[], &[Machine], None),
        ] {
            assert_eq!(lowered(read, missing), expected, "{read:?} without {missing:?}");
        }
    }
}
