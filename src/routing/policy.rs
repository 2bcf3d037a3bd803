//! Policies: the rule of a request from its policy, its task class and the overrides that the
//! policy permits. Pure.

use std::fmt;
use std::sync::Arc;

use super::config::PolicyConfig;
use super::overrides::{OverrideKind, PolicyOverrides};
use super::{Objective, Rule, TaskClass};
use crate::units::{Dollars, Joules};

/// A named policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub name: Arc<str>,
    pub config: PolicyConfig,
}

/// An override that the policy does not permit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverrideError {
    #[error("the policy `{policy}` does not let a request set `{}`; it may set {}", kind.label(), list(.allowed))]
    NotAllowed { policy: Arc<str>, kind: OverrideKind, allowed: Vec<OverrideKind> },
    #[error("the policy `{policy}` allows a `{}` of at most {most}", kind.label())]
    OverLimit { policy: Arc<str>, kind: OverrideKind, most: String },
    #[error(
        "the policy `{policy}` has no lambda, so it cannot trade adequacy for cost: ask for another objective"
    )]
    NoLambda { policy: Arc<str> },
}

impl OverrideError {
    /// The override that was refused.
    pub fn kind(&self) -> OverrideKind {
        match self {
            Self::NotAllowed { kind, .. } | Self::OverLimit { kind, .. } => *kind,
            Self::NoLambda { .. } => OverrideKind::Objective,
        }
    }
}

fn list(allowed: &[OverrideKind]) -> String {
    let labels: Vec<&str> = allowed.iter().map(|kind| kind.label()).chain(["local_only"]).collect();
    labels.join(", ")
}

impl Policy {
    /// The rule for a request of this task class, without overrides.
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
            affinity: None,
            explore: None,
        }
    }

    /// The same with the overrides of the request.
    pub fn rule_with(
        &self,
        task: TaskClass,
        overrides: &PolicyOverrides,
    ) -> Result<Rule, OverrideError> {
        let mut rule = self.rule(task);
        rule.local_only |= overrides.local_only;
        if let Some(floor) = overrides.floor {
            self.check_allowed(OverrideKind::Floor)?;
            rule.floor = floor;
        }
        if let Some(objective) = overrides.objective {
            self.check_allowed(OverrideKind::Objective)?;
            if objective == Objective::Tradeoff && rule.lambda.is_zero() {
                return Err(OverrideError::NoLambda { policy: Arc::clone(&self.name) });
            }
            rule.objective = objective;
        }
        if let Some(most) = overrides.max_joules {
            rule.max_joules = Some(self.lower(OverrideKind::MaxJoules, rule.max_joules, most)?);
        }
        if let Some(most) = overrides.max_dollars {
            rule.max_dollars =
                Some(self.lower(OverrideKind::MaxDollars, rule.max_dollars, most)?);
        }
        Ok(rule)
    }

    fn check_allowed(&self, kind: OverrideKind) -> Result<(), OverrideError> {
        let allowed = &self.config.overrides;
        if allowed.contains(&kind) {
            return Ok(());
        }
        Err(OverrideError::NotAllowed {
            policy: Arc::clone(&self.name),
            kind,
            allowed: allowed.clone(),
        })
    }

    /// A budget may be lowered, not raised.
    fn lower<T: PartialOrd + fmt::Display>(
        &self,
        kind: OverrideKind,
        limit: Option<T>,
        asked: T,
    ) -> Result<T, OverrideError> {
        self.check_allowed(kind)?;
        match limit {
            Some(limit) if asked > limit => {
                let (policy, most) = (Arc::clone(&self.name), limit.to_string());
                Err(OverrideError::OverLimit { policy, kind, most })
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
    fn a_class_overrides_its_policy_and_inherits_the_rest() {
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
    fn an_override_is_applied_within_the_policy_and_else_refused_by_name() {
        let strict = policy(PolicyConfig {
            overrides: vec![OverrideKind::MaxJoules],
            max_joules: Some(10.0),
            ..PolicyConfig::default()
        });
        let kind = |overrides: PolicyOverrides| strict.rule_with(TaskClass::Chat, &overrides);
        let joules =
            |most| PolicyOverrides { max_joules: Some(Joules(most)), ..PolicyOverrides::default() };
        assert_eq!(kind(joules(5.0)).unwrap().max_joules, Some(Joules(5.0)));
        let refused = kind(joules(50.0)).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the policy `test` allows a `max_joules` of at most 10.00 J"
        );
        let refused =
            kind(PolicyOverrides { floor: Some(0.1), ..PolicyOverrides::default() }).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the policy `test` does not let a request set `floor`; it may set max_joules, local_only"
        );
        let local = PolicyOverrides { local_only: true, ..PolicyOverrides::default() };
        assert!(kind(local).unwrap().local_only, "local_only is always permitted");
    }

    #[test]
    fn local_only_is_never_relaxed_and_a_trade_off_needs_a_lambda() {
        let private = policy(PolicyConfig { local_only: true, ..PolicyConfig::default() });
        let open =
            PolicyOverrides { objective: Some(Objective::Quality), ..PolicyOverrides::default() };
        assert!(private.rule_with(TaskClass::Chat, &open).unwrap().local_only);
        let trade =
            PolicyOverrides { objective: Some(Objective::Tradeoff), ..PolicyOverrides::default() };
        let refused = private.rule_with(TaskClass::Chat, &trade).unwrap_err();
        assert_eq!(refused.kind(), OverrideKind::Objective);
    }
}
