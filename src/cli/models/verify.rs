//! `wattgate models verify`: reads model files again and compares their checksums.

use clap::Args;

use super::target::{Library, ModelFile, each_file};
use crate::cli::config_args::ConfigArgs;
use crate::cli::console::{fail, say};
use crate::models::{self, Progress, Source, Verdict};

/// Read model files again and compare their checksums; exit code 1 if one is wrong
#[derive(Args, Debug)]
pub(super) struct VerifyArgs {
    /// Models of the config or of the catalogue [default: every local model of the config]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    config: ConfigArgs,
}

pub(super) fn run(args: &VerifyArgs) -> anyhow::Result<u8> {
    let named = !args.names.is_empty();
    each_file(&args.config, &args.names, |file, library| Ok(verify(file, library, named)))
}

fn verify(file: &ModelFile<'_>, library: &Library, named: bool) -> u8 {
    let name = file.name;
    let mut progress = Progress::on_stderr();
    let verdict = models::verify(file.source, file.sha256, &library.model_dir, &mut progress);
    drop(progress);
    match verdict {
        Ok(Verdict::Good { sha256 }) => say(&format!("{name}: good, SHA-256 {sha256}")),
        Ok(Verdict::Unknown { sha256 }) => {
            say(&format!("{name}: no checksum to compare with; recorded SHA-256 {sha256}"));
        }
        // A model that was not asked for by name may be absent.
        Ok(Verdict::Missing) if !named => say(&format!("{name}: not on this machine")),
        Ok(Verdict::Missing) => {
            return fail(&format!("{name}: not on this machine\nhint: {}", how_to_get(file)));
        }
        Ok(Verdict::Bad { expected, actual }) => {
            return fail(&format!(
                "{name}: wrong checksum\n  expected {expected}\n  actual   {actual}\nhint: {}",
                how_to_restore(file)
            ));
        }
        Err(error) => return fail(&format!("{name}: its file cannot be read: {error}")),
    }
    0
}

fn how_to_get(file: &ModelFile<'_>) -> String {
    match file.source {
        Source::File(path) => format!("put it at {}", path.display()),
        _ => format!("run `wattgate models pull {}`", file.name),
    }
}

fn how_to_restore(file: &ModelFile<'_>) -> String {
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
