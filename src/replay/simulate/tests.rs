//! Replay of records as the gateway writes them: built by deciding, then letting attempts fail or
//! answer.

use proptest::prelude::*;

use super::*;
use crate::energy::{Quality, Source};
use crate::replay::{Replay, Report};
use crate::routing::{
    Affinity, Cache, Costs, Features, Objective, PolicyConfig, PolicyOverrides, TaskClass,
    Unavailable,
};
use crate::traffic::record::RECORD_VERSION;
use crate::traffic::{Attempt, Outcome, Receipt, Timings};
use crate::units::{Dollars, Joules};

fn candidate(model: &str, route: Route, p: f64, joules: f64) -> Candidate {
    Candidate {
        joules: Some(Joules(joules)),
        dollars: Some(Dollars(if route == Route::Cloud { 0.001 } else { 0.0 })),
        ..Candidate::of_unknown_cost(model, route, p)
    }
}

fn policy(name: &str, floor: f64) -> Arc<Policy> {
    let config = PolicyConfig { floor, ..PolicyConfig::default() };
    Arc::new(Policy { name: name.into(), config })
}

fn rule(floor: f64) -> Rule {
    policy("any", floor).rule(TaskClass::Chat)
}

fn metered(joules: f64) -> EnergyFigure {
    EnergyFigure {
        joules: Some(Joules(joules)),
        low: Some(Joules(joules)),
        high: Some(Joules(joules)),
        quality: Quality::Estimated,
        source: Source::CpuModel,
        is_final: true,
    }
}

/// The record of a request for which the first `failures` models failed and the next one answered,
/// each attempt taking 10 J more than the previous one.
fn record(candidates: &[Candidate], rule: &Rule, failures: usize) -> Record {
    let features = Features { prompt_tokens: 100, output_tokens: 50, ..Features::default() };
    let decision = decide(&features, candidates, rule);
    let asked: Vec<&Candidate> = decision.ranked_candidates().take(failures + 1).collect();
    let attempts: Vec<Attempt> = asked
        .iter()
        .zip(0_u32..)
        .map(|(candidate, place)| Attempt {
            model: candidate.model.clone(),
            route: candidate.route,
            deployment: None,
            carbon_zone: None,
            outcome: if (place as usize) < failures {
                AttemptOutcome::Failed
            } else {
                AttemptOutcome::Answered
            },
            error: None,
            dropped_turns: None,
            amortised_joules: None,
            signals: None,
            confidence: None,
            energy: Some(metered(10.0 * f64::from(place + 1))),
        })
        .collect();
    let answering = asked.get(failures);
    let energy = attempts.iter().map(|attempt| attempt.energy).fold(None, total);
    Record {
        version: RECORD_VERSION,
        unix_ms: 0,
        receipt: Receipt {
            request_id: "r".into(),
            policy: "any".into(),
            route: answering.map(|candidate| candidate.route),
            model: answering.map(|candidate| candidate.model.clone()),
            reason: decision.reason.to_string().into(),
            candidates: Arc::clone(&decision.evaluated),
            attempts,
            energy,
            carbon: None,
            electricity_dollars: None,
        },
        outcome: if answering.is_some() { Outcome::Answered } else { Outcome::Failed },
        status: 200,
        features,
        rule: rule.clone(),
        overrides: PolicyOverrides::default(),
        propensity: decision.propensity,
        session: None,
        timings: Timings::default(),
        usage: None,
        dollars: Some(Dollars(0.002)),
        shadow: None,
        label: None,
        prompt: None,
    }
}

/// A small local model and a large cloud model.
fn pair() -> [Candidate; 2] {
    [candidate("small", Route::Local, 0.4, 5.0), candidate("large", Route::Cloud, 0.9, 100.0)]
}

fn played(scenario: &Scenario, record: &Record) -> Simulation {
    scenario.terms(record).unwrap().simulate(record)
}

fn answering(play: &Simulation) -> Option<&str> {
    play.answer.as_ref().map(|candidate| &*candidate.model)
}

#[test]
fn a_model_that_ran_keeps_its_logged_energy_and_another_gets_its_predicted_one() {
    let record = record(&pair(), &rule(0.3), 0);
    let same = played(&Scenario::Policy(policy("same", 0.2)), &record);
    assert_eq!((answering(&same), same.logged), (Some("small"), true));
    assert_eq!(same.metered, Some(metered(10.0)));
    let other = played(&Scenario::Policy(policy("strict", 0.8)), &record);
    assert_eq!((answering(&other), other.logged, other.metered), (Some("large"), false, None));
}

