//! `wattgate init`: a configuration with a local model that fits this machine.
//!
//! Prints the resources it found, the recommended model and the reason. Replaces a file only with
//! `--force`.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use indicatif::HumanBytes;
use serde::Serialize;

use super::config_args::CONFIG_FILE;
use super::console::{confirm, fail, refuse, say};
use crate::backends::llama;
use crate::config::generate;
use crate::models::{Gpu, GpuMemory, Machine, Recommendation, Roots, catalogue, recommend};

/// Write a config with a local model that fits this machine
#[derive(Args, Debug)]
pub(super) struct InitArgs {
    /// File to write
    #[arg(long, default_value = CONFIG_FILE, value_name = "PATH")]
    config: PathBuf,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
    /// Write the result as JSON to standard output; does not ask
    #[arg(long)]
    json: bool,
}

/// Result as JSON.
#[derive(Serialize)]
struct Report<'a> {
    machine: &'a Machine,
    choice: &'a Recommendation<'a>,
    reason: String,
    config: &'a Path,
    next: [String; 2],
}

/// Runs the command and returns its exit code.
pub(super) fn run(args: &InitArgs) -> anyhow::Result<u8> {
    if !llama::BUILT_IN {
        return Ok(fail(&format!("{}\nhint: {}", llama::NOT_BUILT_IN, llama::HOW_TO_BUILD)));
    }
    if !args.force && args.config.symlink_metadata().is_ok() {
        return Ok(exists(&args.config));
    }
    let machine = Machine::detect(&Roots::default())
        .context("cannot read how much memory this machine has")?;
    let choice = recommend(catalogue(), &machine, llama::GPU_BUILT_IN)
        .context("the catalogue has no chat model")?;
    let next = next(&choice, &args.config);
    if !args.json {
        say(&format!("found   {}", found(&machine)));
        say(&format!("chosen  {}", chosen(&choice)));
        say(&format!("why     {}", reason(&choice)));
        if let Some(unused) = unused(&machine) {
            say(&format!("note    {unused}"));
        }
        let ask = !args.yes && io::stdin().is_terminal();
        if ask && !confirm(&format!("write {}?", args.config.display()), true)? {
            say("nothing was written");
            return Ok(0);
        }
    }
    match write(args, &generate(&choice, &found(&machine))) {
        // Another process created it meanwhile.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Ok(exists(&args.config));
        }
        result => result.with_context(|| format!("cannot write {}", args.config.display()))?,
    }
    if args.json {
        let (machine, choice, reason) = (&machine, &choice, reason(&choice));
        let report = Report { machine, choice, reason, config: &args.config, next };
        say(&serde_json::to_string_pretty(&report)?);
    } else {
        say(&format!("wrote   {}", args.config.display()));
        say(&format!("next    {}\n        {}", next[0], next[1]));
    }
    Ok(0)
}

fn exists(path: &Path) -> u8 {
    let path = path.display();
    refuse(&format!(
        "{path} exists\nhint: keep it, replace it with --force, or name another with --config"
    ))
}

fn write(args: &InitArgs, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true);
    if args.force {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    let mut file = options.open(&args.config)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn found(machine: &Machine) -> String {
    let cores = if machine.cores == 1 { "core" } else { "cores" };
    let mut text =
        format!("{} {cores}, {} of memory", machine.cores, HumanBytes(machine.memory_bytes));
    for Gpu { name, memory } in &machine.gpus {
        let memory = match memory {
            GpuMemory::Own(bytes) => format!(" ({})", HumanBytes(*bytes)),
            GpuMemory::Shared => " (shares the memory)".to_owned(),
            GpuMemory::Unknown => " (memory unknown)".to_owned(),
        };
        // The driver's name goes into a comment of one line.
        text.extend([", "].into_iter().chain(name.lines().take(1)));
        text.push_str(&memory);
    }
    if machine.gpus.is_empty() {
        text.push_str(", no GPU found");
    }
    text
}

fn chosen(choice: &Recommendation<'_>) -> String {
    let model = choice.model;
    let place = choice.gpu.as_ref().map_or("the cores", |gpu| gpu.name.as_str());
    let (size, licence) = (HumanBytes(model.size_bytes), &model.licence);
    format!("{} ({} B parameters, {size}, {licence}) on {place}", model.name, model.parameters_b)
}

fn reason(choice: &Recommendation<'_>) -> String {
    let needs = format!(
        "{} of weights + {} for {} requests of {} tokens + {} of buffers",
        HumanBytes(choice.weights_bytes),
        HumanBytes(choice.kv_bytes),
        choice.slots,
        choice.context_tokens,
        HumanBytes(choice.working_bytes),
    );
    let budget = HumanBytes(choice.budget_bytes);
    if !choice.fits {
        return format!(
            "the smallest model; {needs} is more than the budget of {budget}: expect trouble"
        );
    }
    format!(
        "the most able of the catalogue that fits and is fast enough: {needs} within {budget}; \
         about {:.0} tokens/s (assumed, not measured)",
        choice.assumed_tokens_per_s
    )
}

/// How to use a GPU that is present but unused.
fn unused(machine: &Machine) -> Option<String> {
    if machine.gpus.is_empty() {
        None
    } else if !llama::GPU_BUILT_IN {
        let how = "`cargo build --release --features cuda` (NVIDIA) or `--features vulkan` (any)";
        Some(format!("this build cannot use the GPU; build with {how} and run init again"))
    } else if machine.gpus.iter().all(|gpu| gpu.memory == GpuMemory::Unknown) {
        Some("the GPU's memory is unknown, so the GPU is not used; set `gpu_layers` by hand".into())
    } else {
        None
    }
}

/// The next two commands.
fn next(choice: &Recommendation<'_>, config: &Path) -> [String; 2] {
    let option = if config == Path::new(CONFIG_FILE) {
        String::new()
    } else {
        format!(" --config {}", config.display())
    };
    [
        format!("wattgate models pull {}{option}", choice.model.name),
        format!("wattgate serve{option}"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn resources_and_reasons_are_described() {
        let gpu = |memory| Gpu { name: "NVIDIA L4\n[server]".into(), memory };
        let machine = |gpus| Machine { memory_bytes: 16 * GIB, cores: 8, gpus };
        let with = machine(vec![gpu(GpuMemory::Own(24 * GIB))]);
        assert_eq!(found(&with), "8 cores, 16.00 GiB of memory, NVIDIA L4 (24.00 GiB)");
        assert_eq!(found(&machine(vec![])), "8 cores, 16.00 GiB of memory, no GPU found");

        let large = recommend(catalogue(), &with, true).unwrap();
        assert!(reason(&large).starts_with("the most able"), "{}", reason(&large));
        let tiny = Machine { memory_bytes: GIB / 8, cores: 1, gpus: vec![] };
        let small = recommend(catalogue(), &tiny, true).unwrap();
        assert!(reason(&small).contains("expect trouble"), "{}", reason(&small));
    }

    #[test]
    fn the_next_commands_name_a_config_other_than_the_default() {
        let machine = Machine { memory_bytes: GIB, cores: 1, gpus: vec![] };
        let choice = recommend(catalogue(), &machine, true).unwrap();
        let [pull, serve] = next(&choice, Path::new(CONFIG_FILE));
        assert_eq!(
            (pull.as_str(), serve.as_str()),
            ("wattgate models pull smollm2-135m", "wattgate serve")
        );
        let [_, serve] = next(&choice, Path::new("other.toml"));
        assert_eq!(serve, "wattgate serve --config other.toml");
    }
}
