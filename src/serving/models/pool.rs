//! Combined health of several deployments of a model, and the one to try first.

use std::sync::Arc;
use std::time::Duration;

use super::deployment::Deployment;
use crate::backends::Health;
use crate::routing::Unavailable;

/// Deployments of one model taken together.
#[derive(Clone, Copy)]
pub(super) struct Pool<'m> {
    /// The one that is tried first.
    pub(super) best: &'m Arc<Deployment>,
    /// Requests in flight at `best`.
    least_in_flight: u32,
    /// Why none takes requests at present.
    pub(super) unavailable: Option<Unavailable>,
    /// Sum of those that take requests.
    pub(super) health: Health,
}

impl<'m> Pool<'m> {
    pub(super) fn of(deployment: &'m Arc<Deployment>) -> Self {
        let health = deployment.backend.health();
        let unavailable = deployment.unavailable(health);
        Self { best: deployment, least_in_flight: health.in_flight, unavailable, health }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        match (self.unavailable, other.unavailable) {
            (Some(_), Some(_)) => {
                Self { health: Health { ready_in: self.sooner(other), ..self.health }, ..self }
            }
            (None, Some(_)) => self,
            (Some(_), None) => other,
            (None, None) => {
                let idler = if other.least_in_flight < self.least_in_flight { other } else { self };
                let (a, b) = (self.health, other.health);
                let context_tokens = a.context_tokens.zip(b.context_tokens);
                let health = Health {
                    ready: true,
                    ready_in: None,
                    in_flight: a.in_flight.saturating_add(b.in_flight),
                    slots: a.slots.saturating_add(b.slots),
                    context_tokens: context_tokens.map(|(a, b)| a.max(b)),
                };
                Self { health, ..idler }
            }
        }
    }

    /// When the first of two pools that are not ready may be again.
    fn sooner(self, other: Self) -> Option<Duration> {
        [self, other].into_iter().filter_map(|pool| pool.health.ready_in).min()
    }
}
