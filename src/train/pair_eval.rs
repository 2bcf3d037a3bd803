//! Evaluation of a source's heads on unseen rows: ranking of its pair, calibration, and learning
//! from few labels.
//!
//! Repeated cross-validation in which every choice is made again within the training rows.

use serde::Serialize;

use super::inputs::Inputs;
use super::metrics::{Bin, Ranking, Reliability, bins, reliability};
use super::model_heads::{CrossValidation, Labels, Predicted, split};
use super::outcomes::Data;
use crate::routing::AdequacyModel;

const FOLDS: usize = 5;
/// Single splits of 1,500 rows differ by ±0.02 of APGR.
const REPEATS: u64 = 4;
/// Numbers of labels that an operator might have; each is drawn `FEW_REPEATS` times.
const FEW_LABELS: [usize; 3] = [50, 200, 1_000];
const FEW_REPEATS: u64 = 6;
/// Least number of rows to evaluate on.
const JUDGED_MIN: usize = 50;

/// How well the gain from the weak to the strong model is ranked.
#[derive(Clone, Debug, Serialize)]
pub struct PairReport {
    pub source: String,
    pub rows: usize,
    pub weak: String,
    pub strong: String,
    pub weak_accuracy: f64,
    pub strong_accuracy: f64,
    pub folds: usize,
    pub repeats: u64,
    /// Description of how the final heads were learnt.
    pub recipe: String,
    /// Mean over the repeats; each row is scored by heads that have not seen it.
    pub in_domain: Ranking,
    /// Standard deviation over the repeats: the effect of the split alone.
    pub in_domain_apgr_sd: f64,
    pub in_domain_reliability: Reliability,
    /// Predicted against observed, for the plot.
    pub in_domain_curve: Vec<Bin>,
    /// By ability and difficulty alone, with text weights trained on the other sources only.
    pub out_of_domain: Option<Ranking>,
    pub out_of_domain_reliability: Option<Reliability>,
    pub few_labels: Vec<FewLabels>,
}

/// Quality with a few labels of an operator's own.
#[derive(Clone, Debug, Serialize)]
pub struct FewLabels {
    /// Rows with a score of each model.
    pub labels: usize,
    pub ranking: Ranking,
    pub apgr_sd: f64,
    pub reliability: Reliability,
}

/// `unseen` is the general model if its text weights have not seen this source.
pub(super) fn measure(
    data: &Data,
    source: usize,
    unseen: Option<&AdequacyModel>,
    seed: u64,
    tell: &dyn Fn(&'static str, usize, usize),
) -> Option<PairReport> {
    tell("cross-validating", 0, 1);
    let of_seed = |seed| CrossValidation::of(data, source, unseen, seed, Inputs::SERVED);
    let bench = of_seed(seed);
    bench.pair()?;
    let found = cross_validated(&of_seed, seed);
    let (weak, strong) = bench.pair()?;
    let prior = unseen.map(|_| by_ability(&bench));
    Some(PairReport {
        source: data.sources[source].name.clone(),
        rows: bench.rows.len(),
        weak: data.models[weak.model].clone(),
        strong: data.models[strong.model].clone(),
        weak_accuracy: weak.accuracy(),
        strong_accuracy: strong.accuracy(),
        folds: FOLDS,
        repeats: REPEATS,
        recipe: String::new(),
        in_domain: found.ranking,
        in_domain_apgr_sd: found.apgr_sd,
        in_domain_reliability: found.reliability,
        in_domain_curve: found.curve,
        out_of_domain: prior.as_ref().and_then(|prior| bench.ranking(prior)),
        out_of_domain_reliability: prior.map(|prior| reliability(&bench.outcomes(&prior))),
        few_labels: few_labels(data, source, unseen, seed, tell),
    })
}

/// Figures of a repeated cross-validation.
pub(super) struct HeldOutQuality {
    pub(super) ranking: Ranking,
    pub(super) apgr_sd: f64,
    pub(super) reliability: Reliability,
    curve: Vec<Bin>,
}

/// `bench` supplies the rows in the order of a seed.
pub(super) fn cross_validated<'a>(
    bench: &dyn Fn(u64) -> CrossValidation<'a>,
    seed: u64,
) -> HeldOutQuality {
    let (mut rankings, mut outcomes) = (Vec::new(), Vec::new());
    for repeat in 0..REPEATS {
        let bench = bench(seed.wrapping_add(repeat));
        let predicted = out_of_fold(&bench);
        rankings.extend(bench.ranking(&predicted));
        outcomes.extend(bench.outcomes(&predicted));
    }
    HeldOutQuality {
        ranking: mean(&rankings),
        apgr_sd: spread(&rankings),
        reliability: reliability(&outcomes),
        curve: bins(&outcomes),
    }
}

fn out_of_fold(bench: &CrossValidation) -> Predicted {
    let all: Vec<usize> = (0..bench.rows.len()).collect();
    let mut predicted: Predicted = vec![std::collections::BTreeMap::new(); bench.models.len()];
    for fold in 0..FOLDS {
        let (train, test) = split(&all, FOLDS, fold);
        let part = bench.predict(&train, &test, bench.choose(&train));
        predicted.iter_mut().zip(part).for_each(|(all, part)| all.extend(part));
    }
    predicted
}

fn by_ability(bench: &CrossValidation) -> Predicted {
    let one = |labels: &Labels| {
        let places = 0..bench.rows.len();
        places.filter_map(|place| Some((place, labels.prior(place)?))).collect()
    };
    bench.models.iter().map(one).collect()
}

/// The first labels of several shuffles train, the rest evaluate.
fn few_labels(
    data: &Data,
    source: usize,
    unseen: Option<&AdequacyModel>,
    seed: u64,
    tell: &dyn Fn(&'static str, usize, usize),
) -> Vec<FewLabels> {
    let mut found = Vec::new();
    for labels in FEW_LABELS {
        tell("learning from few labels", found.len(), FEW_LABELS.len());
        let (mut rankings, mut outcomes) = (Vec::new(), Vec::new());
        for repeat in 0..FEW_REPEATS {
            let bench = CrossValidation::of(
                data,
                source,
                unseen,
                seed.wrapping_add(100 + repeat),
                Inputs::SERVED,
            );
            let all: Vec<usize> = (0..bench.rows.len()).collect();
            if bench.rows.len() < labels + JUDGED_MIN {
                return found;
            }
            let (train, test) = all.split_at(labels);
            let predicted = bench.predict(train, test, bench.choose(train));
            rankings.extend(bench.ranking(&predicted));
            outcomes.extend(bench.outcomes(&predicted));
        }
        found.push(FewLabels {
            labels,
            ranking: mean(&rankings),
            apgr_sd: spread(&rankings),
            reliability: reliability(&outcomes),
        });
    }
    found
}

fn mean(rankings: &[Ranking]) -> Ranking {
    let mean =
        |f: fn(&Ranking) -> f64| rankings.iter().map(f).sum::<f64>() / rankings.len().max(1) as f64;
    Ranking { apgr: mean(|r| r.apgr), cpt50: mean(|r| r.cpt50), cpt80: mean(|r| r.cpt80) }
}

fn spread(rankings: &[Ranking]) -> f64 {
    let centre = mean(rankings).apgr;
    let squares: f64 = rankings.iter().map(|r| (r.apgr - centre).powi(2)).sum();
    (squares / rankings.len().max(1) as f64).sqrt()
}
