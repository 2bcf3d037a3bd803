//! Quality figures of routers: RouteLLM's APGR and CPT, expected calibration error, Brier score.
//!
//! Pure arithmetic over scores and outcomes. APGR and CPT follow RouteLLM's own code (Ong et al.,
//! arXiv 2406.18665, `evaluate.py` and `benchmarks.py`) down to its eleven quantile thresholds, so
//! that figures are comparable with the published ones.

use std::cmp::Ordering;

use serde::Serialize;

/// Number of parts that the scores are divided into, as in RouteLLM (`num_results`).
const PARTS: usize = 10;
/// Equal-width bins of the calibration error.
const BINS: usize = 10;

/// How well a score decides which queries go to the strong model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Ranking {
    /// Average performance gap recovered: 0.5 by chance, above 1 possible.
    pub apgr: f64,
    /// Percentage of calls to the strong model at which half of the gap is recovered.
    pub cpt50: f64,
    /// The same for four fifths of the gap.
    pub cpt80: f64,
}

/// One query as a router is evaluated on it.
#[derive(Clone, Copy, Debug)]
pub struct Routed {
    /// Higher: rather ask the strong model.
    pub score: f64,
    pub weak: f64,
    pub strong: f64,
}

/// RouteLLM's figures. `None` without queries or without a gap between the models.
pub fn ranking(queries: &[Routed]) -> Option<Ranking> {
    let count = queries.len() as f64;
    let mean = |f: &dyn Fn(&Routed) -> f64| queries.iter().map(f).sum::<f64>() / count;
    let (weak, strong) = (mean(&|q| q.weak), mean(&|q| q.strong));
    // NaN, the mean of no queries, is equal to nothing and so counts as no gap.
    if weak.partial_cmp(&strong) != Some(Ordering::Less) {
        return None;
    }
    let thresholds = thresholds(queries);
    let last = thresholds.len() - 1;
    let mut curve: Vec<(f64, f64)> = thresholds
        .iter()
        .enumerate()
        .map(|(at, &threshold)| {
            let to_strong =
                |q: &Routed| if at == last { q.score > threshold } else { q.score >= threshold };
            let calls = mean(&|q| if to_strong(q) { 100.0 } else { 0.0 });
            (calls, mean(&|q| if to_strong(q) { q.strong } else { q.weak }))
        })
        .collect();
    curve.sort_by(|a, b| a.0.total_cmp(&b.0));
    let area: f64 = curve
        .windows(2)
        .map(|pair| (pair[1].0 - pair[0].0) / 100.0 * (pair[0].1 + pair[1].1) / 2.0)
        .sum();
    let span = (curve[curve.len() - 1].0 - curve[0].0) / 100.0;
    let calls_for = |share: f64| interpolate(&curve, weak + share * (strong - weak));
    Some(Ranking {
        apgr: if span > 0.0 { (area / span - weak) / (strong - weak) } else { 0.0 },
        cpt50: calls_for(0.5),
        cpt80: calls_for(0.8),
    })
}

/// Boundaries of ten equally filled parts, without repetitions.
fn thresholds(queries: &[Routed]) -> Vec<f64> {
    let mut scores: Vec<f64> = queries.iter().map(|q| q.score).collect();
    scores.sort_by(f64::total_cmp);
    let mut edges: Vec<f64> =
        (0..=PARTS).map(|part| quantile(&scores, part as f64 / PARTS as f64)).collect();
    edges.dedup();
    edges
}

/// Quantile of ascending values, linearly interpolated; `q` from 0 to 1. NaN without values.
pub fn quantile(ascending: &[f64], q: f64) -> f64 {
    let place = q * (ascending.len().saturating_sub(1)) as f64;
    let value = |at: f64| ascending.get(index(at)).copied().unwrap_or(f64::NAN);
    let (low, high) = (value(place.floor()), value(place.ceil()));
    low + (high - low) * place.fract()
}

/// Calls at which the curve reaches `target`, interpolated like `numpy.interp`: quality is assumed
/// to be ascending.
fn interpolate(curve: &[(f64, f64)], target: f64) -> f64 {
    let after = curve.partition_point(|(_, quality)| *quality <= target);
    match (after.checked_sub(1).map(|at| curve[at]), curve.get(after)) {
        (Some((x0, y0)), Some((x1, y1))) => x0 + (x1 - x0) * (target - y0) / (y1 - y0),
        (Some((x, _)), None) => x,
        (None, Some((x, _))) => *x,
        (None, None) => f64::NAN,
    }
}

