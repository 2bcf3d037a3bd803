//! Run of a suite on one model: warm-up, each question alone, then in batches.
//!
//! A batch runs in waves that start and end together: the joules of a whole wave are known without
//! an assumption about their split, which the fit is to improve.

use std::cmp::Reverse;
use std::time::Duration;

use futures::future::try_join_all;
use serde::{Deserialize, Serialize};

use super::client::{Answer, ClientError, Gateway, SamplingOptions};
use super::journal::{Journal, JournalError, Prediction, Row};
use super::scrape;
use super::suite::{Item, Suite};
use crate::energy::Source;
use crate::openai::Message;
use crate::routing::Route;
use crate::traffic::Record;
use crate::units::{Joules, Watts};

/// Part of a measurement that concerns one model.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    pub model: &'a str,
    pub route: Route,
    pub suite: &'a Suite,
    pub repeats: u32,
    /// Batch size after the requests alone; 1: no batches.
    pub batch: u32,
    /// Warm-up requests, not counted.
    pub warmup: usize,
    pub sampling: SamplingOptions,
    /// Keep answers in the journal.
    pub keep_answers: bool,
    /// Longest load of the model.
    pub load_timeout: Duration,
}

/// Load and idle energy of a model.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelBaseline {
    /// Mean energy of a load.
    pub load_joules: Option<Joules>,
    /// Power of the devices that serve it, loaded and idle.
    pub idle_watts: Option<Watts>,
}

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("none of the first {asked} requests to `{model}` was answered: {error}")]
    AllRequestsFailed { model: String, asked: usize, error: String },
}

/// Window for idle power: many meter ticks, and short compared with a suite.
const IDLE_WINDOW: Duration = Duration::from_secs(3);
/// Requests without an answer after which the run fails.
const FAILED_REQUESTS_MAX: usize = 10;

/// One wave of requests.
struct Wave<'a> {
    batch: u32,
    repeat: u32,
    number: u32,
    items: Vec<&'a Item>,
}

/// Number of requests that are not in the journal.
pub fn outstanding(plan: &Plan<'_>, journal: &Journal) -> usize {
    waves(plan, journal).iter().map(|wave| wave.items.len()).sum()
}

/// Runs the requests that are not in the journal. `progress` receives each row.
pub async fn run(
    gateway: &Gateway,
    plan: &Plan<'_>,
    journal: &mut Journal,
    progress: &dyn Fn(&Row),
) -> Result<ModelBaseline, RunError> {
    gateway.until_ready(plan.model, plan.load_timeout).await?;
    let load_joules = load_joules(&gateway.metrics().await?, plan.model);
    for number in 0..plan.warmup {
        gateway.ask(plan.model, &warm_up(number), plan.sampling).await?;
    }
    let idle_watts = match plan.route {
        Route::Local => idle_watts(gateway).await?,
        Route::Cloud => None,
    };
    let (mut asked, mut answered) = (0, 0);
    for wave in waves(plan, journal) {
        let asking = wave.items.iter().map(|item| {
            let seed = plan.sampling.seed.wrapping_add(wave.repeat.into());
            gateway.ask(plan.model, item, SamplingOptions { seed, ..plan.sampling })
        });
        let answers = try_join_all(asking).await?;
        let rows: Vec<Row> = wave
            .items
            .iter()
            .zip(answers)
            .map(|(item, answer)| row(plan, &wave, item, answer))
            .collect();
        asked += rows.len();
        answered += rows.iter().filter(|row| row.error.is_none()).count();
        if answered == 0 && asked >= FAILED_REQUESTS_MAX {
            let error = rows.into_iter().find_map(|row| row.error).unwrap_or_default();
            return Err(RunError::AllRequestsFailed { model: plan.model.to_owned(), asked, error });
        }
        rows.iter().for_each(progress);
        journal.append(rows)?;
    }
    Ok(ModelBaseline { load_joules, idle_watts })
}

/// A question that no suite has: a prompt that was read before would cost nothing to read again.
fn warm_up(number: usize) -> Item {
    let text = format!(
        "Warm-up {number}: tell me in two sentences how a lighthouse keeper spends the day."
    );
    Item {
        id: format!("warm-up-{number}"),
        domain: "general".to_owned(),
        difficulty: 0,
        messages: vec![Message::user(text)],
        check: None,
    }
}

