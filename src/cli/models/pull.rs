//! `wattgate models pull`: brings model files to this machine.

use clap::Args;

use super::target::{Library, ModelFile, Target};
use crate::cli::{ConfigArgs, FAILED};
use crate::config::model_tables;
use crate::models::{Progress, known, pull};

/// Fetch and verify model files; what is already here is left alone
#[derive(Args, Debug)]
pub(super) struct PullArgs {
    /// Models of the config or of the catalogue [default: every local model of the config]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Pulls each, past the failures of others.
pub(super) fn run(args: &PullArgs) -> anyhow::Result<u8> {
    let library = Library::open(&args.config, &args.names)?;
    let targets = match library.targets(&args.names) {
        Ok(targets) => targets,
        Err(error) => return Ok(super::bad_name(&error)),
    };
    let mut code = 0;
    for target in &targets {
        match target {
            Target::Elsewhere(name) if !args.names.is_empty() => super::elsewhere(name),
            Target::Elsewhere(_) => {}
            Target::File(file) => code = code.max(pull_one(file, &library)),
        }
    }
    Ok(code)
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a command talks to a person")]
fn pull_one(file: &ModelFile<'_>, library: &Library) -> u8 {
    let name = file.name;
    let mut progress = Progress::on_stderr();
    let result = pull(file.source, file.sha256, &library.model_dir, &mut progress);
    drop(progress);
    match result {
        Ok(pulled) => {
            let how = if pulled.fetched { "pulled to" } else { "already there:" };
            println!("{name}: {how} {}", pulled.path.display());
            if let Some(entry) = known(name).filter(|_| !file.configured) {
                println!("to serve it, put this into the config:\n\n{}", model_tables(entry));
            }
            0
        }
        Err(error) => {
            let hint = error.hint();
            eprintln!("error: {name}: {:#}\nhint: {hint}", anyhow::Error::new(error));
            FAILED
        }
    }
}
