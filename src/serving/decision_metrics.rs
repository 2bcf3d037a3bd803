//! Metrics of routing decisions. Counts only.

use std::sync::Arc;

use super::plan::Plan;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{DecisionLabels, ShadowLabels, TurnLabels};

/// Counts one decision.
pub fn count(metrics: &Metrics, plan: &Plan) {
    let route = plan.decision.chosen().map_or("none", |candidate| candidate.route.label());
    let labels = DecisionLabels {
        policy: Arc::clone(&plan.policy.name),
        route,
        reason: plan.decision.reason.label(),
        task: plan.features.task.label(),
    };
    metrics.decisions_total.get_or_create(&labels).inc();
    metrics.decision_duration_seconds.observe(plan.took.as_secs_f64());
    if let Some(shadow) = &plan.shadow {
        let chosen = plan.decision.chosen().map(|candidate| &candidate.model);
        let agrees = if chosen == shadow.model.as_ref() { "true" } else { "false" };
        let labels = ShadowLabels { policy: Arc::clone(&plan.policy.name), agrees };
        metrics.shadow_decisions_total.get_or_create(&labels).inc();
    }
    if plan.fingerprint.is_some() {
        let labels = TurnLabels { policy: Arc::clone(&plan.policy.name), turn: turn(plan) };
        metrics.conversation_turns_total.get_or_create(&labels).inc();
    }
}

/// What this turn does to its conversation.
fn turn(plan: &Plan) -> &'static str {
    let chosen = plan.decision.chosen().map(|candidate| &candidate.model);
    match &plan.rule.affinity {
        None => "first",
        Some(stay) if chosen == Some(&stay.model) => "stays",
        Some(_) if plan.decision.reason.previous_unavailable.is_some() => "lost",
        Some(_) => "moves",
    }
}
