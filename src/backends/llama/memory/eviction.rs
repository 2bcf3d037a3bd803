//! Choice of the models to evict for another one. Pure: memory table in, models to unload out.

/// A loaded model in the memory table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resident<Time> {
    pub bytes: u64,
    /// Loading or working on requests: never evicted.
    pub busy: bool,
    pub last_used: Time,
}

/// The way to load a model of `needed` bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Room {
    /// Fits now.
    Free,
    /// Fits after evicting these (indices), least recently used first.
    Evict(Vec<usize>),
    /// Busy models hold too much: wait, and evict none.
    Wait,
    /// Exceeds the whole budget.
    Never,
}

/// Chooses idle models, least recently used first, and no more than necessary.
pub fn room<Time: Ord + Copy>(residents: &[Resident<Time>], budget: u64, needed: u64) -> Room {
    let Some(allowed) = budget.checked_sub(needed) else { return Room::Never };
    let mut used: u64 = residents.iter().fold(0, |sum, one| sum.saturating_add(one.bytes));
    if used <= allowed {
        return Room::Free;
    }
    let mut idle: Vec<usize> =
        (0..residents.len()).filter(|&index| !residents[index].busy).collect();
    idle.sort_by_key(|&index| residents[index].last_used);
    let mut victims = Vec::new();
    for index in idle {
        victims.push(index);
        used = used.saturating_sub(residents[index].bytes);
        if used <= allowed {
            return Room::Evict(victims);
        }
    }
    Room::Wait
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn resident(bytes: u64, busy: bool, last_used: u64) -> Resident<u64> {
        Resident { bytes, busy, last_used }
    }

    #[test]
    fn the_least_recently_used_idle_model_goes_first() {
        let table = [resident(40, false, 3), resident(40, true, 1), resident(15, false, 2)];
        assert_eq!(room(&table, 100, 5), Room::Free);
        assert_eq!(room(&table, 100, 20), Room::Evict(vec![2]));
        assert_eq!(room(&table, 100, 30), Room::Evict(vec![2, 0]));
        assert_eq!(room(&table, 100, 61), Room::Wait);
        assert_eq!(room(&table, 100, 101), Room::Never);
    }

    proptest! {
        #[test]
        fn room_is_made_of_idle_models_only_and_of_no_more_than_needed(
            table in prop::collection::vec((0u64..50, any::<bool>(), 0u64..20), 0..8),
            budget in 0u64..200,
            needed in 0u64..120,
        ) {
            let table: Vec<_> = table.into_iter().map(|(b, busy, t)| resident(b, busy, t)).collect();
            let total: u64 = table.iter().map(|one| one.bytes).sum();
            let busy: u64 = table.iter().filter(|one| one.busy).map(|one| one.bytes).sum();
            match room(&table, budget, needed) {
                Room::Free => prop_assert!(total + needed <= budget),
                Room::Never => prop_assert!(needed > budget),
                // Waiting is right only if evicting all idle models is not enough.
                Room::Wait => prop_assert!(needed <= budget && busy + needed > budget),
                Room::Evict(victims) => {
                    let gone: u64 = victims.iter().map(|&index| table[index].bytes).sum();
                    let last = table[*victims.last().unwrap()];
                    prop_assert!(victims.iter().all(|&index| !table[index].busy));
                    prop_assert!(total - gone + needed <= budget, "it fits afterwards");
                    prop_assert!(total - gone + last.bytes + needed > budget, "the last one had to go");
                    let spared = (0..table.len()).filter(|i| !victims.contains(i) && !table[*i].busy);
                    for index in spared {
                        prop_assert!(table[index].last_used >= last.last_used);
                    }
                }
            }
        }
    }
}
