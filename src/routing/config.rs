//! Settings of routing: the trained router, policies and conversations.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::objective::Lambda;
use super::overrides::OverrideKind;
use super::session::Limits;
use super::{Cascade, Objective, TaskClass};
use crate::validate::{ABOVE_ZERO, Diagnostics, Validate};

/// `[routing]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Policy of the model name `auto`; one of `[policies.<name>]`. Default `default`.
    pub default_policy: String,
    /// Folder of a router made by `wattgate train`. Default: the built-in router.
    pub router: Option<PathBuf>,
    /// Folder of a second router whose decisions are logged but never followed. Default: none.
    pub candidate: Option<PathBuf>,
    /// Whether a conversation that must stay local may use deployments in the operator's own
    /// network. Default false: only those on this machine.
    pub own_network_is_local: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            default_policy: "default".to_owned(),
            router: None,
            candidate: None,
            own_network_is_local: false,
        }
    }
}

/// `[policies.<name>]`, selected by the model name `auto/<name>`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyConfig {
    /// Cost to minimise among adequate models: `joules`, `dollars`, `latency` or `carbon`; or value
    /// to maximise: `quality`, or `tradeoff`, adequacy less lambda times cost. Default `joules`.
    pub objective: Objective,
    /// Least predicted adequacy of a model, 0 to 1. Default 0.6.
    pub floor: f64,
    /// Limit of the expected energy of an answer, joules, above 0. Default: no limit.
    pub max_joules: Option<f64>,
    /// Limit of the expected price of an answer, US dollars, 0 or more. Default: no limit.
    pub max_dollars: Option<f64>,
    /// Adequacy that a joule, a dollar, a second to the first token and a gram of CO2 equivalent
    /// are worth under `tradeoff`, 0 or more. Default 0.
    pub lambda_per_joule: Option<f64>,
    pub lambda_per_dollar: Option<f64>,
    pub lambda_per_second: Option<f64>,
    pub lambda_per_gram: Option<f64>,
    /// Whether requests must stay on this machine. Default false.
    pub local_only: bool,
    /// Least gain, 0 to 1, for which a conversation changes its model: in adequacy, or a share of
    /// the cost. Default 0.05.
    pub switch_gain: f64,
    /// Probability, 0 to 1, of drawing the model of a conversation's first turn uniformly from all
    /// eligible ones. Default 0.
    pub explore: f64,
    /// Settings that a request may override. Default: all of them.
    pub overrides: Vec<OverrideKind>,
    /// `[policies.<name>.classes.<class>]`.
    pub classes: Classes,
    /// Local model first, with another one taking over if its first tokens are not confident.
    /// Default: off.
    pub cascade: Option<Cascade>,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self {
            objective: Objective::Joules,
            floor: 0.6,
            max_joules: None,
            max_dollars: None,
            lambda_per_joule: None,
            lambda_per_dollar: None,
            lambda_per_second: None,
            lambda_per_gram: None,
            local_only: false,
            switch_gain: 0.05,
            explore: 0.0,
            overrides: OverrideKind::ALL.to_vec(),
            classes: Classes::default(),
            cascade: None,
        }
    }
}

impl PolicyConfig {
    pub fn lambda(&self) -> Lambda {
        Lambda {
            per_joule: self.lambda_per_joule.unwrap_or(0.0),
            per_dollar: self.lambda_per_dollar.unwrap_or(0.0),
            per_second: self.lambda_per_second.unwrap_or(0.0),
            per_gram: self.lambda_per_gram.unwrap_or(0.0),
        }
    }