fn row(plan: &Plan<'_>, wave: &Wave<'_>, item: &Item, answer: Answer) -> Row {
    let error = answer.error();
    let Answer { text, mean_logprob, record } = answer;
    let usage = record.usage.unwrap_or_default();
    let predicted = prediction(&record, plan.model);
    let passes = item.check.as_ref().map(|check| error.is_none() && check.passes(&text));
    Row {
        model: plan.model.to_owned(),
        route: plan.route,
        batch: wave.batch,
        repeat: wave.repeat,
        wave: wave.number,
        together: u32::try_from(wave.items.len()).unwrap_or(u32::MAX),
        item: item.id.clone(),
        domain: item.domain.clone(),
        difficulty: item.difficulty,
        score: passes.map(|passes| f64::from(u8::from(passes))),
        energy: record.receipt.energy,
        total_joules: total_joules(&record),
        first_token_s: record.timings.first_token_ms.map(|ms| ms / 1e3),
        total_s: record.timings.total_ms / 1e3,
        prompt_tokens: usage.prompt_tokens,
        cached_tokens: usage.cached_tokens(),
        output_tokens: usage.completion_tokens,
        predicted,
        mean_logprob,
        answer: plan.keep_answers.then_some(text),
        error,
    }
}

/// Energy of all attempts with their shares of idle energy. CPU time knows no idle energy: it is
/// unknown there.
fn total_joules(record: &Record) -> Option<Joules> {
    let attempts = record.receipt.attempts.iter().map(|attempt| {
        let source = attempt.energy?.source;
        let knows_idle =
            !matches!(source, Source::CpuModel | Source::CloudTable | Source::Upstream);
        attempt.amortised_joules.filter(|_| knows_idle)
    });
    let total: Option<Joules> = attempts.sum();
    total.filter(|_| !record.receipt.attempts.is_empty())
}

/// Prediction of the gateway in the record, if there is one.
fn prediction(record: &Record, model: &str) -> Option<Prediction> {
    let judged = record.receipt.candidates.iter().map(|judged| &judged.candidate);
    let candidate = judged.into_iter().find(|candidate| *candidate.model == *model)?;
    Some(Prediction {
        prompt_tokens: record.features.prompt_tokens.into(),
        cached_tokens: candidate.cache.map_or(0, |cache| cache.tokens.into()),
        output_tokens: candidate.output_tokens?.into(),
        joules: candidate.joules,
    })
}

/// All outstanding waves in order, single requests first.
fn waves<'a>(plan: &Plan<'a>, journal: &Journal) -> Vec<Wave<'a>> {
    let batches = if plan.batch > 1 { vec![1, plan.batch] } else { vec![1] };
    let mut waves = Vec::new();
    for batch in batches {
        for repeat in 0..plan.repeats {
            let mut random =
                fastrand::Rng::with_seed(plan.sampling.seed.wrapping_add(repeat.into()));
            let mut items: Vec<&Item> = plan.suite.items.iter().collect();
            random.shuffle(&mut items);
            // Prompts of similar length share a wave, so that waves differ from each other;
            // otherwise the fit could not separate the costs.
            if batch > 1 {
                items.sort_by_key(|item| Reverse(prompt_bytes(item)));
            }
            let mut of_repeat: Vec<Vec<&Item>> =
                items.chunks(batch as usize).map(<[&Item]>::to_vec).collect();
            random.shuffle(&mut of_repeat);
            for (number, mut items) in (0..).zip(of_repeat) {
                items.retain(|item| !journal.has(plan.model, batch, repeat, &item.id));
                if !items.is_empty() {
                    waves.push(Wave { batch, repeat, number, items });
                }
            }
        }
    }
    waves
}

fn prompt_bytes(item: &Item) -> usize {
    let contents = item.messages.iter().filter_map(|Message { content, .. }| content.as_ref());
    contents.map(|content| content.text().len()).sum()
}

/// Mean energy of the model's loads so far.
fn load_joules(metrics: &str, model: &str) -> Option<Joules> {
    let of_model = |labels: &str| scrape::has(labels, "model", model);
    let joules = scrape::sum(metrics, "wattgate_model_load_energy_joules_total", of_model)?;
    let loads = scrape::sum(metrics, "wattgate_model_loads_total", of_model)?;
    (joules > 0.0 && loads > 0.0).then(|| Joules(joules / loads))
}

async fn idle_watts(gateway: &Gateway) -> Result<Option<Watts>, ClientError> {
    let before = device_joules(&gateway.metrics().await?);
    let watched = tokio::time::Instant::now();
    tokio::time::sleep(IDLE_WINDOW).await;
    let after = device_joules(&gateway.metrics().await?);
    let seconds = watched.elapsed().as_secs_f64();
    Ok(before.zip(after).map(|(before, after)| Watts((after - before).max(0.0) / seconds)))
}

/// Joules of all devices that serve requests, without the gateway itself.
pub(super) fn device_joules(metrics: &str) -> Option<f64> {
    let serves = |labels: &str| !scrape::has(labels, "device", "gateway");
    scrape::sum(metrics, "wattgate_device_energy_joules_total", serves)
}
