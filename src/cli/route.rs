//! `wattgate route`: what the router predicts and would choose for a file of prompts, running nothing.
//!
//! One line in, one line out, so that any outside evaluation can be run on it. Decides through `routing::decide` with the
//! config's models as if all were up: keys, files and queues are left out of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;

use super::{BAD_INPUT, ConfigArgs};
use crate::app::assemble;
use crate::config::{Config, Engine};
use crate::energy::estimate::Estimator;
use crate::energy::{Profile, Tokens, cloud};
use crate::openai::Request;
use crate::routing::text::TextVector;
use crate::routing::{AdequacyModel, Candidate, Capabilities, Features, Policy, Route, decide};

#[derive(Debug, Args)]
pub struct RouteArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Lines of {"id", "prompt"} or {"id", "messages"}
    #[arg(long, value_name = "FILE")]
    jsonl: PathBuf,
    /// Policy of the config [default: its default policy]
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    /// Folder of the router [default: the config's, else the one built in]
    #[arg(long, value_name = "DIR")]
    router: Option<PathBuf>,
    /// Score these two models of the router's data instead of the config's: WEAK,STRONG
    #[arg(long, value_name = "WEAK,STRONG")]
    pair: Option<String>,
    /// Write one JSON object a line
    #[arg(long)]
    json: bool,
}

/// What the caller must mend.
#[derive(Debug, Error)]
enum BadInput {
    #[error("{}:{line}: {problem}", path.display())]
    Line { path: PathBuf, line: usize, problem: String },
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("no policy `{0}` in the config")]
    Policy(String),
    #[error(
        "`--pair` takes two models of the router's data, WEAK,STRONG; `{0}` is not one (its card lists them)"
    )]
    Pair(String),
}

pub fn run(args: &RouteArgs) -> anyhow::Result<u8> {
    let config = args.config.load()?;
    match route(args, &config) {
        Err(error) if error.is::<BadInput>() => {
            refuse(&error);
            Ok(BAD_INPUT)
        }
        outcome => outcome.map(|()| 0),
    }
}

#[expect(clippy::print_stderr, reason = "a command's complaints go to standard error")]
fn refuse(error: &anyhow::Error) {
    eprintln!("error: {error}");
}

fn route(args: &RouteArgs, config: &Config) -> anyhow::Result<()> {
    let adequacy = match &args.router {
        Some(dir) => AdequacyModel::load(dir)?,
        None => assemble::adequacy(config)?,
    };
    let policy = policy(args, config)?;
    let entrants = if let Some(pair) = &args.pair {
        pair_entrants(pair, &adequacy)?
    } else {
        let profile = Profile::configured(config.energy.profile.as_deref())?;
        entrants(config, &adequacy, &Arc::new(profile))
    };
    let unread = |source| BadInput::File { path: args.jsonl.clone(), source };
    let file = File::open(&args.jsonl).map_err(unread)?;
    let mut output = BufWriter::new(io::stdout().lock());
    for (at, line) in BufReader::new(file).lines().enumerate() {
        let bad =
            |problem: String| BadInput::Line { path: args.jsonl.clone(), line: at + 1, problem };
        let line = line.map_err(|error| bad(error.to_string()))?;
        let (id, request) = parse(&line).map_err(|error| bad(error.to_string()))?;
        let scored = score(id, &request, &entrants, &adequacy, &policy);
        write(&mut output, &scored, args.json).context("cannot write the result")?;
    }
    output.flush().context("cannot write the result")
}

fn policy(args: &RouteArgs, config: &Config) -> Result<Policy, BadInput> {
    let name = args.policy.as_ref().unwrap_or(&config.routing.default_policy);
    let unknown = || BadInput::Policy(name.clone());
    assemble::policies(config).remove(name.as_str()).ok_or_else(unknown)
}

/// A model that may be chosen, and how its adequacy and energy are predicted.
struct Entrant {
    model: Arc<str>,
    route: Route,
    judge: Judge,
    energy: Energy,
}

enum Judge {
    Ability(f64),
    /// By the name the data knows it by.
    Known,
}

enum Energy {
    Unknown,
    Cloud(Option<cloud::PerToken>),
    /// What a local model is expected to take by its profile, or is assumed to if it was never measured.
    Local(Estimator),
}

fn entrants(config: &Config, adequacy: &AdequacyModel, profile: &Arc<Profile>) -> Vec<Entrant> {
    let entrant = |(name, model): (&String, &crate::config::Model)| {
        let (route, energy) = match &model.engine {
            Engine::Llama { .. } => (
                Route::Local,
                Energy::Local(Estimator::new(
                    config.energy.prior_cost(),
                    config.energy.cpu_model(),
                    Arc::clone(profile),
                )),
            ),
            Engine::Openai(openai) => (Route::Cloud, Energy::Cloud(openai.per_token())),
        };
        let judge = Judge::Ability(assemble::ability(name, model, adequacy));
        Entrant { model: name.as_str().into(), route, judge, energy }
    };
    config.models.iter().map(entrant).collect()
}

