//! Arguments of `wattgate measure`, and the models that they select.

use std::path::PathBuf;

use clap::Args;

use crate::backends::cloud;
use crate::cli::config_args::ConfigArgs;
use crate::config::{Config, Engine};
use crate::measure::wall::WallMeter;

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the command")]
pub(crate) struct MeasureArgs {
    #[command(flatten)]
    pub(super) config: ConfigArgs,
    /// Models of the config, separated by commas [default: all that could answer]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(super) models: Vec<String>,
    /// JSON lines of {"id", "prompt", "check", …}, or a traffic log kept with prompts = "full"
    /// [default: 330 questions that come with Wattgate]
    #[arg(long, value_name = "PATH")]
    pub(super) suite: Option<PathBuf>,
    /// Send each question N times
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) repeats: u32,
    /// After single requests, repeat the suite in batches of N
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(super) batch: u32,
    /// Only N questions, spread evenly over the suite
    #[arg(long, value_name = "N")]
    pub(super) limit: Option<usize>,
    /// Longest answer in tokens
    #[arg(long, default_value_t = 96, value_name = "TOKENS")]
    pub(super) max_tokens: u32,
    /// Sampling temperature; 0 is greedy
    #[arg(long, default_value_t = 0.0)]
    pub(super) temperature: f32,
    /// Warm-up requests, not counted
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub(super) warmup: usize,
    /// Let prompts come from the model's caches, as in service; otherwise each is read whole
    #[arg(long)]
    pub(super) warm_cache: bool,
    /// Request log-probabilities and show perplexities, which costs a little energy
    #[arg(long)]
    pub(super) logprobs: bool,
    /// Folder of the run: rows, summary, report
    #[arg(long, default_value = "data/measure", value_name = "DIR")]
    pub(super) out: PathBuf,
    /// Profile to update [default: the config's `profile`, else profile.toml in the folder of the
    /// run]
    #[arg(long, value_name = "PATH")]
    pub(super) profile: Option<PathBuf>,
    /// Resume the run in the folder
    #[arg(long)]
    pub(super) resume: bool,
    /// Seed of the order, the sampling and the bootstrap
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// Calibrate the sensor against a wall meter instead of sending questions: a CSV of time and
    /// watts, shelly:HOST or tasmota:HOST
    #[arg(long, value_name = "METER")]
    pub(super) calibrate: Option<WallMeter>,
    /// With --calibrate: length of the counted part of each load step
    #[arg(long, default_value_t = 20, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(2..=3600))]
    pub(super) step_seconds: u64,
    /// Compare runs by their folders instead of measuring: other machines, dates, builds, models
    #[arg(long, value_name = "DIR", num_args = 2.., conflicts_with_all = ["calibrate", "resume"])]
    pub(super) compare: Vec<PathBuf>,
    /// Write the summary as JSON to standard output
    #[arg(long)]
    pub(super) json: bool,
}

/// Why the arguments cannot be used with this config.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadInput {
    #[error("no model `{asked}` in the config; its models: {known}")]
    NoModel { asked: String, known: String },
    #[error("`{0}` is an embedding model, which cannot be graded: choose others with --models")]
    Embeds(String),
    #[error(
        "`{0}` cannot answer: its file or API key is missing. `wattgate check` shows which; `wattgate models pull {0}` downloads a file"
    )]
    NotReady(String),
    #[error(
        "no model of the config can answer: pull one with `wattgate models pull`, or set an API key"
    )]
    NoneReady,
    #[error(
        "--batch {batch} needs {batch} slots, `{model}` has {slots}: set slots = {batch} in [models.{model}.llama]"
    )]
    Slots { batch: u32, model: String, slots: u32 },
    #[error("--calibrate needs a local model to generate load")]
    NothingLocal,
}

/// Returns the named models, or all text models that could answer.
pub(super) fn models(args: &MeasureArgs, config: &Config) -> Result<Vec<String>, BadInput> {
    for asked in &args.models {
        let known = || config.models.keys().cloned().collect::<Vec<_>>().join(", ");
        let model = config.models.get(asked);
        let model =
            model.ok_or_else(|| BadInput::NoModel { asked: asked.clone(), known: known() })?;
        if embeds(&model.engine) {
            return Err(BadInput::Embeds(asked.clone()));
        }
        if !could_answer(config, &model.engine) {
            return Err(BadInput::NotReady(asked.clone()));
        }
    }
    let ready = config
        .models
        .iter()
        .filter(|(_, model)| !embeds(&model.engine) && could_answer(config, &model.engine));
    let names = if args.models.is_empty() {
        ready.map(|(name, _)| name.clone()).collect()
    } else {
        args.models.clone()
    };
    for name in &names {
        if let Engine::Llama(llama) = &config.models[name].engine
            && llama.slots < args.batch
        {
            return Err(BadInput::Slots {
                batch: args.batch,
                model: name.clone(),
                slots: llama.slots,
            });
        }
    }
    if names.is_empty() { Err(BadInput::NoneReady) } else { Ok(names) }
}

fn embeds(engine: &Engine) -> bool {
    match engine {
        Engine::Llama(config) => config.embedding,
        Engine::Openai(config) => config.embedding,
    }
}

fn could_answer(config: &Config, engine: &Engine) -> bool {
    match engine {
        Engine::Llama(llama) => crate::models::resolve(&llama.source, &config.model_dir).is_file(),
        Engine::Openai(openai) => {
            let (first, others) = openai.resolved();
            let has_key =
                |one: &cloud::Config| one.api_key_env.as_deref().is_none_or(crate::config::is_set);
            has_key(&first) || others.iter().any(has_key)
        }
    }
}

/// Where the fitted profile goes.
pub(super) fn profile_path(args: &MeasureArgs, config: &Config) -> PathBuf {
    let named = args.profile.clone().or_else(|| config.energy.profile.clone());
    named.unwrap_or_else(|| args.out.join("profile.toml"))
}
