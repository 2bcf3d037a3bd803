//! Properties of every decision, whatever the candidates.

use proptest::prelude::*;

use super::*;
use crate::routing::{
    Affinity, Cache, Capabilities, Cascade, Costs, Explore, Lambda, Route, TaskClass, Unavailable,
};
use crate::units::{Dollars, Joules};

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
        (any::<bool>(), proptest::option::of(0.0..2.0)),
        unavailable(),
    );
    proptest::collection::vec(one, 0..8).prop_map(|parts| {
        let named = parts.into_iter().enumerate();
        named
            .map(|(index, (route, p, joules, context_tokens, (tools, dollars), unavailable))| {
                Candidate {
                    joules: joules.map(Joules),
                    dollars: dollars.map(Dollars),
                    ttft_ms: joules.map(|joules| joules * 7.0 % 100.0),
                    context_tokens,
                    capabilities: Capabilities { tools, ..Capabilities::ALL },
                    unavailable,
                    cache: joules.filter(|_| tools).map(|joules| Cache {
                        tokens: 5,
                        without: Costs { joules: Some(Joules(joules + 50.0)), ..Costs::default() },
                    }),
                    ..Candidate::of_unknown_cost(&format!("model-{index}"), route, p)
                }
            })
            .collect()
    })
}

fn rule(floor: f64, local_only: bool) -> Rule {
    Rule { floor, local_only, switch_gain: 0.05, ..Rule::default() }
}

fn features(prompt_tokens: u32, tools: bool) -> Features {
    let needs = Capabilities { chat: true, tools, ..Capabilities::default() };
    let task = TaskClass::Chat;
    Features { prompt_tokens, output_tokens: 10, turns: 1, task, needs, ..Features::default() }
}

fn cost(candidate: &Candidate) -> f64 {
    Objective::Joules.cost(Lambda::default(), candidate.p, &candidate.costs())
}

fn objective() -> impl Strategy<Value = Objective> {
    proptest::sample::select(&Objective::ALL)
}

/// Any rule, with or without a conversation, budgets and exploration.
fn any_rule() -> impl Strategy<Value = Rule> {
    let budgets = (proptest::option::of(0.0..1e4), proptest::option::of(0.0..2.0));
    let stay = proptest::option::of((0usize..9, any::<bool>()));
    let dice = proptest::option::of((0.0..=1.0, 0.0..1.0));
    let cascade = proptest::option::of(0.0..=1.0);
    (objective(), 0.0..=1.0, any::<bool>(), budgets, stay, dice, cascade).prop_map(
        |(objective, floor, local_only, (joules, dollars), stay, dice, min_p)| Rule {
            objective,
            max_joules: joules.map(Joules),
            max_dollars: dollars.map(Dollars),
            lambda: Lambda { per_joule: 0.001, ..Lambda::default() },
            affinity: stay.map(|(index, tool_loop)| Affinity {
                model: format!("model-{index}").into(),
                tool_loop,
            }),
            explore: dice.map(|(share, draw)| Explore { share, sample: draw }),
            cascade: min_p.map(|min_p| Cascade { min_p, ..Cascade::default() }),
            ..rule(floor, local_only)
        },
    )
}

proptest! {
    #[test]
    fn every_candidate_is_ranked_or_excluded_with_a_reason(
        candidates in candidates(), floor in 0.0..=1.0, local_only: bool, tools: bool,
    ) {
        let decision = decide(&features(100, tools), &candidates, &rule(floor, local_only));
        let mut seen = decision.ranked.clone();
        seen.sort_unstable();
        seen.dedup();
        prop_assert_eq!(seen.len(), decision.ranked.len());
        for (index, judged) in decision.evaluated.iter().enumerate() {
            prop_assert_eq!(judged.excluded.is_none(), decision.ranked.contains(&index));
        }
    }

    #[test]
    fn a_taint_keeps_everything_local(candidates in candidates(), floor in 0.0..=1.0) {
        let decision = decide(&features(100, false), &candidates, &rule(floor, true));
        for &index in &decision.ranked {
            prop_assert_eq!(candidates[index].route, Route::Local);
        }
    }

    #[test]
    fn the_chosen_is_the_cheapest_adequate_or_else_the_most_adequate(
        candidates in candidates(), floor in 0.0..=1.0,
    ) {
        let decision = decide(&features(100, false), &candidates, &rule(floor, false));
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
        let chosen = |floor| decide(&features(1, false), &candidates, &rule(floor, false));
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
        let pinned = Rule { pinned: Some(candidates[pick].model.clone()), ..rule(0.5, false) };
        let decision = decide(&features(1, false), &candidates, &pinned);
        prop_assert!(decision.ranked.iter().all(|&index| index == pick));
    }
}

