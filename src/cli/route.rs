//! `wattgate route`: predictions and decisions of the router for a file of prompts, without running
//! a model.
//!
//! Prints one line per input line, for evaluations by other tools. Calls `routing::decide` with the
//! config's models as if all were ready: ignores keys, files and queues.

mod bad_input;
mod offline_model;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use self::bad_input::{BadInput, nearest};
use self::offline_model::{OfflineModel, OfflineModels};
use super::config_args::ConfigArgs;
use super::console::{note, refuse};
use crate::app::wiring;
use crate::config::Config;
use crate::energy::Profile;
use crate::energy::grid::rates::Rates;
use crate::openai::Request;
use crate::routing::text::TextVector;
use crate::routing::{AdequacyModel, Candidate, Features, Policy, Route, Rule, TaskClass, decide};

/// Bad lines that are printed; the rest are only counted.
const BAD_LINES_SHOWN: usize = 20;

#[derive(Debug, Args)]
pub(super) struct RouteArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Lines of {"id", "prompt"} or {"id", "messages"}; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    jsonl: PathBuf,
    /// Policy of the config [default: its default policy]
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    /// Folder of the router [default: the config's, else the one built in]
    #[arg(long, value_name = "DIR")]
    router: Option<PathBuf>,
    /// Score these two instead of the config's models; each is a model of the config or of the
    /// router's data
    #[arg(long, value_name = "WEAK,STRONG")]
    pair: Option<String>,
    /// Write one JSON object a line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &RouteArgs) -> anyhow::Result<u8> {
    let config = args.config.load()?;
    match route(args, &config) {
        Err(error) if error.is::<BadInput>() => Ok(refuse(&error.to_string())),
        // A reader that stops (`| head`) has all that it wanted.
        Err(error) if is_broken_pipe(&error) => Ok(0),
        outcome => outcome.map(|()| 0),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe)
}

fn route(args: &RouteArgs, config: &Config) -> anyhow::Result<()> {
    let adequacy = match &args.router {
        Some(dir) => AdequacyModel::load(dir),
        None => wiring::adequacy(config),
    };
    let adequacy = adequacy.map_err(BadInput::Router)?;
    let policy = policy(args, config)?;
    let offline = OfflineModels {
        config,
        adequacy: &adequacy,
        profile: Arc::new(Profile::configured(config.energy.profile.as_deref())?),
        rates: Rates::new(&config.energy.carbon, &config.energy.price),
    };
    let models = match &args.pair {
        Some(pair) => offline.pair(pair)?,
        None => offline.all(),
    };
    if models.is_empty() {
        return Err(BadInput::NoModel.into());
    }
    let mut output = BufWriter::new(io::stdout().lock());
    let score = |line: &str| {
        parse(line).map(|(id, request)| {
            let mut rule = policy.rule(Features::of(&request).task);
            rule.own_network_is_local = config.routing.own_network_is_local;
            score(id, &request, &models, &adequacy, rule)
        })
    };
    score_lines(&args.jsonl, score, |scored| write(&mut output, scored, args.json))?;
    output.flush().context("cannot write the result")
}

/// Scores each line. A bad line is reported and does not affect the others.
fn score_lines(
    path: &Path,
    score: impl Fn(&str) -> serde_json::Result<Scored>,
    mut write: impl FnMut(&Scored) -> io::Result<()>,
) -> anyhow::Result<()> {
    let (mut bad, mut lines) = (0, 0);
    for (at, line) in open(path)?.lines().enumerate() {
        let scored = match line {
            Ok(line) if line.trim().is_empty() => continue,
            Ok(line) => score(&line).map_err(|error| error.to_string()),
            // The rest of the line was read; any other error ends the file.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(error.to_string()),
            Err(source) => return Err(BadInput::File { path: path.to_owned(), source }.into()),
        };
        lines += 1;
        match scored {
            Ok(scored) => write(&scored).context("cannot write the result")?,
            Err(problem) => {
                bad += 1;
                if bad <= BAD_LINES_SHOWN {
                    note(&format!("{}:{}: {problem}", path.display(), at + 1));
                }
            }
        }
    }
    if bad == 0 { Ok(()) } else { Err(BadInput::Lines { bad, lines }.into()) }
}

