//! Models with direct labels get heads of their own, and their pair is where a router's ranking is measured.
//!
//! For sources that asked only a few models: nothing there tells a hard row from an unlucky one, but each model's own
//! rights and wrongs can be learnt. Measured by repeated cross-validation, and once with weights that never saw the
//! source.

use std::collections::BTreeMap;

use serde::Serialize;

use super::TrainError;
use super::fit::{ADEQUATE, Examples, folds, logistic_head};
use super::metrics::{Ranking, Reliability, Routed, ranking, reliability};
use super::outcomes::Data;
use crate::routing::AdequacyModel;
use crate::routing::adequacy::{Head, logistic};

const FOLDS: usize = 5;
/// Single splits of 1,500 rows differ by ±0.02 of APGR.
const REPEATS: usize = 4;
/// With fewer right or fewer wrong answers a head of its own would be noise; ability serves better.
const LABELS_PER_CLASS_MIN: usize = 25;

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
    pub repeats: usize,
    /// Mean over the repeats; each row scored by heads that have not seen it.
    pub in_domain: Ranking,
    /// Standard deviation over the repeats: what the choice of split alone does.
    pub in_domain_apgr_sd: f64,
    pub in_domain_reliability: Reliability,
    /// By ability and difficulty alone, text weights trained on the other sources only.
    pub out_of_domain: Option<Ranking>,
    pub out_of_domain_reliability: Option<Reliability>,
}

/// The rows of one model in one source.
struct Labels {
    model: usize,
    examples: Examples,
}

/// Heads by canonical name, and the figures of the weakest and strongest of them.
/// `unseen` is the general model if its text weights have not seen this source.
pub(super) fn fit(
    data: &Data,
    source: usize,
    unseen: Option<&AdequacyModel>,
    seed: u64,
    tell: &dyn Fn(&'static str, usize, usize),
) -> Result<(BTreeMap<String, Head>, Option<PairReport>), TrainError> {
    let labels = labelled_models(data, source);
    let prior = unseen.map(|model| &model.difficulty);
    let mut heads = BTreeMap::new();
    for Labels { model, examples } in &labels {
        tell("learning labelled models", heads.len(), labels.len());
        heads.insert(data.models[*model].clone(), logistic_head(data, examples, prior)?);
    }
    let report = match &labels[..] {
        [weak, .., strong] => Some(measure(data, source, weak, strong, unseen, seed, tell)?),
        _ => None,
    };
    Ok((heads, report))
}

/// Models with enough labels of both classes, least accurate first.
fn labelled_models(data: &Data, source: usize) -> Vec<Labels> {
    let mut by_model: BTreeMap<usize, Examples> = BTreeMap::new();
    for (at, row) in data.rows.iter().enumerate().filter(|(_, row)| row.source == source) {
        for outcome in &row.outcomes {
            by_model.entry(outcome.model).or_default().push((at, outcome.score));
        }
    }
    let mut labels: Vec<Labels> = by_model
        .into_iter()
        .map(|(model, examples)| Labels { model, examples })
        .filter(|labels| {
            let right = labels.examples.iter().filter(|(_, score)| *score >= ADEQUATE).count();
            right.min(labels.examples.len() - right) >= LABELS_PER_CLASS_MIN
        })
        .collect();
    labels.sort_by(|a, b| accuracy(&a.examples).total_cmp(&accuracy(&b.examples)));
    labels
}

fn measure(
    data: &Data,
    source: usize,
    weak: &Labels,
    strong: &Labels,
    unseen: Option<&AdequacyModel>,
    seed: u64,
    tell: &dyn Fn(&'static str, usize, usize),
) -> Result<PairReport, TrainError> {
    let rows = shared_rows(weak, strong);
    let (mut rankings, mut predictions) = (Vec::new(), Vec::new());
    for repeat in 0..REPEATS {
        tell("cross-validating", repeat, REPEATS);
        let prior = unseen.map(|model| &model.difficulty);
        let folds_seed = seed.wrapping_add(repeat as u64);
        let p_weak = out_of_fold(data, &weak.examples, prior, folds_seed)?;
        let p_strong = out_of_fold(data, &strong.examples, prior, folds_seed)?;
        let scored = |&(row, weak, strong): &(usize, f64, f64)| Routed {
            score: p_strong[&row] - p_weak[&row],
            weak,
            strong,
        };
        rankings.extend(ranking(&rows.iter().map(scored).collect::<Vec<_>>()));
        predictions.extend(
            rows.iter()
                .flat_map(|&(row, weak, strong)| [(p_weak[&row], weak), (p_strong[&row], strong)]),
        );
    }
    let (out_of_domain, out_of_domain_reliability) =
        unseen.map_or((None, None), |model| by_ability(data, &rows, weak, strong, model));
    Ok(PairReport {
        source: data.sources[source].name.clone(),
        rows: rows.len(),
        weak: data.models[weak.model].clone(),
        strong: data.models[strong.model].clone(),
        weak_accuracy: accuracy(&weak.examples),
        strong_accuracy: accuracy(&strong.examples),
        folds: FOLDS,
        repeats: REPEATS,
        in_domain: mean(&rankings),
        in_domain_apgr_sd: spread(&rankings),
        in_domain_reliability: reliability(&predictions),
        out_of_domain,
        out_of_domain_reliability,
    })
}

/// Rows that both answered: row, weak score, strong score.
fn shared_rows(weak: &Labels, strong: &Labels) -> Vec<(usize, f64, f64)> {
    let strong: BTreeMap<usize, f64> = strong.examples.iter().copied().collect();
    let both = |&(row, score): &(usize, f64)| Some((row, score, *strong.get(&row)?));
    weak.examples.iter().filter_map(both).collect()
}

fn out_of_fold(
    data: &Data,
    examples: &Examples,
    prior: Option<&Head>,
    seed: u64,
) -> Result<BTreeMap<usize, f64>, TrainError> {
    let mut found = BTreeMap::new();
    for (train, test) in folds(data, examples, FOLDS, seed) {
        let head = logistic_head(data, &train, prior)?;
        found
            .extend(test.iter().map(|&(row, _)| (row, logistic(head.score(&data.rows[row].text)))));
    }
    Ok(found)
}

fn by_ability(
    data: &Data,
    rows: &[(usize, f64, f64)],
    weak: &Labels,
    strong: &Labels,
    model: &AdequacyModel,
) -> (Option<Ranking>, Option<Reliability>) {
    let ability = |labels: &Labels| model.abilities[&data.models[labels.model]];
    let (weak_ability, strong_ability) = (ability(weak), ability(strong));
    let (mut routed, mut predictions) = (Vec::new(), Vec::new());
    for &(row, weak, strong) in rows {
        let text = &data.rows[row].text;
        let p = [weak_ability, strong_ability].map(|ability| model.predict(text, ability));
        routed.push(Routed { score: p[1] - p[0], weak, strong });
        predictions.extend([(p[0], weak), (p[1], strong)]);
    }
    (ranking(&routed), Some(reliability(&predictions)))
}

fn accuracy(examples: &Examples) -> f64 {
    examples.iter().map(|(_, score)| score).sum::<f64>() / examples.len().max(1) as f64
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