proptest! {
    #[test]
    fn no_rule_ever_asks_the_excluded_or_breaks_a_budget(candidates in candidates(), rule in any_rule()) {
        let decision = decide(&features(100, false), &candidates, &rule);
        for &index in &decision.ranked {
            let one = &candidates[index];
            prop_assert!(decision.evaluated[index].excluded.is_none());
            prop_assert!(one.unavailable.is_none() && !(rule.local_only && one.route == Route::Cloud));
            // An unknown cost never satisfies a budget.
            prop_assert!(rule.max_joules.is_none_or(|most| one.joules.is_some_and(|joules| joules <= most)));
            prop_assert!(rule.max_dollars.is_none_or(|most| one.dollars.is_some_and(|dollars| dollars <= most)));
        }
        prop_assert!(decision.propensity > 0.0 && decision.propensity <= 1.0);
        prop_assert!(decision.reason.to_string().is_ascii(), "it is sent in a header");
        prop_assert_eq!(&decide(&features(100, false), &candidates, &rule), &decision);
    }

    #[test]
    fn the_unknown_never_beats_the_known(candidates in candidates(), rule in any_rule()) {
        let rule = Rule { affinity: None, explore: None, cascade: None, ..rule };
        let decision = decide(&features(1, false), &candidates, &rule);
        let Some(chosen) = decision.chosen() else { return Ok(()) };
        if rule.is_adequate(chosen) && rule.cost(chosen).is_infinite() {
            for &index in &decision.ranked {
                prop_assert!(!rule.is_adequate(&candidates[index]) || rule.cost(&candidates[index]).is_infinite());
            }
        }
    }

    #[test]
    fn a_conversation_on_an_adequate_model_leaves_it_only_for_more_than_it_loses(
        candidates in candidates(), floor in 0.0..=1.0, index in 0usize..8,
    ) {
        prop_assume!(index < candidates.len());
        let own = &candidates[index];
        let stay = Some(Affinity { model: own.model.clone(), tool_loop: false });
        let rule = Rule { affinity: stay, ..rule(floor, false) };
        let decision = decide(&features(1, false), &candidates, &rule);
        let Some(chosen) = decision.chosen() else { return Ok(()) };
        let may_stay = decision.ranked.contains(&index) && rule.is_adequate(own);
        if may_stay && chosen.model != own.model {
            let gain = rule.cost(own) - rule.cost(chosen);
            prop_assert!(gain > rule.cache_value(own) && gain > 0.05 * rule.cost(own) || gain.is_infinite());
            prop_assert!(rule.is_adequate(chosen), "never from adequate to inadequate");
        }
    }

    #[test]
    fn a_tool_loop_stays_or_says_why_not(candidates in candidates(), rule in any_rule(), index in 0usize..9) {
        let model: Arc<str> = format!("model-{index}").into();
        let rule = Rule { affinity: Some(Affinity { model: model.clone(), tool_loop: true }), ..rule };
        let decision = decide(&features(1, false), &candidates, &rule);
        let may = decision.ranked.iter().any(|&index| candidates[index].model == model);
        if may {
            prop_assert_eq!(&decision.chosen().unwrap().model, &model);
            prop_assert_eq!(decision.reason.label(), "tool_loop");
        } else {
            prop_assert_eq!(decision.reason.previous_unavailable.as_ref().map(|(gone, _)| gone), Some(&model));
        }
    }

    #[test]
    fn propensities_add_up_to_one_and_the_dice_obey_them(candidates in candidates(), share in 0.0..=1.0) {
        let chosen = |draw| {
            let rule = Rule { explore: Some(Explore { share, sample: draw }), ..rule(0.5, false) };
            let decision = decide(&features(1, false), &candidates, &rule);
            decision.chosen().map(|chosen| (chosen.model.clone(), decision.propensity))
        };
        let draws: Vec<_> = (0..1000).filter_map(|draw| chosen(f64::from(draw) / 1000.0)).collect();
        let seen: std::collections::BTreeMap<_, f64> = draws.iter().cloned().collect();
        for (model, propensity) in &seen {
            let drawn = draws.iter().filter(|(drawn, _)| drawn == model).count() as f64 / 1000.0;
            prop_assert!((drawn - propensity).abs() < 0.01, "{drawn} {propensity}");
        }
        if !seen.is_empty() && share > 0.02 {
            prop_assert!((seen.values().sum::<f64>() - 1.0).abs() < 1e-9);
        }
    }
}

