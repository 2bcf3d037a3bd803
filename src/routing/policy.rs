//! A configured policy, and the rule that it makes for one request: by the request's task, and with what the request
//! itself wishes, as far as the policy lets it. Pure.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::config::PolicyConfig;
use super::{Objective, Rule, TaskClass};
use crate::units::{Dollars, Joules};

/// One policy by name.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub name: Arc<str>,
    pub config: PolicyConfig,
}

/// What a request asks of its policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PolicyOverrides {
    /// 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objective: Option<Objective>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_joules: Option<Joules>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_dollars: Option<Dollars>,
    /// Always granted; `false` asks for nothing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub local_only: bool,
}

impl PolicyOverrides {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What a policy may let a request set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OverrideKind {
    Floor,
    Objective,
    MaxJoules,
    MaxDollars,
}

impl OverrideKind {
    pub const ALL: [Self; 4] = [Self::Floor, Self::Objective, Self::MaxJoules, Self::MaxDollars];

    pub fn label(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Objective => "objective",
            Self::MaxJoules => "max_joules",
            Self::MaxDollars => "max_dollars",
        }
    }
}

/// A wish that the policy does not grant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the policy `{policy}` does not let a request set `{}`; it may set {}", wish.label(), list(.allowed))]
    NotAllowed { policy: Arc<str>, wish: OverrideKind, allowed: Vec<OverrideKind> },
    #[error("the policy `{policy}` allows a `{}` of at most {most}", wish.label())]
    OverLimit { policy: Arc<str>, wish: OverrideKind, most: String },
    #[error(
        "the policy `{policy}` has no lambda, so it cannot trade adequacy for cost: ask for another objective"
    )]
    NoLambda { policy: Arc<str> },
}

impl Refusal {
    /// The wish that was refused.
    pub fn wish(&self) -> OverrideKind {
        match self {
            Self::NotAllowed { wish, .. } | Self::OverLimit { wish, .. } => *wish,
            Self::NoLambda { .. } => OverrideKind::Objective,
        }
    }
}

fn list(allowed: &[OverrideKind]) -> String {
    let labels: Vec<&str> = allowed.iter().map(|wish| wish.label()).chain(["local_only"]).collect();
    labels.join(", ")
}

impl Policy {
    /// The rule for a request of this task, as the policy has it.
    pub fn rule(&self, task: TaskClass) -> Rule {
        let config = &self.config;
        let class = config.classes.get(task).cloned().unwrap_or_default();
        Rule {
            objective: class.objective.unwrap_or(config.objective),
            floor: class.floor.unwrap_or(config.floor),
            local_only: config.local_only,
            own_network_is_local: false,
            pinned_by_policy: class.model.is_some(),
            pinned: class.model.map(Into::into),
            max_joules: class.max_joules.or(config.max_joules).map(Joules),
            max_dollars: class.max_dollars.or(config.max_dollars).map(Dollars),
            lambda: config.lambda(),
            switch_gain: config.switch_gain,
            cascade: config.cascade,
            stay: None,
            explore: None,
        }
    }

    /// The same with what the request wishes.
    pub fn rule_with(&self, task: TaskClass, wishes: &PolicyOverrides) -> Result<Rule, Refusal> {
        let mut rule = self.rule(task);
        rule.local_only |= wishes.local_only;
        if let Some(floor) = wishes.floor {
            self.check_allowed(OverrideKind::Floor)?;
            rule.floor = floor;
        }
        if let Some(objective) = wishes.objective {
            self.check_allowed(OverrideKind::Objective)?;
            if objective == Objective::Tradeoff && rule.lambda.is_zero() {
                return Err(Refusal::NoLambda { policy: Arc::clone(&self.name) });
            }
            rule.objective = objective;
        }
        if let Some(most) = wishes.max_joules {
            rule.max_joules = Some(self.lower(OverrideKind::MaxJoules, rule.max_joules, most)?);
        }
        if let Some(most) = wishes.max_dollars {
            rule.max_dollars =
                Some(self.lower(OverrideKind::MaxDollars, rule.max_dollars, most)?);
        }
        Ok(rule)
    }

