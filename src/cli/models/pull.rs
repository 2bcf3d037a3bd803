//! `wattgate models pull`: downloads model files.

use clap::Args;

use super::target::{Library, ModelFile, each_file};
use crate::cli::config_args::ConfigArgs;
use crate::cli::console::{fail, say};
use crate::config::model_tables;
use crate::models::{self, Progress, known};

/// Download and verify model files; files that are present are kept
#[derive(Args, Debug)]
pub(super) struct PullArgs {
    /// Models of the config or of the catalogue [default: every local model of the config]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    config: ConfigArgs,
}

pub(super) fn run(args: &PullArgs) -> anyhow::Result<u8> {
    each_file(&args.config, &args.names, |file, library| Ok(pull(file, library)))
}

fn pull(file: &ModelFile<'_>, library: &Library) -> u8 {
    let name = file.name;
    let mut progress = Progress::on_stderr();
    let result = models::pull(file.source, file.sha256, &library.model_dir, &mut progress);
    drop(progress);
    match result {
        Ok(pulled) => {
            let how = if pulled.fetched { "pulled to" } else { "already there:" };
            say(&format!("{name}: {how} {}", pulled.path.display()));
            if let Some(entry) = known(name).filter(|_| !file.configured) {
                say(&format!("to serve it, add this to the config:\n\n{}", model_tables(entry)));
            }
            0
        }
        Err(error) => {
            let hint = error.hint();
            fail(&format!("{name}: {:#}\nhint: {hint}", anyhow::Error::new(error)))
        }
    }
}
