//! Detection of sensors that show one counter: two dies or sockets with one register. Pure.
//!
//! Tells them by their values over time and never by their names: dies with counters of their own
//! have names alike.

use std::sync::Arc;

use super::coverage::Coverage;

/// The pairs of sensors that may show one counter.
#[derive(Debug, Default)]
pub struct Mirrors {
    pairs: Vec<Pair>,
}

/// A sensor and its raw count at the start.
#[derive(Clone, Debug)]
pub struct Start {
    pub name: Arc<str>,
    pub coverage: Coverage,
    pub raw: u64,
}

#[derive(Debug)]
struct Pair {
    first: Arc<str>,
    second: Arc<str>,
    last: (u64, u64),
    /// Readings in which both had moved to the same value.
    together: u32,
    /// Readings in a row that one counter cannot show.
    apart: u32,
}

/// How a sensor relates to those before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Relation {
    /// It counts on its own.
    Own,
    /// It may show the counter of another one.
    Undecided,
    /// It shows the counter of this one.
    MirrorOf(Arc<str>),
}

/// Counters of one register, read one directly after the other, differ by less: a joule is 2 ms of
/// 500 W.
const NEAR: u64 = 1_000_000;
/// Readings that decide.
const ENOUGH: u32 = 3;

impl Mirrors {
    /// The pairs of devices of one place whose counters begin at the same value.
    pub fn starting_at(sensors: &[Start]) -> Self {
        let mut pairs = Vec::new();
        for (index, second) in sensors.iter().enumerate() {
            let before = sensors[..index].iter().filter(|first| {
                first.coverage == second.coverage && first.raw.abs_diff(second.raw) <= NEAR
            });
            pairs.extend(before.map(|first| Pair {
                first: Arc::clone(&first.name),
                second: Arc::clone(&second.name),
                last: (first.raw, second.raw),
                together: 0,
                apart: 0,
            }));
        }
        Self { pairs }
    }

    /// Takes in the raw counts of one moment; `None` for a sensor that could not be read.
    pub fn compare(&mut self, raw: impl Fn(&str) -> Option<u64>) {
        self.pairs.retain_mut(|pair| match (raw(&pair.first), raw(&pair.second)) {
            (Some(first), Some(second)) => pair.compare(first, second),
            _ => true,
        });
    }

    pub fn relation(&self, name: &str) -> Relation {
        let mut undecided = Relation::Own;
        for pair in self.pairs.iter().filter(|pair| *pair.second == *name) {
            if pair.together >= ENOUGH {
                return Relation::MirrorOf(Arc::clone(&pair.first));
            }
            undecided = Relation::Undecided;
        }
        undecided
    }

    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }
}

impl Pair {
    /// Whether the two may still be one. One counter that is read twice, the second right after the
    /// first, shows values that do not fall from read to read.
    fn compare(&mut self, first: u64, second: u64) -> bool {
        let before = std::mem::replace(&mut self.last, (first, second));
        if before == (first, second) {
            return true;
        }
        let rises = before.1 <= first && first <= second;
        self.apart = if rises { 0 } else { self.apart + 1 };
        self.together += u32::from(first == second);
        self.apart < ENOUGH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The relation of the second of two dies after a second of readings each 50 ms.
    fn relation(first: impl Fn(u64) -> u64, second: impl Fn(u64) -> u64) -> Relation {
        let start =
            |name: &str, raw| Start { name: name.into(), coverage: Coverage::Processor, raw };
        let mut mirrors =
            Mirrors::starting_at(&[start("die-0", first(0)), start("die-1", second(0))]);
        for tick in 1..=20 {
            mirrors.compare(|name| Some(if name == "die-0" { first(tick) } else { second(tick) }));
        }
        mirrors.relation("die-1")
    }

    #[test]
    fn only_counters_that_move_together_to_the_microjoule_are_one() {
        // codecarbon#1274: a Threadripper's dies show the counter of their socket.
        let socket = |tick: u64| 30_000_000_000 + tick * 3_400_000;
        assert_eq!(relation(socket, socket), Relation::MirrorOf("die-0".into()));
        // Read while the register moves.
        let skewed = |tick: u64| socket(tick) + if tick % 4 == 1 { 3_400 } else { 0 };
        assert_eq!(relation(socket, skewed), Relation::MirrorOf("die-0".into()));
        let late = |tick: u64| socket(tick - u64::from(tick > 0 && tick.is_multiple_of(3)));
        assert_eq!(relation(socket, late), Relation::MirrorOf("die-0".into()));
        // Dies of their own: other values, other powers from the same value, one that stands still.
        assert_eq!(relation(socket, |tick| socket(tick) + 9_000_000), Relation::Own);
        assert_eq!(relation(socket, |tick| socket(0) + tick * 3_000_000), Relation::Own);
        assert_eq!(relation(socket, |_| socket(0)), Relation::Own);
        // Nothing can be said of two that stand still at one value.
        assert_eq!(relation(|_| 5, |_| 5), Relation::Undecided);
    }

    #[test]
    fn parts_of_different_places_are_never_one() {
        let start = |name: &str, coverage| Start { name: name.into(), coverage, raw: 7 };
        let mirrors = Mirrors::starting_at(&[
            start("package-0", Coverage::Processor),
            start("dram-0", Coverage::Memory),
        ]);
        assert!(mirrors.is_empty());
    }
}
