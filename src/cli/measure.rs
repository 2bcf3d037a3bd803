//! `wattgate measure`: intelligence per watt of the config's models on this machine, and the profile that follows from it.
//!
//! Starts a gateway of its own for each model, so that nothing else is loaded, and asks it over loopback. What is asked and
//! how it is reckoned is `crate::measure`.

mod calibrate;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::oneshot;

use super::{BAD_INPUT, ConfigArgs};
use crate::app::App;
use crate::backends::llama::LoadWhen;
use crate::config::{Config, Engine, weights};
use crate::energy::{Hardware, Profile};
use crate::measure::wall::WallMeter;
use crate::measure::{
    Gateway, Journal, JournalError, Manner, Plan, Row, Settings, Standing, Suite, SuiteError,
    Summary, page, run, update_profile,
};
use crate::routing::{PolicyConfig, Route};
use crate::telemetry::{LogLevel, logging};

#[derive(Debug, Args)]
pub struct MeasureArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Models of the config, separated by commas [default: all that could answer]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    models: Vec<String>,
    /// JSON lines of {"id", "prompt", "check", …}, or a traffic log kept with prompts = "full" [default: 330 questions that
    /// come with Wattgate]
    #[arg(long, value_name = "PATH")]
    suite: Option<PathBuf>,
    /// Ask every question so many times
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeats: u32,
    /// After one at a time, ask so many at a time
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    batch: u32,
    /// Only N questions, spread evenly over the suite
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Longest answer in tokens
    #[arg(long, default_value_t = 96, value_name = "TOKENS")]
    max_tokens: u32,
    /// 0 always takes the likeliest token
    #[arg(long, default_value_t = 0.0)]
    temperature: f32,
    /// Requests asked first and not counted
    #[arg(long, default_value_t = 3, value_name = "N")]
    warmup: usize,
    /// Ask for log-probabilities and show perplexities; computing them costs a little energy
    #[arg(long)]
    logprobs: bool,
    /// Folder of the run: rows, summary, report
    #[arg(long, default_value = "data/measure", value_name = "DIR")]
    out: PathBuf,
    /// Where to write what was fitted [default: the config's `profile`, else profile.toml in the folder of the run]
    #[arg(long, value_name = "PATH")]
    profile: Option<PathBuf>,
    /// Go on with the run in the folder
    #[arg(long)]
    resume: bool,
    /// Order of asking, sampling and bootstrap
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Instead of asking questions, set the sensor against a wall meter: a CSV of time and watts, shelly:HOST or tasmota:HOST
    #[arg(long, value_name = "METER")]
    calibrate: Option<WallMeter>,
    /// With --calibrate: how long each step of load counts
    #[arg(long, default_value_t = 20, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(2..=3600))]
    step_seconds: u64,
    /// Write the summary as JSON to standard output
    #[arg(long)]
    json: bool,
}

/// What the caller must mend.
#[derive(Debug, thiserror::Error)]
enum BadInput {
    #[error("no model `{asked}` in the config; there are: {known}")]
    NoModel { asked: String, known: String },
    #[error("`{0}` gives embeddings, which have no right answer: choose others with --models")]
    Embeds(String),
    #[error(
        "`{0}` cannot answer yet, since its file or its API key is missing: `wattgate check` tells which, `wattgate models pull {0}` fetches a file"
    )]
    NotReady(String),
    #[error(
        "no model of the config could answer: pull one (`wattgate models pull`) or set its API key"
    )]
    NoneReady,
    #[error(
        "--batch {batch} needs as many slots, and `{model}` has {slots}: set slots = {batch} in [models.{model}.llama]"
    )]
    Slots { batch: u32, model: String, slots: u32 },
    #[error("--calibrate needs a local model to make load with")]
    NothingLocal,
}

#[derive(Debug, thiserror::Error)]
#[error("interrupted; what was asked is kept in {}: go on with the same command and --resume", .dir.display())]
struct Interrupted {
    dir: PathBuf,
}

