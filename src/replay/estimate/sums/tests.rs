//! Estimators on hand-made logs, and their intervals on logs of a known truth.

use super::super::{Evaluation, Interval, sample::Predicted};
use super::*;

/// A log of two models: `explore` of the requests go to a random one, the others to model 0.
struct World {
    random: fastrand::Rng,
    explore: f64,
}

/// Chance of a good answer for a question of some difficulty, 0 to 1.
fn chance(model: usize, difficulty: f64) -> f64 {
    if model == 0 { 0.9 - 0.8 * difficulty } else { 0.95 - 0.3 * difficulty }
}

impl World {
    /// The evaluated policy sends questions harder than 0.5 to model 1.
    fn sample(&mut self) -> Sample {
        let difficulty = self.random.f64();
        let explored = self.random.f64() < self.explore;
        let chosen = if explored { self.random.usize(0..2) } else { 0 };
        let wanted = usize::from(difficulty > 0.5);
        let each = self.explore / 2.0;
        // Predictions that are wrong for the second model.
        let predicted = |model| chance(model, difficulty) - 0.1 * model as f64;
        Sample {
            logged_propensity: if chosen == 0 { 1.0 - each } else { each },
            target_propensity: if chosen == wanted { 1.0 } else { 0.0 },
            unsupported: 0.0,
            disagreement: if wanted == 0 { each } else { 1.0 - each },
            outcome: f64::from(u8::from(self.random.f64() < chance(chosen, difficulty))),
            predicted: Some(Predicted { logged: predicted(chosen), target: predicted(wanted) }),
        }
    }

    /// ∫ 0.9 − 0.8 d over the easy half, ∫ 0.95 − 0.3 d over the hard one.
    const TRUTH: f64 = (0.45 - 0.1) + (0.475 - 0.112_5);

    fn evaluate(&mut self, requests: u64, conversation: u64) -> Evaluation {
        let mut evaluation = Evaluation::default();
        for request in 0..requests {
            evaluation.add(&self.sample(), conversation + request);
        }
        evaluation
    }
}

fn world(seed: u64) -> World {
    World { random: fastrand::Rng::with_seed(seed), explore: 0.2 }
}

#[test]
fn each_estimator_is_the_formula_of_its_name() {
    let predicted = Some(Predicted { logged: 0.5, target: 0.8 });
    let base = Sample {
        logged_propensity: 0.25,
        target_propensity: 1.0,
        unsupported: 0.0,
        disagreement: 0.0,
        outcome: 1.0,
        predicted,
    };
    let other = Sample { logged_propensity: 0.5, target_propensity: 0.0, outcome: 0.0, ..base };
    let mut sums = Sums::of(&base);
    sums += &Sums::of(&other);
    for (estimator, value) in [
        (Estimator::Replay, 1.0),
        (Estimator::Dm, 0.8),
        (Estimator::Ips, 2.0),
        (Estimator::Snips, 1.0),
        // 0.8 + (4 × 0.5 + 0 × −0.5) / 2
        (Estimator::Dr, 1.8),
        (Estimator::SwitchDr, 1.8),
    ] {
        assert_eq!(sums.value(estimator), Some(value), "{estimator:?}");
    }
    sums += &Sums::of(&Sample { predicted: None, ..base });
    assert_eq!(sums.value(Estimator::Dm), None, "an unknown prediction is not 0");
    assert_eq!(Sums::default().value(Estimator::Ips), None);
}

#[test]
fn intervals_cover_the_truth_as_often_as_they_say() {
    let trials = 1000;
    let estimators = [Estimator::Ips, Estimator::Snips, Estimator::Dr, Estimator::SwitchDr];
    let mut covered = [0_u32; 4];
    for trial in 0..trials {
        let evaluation = world(trial).evaluate(600, trial << 32);
        for (count, estimator) in covered.iter_mut().zip(estimators) {
            let interval = evaluation.estimate(estimator).unwrap().interval().unwrap();
            *count += u32::from(contains(interval, World::TRUTH));
        }
    }
    for (count, estimator) in covered.iter().zip(estimators) {
        let share = f64::from(*count) / 1000.0;
        assert!((0.94..=0.96).contains(&share), "{estimator:?} covers {share}");
    }
}