    fn check_allowed(&self, wish: OverrideKind) -> Result<(), Refusal> {
        let allowed = &self.config.overrides;
        if allowed.contains(&wish) {
            return Ok(());
        }
        Err(Refusal::NotAllowed { policy: Arc::clone(&self.name), wish, allowed: allowed.clone() })
    }

    /// A budget may be lowered, not raised.
    fn lower<T: PartialOrd + fmt::Display>(
        &self,
        wish: OverrideKind,
        limit: Option<T>,
        asked: T,
    ) -> Result<T, Refusal> {
        self.check_allowed(wish)?;
        match limit {
            Some(limit) if asked > limit => {
                let (policy, most) = (Arc::clone(&self.name), limit.to_string());
                Err(Refusal::OverLimit { policy, wish, most })
            }
            _ => Ok(asked),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::{ClassConfig, Classes};
    use super::*;

    fn policy(config: PolicyConfig) -> Policy {
        Policy { name: "test".into(), config }
    }

    #[test]
    fn a_class_overrules_its_policy_and_leaves_the_rest() {
        let code = ClassConfig {
            floor: Some(0.9),
            model: Some("coder".to_owned()),
            ..ClassConfig::default()
        };
        let classes = Classes { code: Some(code), ..Classes::default() };
        let policy =
            policy(PolicyConfig { classes, max_joules: Some(7.0), ..PolicyConfig::default() });
        let (code, chat) = (policy.rule(TaskClass::Code), policy.rule(TaskClass::Chat));
        assert_eq!((code.floor, chat.floor), (0.9, 0.6));
        assert_eq!((code.pinned.as_deref(), code.pinned_by_policy), (Some("coder"), true));
        assert_eq!((chat.pinned, chat.pinned_by_policy), (None, false));
        assert_eq!(code.max_joules, Some(Joules(7.0)));
    }

    #[test]
    fn a_wish_is_granted_within_what_the_policy_allows_and_else_refused_by_name() {
        let strict = policy(PolicyConfig {
            overrides: vec![OverrideKind::MaxJoules],
            max_joules: Some(10.0),
            ..PolicyConfig::default()
        });
        let wish = |wishes: PolicyOverrides| strict.rule_with(TaskClass::Chat, &wishes);
        let joules =
            |most| PolicyOverrides { max_joules: Some(Joules(most)), ..PolicyOverrides::default() };
        assert_eq!(wish(joules(5.0)).unwrap().max_joules, Some(Joules(5.0)));
        let refused = wish(joules(50.0)).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the policy `test` allows a `max_joules` of at most 10.00 J"
        );
        let refused =
            wish(PolicyOverrides { floor: Some(0.1), ..PolicyOverrides::default() }).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the policy `test` does not let a request set `floor`; it may set max_joules, local_only"
        );
        let local = PolicyOverrides { local_only: true, ..PolicyOverrides::default() };
        assert!(wish(local).unwrap().local_only, "to stay here can always be asked");
    }

    #[test]
    fn local_only_is_never_loosened_and_a_trade_off_needs_its_lambda() {
        let private = policy(PolicyConfig { local_only: true, ..PolicyConfig::default() });
        let open =
            PolicyOverrides { objective: Some(Objective::Quality), ..PolicyOverrides::default() };
        assert!(private.rule_with(TaskClass::Chat, &open).unwrap().local_only);
        let trade =
            PolicyOverrides { objective: Some(Objective::Tradeoff), ..PolicyOverrides::default() };
        let refused = private.rule_with(TaskClass::Chat, &trade).unwrap_err();
        assert_eq!(refused.wish(), OverrideKind::Objective);
    }
}
