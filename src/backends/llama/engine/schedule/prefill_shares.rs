//! Division of a step's prompt rows between the prompts being read. Pure.
//!
//! The shortest prompt goes first, so that a short one does not wait for the long ones before it.
//! Ageing keeps those going: each gets a row in every step, and its even share at least in every
//! [`OVERTAKEN_MAX`] + 1st.

/// Steps in a row in which a prompt may get less than its even share.
pub(crate) const OVERTAKEN_MAX: u32 = 4;

/// A prompt being read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    /// Rows left; at least 1.
    pub(crate) rows: usize,
    /// Steps since it last got its even share.
    pub(crate) overtaken: u32,
}

/// The rows of each prompt in the next step, in their order; at least one each, and together at
/// most `budget` if this is at least their number.
pub(crate) fn shares(prompts: &[Reading], budget: usize) -> Vec<usize> {
    let even = budget.checked_div(prompts.len()).unwrap_or(0).max(1);
    let mut shares: Vec<usize> = prompts
        .iter()
        .map(|prompt| if prompt.overtaken < OVERTAKEN_MAX { 1 } else { even.min(prompt.rows) })
        .collect();
    let mut spare = budget.saturating_sub(shares.iter().sum());
    let mut shortest: Vec<usize> = (0..prompts.len()).collect();
    shortest.sort_by_key(|&index| prompts[index].rows);
    for index in shortest {
        let more = (prompts[index].rows - shares[index]).min(spare);
        shares[index] += more;
        spare -= more;
    }
    shares
}

/// The new count of a prompt that got `rows` of a step in which `prompts` got `total`.
pub(crate) fn overtaken(before: u32, rows: usize, total: usize, prompts: usize) -> u32 {
    if rows * prompts >= total { 0 } else { before.saturating_add(1) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fresh(rows: usize) -> Reading {
        Reading { rows, overtaken: 0 }
    }

    #[test]
    fn a_short_prompt_is_read_at_once_beside_long_ones() {
        let long = [fresh(2000); 4];
        let shares = shares(&[&long[..], &[fresh(20)]].concat(), 512);
        assert_eq!(shares, [489, 1, 1, 1, 20]);
    }

    #[test]
    fn an_overtaken_prompt_gets_its_even_share() {
        let aged = Reading { rows: 2000, overtaken: OVERTAKEN_MAX };
        assert_eq!(shares(&[aged, fresh(20), fresh(30)], 30), [10, 19, 1]);
    }

    proptest! {
        #[test]
        fn shares_are_within_the_budget_and_use_it(
            prompts in prop::collection::vec((1..3000_usize, 0..9_u32), 1..16),
            budget in 0..600_usize,
        ) {
            let prompts: Vec<Reading> =
                prompts.into_iter().map(|(rows, overtaken)| Reading { rows, overtaken }).collect();
            let shares = shares(&prompts, budget);
            let total: usize = shares.iter().sum();
            let wanted: usize = prompts.iter().map(|prompt| prompt.rows).sum();
            prop_assert_eq!(total, wanted.min(budget.max(prompts.len())));
            for (share, prompt) in shares.iter().zip(&prompts) {
                prop_assert!((1..=prompt.rows).contains(share));
            }
        }

        /// Short prompts that keep coming delay a long one by a bounded factor only.
        #[test]
        fn a_long_prompt_gets_its_even_share_every_few_steps(shorts in 1..15_usize, budget in 16..600_usize) {
            let mut long = fresh(usize::MAX / 2);
            let mut without = 0;
            for _ in 0..100 {
                let prompts = [&vec![fresh(budget); shorts][..], &[long]].concat();
                let shares = shares(&prompts, budget);
                let (rows, total) = (shares[shorts], shares.iter().sum());
                long.overtaken = overtaken(long.overtaken, rows, total, prompts.len());
                without = if rows >= budget / prompts.len() { 0 } else { without + 1 };
                prop_assert!(without <= OVERTAKEN_MAX, "{without}");
            }
        }
    }
}