#[test]
fn a_confidence_sequence_holds_at_every_look() {
    let trials = 200;
    let always = (0..trials)
        .filter(|&trial| {
            let mut evaluation = Evaluation::default();
            let mut world = world(5000 + trial);
            (1..=3000_u64).all(|request| {
                evaluation.add(&world.sample(), (trial << 32) + request);
                // The approximation is of large samples.
                if request < 200 || request % 50 != 0 {
                    return true;
                }
                let estimate = evaluation.estimate(Estimator::Dr).unwrap();
                contains(estimate.any_time_interval().unwrap(), World::TRUTH)
            })
        })
        .count();
    assert!(always >= 190, "{always} of {trials}");
}

#[test]
fn requests_of_a_conversation_are_drawn_together() {
    let mut alone = world(1);
    let mut together = world(1);
    let apart = alone.evaluate(2000, 0);
    let mut joined = Evaluation::default();
    for request in 0..2000_u64 {
        let sample = together.sample();
        joined.add(&sample, request);
    }
    assert_eq!(apart.estimate(Estimator::Dr), joined.estimate(Estimator::Dr));
    // The same request ten times over in one conversation is one piece of evidence.
    let mut repeated = Evaluation::default();
    let mut world = world(1);
    for request in 0..2000_u64 {
        let sample = world.sample();
        for _ in 0..10 {
            repeated.add(&sample, request);
        }
    }
    let error =
        |evaluation: &Evaluation| evaluation.estimate(Estimator::Dr).unwrap().standard_error;
    assert!((error(&repeated) / error(&joined) - 1.0).abs() < 0.01);
}

#[test]
fn parts_of_a_log_add_up_in_any_order() {
    let mut whole = Evaluation::default();
    let mut parts = [Evaluation::default(), Evaluation::default()];
    let mut world = world(9);
    for request in 0..500_u64 {
        let sample = world.sample();
        whole.add(&sample, request / 3);
        parts[usize::from(request % 2 == 0)].add(&sample, request / 3);
    }
    let [mut first, second] = parts;
    first.merge(&second);
    let (one, other) =
        (whole.estimate(Estimator::Snips).unwrap(), first.estimate(Estimator::Snips).unwrap());
    assert!((one.value - other.value).abs() < 1e-12);
    assert!((one.standard_error - other.standard_error).abs() < 1e-12);
}

#[test]
fn a_log_without_exploration_gives_no_verdict_and_says_what_would() {
    use super::super::{Verdict, verdict::Lack};
    let mut evaluation = Evaluation::default();
    for request in 0..1000_u64 {
        let differs = request % 4 == 0;
        evaluation.add(
            &Sample {
                logged_propensity: 1.0,
                target_propensity: if differs { 0.0 } else { 1.0 },
                unsupported: if differs { 1.0 } else { 0.0 },
                disagreement: if differs { 1.0 } else { 0.0 },
                outcome: 1.0,
                predicted: None,
            },
            request,
        );
    }
    let Verdict::NotSupported { why, advice } = evaluation.verdict() else {
        panic!("a verdict without support")
    };
    assert_eq!(why, [Lack::Unsupported(0.25)]);
    // 100 × (0.75 + 0.25 × 3 / 0.05)
    assert_eq!(advice.requests, 1575);
    assert_eq!(world(3).evaluate(1500, 0).verdict(), Verdict::Supported);
}

#[test]
fn wrong_propensities_are_noticed() {
    use super::super::{Verdict, verdict::Lack};
    let mut evaluation = Evaluation::default();
    let mut world = world(4);
    for request in 0..3000_u64 {
        let sample = world.sample();
        let told = (sample.logged_propensity * 2.0).min(1.0);
        evaluation.add(&Sample { logged_propensity: told, ..sample }, request);
    }
    let Verdict::NotSupported { why, .. } = evaluation.verdict() else { panic!("believed") };
    assert!(matches!(why[..], [Lack::WrongPropensities(_)]), "{why:?}");
}

fn contains(interval: Interval, value: f64) -> bool {
    interval.low <= value && value <= interval.high
}
