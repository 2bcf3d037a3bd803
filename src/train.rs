//! From outcome files to a router: abilities, text difficulty, heads of its own for labelled models, honest figures.
//!
//! Deterministic given data, seed and kind of CPU. Reads files and computes; never serves, never prints. Every figure
//! in the [`Report`] comes from rows that the scored weights have not seen.

mod ability;
mod calibrate;
mod card;
pub mod cascade;
mod designs;
mod fit;
mod labelled;
mod log;
pub mod metrics;
mod outcomes;
mod pair;
mod picture;
mod sparse;
mod vectors;
pub mod versions;

use std::path::{Path, PathBuf};

use serde::Serialize;
use thiserror::Error;

use crate::routing::drift::{AVERAGE_ABILITY, Reference};
use crate::routing::text::FeatureSchema;
use crate::routing::{AdequacyError, AdequacyModel};
use crate::traffic::LogError;
use ability::Abilities;
pub use calibrate::Calibration;
use calibrate::Examples;
pub use card::{CARD_FILE, card};
use designs::Inputs;
pub use designs::{Design, comparison};
use labelled::{Bench, describe};
use outcomes::Data;
pub use outcomes::{BadLine, Source};
pub use pair::{FewLabels, PairReport};
pub use picture::{PICTURE_FILE, picture};
use vectors::Vectors;

/// A source that asked fewer models than this says little about difficulty, but labels those models directly.
const MODELS_FOR_DIFFICULTY: usize = 5;
/// Quantile of ability from which a model counts as strong. What strong models fail is hard; what weak ones fail
/// on multiple choice is half chance, and ranked other sources' prompts worse when it was tried.
const STRONG_QUANTILE: f64 = 0.6;
/// Below this many rows nothing learnt from them means anything.
const ROWS_MIN: usize = 20;

/// What to train from.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Outcome files, JSON lines, plain or gzip.
    pub data: Vec<PathBuf>,
    /// Logs of a gateway that kept prompts: files, or folders of them.
    pub logs: Vec<PathBuf>,
    /// Chooses the folds.
    pub seed: u64,
    /// Folder of a router that these outcomes refine: its general model stays, and every source labels directly.
    pub prior: Option<PathBuf>,
    /// Vectors of the labelled rows, each a design to compare with the one that is kept.
    pub vectors: Vec<PathBuf>,
}

/// A router and how good it is.
#[derive(Debug)]
pub struct Trained {
    pub model: AdequacyModel,
    pub report: Report,
    /// Where the training prompts lie, to tell when requests have moved away from them.
    pub reference: Option<Reference>,
}

/// How a router was made and how good it is. Contains no date, so the same data give the same bytes.
#[derive(Debug, Serialize)]
pub struct Report {
    pub seed: u64,
    pub sources: Vec<Source>,
    /// Rows that repeat the text and the models of an earlier row; their scores are averaged.
    pub duplicates: usize,
    /// Those of them that scored otherwise.
    pub contradictions: usize,
    /// Rows left out because the files hold more than training takes; what is kept is drawn by chance.
    pub unsampled: usize,
    /// `(source/task, model)` cells whose scores are failures of the answer's format, not of ability.
    pub format_failures: Vec<FormatFailure>,
    /// Canonical name and ability, weakest first.
    pub abilities: Vec<(String, f64)>,
    /// Of the general model; none if that is another router's.
    pub calibration: Option<Calibration>,
    /// One for each source with direct labels of two models or more.
    pub pairs: Vec<PairReport>,
    /// If there were vectors to compare with.
    pub designs: Vec<Design>,
}

/// Scores that say nothing about ability.
#[derive(Clone, Debug, Serialize)]
pub struct FormatFailure {
    pub task: String,
    pub model: String,
    pub answers: usize,
    /// Mean score.
    pub observed: f64,
    /// Mean score the model's other tasks foretell.
    pub expected: f64,
}

/// Why nothing could be trained.
#[derive(Debug, Error)]
pub enum TrainError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{}:{line}: {problem}", path.display())]
    Line { path: PathBuf, line: usize, problem: BadLine },
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("{} holds no verdict: send some to POST /v1/feedback, or configure [judge]", .0.display())]
    NoVerdicts(PathBuf),
    #[error(
        "{} holds {labelled} verdicts but no prompt to learn from: set `prompts = \"full\"` in [traffic] before the requests come", path.display()
    )]
    NoPrompts { path: PathBuf, labelled: usize },
    #[error("{rows} rows with outcomes; at least {ROWS_MIN} are needed")]
    TooFew { rows: usize },
    #[error(
        "{found} judged answers with signals of their first tokens; at least {wanted} are needed: send verdicts to /v1/feedback, or configure [judge]"
    )]
    TooFewAnswers { found: usize, wanted: usize },
    #[error(
        "all outcomes are of one model, `{0}`: abilities need the answers of several; give --prior to refine a router by them"
    )]
    OneModel(String),
    #[error("every outcome is {0}: there is nothing to learn from one class")]
    SingleClass(&'static str),
    #[error("the prior router cannot be used: {0}")]
    Prior(#[from] AdequacyError),
    #[error("the fit did not succeed: {0}")]
    Logistic(#[from] linfa_logistic::error::Error),
    #[error(
        "more able models are not the better ones in this data (slope {0:.3}): its models are all alike, or its outcomes contradict each other"
    )]
    Contradictory(f64),
}

impl TrainError {
    /// Whether the data, not the program, must change.
    pub fn is_bad_input(&self) -> bool {
        !matches!(self, Self::Logistic(_))
    }
}

/// How far training is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    pub step: &'static str,
    pub done: usize,
    pub of: usize,
}

/// Trains and evaluates; `progress` is told before each step.
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
        // Only rows the difficulty was not fitted on may start from it.
        let unseen = (!wide.contains(&source)).then_some(&model);
        let mut pair = pair::measure(&data, source, unseen, options.seed, &tell);
        tell("learning labelled models", 0, 1);
        let bench = Bench::of(&data, source, unseen, options.seed, Inputs::SERVED);
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
            designs.extend(designs::compare(&data, source, unseen, options.seed, &vectors, &tell));
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

/// The model of ability and difficulty, and which sources taught it.
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

/// A router that is there already; models it does not know are placed on its scale by their scores.
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

/// Indices of the sources that teach difficulty, and of those that label models directly. Without any wide source,
/// every source does both.
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

/// Abilities of the models these sources asked, ascending.
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