#[test]
fn a_failed_attempt_is_charged_again_and_the_next_model_answers() {
    let record = record(&pair(), &rule(0.3), 1);
    let again = played(&Scenario::Policy(policy("easy", 0.3)), &record);
    assert_eq!((answering(&again), again.metered), (Some("large"), Some(metered(30.0))));
    let direct = played(&Scenario::CloudOnly, &record);
    assert_eq!((answering(&direct), direct.metered), (Some("large"), Some(metered(20.0))));
    let here = played(&Scenario::LocalOnly, &record);
    assert_eq!((answering(&here), here.metered), (None, Some(metered(10.0))));
}

#[test]
fn a_local_only_request_stays_local_under_every_rule() {
    let private = Rule { local_only: true, ..rule(0.8) };
    let record = record(&pair(), &private, 0);
    let open = played(&Scenario::Policy(policy("open", 0.8)), &record);
    assert_eq!(answering(&open), Some("small"));
    assert_eq!(answering(&played(&Scenario::CloudOnly, &record)), None);
}

#[test]
fn a_named_model_binds_policies_but_not_the_baselines() {
    let pinned = Rule { pinned: Some("large".into()), ..rule(0.3) };
    let record = record(&pair(), &pinned, 0);
    let free = played(&Scenario::Policy(policy("free", 0.3)), &record);
    assert_eq!(answering(&free), Some("large"));
    assert_eq!(answering(&played(&Scenario::LocalOnly, &record)), Some("small"));
}

#[test]
fn the_oracle_avoids_a_logged_answer_with_a_bad_label() {
    let logged = record(&pair(), &rule(0.3), 0);
    assert_eq!(Scenario::Oracle.terms(&logged), None);
    let judged = |label| Record { label: Some(label), ..logged.clone() };
    let bad = played(&Scenario::Oracle, &judged(0.0));
    assert_eq!((answering(&bad), bad.logged), (Some("large"), false));
    let good = played(&Scenario::Oracle, &judged(1.0));
    assert_eq!((answering(&good), good.logged), (Some("small"), true));
}

fn report(records: &[Record], policies: Vec<Arc<Policy>>) -> Report {
    let mut replay = Replay::new(policies);
    for record in records {
        replay.add(record);
    }
    replay.report()
}

#[test]
fn a_report_keeps_metered_predicted_and_unknown_apart() {
    let mut mute = pair();
    mute[1].joules = None;
    mute[1].dollars = None;
    let mut unread = record(&pair(), &rule(0.3), 0);
    unread.receipt.attempts[0].energy = Some(EnergyFigure::unknown(Source::CpuModel));
    unread.receipt.energy = unread.receipt.attempts[0].energy;
    let judged = Record { label: Some(0.5), ..record(&pair(), &rule(0.3), 0) };
    let records = [judged, record(&mute, &rule(0.3), 0), unread];
    let report = report(&records, vec![policy("strict", 0.8)]);
    let row = |name: &str| report.policies.iter().find(|row| row.policy == name).unwrap();

    let logged = row("logged");
    assert_eq!((logged.energy.joules, logged.energy.metered_requests), (Joules(20.0), 2));
    assert_eq!((logged.energy.unknown_requests, logged.share_local), (1, Some(1.0)));
    assert_eq!((logged.observed_quality, logged.labelled_requests), (Some(0.5), 1));
    let strict = row("strict");
    assert_eq!(
        (strict.energy.joules, strict.energy.predicted_requests, strict.energy.unknown_requests),
        (Joules(200.0), 2, 1)
    );
    assert_eq!((strict.dollars, strict.unknown_price_requests), (Dollars(0.002), 1));
    assert_eq!((strict.expected_quality, strict.observed_quality), (Some(0.9), None));
    assert_eq!(row("oracle").requests, 1);
    assert_eq!(report.reproduced, 3);
}

#[test]
fn the_table_shows_every_policy_in_one_row() {
    let judged = Record { label: Some(1.0), ..record(&pair(), &rule(0.3), 0) };
    let records = [judged, record(&pair(), &rule(0.3), 1)];
    insta::assert_snapshot!(report(&records, vec![policy("strict", 0.8)]));
}