/// Deviation of probabilities from outcomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Reliability {
    pub predictions: usize,
    /// Expected calibration error, ten equal-width bins, 0 to 1.
    pub ece: f64,
    /// Mean squared error, 0 to 1.
    pub brier: f64,
    /// Brier score of a constant prediction of the mean, 0 to 1.
    pub brier_of_mean: f64,
}

/// From `(predicted probability, outcome 0..1)`.
pub fn reliability(predictions: &[(f64, f64)]) -> Reliability {
    let count = predictions.len().max(1) as f64;
    let mut gaps = [0.0; BINS];
    for &(p, outcome) in predictions {
        gaps[index(p * BINS as f64).min(BINS - 1)] += p - outcome;
    }
    let mean = predictions.iter().map(|(_, outcome)| outcome).sum::<f64>() / count;
    let squares = |p: &dyn Fn(f64) -> f64| {
        predictions.iter().map(|&(own, y)| (p(own) - y).powi(2)).sum::<f64>() / count
    };
    Reliability {
        predictions: predictions.len(),
        ece: gaps.iter().map(|gap: &f64| gap.abs()).sum::<f64>() / count,
        brier: squares(&|p| p),
        brier_of_mean: squares(&|_| mean),
    }
}

/// Predictions of similar probability.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bin {
    pub predictions: usize,
    pub mean_p: f64,
    pub mean_outcome: f64,
}

/// The non-empty ones of ten equal-width bins, ascending.
pub fn bins(predictions: &[(f64, f64)]) -> Vec<Bin> {
    let mut sums = [(0, 0.0, 0.0); BINS];
    for &(p, outcome) in predictions {
        let (count, p_sum, outcomes) = &mut sums[index(p * BINS as f64).min(BINS - 1)];
        *count += 1;
        *p_sum += p;
        *outcomes += outcome;
    }
    let filled = sums.into_iter().filter(|(count, ..)| *count > 0);
    let mean = |(count, p, outcome): (usize, f64, f64)| Bin {
        predictions: count,
        mean_p: p / count as f64,
        mean_outcome: outcome / count as f64,
    };
    filled.map(mean).collect()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small and never negative"
)]
fn index(place: f64) -> usize {
    place as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn queries(outcomes: &[(f64, f64, f64)]) -> Vec<Routed> {
        outcomes.iter().map(|&(score, weak, strong)| Routed { score, weak, strong }).collect()
    }

    #[test]
    fn a_perfect_score_recovers_the_gap_at_once() {
        // Ten queries; the strong model is better on the last two only.
        let rows: Vec<_> =
            (0..10).map(|i| (f64::from(i), f64::from(u8::from(i < 8)), 1.0)).collect();
        let found = ranking(&queries(&rows)).unwrap();
        // The curve rises to the full gap at 20 % of calls and stays: area 0.1 + 0.8.
        assert!((found.apgr - 0.9).abs() < 1e-9, "{found:?}");
        assert!(
            (found.cpt50 - 10.0).abs() < 1e-9 && (found.cpt80 - 16.0).abs() < 1e-9,
            "{found:?}"
        );
        let reversed: Vec<_> = rows.iter().map(|&(s, w, t)| (-s, w, t)).collect();
        assert!((ranking(&queries(&reversed)).unwrap().apgr - 0.1).abs() < 1e-9);
    }

    #[test]
    fn without_a_gap_there_is_no_ranking() {
        assert_eq!(ranking(&queries(&[(0.0, 1.0, 1.0), (1.0, 0.0, 0.0)])), None);
        assert_eq!(ranking(&[]), None);
    }

    #[test]
    fn calibration_error_is_the_mean_gap() {
        let honest: Vec<_> = (0..100).map(|i| (0.25, f64::from(u8::from(i % 4 == 0)))).collect();
        assert!(reliability(&honest).ece < 1e-9);
        let boastful: Vec<_> = honest.iter().map(|&(_, y)| (0.95, y)).collect();
        let found = reliability(&boastful);
        assert!((found.ece - 0.7).abs() < 1e-9 && found.brier > found.brier_of_mean);
    }

    proptest! {
        #[test]
        fn figures_stay_in_their_ranges(rows in proptest::collection::vec((-1.0f64..1.0, 0u8..2, 0u8..2), 1..80)) {
            let rows: Vec<_> = rows.into_iter().map(|(s, w, t)| (s, f64::from(w), f64::from(t))).collect();
            if let Some(found) = ranking(&queries(&rows)) {
                prop_assert!(found.apgr.is_finite());
                prop_assert!((0.0..=100.0).contains(&found.cpt50) && (0.0..=100.0).contains(&found.cpt80));
            }
        }
    }
}
