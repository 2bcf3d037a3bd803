//! `wattgate launch`: a coding agent with its models behind the gateway of this machine. Prints the
//! variables and the command, or runs it.

mod agent;

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Context;
use clap::Args;

use self::agent::{Agent, Start};
use super::config_args::ConfigArgs;
use super::console::say;
use super::running_gateway::reachable;
use crate::serving::plan::AUTO;

#[derive(Debug, Args)]
pub(super) struct LaunchArgs {
    /// The agent
    agent: Agent,
    /// The model, `auto` or `auto/POLICY` that answers it
    #[arg(long, default_value = AUTO, value_name = "NAME")]
    model: String,
    /// Run the agent instead of printing how
    #[arg(long)]
    exec: bool,
    #[command(flatten)]
    config: ConfigArgs,
    /// Arguments for the agent
    #[arg(last = true)]
    rest: Vec<String>,
}

pub(super) fn run(args: &LaunchArgs) -> anyhow::Result<u8> {
    let listen = reachable(args.config.load()?.server.listen);
    let mut start = args.agent.start(&format!("http://{listen}"), &args.model);
    start.arguments.extend_from_slice(&args.rest);
    if args.exec {
        return Err(exec(&start)).with_context(|| format!("cannot run {}", start.program));
    }
    say(&start.script());
    Ok(0)
}

/// Becomes the agent; returns only if that fails.
fn exec(start: &Start) -> std::io::Error {
    let variables = start.variables.iter().map(|(name, value)| (name, value));
    Command::new(start.program).args(&start.arguments).envs(variables).exec()
}
