//! `wattgate models verify`: reads model files again and says whether they are still what they should be.

use clap::Args;

use super::target::{Library, ModelFile, Target};
use crate::cli::{ConfigArgs, FAILED};
use crate::models::{Progress, Source, Verdict, verify};

/// Read model files again and compare their checksums; exit code 1 if one is wrong
#[derive(Args, Debug)]
pub(super) struct VerifyArgs {
    /// Models of the config or of the catalogue [default: every local model of the config]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Verifies each, past the failures of others.
pub(super) fn run(args: &VerifyArgs) -> anyhow::Result<u8> {
    let library = Library::open(&args.config, &args.names)?;
    let targets = match library.targets(&args.names) {
        Ok(targets) => targets,
        Err(error) => return Ok(super::bad_name(&error)),
    };
    let named = !args.names.is_empty();
    let mut code = 0;
    for target in &targets {
        match target {
            Target::Elsewhere(name) if named => super::elsewhere(name),
            Target::Elsewhere(_) => {}
            Target::File(file) => code = code.max(verify_one(file, &library, named)),
        }
    }
    Ok(code)
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a command talks to a person")]
fn verify_one(file: &ModelFile<'_>, library: &Library, named: bool) -> u8 {
    let name = file.name;
    let mut progress = Progress::on_stderr();
    let verdict = verify(file.source, file.sha256, &library.model_dir, &mut progress);
    drop(progress);
    match verdict {
        Ok(Verdict::Good { sha256 }) => println!("{name}: good, SHA-256 {sha256}"),
        Ok(Verdict::Unknown { sha256 }) => {
            println!("{name}: nothing to compare with yet, SHA-256 {sha256} is remembered");
        }
        // Only who asks for a model by name expects it to be here.
        Ok(Verdict::Missing) if !named => println!("{name}: not on this machine"),
        Ok(Verdict::Missing) => {
            eprintln!("error: {name}: not on this machine\nhint: {}", way_here(file));
            return FAILED;
        }
        Ok(Verdict::Bad { expected, actual }) => {
            eprintln!(
                "error: {name}: the file is not what it should be\n  expected {expected}\n  actual   {actual}\nhint: {}",
                way_back(file)
            );
            return FAILED;
        }
        Err(error) => {
            eprintln!("error: {name}: its file cannot be read: {error}");
            return FAILED;
        }
    }
    0
}

fn way_here(file: &ModelFile<'_>) -> String {
    match file.source {
        Source::File(path) => format!("put it at {}", path.display()),
        _ => format!("run `wattgate models pull {}`", file.name),
    }
}

fn way_back(file: &ModelFile<'_>) -> String {
    let name = file.name;
    match file.source {
        Source::File(_) => {
            "restore it, or correct `sha256` in the config if it was meant to change".into()
        }
        _ if file.sha256.is_some() => {
            format!("run `wattgate models pull {name}` to fetch it again")
        }
        _ => format!("run `wattgate models rm {name}` and `wattgate models pull {name}`"),
    }
}