    fn lambdas(&self) -> [(&'static str, Option<f64>); 4] {
        [
            ("lambda_per_joule", self.lambda_per_joule),
            ("lambda_per_dollar", self.lambda_per_dollar),
            ("lambda_per_second", self.lambda_per_second),
            ("lambda_per_gram", self.lambda_per_gram),
        ]
    }

    /// The objective `tradeoff` needs a lambda above 0, and a lambda a `tradeoff` that can use it.
    fn validate_trade_off(&self, out: &mut Diagnostics) {
        let by_class = self.classes.all().filter_map(|(_, config)| config.objective);
        let trades = std::iter::once(self.objective)
            .chain(by_class)
            .any(|objective| objective == Objective::Tradeoff);
        let weighs = self.lambdas().iter().any(|(_, value)| value.is_some_and(|value| value > 0.0));
        if trades && !weighs {
            out.reject("objective", "the objective `tradeoff` needs a lambda above 0")
                .hint(LAMBDA_HINT);
        }
        let may_be_asked_for = self.overrides.contains(&OverrideKind::Objective);
        let unused = self.lambdas().into_iter().find(|(_, value)| value.is_some());
        if let Some((key, _)) = unused.filter(|_| !trades && !may_be_asked_for) {
            let message = format!("`{key}` has no effect: no objective here is `tradeoff`");
            out.reject(key, message).hint("remove it");
        }
    }
}

const LAMBDA_HINT: &str = "lambda_per_joule = 0.001 gives up 0.01 of adequacy to save 10 J; also _per_dollar, _per_second, _per_gram";

impl Validate for PolicyConfig {
    fn validate(&self, out: &mut Diagnostics) {
        validate_floor(self.floor, out);
        out.range("switch_gain", self.switch_gain, 0.0..=1.0, "")
            .hint("it is the least gain for which a conversation changes its model");
        out.range("explore", self.explore, 0.0..=1.0, "")
            .hint("it is the probability of drawing a conversation's first model at random");
        validate_budgets(self.max_joules, self.max_dollars, out);
        for (key, value) in self.lambdas() {
            out.range_if_set(key, value, 0.0.., "").hint(LAMBDA_HINT);
        }
        out.table("classes", &self.classes);
        self.validate_trade_off(out);
        if let Some(cascade) = &self.cascade {
            out.table("cascade", cascade);
        }
    }
}

impl Validate for Classes {
    fn validate(&self, out: &mut Diagnostics) {
        for (class, config) in self.all() {
            out.inside(class.label(), |out| {
                if let Some(floor) = config.floor {
                    validate_floor(floor, out);
                }
                validate_budgets(config.max_joules, config.max_dollars, out);
            });
        }
    }
}

impl Validate for SessionsConfig {
    fn validate(&self, out: &mut Diagnostics) {
        out.positive([("remember", self.remember as u64), ("forget_after_s", self.forget_after_s)]);
        out.range("floor_step", self.floor_step, 0.0..=1.0, "");
    }
}

fn validate_floor(floor: f64, out: &mut Diagnostics) {
    out.range("floor", floor, 0.0..=1.0, "")
        .hint("it is the least probability of a good enough answer");
}

fn validate_budgets(max_joules: Option<f64>, max_dollars: Option<f64>, out: &mut Diagnostics) {
    const HINT: &str = "without it there is no limit";
    out.range_if_set("max_joules", max_joules, ABOVE_ZERO, "").hint(HINT);
    out.range_if_set("max_dollars", max_dollars, 0.0.., "").hint(HINT);
}

/// `[policies.<name>.classes]`: settings that differ for requests of one task class.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Classes {
    pub tools: Option<ClassConfig>,
    pub long_context: Option<ClassConfig>,
    pub multiple_choice: Option<ClassConfig>,
    pub extraction: Option<ClassConfig>,
    pub code: Option<ClassConfig>,
    pub math: Option<ClassConfig>,
    pub chat: Option<ClassConfig>,
}

impl Classes {
    pub fn get(&self, task: TaskClass) -> Option<&ClassConfig> {
        match task {
            TaskClass::Tools => self.tools.as_ref(),
            TaskClass::LongContext => self.long_context.as_ref(),
            TaskClass::MultipleChoice => self.multiple_choice.as_ref(),
            TaskClass::Extraction => self.extraction.as_ref(),
            TaskClass::Code => self.code.as_ref(),
            TaskClass::Math => self.math.as_ref(),
            TaskClass::Chat => self.chat.as_ref(),
        }
    }