pub fn run(args: &MeasureArgs) -> anyhow::Result<u8> {
    let mut config = args.config.load()?;
    config.log.level = LogLevel::Warn;
    logging::init(&config.log);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        let models = models(args, &config)?;
        match &args.calibrate {
            Some(meter) => calibrate::run(args, &config, &models, meter).await,
            None => measure(args, &config, &models).await,
        }
    });
    match done {
        Ok(()) => Ok(0),
        Err(error) if error.is::<BadInput>() || error.is::<SuiteError>() => Ok(refuse(&error)),
        Err(error) if error.downcast_ref::<JournalError>().is_some_and(is_callers) => {
            Ok(refuse(&error))
        }
        Err(error) => Err(error),
    }
}

fn is_callers(error: &JournalError) -> bool {
    !matches!(error, JournalError::Io { .. })
}

#[expect(clippy::print_stderr, reason = "a command's complaints go to standard error")]
fn refuse(error: &anyhow::Error) -> u8 {
    eprintln!("error: {error}");
    BAD_INPUT
}

/// The models that are named, or all text models that could answer.
fn models(args: &MeasureArgs, config: &Config) -> Result<Vec<String>, BadInput> {
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
        Engine::Openai(openai) => openai.api_key_env.as_deref().is_none_or(crate::config::is_set),
    }
}

async fn measure(args: &MeasureArgs, config: &Config, models: &[String]) -> anyhow::Result<()> {
    let suite = suite(args)?;
    // Before hours of asking rather than after.
    Profile::to_update(&profile_path(args, config))?;
    let settings = settings(args, &suite);
    let mut journal = Journal::open(&args.out, &settings, args.resume)?;
    let mut standings = standings(&args.out);
    for name in models {
        let plan = plan(args, config, name, &suite);
        let asked = run::outstanding(&plan, &journal);
        if asked == 0 {
            continue;
        }
        let standing = with_gateway(config, name, &args.out, async |gateway| {
            let bar = bar(name, asked as u64)?;
            let progress = |row: &Row| advance(&bar, row);
            let done = tokio::select! {
                done = run::run(&gateway, &plan, &mut journal, &progress) => done.map_err(Into::into),
                _ = tokio::signal::ctrl_c() => Err(Interrupted { dir: args.out.clone() }.into()),
            };
            bar.finish_and_clear();
            done
        });
        standings.insert(name.clone(), standing.await?);
        fs::write(args.out.join(STANDINGS_FILE), serde_json::to_vec(&standings)?)?;
    }
    let summary = Summary::of(journal.rows(), settings, &standings, today());
    write(args, config, &summary)
}

fn suite(args: &MeasureArgs) -> Result<Suite, SuiteError> {
    let mut suite = args.suite.as_deref().map_or_else(Suite::shipped, Suite::load)?;
    if suite.skipped > 0 {
        note(&format!("left out {} requests of the log without a prompt", suite.skipped));
    }
    if let Some(limit) = args.limit.filter(|limit| *limit < suite.items.len()) {
        // Evenly, because suites are sorted by domain.
        let all = std::mem::take(&mut suite.items);
        let count = all.len();
        let chosen = (0..limit).map(|place| place * count / limit);
        suite.items = chosen.map(|place| all[place].clone()).collect();
    }
    Ok(suite)
}

fn settings(args: &MeasureArgs, suite: &Suite) -> Settings {
    Settings {
        suite: suite.name.clone(),
        suite_sha256: suite.sha256.clone(),
        limit: args.limit,
        max_tokens: args.max_tokens,
        temperature: args.temperature,
        logprobs: args.logprobs,
        seed: args.seed,
        machine: Hardware::here(),
    }
}

fn plan<'a>(args: &MeasureArgs, config: &Config, model: &'a str, suite: &'a Suite) -> Plan<'a> {
    let (route, load_patience) = match &config.models[model].engine {
        Engine::Llama(config) => (Route::Local, Duration::from_millis(config.load_timeout_ms)),
        Engine::Openai(_) => (Route::Cloud, Duration::from_secs(10)),
    };
    Plan {
        model,
        route,
        suite,
        repeats: args.repeats,
        batch: args.batch,
        warmup: args.warmup,
        manner: Manner {
            max_tokens: args.max_tokens,
            temperature: args.temperature,
            seed: args.seed,
            logprobs: args.logprobs,
        },
        keep_answers: suite.items.iter().any(|item| item.check.is_some()),
        load_patience,
    }
}