fn open(path: &Path) -> Result<Box<dyn BufRead>, BadInput> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let failed = |source| BadInput::File { path: path.to_owned(), source };
    Ok(Box::new(BufReader::new(File::open(path).map_err(failed)?)))
}

fn policy(args: &RouteArgs, config: &Config) -> Result<Arc<Policy>, BadInput> {
    let name = args.policy.as_ref().unwrap_or(&config.routing.default_policy);
    let unknown =
        || BadInput::Policy { name: name.clone(), near: nearest(name, config.policies.keys()) };
    wiring::policies(config).remove(name.as_str()).ok_or_else(unknown)
}

/// One line of output.
#[derive(Debug, Serialize)]
struct Scored {
    /// Verbatim.
    id: Box<RawValue>,
    task: TaskClass,
    model: Option<Arc<str>>,
    reason: String,
    p: BTreeMap<Arc<str>, f64>,
    /// Best adequacy in the cloud minus best adequacy here; `None` if either has no model.
    gain: Option<f64>,
}

fn score(
    id: Box<RawValue>,
    request: &Request,
    models: &[OfflineModel],
    adequacy: &AdequacyModel,
    mut rule: Rule,
) -> Scored {
    let (text, features) = (TextVector::of_messages(&request.messages()), Features::of(request));
    let candidates: Vec<Candidate> =
        models.iter().map(|model| model.candidate(&text, &features, adequacy)).collect();
    if !models.iter().any(|model| Some(&model.model) == rule.pinned.as_ref()) {
        // The policy may pin a task to a model that is not in the pair.
        rule = Rule { pinned: None, pinned_by_policy: false, ..rule };
    }
    let decision = decide(&features, &candidates, &rule);
    let best = |route: Route| {
        let on_route = candidates.iter().filter(|candidate| candidate.route == route);
        on_route.map(|candidate| candidate.p).reduce(f64::max)
    };
    Scored {
        id,
        task: features.task,
        reason: decision.reason.to_string(),
        model: decision.chosen().map(|judged| Arc::clone(&judged.model)),
        gain: best(Route::Cloud).zip(best(Route::Local)).map(|(cloud, local)| cloud - local),
        p: candidates.into_iter().map(|candidate| (candidate.model, candidate.p)).collect(),
    }
}

#[derive(Deserialize)]
struct Line {
    id: Box<RawValue>,
    prompt: Option<String>,
    messages: Option<Box<RawValue>>,
}

fn parse(line: &str) -> serde_json::Result<(Box<RawValue>, Request)> {
    use serde::de::Error;

    let line: Line = serde_json::from_str(line)?;
    // Through text, because some fields of a request borrow from it.
    let request = match (&line.prompt, &line.messages) {
        (Some(prompt), None) => {
            json!({"model": "auto", "messages": [{"role": "user", "content": prompt}]}).to_string()
        }
        (None, Some(messages)) => format!(r#"{{"model":"auto","messages":{messages}}}"#),
        _ => return Err(serde_json::Error::custom("a line has either `prompt` or `messages`")),
    };
    Ok((line.id, Request::Chat(serde_json::from_str(&request)?)))
}

fn write(output: &mut impl Write, scored: &Scored, json: bool) -> io::Result<()> {
    if json {
        serde_json::to_writer(&mut *output, scored)?;
        return writeln!(output);
    }
    let id: String =
        serde_json::from_str(scored.id.get()).unwrap_or_else(|_| scored.id.to_string());
    let model = scored.model.as_deref().unwrap_or("none");
    write!(output, "{id}\t{}\t{model}", scored.task.label())?;
    for (model, p) in &scored.p {
        write!(output, "\t{model} {p:.3}")?;
    }
    match scored.gain {
        Some(gain) => writeln!(output, "\tgain {gain:+.3}"),
        None => writeln!(output),
    }
}
