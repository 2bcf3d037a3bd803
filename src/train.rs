//! Training: from outcome files to a router of abilities, text difficulty and heads for labelled
//! models.
//!
//! Deterministic given data, seed and kind of CPU. Reads files and computes; never serves, never
//! prints. Every figure in the [`Report`] is from rows that the scored weights have not seen.

mod ability;
mod calibrate;
mod calibration_plot;
mod card;
pub mod cascade;
mod error;
mod feature_ablation;
mod fit;
mod inputs;
mod log;
pub mod metrics;
mod model_heads;
mod outcomes;
mod pair_eval;
mod report;
mod sparse;
mod vectors;
pub mod versions;

use std::path::{Path, PathBuf};

use crate::routing::AdequacyModel;
use crate::routing::drift::{AVERAGE_ABILITY, Reference};
use crate::routing::text::FeatureSchema;
use ability::Abilities;
pub use ability::FormatFailure;
pub use calibrate::Calibration;
use calibrate::Examples;
pub use calibration_plot::{CALIBRATION_PLOT_FILE, calibration_plot};
pub use card::{CARD_FILE, card};
use error::ROWS_MIN;
pub use error::{BadLine, TrainError};
pub use feature_ablation::{Design, comparison};
use inputs::Inputs;
use model_heads::{CrossValidation, describe};
use outcomes::Data;
pub use outcomes::Source;
pub use pair_eval::{FewLabels, PairReport};
pub use report::Report;
use vectors::Vectors;

/// Least number of models for a source to teach difficulty; one that asked fewer labels those
/// models directly.
const MODELS_FOR_DIFFICULTY: usize = 5;
/// Quantile of ability from which a model counts as strong. Text that strong models fail on is
/// hard; failures of weak models on multiple choice are half chance, and including them ranked
/// other sources' prompts worse.
const STRONG_QUANTILE: f64 = 0.6;

/// Inputs of a training.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Outcome files, JSON lines, plain or gzip.
    pub data: Vec<PathBuf>,
    /// Logs of a gateway that kept prompts: files, or folders of them.
    pub logs: Vec<PathBuf>,
    /// Seed of the folds.
    pub seed: u64,
    /// Folder of a router to refine: its general model stays, and every source labels directly.
    pub prior: Option<PathBuf>,
    /// Vectors of the labelled rows, each a design to compare with the served one.
    pub vectors: Vec<PathBuf>,
}

/// A trained router and its evaluation.
#[derive(Debug)]
pub struct Trained {
    pub model: AdequacyModel,
    pub report: Report,
    /// Distribution of the training prompts, against which drift is measured.
    pub reference: Option<Reference>,
}

/// Progress of a training.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    pub step: &'static str,
    pub done: usize,
    pub of: usize,
}

/// Trains and evaluates; calls `progress` before each step.
pub fn train(options: &Options, progress: &dyn Fn(Progress)) -> Result<Trained, TrainError> {
    let tell = |step, done, of| progress(Progress { step, done, of });
    tell("reading outcomes", 0, 1);
    let data = outcomes::read(&options.data, &options.logs)?;
    check(&data)?;
    let general = match &options.prior {
        Some(prior) => refined(&data, prior)?,
        None => match &data.models[..] {
            [only] => return Err(TrainError::OneModel(only.clone())),
            _ => general(&data, options.seed, &tell)?,
        },
    };
    let General { mut model, calibration, failures, wide, labelled } = general;
    let vectors =
        options.vectors.iter().map(|path| Vectors::read(path)).collect::<Result<Vec<_>, _>>()?;
    let (mut pairs, mut designs) = (Vec::new(), Vec::new());
    for source in labelled {
        // Only rows that the difficulty was not fitted on may start from it.
        let unseen = (!wide.contains(&source)).then_some(&model);
        let mut pair = pair_eval::measure(&data, source, unseen, options.seed, &tell);
        tell("learning labelled models", 0, 1);
        let bench = CrossValidation::of(&data, source, unseen, options.seed, Inputs::SERVED);
        if bench.models.is_empty() {
            continue;
        }
        let recipe = bench.choose(&(0..bench.rows.len()).collect::<Vec<_>>());
        let learnt = bench.learn(&data.sources[source].name, recipe, unseen);
        if let Some(pair) = &mut pair {
            describe(recipe).clone_into(&mut pair.recipe);
        }
        pairs.extend(pair);
        if !vectors.is_empty() {
            designs.extend(feature_ablation::compare(
                &data,
                source,
                unseen,
                options.seed,
                &vectors,
                &tell,
            ));
        }
        model.labelled.retain(|known| known.source != learnt.source);
        model.labelled.push(learnt);
    }
    let average_p = |row: &outcomes::Row| model.predict(&row.text, AVERAGE_ABILITY);
    let reference = Reference::of(data.rows.iter().map(average_p).collect());
    let report = Report {
        seed: options.seed,
        duplicates: data.duplicates,
        contradictions: data.contradictions,
        unsampled: data.unsampled,
        format_failures: failures,
        abilities: ranked(&model),
        calibration,
        pairs,
        designs,
        sources: data.sources,
    };
    Ok(Trained { model, report, reference })
}