/// Runs `work` against a gateway that has this model and no other.
async fn with_gateway<T>(
    config: &Config,
    model: &str,
    out: &Path,
    work: impl AsyncFnOnce(Gateway) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let engine_binary =
        std::env::current_exe().context("cannot find the wattgate binary itself")?;
    let app = App::build(alone(config, model, out), engine_binary).await?;
    let gateway = Gateway::new(format!("http://{}", app.address()))?;
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = app.run_until(async { drop(stopped.await) });
    let working = async {
        let done = work(gateway).await;
        drop(stop);
        done
    };
    let (served, done) = tokio::join!(serving, working);
    let done = done?;
    served?;
    Ok(done)
}

/// The config with one model, kept loaded, asked by nobody else, and with nothing remembered in host memory, so that a
/// question that comes again is read again.
fn alone(config: &Config, model: &str, out: &Path) -> Config {
    let mut config = config.clone();
    config.server.listen = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    config.traffic.dir = out.join("traffic");
    config.traffic.prompts = crate::traffic::PromptStorage::Off;
    config.models.retain(|name, _| name == model);
    config.policies =
        BTreeMap::from([(crate::config::DEFAULT_POLICY.to_owned(), PolicyConfig::default())]);
    crate::config::DEFAULT_POLICY.clone_into(&mut config.routing.default_policy);
    // The profile that is to be written may not be there yet.
    config.energy.profile = config.energy.profile.filter(|path| path.exists());
    for (_, model) in &mut config.models {
        if let Engine::Llama(llama) = &mut model.engine {
            llama.load = LoadWhen::Preload;
            llama.host_cache_mib = 0;
        }
    }
    config
}

const STANDINGS_FILE: &str = "standings.json";

/// What earlier parts of the run found out about models that are done.
fn standings(out: &Path) -> BTreeMap<String, Standing> {
    let text = fs::read(out.join(STANDINGS_FILE)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

fn write(args: &MeasureArgs, config: &Config, summary: &Summary) -> anyhow::Result<()> {
    let path = profile_path(args, config);
    let mut profile = Profile::to_update(&path)?;
    let files = config
        .models
        .iter()
        .filter_map(|(name, model)| Some((name.clone(), weights(config, &model.engine)?)));
    update_profile(&mut profile, summary, &files.collect());
    profile.save(&path)?;
    let (json, html) = (args.out.join("summary.json"), args.out.join("report.html"));
    let text = serde_json::to_string_pretty(summary)?;
    fs::write(&json, &text).with_context(|| format!("cannot write {}", json.display()))?;
    fs::write(&html, page::render(summary)?)
        .with_context(|| format!("cannot write {}", html.display()))?;
    if args.json {
        say(&text);
    } else {
        say(&format!(
            "{summary}\n\nreport   {}\nprofile  {}{}",
            html.display(),
            path.display(),
            advice(config, &path)
        ));
    }
    Ok(())
}

fn profile_path(args: &MeasureArgs, config: &Config) -> PathBuf {
    let named = args.profile.clone().or_else(|| config.energy.profile.clone());
    named.unwrap_or_else(|| args.out.join("profile.toml"))
}

/// How the gateway learns of a profile it does not read yet.
fn advice(config: &Config, path: &Path) -> String {
    if config.energy.profile.as_deref() == Some(path) {
        String::new()
    } else {
        format!("\n         to use it: profile = {:?} under [energy]", path.display().to_string())
    }
}

fn bar(model: &str, asked: u64) -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {eta}  {msg}")
        .context("the progress bar's template")?;
    Ok(ProgressBar::new(asked)
        .with_style(style)
        .with_prefix(model.to_owned())
        .with_message("loading"))
}

fn advance(bar: &ProgressBar, row: &Row) {
    let joules = row.joules().map_or_else(|| "? J".to_owned(), |joules| format!("{joules:.2} J"));
    let outcome = match row.score {
        Some(score) if score > 0.5 => "right",
        Some(_) => "wrong",
        None => "",
    };
    bar.set_message(format!("{} at a time, {} {joules} {outcome}", row.batch, row.item));
    bar.inc(1);
}

/// Today's date in UTC.
fn today() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%d").to_string()
}

#[expect(clippy::print_stdout, reason = "a command's result goes to standard output")]
fn say(what: &str) {
    println!("{what}");
}

#[expect(clippy::print_stderr, reason = "a command's notes go to standard error")]
fn note(what: &str) {
    eprintln!("{what}");
}
