//! `wattgate models rm`: removes pulled model files, after a confirmation.

use std::io::{self, IsTerminal};

use clap::Args;
use indicatif::HumanBytes;

use super::target::{Library, ModelFile, each_file};
use crate::cli::config_args::ConfigArgs;
use crate::cli::console::{confirm, fail, refuse, say};
use crate::models::{self, RemoveError, removable_bytes};

/// Remove pulled model files from this machine
#[derive(Args, Debug)]
pub(super) struct RemoveArgs {
    /// Models of the config or of the catalogue
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

pub(super) fn run(args: &RemoveArgs) -> anyhow::Result<u8> {
    each_file(&args.config, &args.names, |file, library| Ok(remove(file, library, args)?))
}

fn remove(file: &ModelFile<'_>, library: &Library, args: &RemoveArgs) -> io::Result<u8> {
    let (name, source, model_dir) = (file.name, file.source, library.model_dir.as_path());
    let others = library.others_at(source, &args.names);
    if !others.is_empty() {
        let others = others.join(", ");
        return Ok(fail(&format!(
            "{name}: {others} in the config needs the same file\nhint: name all of them, or change the config first"
        )));
    }
    let failed = |error: RemoveError| {
        let hint = error.hint();
        fail(&format!("{name}: {:#}\nhint: {hint}", anyhow::Error::new(error)))
    };
    let bytes = match removable_bytes(source, model_dir) {
        Ok(bytes) => bytes,
        Err(error) => return Ok(failed(error)),
    };
    if bytes == 0 {
        say(&format!("{name}: is not on this machine, nothing to free"));
        return Ok(0);
    }
    if !args.yes && !io::stdin().is_terminal() {
        return Ok(refuse(
            "standard input is not a terminal\nhint: use --yes to remove without asking",
        ));
    }
    if !args.yes && !confirm(&format!("remove {name} ({})?", HumanBytes(bytes)), false)? {
        say(&format!("{name}: kept"));
        return Ok(0);
    }
    Ok(match models::remove(source, model_dir) {
        Ok(bytes) => {
            say(&format!("{name}: removed, {} freed", HumanBytes(bytes)));
            0
        }
        Err(error) => failed(error),
    })
}