/// The weak model stands for what is local, the strong one for the cloud.
fn pair_entrants(pair: &str, adequacy: &AdequacyModel) -> Result<Vec<Entrant>, BadInput> {
    let (weak, strong) = pair.split_once(',').ok_or_else(|| BadInput::Pair(pair.to_owned()))?;
    [(weak, Route::Local), (strong, Route::Cloud)]
        .into_iter()
        .map(|(name, route)| {
            let name = name.trim();
            adequacy.ability_of(name).ok_or_else(|| BadInput::Pair(name.to_owned()))?;
            Ok(Entrant { model: name.into(), route, judge: Judge::Known, energy: Energy::Unknown })
        })
        .collect()
}

impl Entrant {
    fn candidate(
        &self,
        text: &TextVector,
        features: &Features,
        adequacy: &AdequacyModel,
    ) -> Candidate {
        let p = match self.judge {
            Judge::Ability(ability) => adequacy.predict(text, ability),
            Judge::Known => adequacy.predict_known(text, &self.model).unwrap_or(0.0),
        };
        let (prompt, output) = (features.prompt_tokens.into(), features.output_tokens.into());
        let joules = match &self.energy {
            Energy::Unknown => None,
            Energy::Cloud(per_token) => cloud::estimate(*per_token, prompt, 0, output).joules,
            Energy::Local(estimator) => {
                estimator.expected(&self.model, Tokens { prefill: prompt, decode: output }).joules
            }
        };
        Candidate {
            model: Arc::clone(&self.model),
            route: self.route,
            p,
            joules,
            dollars: None,
            grams: None,
            ttft_ms: None,
            context_tokens: None,
            capabilities: Capabilities::ALL,
            unavailable: None,
            state: None,
        }
    }
}

/// One line of output.
#[derive(Debug, Serialize)]
struct Scored {
    id: Value,
    model: Option<Arc<str>>,
    p: BTreeMap<Arc<str>, f64>,
    /// Best adequacy in the cloud less best adequacy here; none if either has no model.
    gain: Option<f64>,
}

fn score(
    id: Value,
    request: &Request,
    entrants: &[Entrant],
    adequacy: &AdequacyModel,
    policy: &Policy,
) -> Scored {
    let (text, features) = (TextVector::of_messages(&request.messages()), Features::of(request));
    let candidates: Vec<Candidate> =
        entrants.iter().map(|entrant| entrant.candidate(&text, &features, adequacy)).collect();
    let decision = decide(&features, &candidates, policy);
    let best = |route: Route| {
        let on_route = candidates.iter().filter(|candidate| candidate.route == route);
        on_route.map(|candidate| candidate.p).reduce(f64::max)
    };
    Scored {
        id,
        model: decision.chosen().map(|judged| Arc::clone(&judged.model)),
        gain: best(Route::Cloud).zip(best(Route::Local)).map(|(cloud, local)| cloud - local),
        p: candidates.into_iter().map(|candidate| (candidate.model, candidate.p)).collect(),
    }
}

#[derive(Deserialize)]
struct Line {
    id: Value,
    prompt: Option<String>,
    messages: Option<Value>,
}

fn parse(line: &str) -> serde_json::Result<(Value, Request)> {
    use serde::de::Error;

    let line: Line = serde_json::from_str(line)?;
    let messages = match (line.prompt, line.messages) {
        (Some(prompt), None) => json!([{"role": "user", "content": prompt}]),
        (None, Some(messages)) => messages,
        _ => return Err(serde_json::Error::custom("a line has either `prompt` or `messages`")),
    };
    // By way of text: some fields of a request borrow from it.
    let request = json!({"model": "auto", "messages": messages}).to_string();
    Ok((line.id, Request::Chat(serde_json::from_str(&request)?)))
}

fn write(output: &mut impl Write, scored: &Scored, json: bool) -> io::Result<()> {
    if json {
        serde_json::to_writer(&mut *output, scored)?;
        return writeln!(output);
    }
    let id = scored.id.as_str().map_or_else(|| scored.id.to_string(), str::to_owned);
    write!(output, "{id}\t{}", scored.model.as_deref().unwrap_or("none"))?;
    for (model, p) in &scored.p {
        write!(output, "\t{model} {p:.3}")?;
    }
    match scored.gain {
        Some(gain) => writeln!(output, "\tgain {gain:+.3}"),
        None => writeln!(output),
    }
}
