//! `wattgate router fit-cascade`: weights of the first tokens of local answers, from judged answers
//! in the log.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use crate::cli::config_args::ConfigArgs;
use crate::cli::console::{note, refuse, say};
use crate::cli::table::plain;
use crate::routing::adequacy::MODEL_FILE;
use crate::routing::confidence::CONFIDENCE_FILE;
use crate::routing::drift::Reference;
use crate::routing::{AdequacyModel, Confidence};
use crate::train::cascade::{self, CascadeReport, Fitted};

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
    let fitted =
        cascade::labelled_answers(&[log]).and_then(|examples| cascade::fit(&examples, args.seed));
    let Fitted { weights, reports } = match fitted {
        Ok(fitted) => fitted,
        Err(error) if error.is_bad_input() => return Ok(refuse(&error.to_string())),
        Err(error) => return Err(error.into()),
    };
    let cannot_write = || format!("cannot write to {}", args.out.display());
    if !args.out.join(MODEL_FILE).exists() {
        // Weights need a router next to them.
        AdequacyModel::built_in()?.save(&args.out)?;
        Reference::built_in()?.save(&args.out).with_context(cannot_write)?;
        note(&format!("{} had no router: wrote the built-in one", args.out.display()));
    }
    Confidence::load(&args.out)?.with(weights).save(&args.out).with_context(cannot_write)?;
    if args.json {
        say(&serde_json::to_string_pretty(&reports)?);
    } else {
        reports.iter().for_each(show);
        say(&format!("written to {}", args.out.join(CONFIDENCE_FILE).display()));
    }
    Ok(0)
}

fn show(report: &CascadeReport) {
    let CascadeReport { model, answers, good, auc, auc_of_prompt, reliability, thresholds } =
        report;
    say(&format!(
        "{model}: {answers} answers, {good} of them good; held out, first tokens tell a good answer from a bad one with \
         AUC {auc:.3} (the prompt alone: {auc_of_prompt:.3}); ECE {:.3}",
        reliability.ece
    ));
    let mut table = plain(["threshold", "shown", "good among shown", "good ones dropped"]);
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