fn any_candidates() -> impl proptest::strategy::Strategy<Value = Vec<Candidate>> {
    let one = (
        any::<bool>(),
        0.0..1.0_f64,
        proptest::option::of(0.0..100.0_f64),
        proptest::option::of(0_u32..200),
        proptest::option::of(Just(Unavailable::NotReady)),
    );
    proptest::collection::vec(one, 0..5).prop_map(|all| {
        let numbered = all.into_iter().enumerate();
        numbered
            .map(|(number, (local, p, joules, context_tokens, unavailable))| Candidate {
                joules: joules.map(Joules),
                context_tokens,
                unavailable,
                cache: local.then(|| Cache {
                    tokens: 10,
                    without: Costs {
                        joules: joules.map(|joules| Joules(2.0 * joules)),
                        ..Costs::default()
                    },
                }),
                ..candidate(
                    &format!("m{number}"),
                    if local { Route::Local } else { Route::Cloud },
                    p,
                    0.0,
                )
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn replaying_the_logged_rule_reproduces_the_log(
        candidates in any_candidates(),
        floor in 0.0..1.0_f64,
        local_only: bool,
        pinned in proptest::option::of(0_u32..5),
        objective in prop_oneof![
            Just(Objective::Joules), Just(Objective::Dollars), Just(Objective::Latency), Just(Objective::Quality),
            Just(Objective::Tradeoff), Just(Objective::Carbon),
        ],
        budget in proptest::option::of(0.0..100.0_f64),
        stay in proptest::option::of((0_u32..5, any::<bool>())),
        draw in proptest::option::of(0.0..1.0_f64),
        failures in 0_usize..4,
    ) {
        let pinned = pinned.map(|number| format!("m{number}").into());
        let config = PolicyConfig {
            objective,
            floor,
            local_only,
            max_joules: budget,
            lambda_per_joule: Some(0.01),
            explore: if draw.is_some() { 0.5 } else { 0.0 },
            ..PolicyConfig::default()
        };
        let policy = Arc::new(Policy { name: "any".into(), config });
        let rule = Rule {
            pinned,
            affinity: stay.map(|(number, tool_loop)| Affinity { model: format!("m{number}").into(), tool_loop }),
            explore: draw.map(|draw| Explore { share: 0.5, sample: draw }),
            ..policy.rule(TaskClass::Chat)
        };
        let written = record(&candidates, &rule, failures);
        let line = serde_json::to_string(&written).unwrap();
        let read: Record = serde_json::from_str(&line).unwrap();

        prop_assert!(reproduces(&read));
        let again = played(&Scenario::Policy(policy), &read);
        let logged = Simulation::logged(&read);
        prop_assert_eq!(&again.answer, &logged.answer);
        prop_assert_eq!(again.metered, logged.metered);
        prop_assert!(again.logged || again.answer.is_none());
    }
}

#[test]
fn a_record_of_version_1_still_decides_as_it_did() {
    let old = r#"{"version":1,"unix_ms":0,"request_id":"r","policy":"default","route":"local","model":"small",
        "reason":"because","candidates":[
        {"model":"small","route":"local","p":0.7,"joules":5.0,"dollars":0.0,"ttft_ms":null,"context_tokens":null,
         "capabilities":{"tools":false,"schema":true,"media":false,"logprobs":true,"choices":true},
         "unavailable":null,"excluded":null}],
        "attempts":[{"model":"small","route":"local","outcome":"answered","joules":4.0,"low":null,"high":null,
         "quality":"estimated","source":"cpu_model","final":true}],"energy":null,"outcome":"answered","status":200,
        "features":{"prompt_tokens":10,"output_tokens":20,"turns":1,
         "needs":{"tools":false,"schema":false,"media":false,"logprobs":false,"choices":false}},
        "rule":{"objective":"joules","floor":0.6,"local_only":false,"pinned":null},
        "timings":{"decision_ms":0.1,"first_token_ms":null,"total_ms":1.0},"usage":null,"dollars":0.0}"#;
    let record: Record = serde_json::from_str(old).unwrap();
    assert!(reproduces(&record));
    assert_eq!((record.propensity, record.session), (1.0, None));
    let play = played(&Scenario::Policy(policy("default", 0.6)), &record);
    assert_eq!((answering(&play), play.logged), (Some("small"), true));
}
