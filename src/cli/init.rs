//! `wattgate init`: looks at this machine, chooses a model that fits, and writes a configuration for it.
//!
//! Says what it found, what it chose and why. Never replaces a file unless told to.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use indicatif::HumanBytes;
use serde::Serialize;

use super::{BAD_INPUT, CONFIG_FILE, FAILED, confirm};
use crate::backends::llama;
use crate::config::generate;
use crate::models::{Choice, Gpu, GpuMemory, Machine, Roots, catalogue, choose};

/// Look at this machine and write a config with a model that fits
#[derive(Args, Debug)]
pub struct InitArgs {
    /// File to write
    #[arg(long, default_value = CONFIG_FILE, value_name = "PATH")]
    config: PathBuf,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Write what was found and chosen as JSON to standard output; does not ask
    #[arg(long)]
    json: bool,
}

/// The result for machines.
#[derive(Serialize)]
struct Report<'a> {
    machine: &'a Machine,
    choice: &'a Choice<'a>,
    reason: String,
    config: &'a Path,
    next: [String; 2],
}

/// Runs the command and gives its exit code.
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a command talks to a person")]
pub fn run(args: &InitArgs) -> anyhow::Result<u8> {
    if !llama::BUILT_IN {
        eprintln!("error: {}\nhint: {}", llama::NOT_BUILT_IN, llama::HOW_TO_BUILD);
        return Ok(FAILED);
    }
    if !args.force && args.config.symlink_metadata().is_ok() {
        return Ok(exists(&args.config));
    }
    let machine =
        Machine::look(&Roots::default()).context("cannot tell how much memory this machine has")?;
    let choice = choose(catalogue(), &machine, llama::GPU_BUILT_IN)
        .context("the catalogue has no chat model")?;
    let next = next(&choice, &args.config);
    if !args.json {
        println!("found   {}", found(&machine));
        println!("chosen  {}", chosen(&choice));
        println!("why     {}", reason(&choice));
        if let Some(unused) = unused(&machine) {
            println!("note    {unused}");
        }
        let ask = !args.yes && io::stdin().is_terminal();
        if ask && !confirm(&format!("write {}?", args.config.display()), true)? {
            println!("nothing was written");
            return Ok(0);
        }
    }
    match write(args, &generate(&choice, &found(&machine))) {
        // Somebody else made it in the meantime.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Ok(exists(&args.config));
        }
        result => result.with_context(|| format!("cannot write {}", args.config.display()))?,
    }
    if args.json {
        let (machine, choice, reason) = (&machine, &choice, reason(&choice));
        let report = Report { machine, choice, reason, config: &args.config, next };
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("wrote   {}", args.config.display());
        println!("next    {}\n        {}", next[0], next[1]);
    }
    Ok(0)
}

#[expect(clippy::print_stderr, reason = "a command talks to a person")]
fn exists(path: &Path) -> u8 {
    let path = path.display();
    eprintln!(
        "error: {path} exists\nhint: keep it, replace it with --force, or name another with --config"
    );
    BAD_INPUT
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
        // The name is the driver's word and goes into a comment of one line.
        text.extend([", "].into_iter().chain(name.lines().take(1)));
        text.push_str(&memory);
    }
    if machine.gpus.is_empty() {
        text.push_str(", no GPU found");
    }
    text
}

fn chosen(choice: &Choice<'_>) -> String {
    let model = choice.model;
    let place = choice.gpu.as_ref().map_or("the cores", |gpu| gpu.name.as_str());
    let (size, licence) = (HumanBytes(model.size_bytes), &model.licence);
    format!("{} ({} B parameters, {size}, {licence}) on {place}", model.name, model.parameters_b)
}

fn reason(choice: &Choice<'_>) -> String {
    let needs = format!(
        "{} of weights + {} for {} requests of {} tokens + {} to work",
        HumanBytes(choice.weights_bytes),
        HumanBytes(choice.kv_bytes),
        choice.slots,
        choice.context_tokens,
        HumanBytes(choice.working_bytes),
    );
    let budget = HumanBytes(choice.budget_bytes);
    if !choice.fits {
        return format!(
            "the smallest there is; {needs} is more than the {budget} it should take: expect trouble"
        );
    }
    format!(
        "the most able of the catalogue that fits and is not too slow: {needs} within {budget}; \
         very roughly {:.0} tokens/s (assumed, not measured)",
        choice.assumed_tokens_per_s
    )
}

/// What a GPU that is here would need to be of use.
fn unused(machine: &Machine) -> Option<String> {
    if machine.gpus.is_empty() {
        None
    } else if !llama::GPU_BUILT_IN {
        let how = "`cargo build --release --features cuda` (NVIDIA) or `--features vulkan` (any)";
        Some(format!("this build cannot use the GPU; build with {how} and run init again"))
    } else if machine.gpus.iter().all(|gpu| gpu.memory == GpuMemory::Unknown) {
        Some(
            "the GPU's memory is unknown, so it is not counted on; set `gpu_layers` by hand".into(),
        )
    } else {
        None
    }
}

/// The two commands that come next.
fn next(choice: &Choice<'_>, config: &Path) -> [String; 2] {
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
    fn what_is_said_fits_what_is_there() {
        let gpu = |memory| Gpu { name: "NVIDIA L4\n[server]".into(), memory };
        let machine = |gpus| Machine { memory_bytes: 16 * GIB, cores: 8, gpus };
        let with = machine(vec![gpu(GpuMemory::Own(24 * GIB))]);
        assert_eq!(found(&with), "8 cores, 16.00 GiB of memory, NVIDIA L4 (24.00 GiB)");
        assert_eq!(found(&machine(vec![])), "8 cores, 16.00 GiB of memory, no GPU found");

        let large = choose(catalogue(), &with, true).unwrap();
        assert!(reason(&large).starts_with("the most able"), "{}", reason(&large));
        let tiny = Machine { memory_bytes: GIB / 8, cores: 1, gpus: vec![] };
        let small = choose(catalogue(), &tiny, true).unwrap();
        assert!(reason(&small).contains("expect trouble"), "{}", reason(&small));
    }

    #[test]
    fn the_commands_name_the_config_unless_it_is_the_default() {
        let machine = Machine { memory_bytes: GIB, cores: 1, gpus: vec![] };
        let choice = choose(catalogue(), &machine, true).unwrap();
        let [pull, serve] = next(&choice, Path::new(CONFIG_FILE));
        assert_eq!(
            (pull.as_str(), serve.as_str()),
            ("wattgate models pull smollm2-135m", "wattgate serve")
        );
        let [_, serve] = next(&choice, Path::new("other.toml"));
        assert_eq!(serve, "wattgate serve --config other.toml");
    }
}