/// The model of ability and difficulty, the sources it was fitted on, and those that label models
/// directly.
struct General {
    model: AdequacyModel,
    calibration: Option<Calibration>,
    failures: Vec<FormatFailure>,
    wide: Vec<usize>,
    labelled: Vec<usize>,
}

fn general(
    data: &Data,
    seed: u64,
    tell: &dyn Fn(&'static str, usize, usize),
) -> Result<General, TrainError> {
    tell("fitting abilities", 0, 1);
    let abilities = ability::fit(data);
    let (wide, labelled) = split(data);
    let examples = difficulty_examples(data, &abilities, &wide);
    let (scaled, calibration) = calibrate::fit(data, &abilities, &examples, seed, tell)?;
    let model = AdequacyModel {
        schema: FeatureSchema::current(),
        easiness: scaled.easiness,
        slope: scaled.slope,
        abilities: data.models.iter().cloned().zip(abilities.theta.iter().copied()).collect(),
        labelled: vec![],
    };
    let failures = abilities.failures;
    Ok(General { model, calibration: Some(calibration), failures, wide, labelled })
}

/// An existing router; models that it does not know are placed on its scale by their scores.
fn refined(data: &Data, prior: &Path) -> Result<General, TrainError> {
    let mut model = AdequacyModel::load(prior)?;
    for (at, name) in data.models.iter().enumerate() {
        if model.ability_of(name).is_none() {
            let scores = data.rows.iter().flat_map(|row| {
                let own = row.outcomes.iter().filter(|outcome| outcome.model == at);
                let easiness = model.easiness.score(&row.text);
                own.map(move |outcome| (easiness, outcome.score))
            });
            let ability = ability::place(&scores.collect::<Vec<_>>(), model.slope);
            model.abilities.insert(name.clone(), ability);
        }
    }
    let labelled = (0..data.sources.len()).collect();
    Ok(General { model, calibration: None, failures: vec![], wide: vec![], labelled })
}

fn check(data: &Data) -> Result<(), TrainError> {
    if data.rows.len() < ROWS_MIN {
        return Err(TrainError::TooFew { rows: data.rows.len() });
    }
    let mut scores = data.rows.iter().flat_map(|row| &row.outcomes).map(|outcome| outcome.score);
    let (mut right, mut wrong) = (false, false);
    while let Some(score) = scores.next().filter(|_| !(right && wrong)) {
        right |= score >= fit::ADEQUATE;
        wrong |= score < fit::ADEQUATE;
    }
    match (right, wrong) {
        (true, true) => Ok(()),
        (true, false) => Err(TrainError::SingleClass("right")),
        (false, _) => Err(TrainError::SingleClass("wrong")),
    }
}

/// Indices of the sources that teach difficulty, and of those that label models directly. Without
/// any source of the first kind, every source does both.
fn split(data: &Data) -> (Vec<usize>, Vec<usize>) {
    let (wide, narrow): (Vec<usize>, Vec<usize>) =
        (0..data.sources.len()).partition(|&s| data.sources[s].models >= MODELS_FOR_DIFFICULTY);
    if wide.is_empty() { (narrow.clone(), narrow) } else { (wide, narrow) }
}

/// The rows that teach difficulty, each with the mean score of the strong models that answered it.
fn difficulty_examples(data: &Data, abilities: &Abilities, sources: &[usize]) -> Examples {
    let strong = metrics::quantile(&asked_abilities(data, abilities, sources), STRONG_QUANTILE);
    let mean = |row: usize| {
        let scores: Vec<f64> = abilities
            .sound(data, row)
            .filter(|outcome| abilities.theta[outcome.model] >= strong)
            .map(|outcome| outcome.score)
            .collect();
        (!scores.is_empty()).then(|| (row, scores.iter().sum::<f64>() / scores.len() as f64))
    };
    let taught = |row: &usize| sources.contains(&data.rows[*row].source);
    (0..data.rows.len()).filter(taught).filter_map(mean).collect()
}

/// Abilities of the models that these sources asked, ascending.
fn asked_abilities(data: &Data, abilities: &Abilities, sources: &[usize]) -> Vec<f64> {
    let mut asked = vec![false; data.models.len()];
    let rows = data.rows.iter().filter(|row| sources.contains(&row.source));
    rows.flat_map(|row| &row.outcomes).for_each(|outcome| asked[outcome.model] = true);
    let mut theta: Vec<f64> =
        abilities.theta.iter().zip(asked).filter_map(|(&t, asked)| asked.then_some(t)).collect();
    theta.sort_by(f64::total_cmp);
    theta
}

fn ranked(model: &AdequacyModel) -> Vec<(String, f64)> {
    let known = model.abilities.iter();
    let mut ranked: Vec<(String, f64)> = known.map(|(name, at)| (name.clone(), *at)).collect();
    ranked.sort_by(|a, b| a.1.total_cmp(&b.1).then_with(|| a.0.cmp(&b.0)));
    ranked
}
