//! `wattgate router fit-cascade`: from judged local answers in the log to the weights of their first tokens.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use comfy_table::Table;
use comfy_table::presets::NOTHING;

use super::{refuse, say};
use crate::cli::ConfigArgs;
use crate::routing::Confidence;
use crate::routing::confidence::CONFIDENCE_FILE;
use crate::traffic::{Line, read_log};
use crate::train::cascade::{CascadeReport, Example, Fitted, fit};

#[derive(Debug, Args)]
pub(super) struct FitArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Log file, or folder of log files [default: `traffic.dir` of the config]
    #[arg(long, value_name = "PATH")]
    log: Option<PathBuf>,
    /// Folder of the router to write to, usually a candidate's
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Chooses the cross-validation folds
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write the report as JSON to standard output
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &FitArgs) -> anyhow::Result<u8> {
    let log = match &args.log {
        Some(log) => log.clone(),
        None => args.config.load()?.traffic.dir,
    };
    let lines = match read_log(&log) {
        Ok(lines) => lines,
        Err(error) => return Ok(refuse(&error.to_string())),
    };
    let mut examples: BTreeMap<String, Vec<Example>> = BTreeMap::new();
    for line in lines {
        if let Line::Record(record) = line?
            && let Some((model, example)) = Example::of(&record)
        {
            examples.entry(model).or_default().push(example);
        }
    }
    let fitted = match fit(&examples, args.seed) {
        Ok(fitted) => fitted,
        Err(error) if error.is_bad_input() => return Ok(refuse(&error.to_string())),
        Err(error) => return Err(error.into()),
    };
    let Fitted { weights, reports } = fitted;
    let confidence = Confidence::load(&args.out)?.with(weights);
    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("cannot make {}", args.out.display()))?;
    let path = args.out.join(CONFIDENCE_FILE);
    let text = serde_json::to_string_pretty(&confidence)? + "\n";
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    if args.json {
        say(&serde_json::to_string_pretty(&reports)?);
    } else {
        reports.iter().for_each(show);
        say(&format!("written to {}", path.display()));
    }
    Ok(0)
}

fn show(report: &CascadeReport) {
    let CascadeReport { model, answers, good, auc, auc_of_prompt, thresholds } = report;
    say(&format!(
        "{model}: {answers} answers, {good} of them good; held out, first tokens tell a good answer from a bad one with \
         AUC {auc:.3} (the prompt alone: {auc_of_prompt:.3})"
    ));
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(["threshold", "shown", "good among shown", "good ones dropped"]);
    for row in thresholds {
        let percent = |share: f64| format!("{:.0} %", share * 100.0);
        table.add_row([
            format!("{:.1}", row.threshold),
            percent(row.shown),
            row.good_among_shown.map_or_else(|| "-".to_owned(), percent),
            percent(row.good_dropped),
        ]);
    }
    say(&table.to_string());
}
