//! What must hold of every decision, whatever the candidates.

use proptest::prelude::*;

use super::*;
use crate::routing::{Capabilities, Objective, Route, Unavailable};
use crate::units::Joules;

fn route() -> impl Strategy<Value = Route> {
    prop_oneof![Just(Route::Local), Just(Route::Cloud)]
}

fn unavailable() -> impl Strategy<Value = Option<Unavailable>> {
    prop_oneof![
        4 => Just(None),
        1 => Just(Some(Unavailable::NotReady)),
        1 => Just(Some(Unavailable::NoApiKey)),
        1 => Just(Some(Unavailable::Busy)),
    ]
}

fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let one = (
        route(),
        0.0..=1.0,
        proptest::option::of(0.0..1e4),
        proptest::option::of(1u32..4000),
        any::<bool>(),
        unavailable(),
    );
    proptest::collection::vec(one, 0..8).prop_map(|parts| {
        let named = parts.into_iter().enumerate();
        named
            .map(|(index, (route, p, joules, context_tokens, tools, unavailable))| Candidate {
                model: format!("model-{index}").into(),
                route,
                p,
                joules: joules.map(Joules),
                dollars: None,
                grams: None,
                ttft_ms: None,
                context_tokens,
                capabilities: Capabilities { tools, ..Capabilities::ALL },
                unavailable,
                state: None,
            })
            .collect()
    })
}

fn policy(floor: f64, local_only: bool) -> Policy {
    Policy {
        name: "test".into(),
        objective: Objective::Joules,
        floor,
        local_only,
        pinned: None,
        cascade: None,
    }
}

fn features(prompt_tokens: u32, tools: bool) -> Features {
    let needs = Capabilities { tools, ..Capabilities::default() };
    Features { prompt_tokens, output_tokens: 10, turns: 1, longest_prompt_tokens: None, needs }
}

fn cost(candidate: &Candidate) -> f64 {
    Objective::Joules.cost(candidate)
}

proptest! {
    #[test]
    fn every_candidate_is_ranked_or_excluded_with_a_reason(
        candidates in candidates(), floor in 0.0..=1.0, local_only: bool, tools: bool,
    ) {
        let decision = decide(&features(100, tools), &candidates, &policy(floor, local_only));
        let mut seen = decision.ranked.clone();
        seen.sort_unstable();
        seen.dedup();
        prop_assert_eq!(seen.len(), decision.ranked.len());
        for (index, judged) in decision.judged.iter().enumerate() {
            prop_assert_eq!(judged.excluded.is_none(), decision.ranked.contains(&index));
        }
    }

    #[test]
    fn a_taint_keeps_everything_local(candidates in candidates(), floor in 0.0..=1.0) {
        let decision = decide(&features(100, false), &candidates, &policy(floor, true));
        for &index in &decision.ranked {
            prop_assert_eq!(candidates[index].route, Route::Local);
        }
    }

    #[test]
    fn the_chosen_is_the_cheapest_adequate_or_else_the_most_adequate(
        candidates in candidates(), floor in 0.0..=1.0,
    ) {
        let decision = decide(&features(100, false), &candidates, &policy(floor, false));
        let Some(&first) = decision.ranked.first() else { return Ok(()) };
        let chosen = &candidates[first];
        for &index in &decision.ranked {
            let other = &candidates[index];
            if chosen.p >= floor {
                prop_assert!(other.p < floor || cost(chosen) <= cost(other));
            } else {
                prop_assert!(other.p < floor && other.p <= chosen.p);
            }
        }
    }

    #[test]
    fn a_lower_floor_never_costs_more(candidates in candidates(), floors in (0.0..=1.0, 0.0..=1.0)) {
        let (low, high) = (f64::min(floors.0, floors.1), f64::max(floors.0, floors.1));
        let chosen = |floor| decide(&features(1, false), &candidates, &policy(floor, false));
        let (cheap, dear) = (chosen(low), chosen(high));
        if let (Some(cheap), Some(dear)) = (cheap.chosen(), dear.chosen())
            && dear.p >= high
        {
            prop_assert!(cost(cheap) <= cost(dear));
        }
    }

    #[test]
    fn a_named_model_is_the_only_one_that_may_answer(candidates in candidates(), pick in 0usize..8) {
        prop_assume!(pick < candidates.len());
        let pinned = Policy { pinned: Some(candidates[pick].model.clone()), ..policy(0.5, false) };
        let decision = decide(&features(1, false), &candidates, &pinned);
        prop_assert!(decision.ranked.iter().all(|&index| index == pick));
    }
}

#[test]
fn what_is_wrong_with_a_candidate_is_named_gravest_first() {
    let cloud = Candidate {
        model: "cloud".into(),
        route: Route::Cloud,
        p: 0.9,
        joules: None,
        dollars: None,
        grams: None,
        ttft_ms: None,
        context_tokens: Some(10),
        capabilities: Capabilities::default(),
        unavailable: Some(Unavailable::NoApiKey),
        state: None,
    };
    let excluded = |local_only, unavailable| {
        let cloud = Candidate { unavailable, ..cloud.clone() };
        decide(&features(100, true), &[cloud], &policy(0.5, local_only)).judged[0].excluded
    };
    assert_eq!(excluded(true, Some(Unavailable::NoApiKey)), Some(Exclusion::LocalOnly));
    assert_eq!(excluded(false, Some(Unavailable::NoApiKey)), Some(Exclusion::NoApiKey));
    assert_eq!(excluded(false, None), Some(Exclusion::NoTools));
}
