//! `wattgate models rm`: takes pulled models off this machine, after asking.

use std::io::{self, IsTerminal};

use clap::Args;
use indicatif::HumanBytes;

use super::target::{Library, ModelFile, Target};
use crate::cli::{BAD_INPUT, ConfigArgs, FAILED, confirm};
use crate::models::{RemoveError, removable_bytes, remove};

/// Remove pulled model files from this machine
#[derive(Args, Debug)]
pub(super) struct RemoveArgs {
    /// Models of the config or of the catalogue
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Removes each, past the failures of others.
pub(super) fn run(args: &RemoveArgs) -> anyhow::Result<u8> {
    let library = Library::open(&args.config, &args.names)?;
    let targets = match library.targets(&args.names) {
        Ok(targets) => targets,
        Err(error) => return Ok(super::bad_name(&error)),
    };
    let mut code = 0;
    for target in &targets {
        match target {
            Target::Elsewhere(name) => super::elsewhere(name),
            Target::File(file) => code = code.max(remove_one(file, &library, args)?),
        }
    }
    Ok(code)
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a command talks to a person")]
fn remove_one(file: &ModelFile<'_>, library: &Library, args: &RemoveArgs) -> io::Result<u8> {
    let (name, source, model_dir) = (file.name, file.source, library.model_dir.as_path());
    let others = library.others_at(source, &args.names);
    if !others.is_empty() {
        let others = others.join(", ");
        eprintln!(
            "error: {name}: {others} in the config needs the same file\nhint: name all of them, or change the config first"
        );
        return Ok(FAILED);
    }
    let failed = |error: RemoveError| {
        let hint = error.hint();
        eprintln!("error: {name}: {:#}\nhint: {hint}", anyhow::Error::new(error));
        FAILED
    };
    let bytes = match removable_bytes(source, model_dir) {
        Ok(bytes) => bytes,
        Err(error) => return Ok(failed(error)),
    };
    if bytes == 0 {
        println!("{name}: is not on this machine, nothing to free");
        return Ok(0);
    }
    if !args.yes && !io::stdin().is_terminal() {
        eprintln!("error: nobody can be asked here\nhint: say --yes to remove without asking");
        return Ok(BAD_INPUT);
    }
    if !args.yes && !confirm(&format!("remove {name} ({})?", HumanBytes(bytes)), false)? {
        println!("{name}: kept");
        return Ok(0);
    }
    Ok(match remove(source, model_dir) {
        Ok(bytes) => {
            println!("{name}: removed, {} freed", HumanBytes(bytes));
            0
        }
        Err(error) => failed(error),
    })
}
