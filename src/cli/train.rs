//! `wattgate train`: a router from outcome files or the traffic log.
//!
//! Reads data, writes the router's folder, prints its quality. `crate::train` does the learning.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::console::{refuse, say};
use crate::routing::Confidence;
use crate::train::{
    self, CALIBRATION_PLOT_FILE, CARD_FILE, Options, Progress, Report, calibration_plot, card,
    cascade, comparison,
};

#[derive(Debug, Args)]
pub(super) struct TrainArgs {
    /// Outcome file: JSON lines of id, source, task, query, outcomes; plain or gzip; may be
    /// repeated
    #[arg(long, value_name = "PATH", required_unless_present = "log")]
    data: Vec<PathBuf>,
    /// Traffic log with `prompts = "full"`: its requests with verdicts; a file or a folder; may be
    /// repeated. Abilities need prompts that several models answered: give --data or --prior too if
    /// your log has none
    #[arg(long, value_name = "PATH")]
    log: Vec<PathBuf>,
    /// Refine this router instead of training one from scratch: for 20 or more labels of your own
    #[arg(long, value_name = "DIR")]
    prior: Option<PathBuf>,
    /// Vectors of the labelled rows from `scripts/router-vectors`: a design to compare; may be
    /// repeated
    #[arg(long, value_name = "FILE", requires = "compare")]
    vectors: Vec<PathBuf>,
    /// File for the comparison of designs, in Markdown
    #[arg(long, value_name = "FILE", requires = "vectors")]
    compare: Option<PathBuf>,
    /// Folder of the router; its files are replaced
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Chooses the cross-validation folds
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write the report as JSON to standard output
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &TrainArgs) -> anyhow::Result<u8> {
    let options = Options {
        data: args.data.clone(),
        logs: args.log.clone(),
        seed: args.seed,
        prior: args.prior.clone(),
        vectors: args.vectors.clone(),
    };
    let bar = ProgressBar::new(1).with_style(
        ProgressStyle::with_template("{msg:28} {wide_bar} {pos}/{len} {elapsed}")
            .context("the progress bar's template")?,
    );
    let trained = train::train(&options, &|Progress { step, done, of }| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
        bar.set_message(step);
    });
    bar.finish_and_clear();
    let trained = match trained {
        Ok(trained) => trained,
        Err(error) if error.is_bad_input() => return Ok(refuse(&error.to_string())),
        Err(error) => return Err(error.into()),
    };
    trained.model.save(&args.out)?;
    if let Some(reference) = &trained.reference {
        reference.save(&args.out)?;
    }
    let fitted = fit_cascade(args)?;
    let texts = [
        (CARD_FILE, card(&trained.report, &command(args))),
        (CALIBRATION_PLOT_FILE, calibration_plot(&trained.report)?),
    ];
    for (name, text) in texts {
        let path = args.out.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &args.compare {
        fs::write(path, comparison(&trained.report.designs, &command(args)))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    show(&trained.report, fitted, args)?;
    Ok(0)
}

/// Fits the cascade to the logs if they hold enough judged answers; otherwise keeps that of the
/// prior router. Returns the number of answers that were used.
fn fit_cascade(args: &TrainArgs) -> anyhow::Result<usize> {
    let known = match &args.prior {
        Some(prior) => Confidence::load(prior)?,
        None => Confidence::built_in()?,
    };
    let examples = cascade::labelled_answers(&args.log)?;
    let (confidence, used) = match cascade::fit(&examples, args.seed) {
        Ok(fitted) => (known.with(fitted.weights), examples.values().map(Vec::len).sum()),
        // Too few of them, or all alike.
        Err(error) if error.is_bad_input() => (known, 0),
        Err(error) => return Err(error.into()),
    };
    confidence
        .save(&args.out)
        .with_context(|| format!("cannot write to {}", args.out.display()))?;
    Ok(used)
}

/// The command with file names only, so that the card does not depend on their folders.
fn command(args: &TrainArgs) -> String {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let data = args.data.iter().map(|path| format!("--data {}", name(path)));
    let logs = args.log.iter().map(|path| format!("--log {}", name(path)));
    let vectors = args.vectors.iter().map(|path| format!("--vectors {}", name(path)));
    let compare = args.compare.iter().map(|path| format!("--compare {}", name(path)));
    let data: Vec<String> = data.chain(logs).chain(vectors).chain(compare).collect();
    let prior = args
        .prior
        .as_deref()
        .map_or_else(String::new, |prior| format!(" --prior router-models/{}", name(prior)));
    format!(
        "wattgate train {}{prior} --out router-models/{} --seed {}",
        data.join(" "),
        name(&args.out),
        args.seed
    )
}

fn show(report: &Report, fitted: usize, args: &TrainArgs) -> anyhow::Result<()> {
    if args.json {
        say(&serde_json::to_string_pretty(report)?);
        return Ok(());
    }
    let rows: usize = report.sources.iter().map(|source| source.rows).sum();
    say(&format!("{rows} rows, {} models -> {}", report.abilities.len(), args.out.display()));
    if report.duplicates > 0 {
        let (duplicates, contradictions) = (report.duplicates, report.contradictions);
        say(&format!(
            "{duplicates} duplicate rows averaged, {contradictions} of them with different scores"
        ));
    }
    if report.unsampled > 0 {
        say(&format!("{} rows left out: training takes a random sample", report.unsampled));
    }
    if let Some(held_out) = report.calibration.as_ref().map(|found| found.all) {
        say(&format!("held out: ECE {:.3}, Brier {:.3}", held_out.ece, held_out.brier));
    }
    for pair in &report.pairs {
        say(&format!(
            "{}: gain from {} to {}: APGR {:.3} ± {:.3}, CPT50 {:.1} %, CPT80 {:.1} %",
            pair.source,
            pair.weak,
            pair.strong,
            pair.in_domain.apgr,
            pair.in_domain_apgr_sd,
            pair.in_domain.cpt50,
            pair.in_domain.cpt80,
        ));
    }
    if fitted > 0 {
        say(&format!("the cascade's confidence is fitted to {fitted} judged answers of the log"));
    }
    say(&format!("more in {}", args.out.join(CARD_FILE).display()));
    Ok(())
}
