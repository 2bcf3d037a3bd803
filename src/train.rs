//! From outcome files to a router: abilities, text difficulty, heads of its own for labelled models, honest figures.
//!
//! Deterministic given data, seed and kind of CPU. Reads files and computes; never serves, never prints. Every figure
//! in the [`Report`] comes from rows that the scored weights have not seen.

mod ability;
mod calibrate;
mod card;
pub mod cascade;
mod fit;
mod labelled;
mod log;
pub mod metrics;
mod outcomes;
pub mod versions;

use std::path::PathBuf;

use serde::Serialize;
use thiserror::Error;

use crate::routing::AdequacyModel;
use crate::routing::drift::{AVERAGE_ABILITY, Reference};
use crate::routing::text::FeatureSchema;
use crate::traffic::LogError;
use ability::Abilities;
pub use calibrate::Calibration;
pub use card::{CARD_FILE, card};
use fit::Examples;
pub use labelled::PairReport;
use outcomes::Data;
pub use outcomes::{BadLine, Source};

/// A source that asked fewer models than this says little about difficulty, but labels those models directly.
const MODELS_FOR_DIFFICULTY: usize = 5;
/// Quantile of ability from which a model counts as strong. What strong models fail is hard; what weak ones fail
/// on multiple choice is half chance, and ranked other sources' prompts worse when it was tried.
const STRONG_QUANTILE: f64 = 0.6;
/// Below this many rows nothing learnt from them means anything.
const ROWS_MIN: usize = 20;

/// What to train from.
#[derive(Clone, Debug)]
pub struct Options {
    /// Outcome files, JSON lines, plain or gzip.
    pub data: Vec<PathBuf>,
    /// Logs of a gateway that kept prompts: files, or folders of them.
    pub logs: Vec<PathBuf>,
    /// Chooses the folds.
    pub seed: u64,
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
    /// Rows left out because an earlier row had the same text and the same models.
    pub duplicates: usize,
    /// `(source/task, model)` cells whose scores are failures of the answer's format, not of ability.
    pub format_failures: Vec<FormatFailure>,
    /// Canonical name and ability, weakest first.
    pub abilities: Vec<(String, f64)>,
    pub calibration: Calibration,
    /// One for each source with direct labels of two models or more.
    pub pairs: Vec<PairReport>,
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
    #[error("every outcome is {0}: there is nothing to learn from one class")]
    SingleClass(&'static str),
    #[error("the fit did not succeed: {0}")]
    Logistic(#[from] linfa_logistic::error::Error),
    #[error(
        "more able models are not the better ones in this data (slope {0:.3}); the outcomes contradict each other"
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
    tell("fitting abilities", 0, 1);
    let abilities = ability::fit(&data);
    let (wide, labelled) = split(&data);
    let examples = difficulty_examples(&data, &abilities, &wide);
    let (scaled, calibration) = calibrate::fit(&data, &abilities, &examples, options.seed, &tell)?;
    let mut model = AdequacyModel {
        schema: FeatureSchema::current(),
        slope: scaled.slope,
        difficulty: scaled.difficulty,
        abilities: data.models.iter().cloned().zip(abilities.theta.iter().copied()).collect(),
        own_heads: [].into(),
    };
    let mut pairs = Vec::new();
    for source in labelled {
        // Only rows the difficulty was not fitted on may carry it as a feature.
        let unseen = !wide.contains(&source);
        let (heads, pair) =
            labelled::fit(&data, source, unseen.then_some(&model), options.seed, &tell)?;
        model.own_heads.extend(heads);
        pairs.extend(pair);
    }
    let average_p = |row: &outcomes::Row| model.predict(&row.text, AVERAGE_ABILITY);
    let reference = Reference::of(data.rows.iter().map(average_p).collect());
    let report = Report {
        seed: options.seed,
        duplicates: data.duplicates,
        format_failures: abilities.failures.clone(),
        abilities: ranked(&data, &abilities),
        calibration,
        pairs,
        sources: data.sources,
    };
    Ok(Trained { model, report, reference })
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
    let strong = strong_from(data, abilities, sources);
    (0..data.rows.len())
        .filter(|&row| sources.contains(&data.rows[row].source))
        .filter_map(|row| {
            let scores: Vec<f64> = abilities
                .sound(data, row)
                .filter(|outcome| abilities.theta[outcome.model] >= strong)
                .map(|outcome| outcome.score)
                .collect();
            let mean = scores.iter().sum::<f64>() / scores.len() as f64;
            (!scores.is_empty()).then_some((row, mean))
        })
        .collect()
}

/// Least ability of a strong model among those these sources asked.
fn strong_from(data: &Data, abilities: &Abilities, sources: &[usize]) -> f64 {
    let mut asked = vec![false; data.models.len()];
    let rows = data.rows.iter().filter(|row| sources.contains(&row.source));
    rows.flat_map(|row| &row.outcomes).for_each(|outcome| asked[outcome.model] = true);
    let mut theta: Vec<f64> =
        abilities.theta.iter().zip(asked).filter_map(|(&t, asked)| asked.then_some(t)).collect();
    theta.sort_by(f64::total_cmp);
    metrics::quantile(&theta, STRONG_QUANTILE)
}

fn ranked(data: &Data, abilities: &Abilities) -> Vec<(String, f64)> {
    let mut ranked: Vec<(String, f64)> =
        data.models.iter().cloned().zip(abilities.theta.iter().copied()).collect();
    ranked.sort_by(|a, b| a.1.total_cmp(&b.1).then_with(|| a.0.cmp(&b.0)));
    ranked
}
