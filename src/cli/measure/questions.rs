//! `wattgate measure` with questions: runs the suite on each model, then writes summary, report and
//! profile.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};

use super::args::{MeasureArgs, profile_path};
use crate::app::harness::with_gateway;
use crate::cli::console::{note, say};
use crate::config::{Config, Engine, weights};
use crate::energy::{Hardware, Profile};
use crate::files;
use crate::measure::{
    Journal, ModelBaseline, Plan, Row, SamplingOptions, Settings, Suite, SuiteError, Summary,
    html_report, run, today, update_profile,
};
use crate::routing::Route;

#[derive(Debug, thiserror::Error)]
#[error("interrupted; finished requests are kept in {}: run the same command with --resume", .dir.display())]
struct Interrupted {
    dir: PathBuf,
}

pub(super) async fn measure(
    args: &MeasureArgs,
    config: &Config,
    models: &[String],
) -> anyhow::Result<()> {
    let suite = suite(args)?;
    // Fails before hours of requests rather than after them.
    Profile::to_update(&profile_path(args, config))?;
    let settings = settings(args, &suite);
    let mut journal = Journal::open(&args.out, &settings, args.resume)?;
    let mut baselines = baselines(&args.out);
    let measured = as_measured(args, config);
    for name in models {
        let plan = plan(args, config, name, &suite);
        let asked = run::outstanding(&plan, &journal);
        if asked == 0 {
            continue;
        }
        let baseline = with_gateway(&measured, name, &args.out, async |gateway| {
            let bar = bar(name, asked as u64)?;
            let progress = |row: &Row| advance(&bar, row);
            let done = tokio::select! {
                done = run::run(&gateway, &plan, &mut journal, &progress) => done.map_err(anyhow::Error::from),
                _ = tokio::signal::ctrl_c() => Err(Interrupted { dir: args.out.clone() }.into()),
            };
            bar.finish_and_clear();
            done
        });
        baselines.insert(name.clone(), baseline.await?);
        files::replace(&args.out.join(BASELINES_FILE), serde_json::to_vec(&baselines)?)?;
    }
    let summary = Summary::of(journal.rows(), settings, &baselines, today());
    write(args, config, &summary)
}

/// The config under measurement: prompts are read whole unless asked otherwise, and idle power is
/// what this run sees.
fn as_measured(args: &MeasureArgs, config: &Config) -> Config {
    let mut config = config.clone();
    (config.energy.idle_watts, config.energy.nvml.idle_watts) = (None, None);
    for (_, model) in &mut config.models {
        if let Engine::Llama(llama) = &mut model.engine {
            llama.prompt_cache = args.warm_cache;
        }
    }
    config
}

fn suite(args: &MeasureArgs) -> Result<Suite, SuiteError> {
    let mut suite = args.suite.as_deref().map_or_else(Suite::shipped, Suite::load)?;
    if suite.skipped > 0 {
        note(&format!("left out {} requests of the log without a prompt", suite.skipped));
    }
    if let Some(limit) = args.limit.filter(|limit| *limit < suite.items.len()) {
        // Evenly spread, because suites are sorted by domain.
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
        warm_cache: args.warm_cache,
        build: env!("CARGO_PKG_VERSION").to_owned(),
        machine: Hardware::here(),
    }
}

fn plan<'a>(args: &MeasureArgs, config: &Config, model: &'a str, suite: &'a Suite) -> Plan<'a> {
    let (route, load_timeout) = match &config.models[model].engine {
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
        sampling: SamplingOptions {
            max_tokens: args.max_tokens,
            temperature: args.temperature,
            seed: args.seed,
            logprobs: args.logprobs,
        },
        keep_answers: suite.items.iter().any(|item| item.check.is_some()),
        load_timeout,
    }
}

const BASELINES_FILE: &str = "baselines.json";

/// Baselines that earlier parts of the run measured.
fn baselines(out: &Path) -> BTreeMap<String, ModelBaseline> {
    let text = fs::read(out.join(BASELINES_FILE)).unwrap_or_default();
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
    files::replace(&json, &text).with_context(|| format!("cannot write {}", json.display()))?;
    files::replace(&html, html_report::render(summary)?)
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

/// How to make the gateway use a profile that its config does not name.
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