proptest! {
    #[test]
    fn first_choices_are_what_the_dice_give(
        candidates in candidates(), rule in any_rule(), share in 0.0..=1.0,
    ) {
        let explore = |sample| Rule { explore: Some(Explore { share, sample }), ..rule.clone() };
        let choices = first_choices(&features(1, false), &candidates, &explore(0.0));
        prop_assert!((choices.iter().map(|(_, p)| p).sum::<f64>() - 1.0).abs() < 1e-9);
        let mut counts = vec![0_u32; choices.len()];
        for draw in 0..1000 {
            let rule = explore(f64::from(draw) / 1000.0);
            let decided = FirstChoice::from(&decide(&features(1, false), &candidates, &rule));
            let place = choices.iter().position(|(choice, _)| *choice == decided);
            counts[place.expect("a choice without a probability")] += 1;
        }
        for ((_, probability), count) in choices.iter().zip(counts) {
            prop_assert!((f64::from(count) / 1000.0 - probability).abs() < 0.011);
        }
    }
}

proptest! {
    #[test]
    fn a_cascade_begins_here_goes_on_with_somebody_abler_and_is_for_single_answers_only(
        candidates in candidates(), rule in any_rule(), choices: bool, chat: bool,
    ) {
        let needs = Capabilities { chat, choices, ..Capabilities::default() };
        let features = Features { needs, ..features(1, false) };
        let decision = decide(&features, &candidates, &rule);
        if let ReasonKind::Watched { .. } = &decision.reason.kind {
            let (first, next) = (&candidates[decision.ranked[0]], &candidates[decision.ranked[1]]);
            let min_p = rule.cascade.map(|cascade| cascade.min_p);
            prop_assert!(first.route == Route::Local && min_p.is_some_and(|least| first.p >= least));
            prop_assert!(next.p > first.p && chat && !choices);
        } else {
            // Without a cascade the ranking is the same.
            prop_assert_eq!(&decision, &decide(&features, &candidates, &Rule { cascade: None, ..rule }));
        }
    }
}

#[test]
fn a_switch_pays_for_both_caches() {
    let one = |model: &str, joules: f64, cache: Option<f64>| Candidate {
        joules: Some(Joules(joules)),
        cache: cache.map(|joules| Cache {
            tokens: 1000,
            without: Costs { joules: Some(Joules(joules)), ..Costs::default() },
        }),
        ..Candidate::of_unknown_cost(model, Route::Local, 0.9)
    };
    let choose = |rival: f64, cache: Option<f64>| {
        let stay = Some(Affinity { model: "own".into(), tool_loop: false });
        let rule = Rule { affinity: stay, ..rule(0.5, false) };
        let candidates = [one("rival", rival, None), one("own", 20.0, cache)];
        let decision = decide(&features(1, false), &candidates, &rule);
        (decision.chosen().unwrap().model.to_string(), decision.reason.to_string())
    };
    let (model, reason) = choose(15.0, Some(30.0));
    assert_eq!(model, "own");
    assert_eq!(
        reason,
        "the conversation stays on own: rival would gain 5.00 J, less than the switch costs (11.00 J); \
         next is rival at 15.00 J with p = 0.90"
    );
    assert_eq!(choose(5.0, Some(30.0)).0, "rival");
    assert_eq!(choose(15.0, None).0, "rival", "no cache to lose");
    assert_eq!(choose(19.5, None).0, "own", "a gain within the noise");
}

#[test]
fn nothing_is_gained_between_two_unknown_costs() {
    let unknown = |model: &str| Candidate::of_unknown_cost(model, Route::Local, 0.9);
    let stay = Some(Affinity { model: "own".into(), tool_loop: false });
    let rule = Rule { affinity: stay, ..rule(0.5, false) };
    let decision = decide(&features(1, false), &[unknown("rival"), unknown("own")], &rule);
    let ReasonKind::Stays { gain, .. } = &decision.reason.kind else {
        panic!("{:?}", decision.reason)
    };
    assert!(gain.of.abs() < f64::EPSILON && gain.needed.is_finite(), "{gain:?}");
}

#[test]
fn what_is_wrong_with_a_candidate_is_named_gravest_first() {
    let cloud = Candidate {
        context_tokens: Some(10),
        capabilities: Capabilities { chat: true, ..Capabilities::default() },
        unavailable: Some(Unavailable::NoApiKey),
        ..Candidate::of_unknown_cost("cloud", Route::Cloud, 0.9)
    };
    let excluded = |local_only, unavailable| {
        let cloud = Candidate { unavailable, ..cloud.clone() };
        decide(&features(100, true), &[cloud], &rule(0.5, local_only)).evaluated[0].excluded
    };
    assert_eq!(excluded(true, Some(Unavailable::NoApiKey)), Some(Exclusion::LocalOnly));
    assert_eq!(excluded(false, Some(Unavailable::NoApiKey)), Some(Exclusion::NoApiKey));
    assert_eq!(excluded(false, None), Some(Exclusion::NoTools));
}
