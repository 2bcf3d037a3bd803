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
use crate::backends::cloud as upstream;
use crate::config::{Config, Engine};
use crate::energy::carbon::{Grid, grams};
use crate::energy::estimate::Estimator;
use crate::energy::rates::Rates;
use crate::energy::{Profile, Tokens, cloud};
use crate::openai::{Request, Usage};
use crate::routing::adequacy::names::canonical;
use crate::routing::text::TextVector;
use crate::routing::{
    AdequacyModel, Candidate, Capabilities, Features, OutputLength, Policy, Route, Rule, TaskClass,
    decide,
};
use crate::units::Dollars;

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
    /// Score these two instead of all of the config's models: each one of the config or of the router's data
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
    #[error("`--pair` takes two names, WEAK,STRONG; `{0}` is not that")]
    Pair(String),
    #[error("`{name}` is neither a model of the config nor of the router's data; near it: {near}")]
    PairModel { name: String, near: String },
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
    let profile = Arc::new(Profile::configured(config.energy.profile.as_deref())?);
    let entrants = match &args.pair {
        Some(pair) => pair_entrants(pair, config, &adequacy, &profile)?,
        None => entrants(config, &adequacy, &profile),
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

fn policy(args: &RouteArgs, config: &Config) -> Result<Arc<Policy>, BadInput> {
    let name = args.policy.as_ref().unwrap_or(&config.routing.default_policy);
    let unknown = || BadInput::Policy(name.clone());
    assemble::policies(config).remove(name.as_str()).ok_or_else(unknown)
}

/// A model that may be chosen, and how its adequacy and energy are predicted.
struct Entrant {
    model: Arc<str>,
    route: Route,
    ability: f64,
    energy: Energy,
    price: Price,
    /// What feeds it, if carbon is configured.
    grid: Option<Grid>,
}

enum Energy {
    Unknown,
    Cloud(Option<cloud::PerToken>),
    /// What a local model is expected to take by its profile, or is assumed to if it was never measured.
    Local(Estimator),
}

enum Price {
    Unknown,
    /// A local model's.
    Nothing,
    Upstream(Box<upstream::Config>),
}

fn entrants(config: &Config, adequacy: &AdequacyModel, profile: &Arc<Profile>) -> Vec<Entrant> {
    let rates = Rates::new(&config.energy.carbon, &config.energy.price);
    let configured = config.models.iter();
    configured
        .map(|(name, model)| configured_entrant(name, model, config, adequacy, profile, &rates))
        .collect()
}

fn configured_entrant(
    name: &str,
    model: &crate::config::Model,
    config: &Config,
    adequacy: &AdequacyModel,
    profile: &Arc<Profile>,
    rates: &Rates,
) -> Entrant {
    let (route, energy, price, grid) = match &model.engine {
        Engine::Llama { .. } => (
            Route::Local,
            Energy::Local(Estimator::new(
                config.energy.prior_cost(),
                config.energy.cpu_model(),
                Arc::clone(profile),
            )),
            // Electricity is bought at the price of the hour, which a file of prompts does not tell.
            if rates.tariff().is_some() { Price::Unknown } else { Price::Nothing },
            rates.here(),
        ),
        Engine::Openai(openai) => (
            Route::Cloud,
            Energy::Cloud(openai.per_token()),
            Price::Upstream(Box::new(openai.clone())),
            rates.elsewhere(openai.carbon_zone.as_deref()),
        ),
    };
    let ability = assemble::ability(name, model, adequacy);
    Entrant { model: name.into(), route, ability, energy, price, grid }
}

/// The weak model stands for what is local, the strong one for the cloud.
fn pair_entrants(
    pair: &str,
    config: &Config,
    adequacy: &AdequacyModel,
    profile: &Arc<Profile>,
) -> Result<Vec<Entrant>, BadInput> {
    let (weak, strong) = pair.split_once(',').ok_or_else(|| BadInput::Pair(pair.to_owned()))?;
    let rates = Rates::new(&config.energy.carbon, &config.energy.price);
    [(weak.trim(), Route::Local), (strong.trim(), Route::Cloud)]
        .into_iter()
        .map(|(name, route)| {
            if let Some(model) = config.models.get(name) {
                let configured = configured_entrant(name, model, config, adequacy, profile, &rates);
                return Ok(Entrant { route, ..configured });
            }
            let ability = adequacy.ability_of(name).ok_or_else(|| BadInput::PairModel {
                name: name.to_owned(),
                near: nearest(name, config, adequacy),
            })?;
            let (energy, price) = (Energy::Unknown, Price::Unknown);
            Ok(Entrant { model: name.into(), route, ability, energy, price, grid: None })
        })
        .collect()
}

/// The three names most like this one.
fn nearest(name: &str, config: &Config, adequacy: &AdequacyModel) -> String {
    let like = |known: &&String| strsim::jaro_winkler(&canonical(name), &canonical(known));
    let mut known: Vec<&String> = config.models.keys().chain(adequacy.abilities.keys()).collect();
    known.sort_by(|a, b| like(b).total_cmp(&like(a)));
    let quoted: Vec<String> = known.into_iter().take(3).map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

impl Entrant {
    fn candidate(
        &self,
        text: &TextVector,
        features: &Features,
        adequacy: &AdequacyModel,
    ) -> Candidate {
        let p = adequacy.predict_named(text, &self.model, self.ability);
        // Nothing has been seen of any model: the prior of a gateway that has just started.
        let output_tokens = OutputLength::default().expected(features);
        let (prompt, output) = (u64::from(features.prompt_tokens), u64::from(output_tokens));
        let usage = Usage {
            prompt_tokens: prompt,
            completion_tokens: output,
            total_tokens: prompt + output,
            ..Usage::default()
        };
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
            dollars: match &self.price {
                Price::Unknown => None,
                Price::Nothing => Some(Dollars(0.0)),
                Price::Upstream(config) => config.dollars(&usage),
            },
            ttft_ms: None,
            grams: joules
                .zip(self.grid.as_ref())
                .map(|(joules, grid)| grams(joules, grid.grams_per_kwh)),
            output_tokens: Some(output_tokens),
            context_tokens: None,
            capabilities: Capabilities::ALL,
            unavailable: None,
            state: None,
            cache: None,
        }
    }
}

/// One line of output.
#[derive(Debug, Serialize)]
struct Scored {
    id: Value,
    task: TaskClass,
    model: Option<Arc<str>>,
    reason: String,
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
    let mut rule = policy.rule(features.task);
    if !entrants.iter().any(|entrant| Some(&entrant.model) == rule.pinned.as_ref()) {
        // A pair has other models than the policy can give a task to.
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