    /// The configured classes.
    pub fn all(&self) -> impl Iterator<Item = (TaskClass, &ClassConfig)> {
        TaskClass::ALL.into_iter().filter_map(|task| Some((task, self.get(task)?)))
    }
}

/// `[policies.<name>.classes.<class>]`: each key as in the policy; one that is left out takes the
/// policy's value.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClassConfig {
    pub objective: Option<Objective>,
    pub floor: Option<f64>,
    pub max_joules: Option<f64>,
    pub max_dollars: Option<f64>,
    /// The only model that may answer.
    pub model: Option<String>,
}

/// `[sessions]`: what is remembered of conversations, in memory, until the gateway stops.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionsConfig {
    /// Most conversations remembered, at least 1; beyond it the longest idle one is forgotten.
    /// Default 10,000.
    pub remember: usize,
    /// Idle seconds after which a conversation is forgotten, at least 1; one that must stay on this
    /// machine is only forgotten when room is needed. Default 21,600 (six hours).
    pub forget_after_s: u64,
    /// Addition to a conversation's floor for each failed answer, 0 to 1. Default 0.1.
    pub floor_step: f64,
    /// Identifiers of a conversation in order of preference: the first that a request carries is
    /// used. Default: all, in this order.
    pub identify_by: Vec<Identifier>,
}

impl Default for SessionsConfig {
    fn default() -> Self {
        Self {
            remember: 10_000,
            forget_after_s: 6 * 3600,
            floor_step: 0.1,
            identify_by: Identifier::ALL.to_vec(),
        }
    }
}

impl SessionsConfig {
    pub fn limits(&self) -> Limits {
        Limits {
            sessions: self.remember,
            idle: Duration::from_secs(self.forget_after_s),
            floor_step: self.floor_step,
        }
    }
}

/// An identifier of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Identifier {
    /// `x-wattgate-session`, or `session` in the body's `wattgate` object.
    Header,
    /// `metadata.session_id` in the body.
    Metadata,
    /// `user` in the body; leave it out if that names a person with several conversations.
    User,
    /// The messages up to the last assistant turn.
    Prefix,
}

impl Identifier {
    pub const ALL: [Self; 4] = [Self::Header, Self::Metadata, Self::User, Self::Prefix];
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::Diagnostic;

    fn keys(config: &PolicyConfig) -> Vec<String> {
        config.diagnostics().iter().map(Diagnostic::key).collect()
    }

    #[test]
    fn the_default_policy_is_valid() {
        assert_eq!(keys(&PolicyConfig::default()), [""; 0]);
    }

    #[test]
    fn all_invalid_settings_are_reported_at_once() {
        let code = ClassConfig {
            floor: Some(2.0),
            max_dollars: Some(-1.0),
            objective: Some(Objective::Tradeoff),
            ..ClassConfig::default()
        };
        let config = PolicyConfig {
            floor: f64::NAN,
            max_joules: Some(0.0),
            explore: 1.5,
            lambda_per_joule: Some(-1.0),
            classes: Classes { code: Some(code), ..Classes::default() },
            ..PolicyConfig::default()
        };
        assert_eq!(
            keys(&config),
            [
                "floor",
                "explore",
                "max_joules",
                "lambda_per_joule",
                "classes.code.floor",
                "classes.code.max_dollars",
                "objective"
            ]
        );
    }

    #[test]
    fn a_lambda_without_effect_is_reported() {
        let config = PolicyConfig { lambda_per_gram: Some(0.1), ..PolicyConfig::default() };
        assert_eq!(keys(&config), [""; 0], "a request may select the trade-off");
        let config = PolicyConfig { overrides: vec![], ..config };
        assert_eq!(keys(&config), ["lambda_per_gram"]);
    }
}
