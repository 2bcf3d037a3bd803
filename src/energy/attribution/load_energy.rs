//! Energy of model loads at one device: their part of each interval, and totals per model. Pure
//! integer arithmetic.
//!
//! A load is neither work for an attempt nor idling. It is weighted by time: alone it takes the
//! active energy of its duration; concurrent with steps at the same device (a counter that all
//! engines share) it counts as much as a step.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::apportion::largest_remainder;
use super::interval::Interval;
use crate::units::{Microjoules, MonotonicNs};

/// The loads of one device.
#[derive(Clone, Debug, Default)]
pub struct LoadEnergy {
    running: Vec<Load>,
    totals: BTreeMap<Arc<str>, Microjoules>,
}

#[derive(Clone, Debug)]
struct Load {
    model: Arc<str>,
    start: MonotonicNs,
    end: Option<MonotonicNs>,
}

impl LoadEnergy {
    pub fn start(&mut self, model: &Arc<str>, at: MonotonicNs) {
        self.end(model, at);
        self.running.push(Load { model: Arc::clone(model), start: at, end: None });
    }

    /// Ends a load; ignored if the model is not loading.
    pub fn end(&mut self, model: &str, at: MonotonicNs) {
        for load in self.running.iter_mut().filter(|load| *load.model == *model) {
            load.end.get_or_insert(at.max(load.start));
        }
    }

    /// Books the loads' part of `active` and returns it. `worked_ns`: time of the interval in which
    /// steps were evaluated. Intervals must be in order.
    pub fn book(&mut self, interval: Interval, active: Microjoules, worked_ns: u64) -> Microjoules {
        let overlap =
            |load: &Load| interval.overlap_ns(load.start, load.end.unwrap_or(interval.end));
        let shares: Vec<(usize, u128)> =
            self.running.iter().map(overlap).map(u128::from).enumerate().collect();
        let length = u128::from(interval.end - interval.start);
        let loading = shares.iter().map(|(_, ns)| ns).sum::<u128>().min(length);
        let worked = u128::from(worked_ns).min(length);
        let whole = if worked == 0 { length } else { loading + worked };
        let taken = (u128::from(active.0) * loading).checked_div(whole).unwrap_or(0);
        let taken = Microjoules(u64::try_from(taken).unwrap_or(u64::MAX));
        for (index, part) in largest_remainder(taken.0, &shares).into_iter().flatten() {
            *self.totals.entry(Arc::clone(&self.running[index].model)).or_default() +=
                Microjoules(part);
        }
        self.running.retain(|load| load.end.is_none_or(|end| end > interval.end));
        taken
    }

    /// The loads that run or have run since the last interval, at the latest until `until`.
    pub fn spans(
        &self,
        until: MonotonicNs,
    ) -> impl Iterator<Item = (MonotonicNs, MonotonicNs)> + Clone {
        self.running.iter().map(move |load| (load.start, load.end.unwrap_or(until)))
    }

    /// Energy of all loads of each model; sums to the amounts returned by [`LoadEnergy::book`].
    pub fn totals(&self) -> &BTreeMap<Arc<str>, Microjoules> {
        &self.totals
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn interval(start: u64, end: u64, energy: u64) -> Interval {
        let (start, end) = (MonotonicNs(start), MonotonicNs(end));
        Interval { start, end, energy: Microjoules(energy), whole: true }
    }

    fn loads(spans: &[(&str, u64, Option<u64>)]) -> LoadEnergy {
        let mut loads = LoadEnergy::default();
        for &(model, start, end) in spans {
            loads.start(&model.into(), MonotonicNs(start));
            if let Some(end) = end {
                loads.end(model, MonotonicNs(end));
            }
        }
        loads
    }

    #[test]
    fn a_load_takes_the_energy_of_its_time() {
        let mut loads = loads(&[("m", 50, Some(120))]);
        let mut book = |start, end| loads.book(interval(start, end, 100), Microjoules(100), 0).0;
        assert_eq!([book(0, 100), book(100, 200), book(200, 300)], [50, 20, 0]);
        assert_eq!(loads.totals()["m"], Microjoules(70));
        assert!(loads.running.is_empty());
    }

    #[test]
    fn a_load_concurrent_with_steps_counts_as_much_as_they_do() {
        let mut shared = loads(&[("m", 0, None)]);
        assert_eq!(shared.book(interval(0, 100, 90), Microjoules(90), 100).0, 45);
        // One engine loads first and works then.
        let mut own = loads(&[("m", 0, Some(40))]);
        assert_eq!(own.book(interval(0, 100, 100), Microjoules(100), 60).0, 40);
    }

    proptest! {
        #[test]
        fn what_loads_take_is_theirs_to_the_microjoule(
            spans in prop::collection::vec((0usize..3, 0u64..500, 0u64..200), 0..5),
            readings in prop::collection::vec((1u64..100, 0u64..10_000, 0u64..200), 1..10),
        ) {
            let names = ["a", "b", "c"];
            let spans: Vec<_> =
                spans.iter().map(|&(model, start, ns)| (names[model], start, Some(start + ns))).collect();
            let mut loads = loads(&spans);
            let (mut at, mut taken) = (0, 0);
            for (ns, energy, worked) in readings {
                let took = loads.book(interval(at, at + ns, energy), Microjoules(energy), worked);
                prop_assert!(took.0 <= energy);
                taken += took.0;
                at += ns;
            }
            prop_assert_eq!(loads.totals().values().map(|one| one.0).sum::<u64>(), taken);
        }
    }
}
