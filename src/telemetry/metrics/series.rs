//! One series of a family, looked up at its first use and then kept.

use std::hash::Hash;
use std::ops::Deref;
use std::sync::OnceLock;

use prometheus_client::metrics::family::Family;

/// A series whose labels are known before its first use.
///
/// It does not exist until then: `/metrics` shows no 0 for what is unknown, such as the cost of a
/// model without a price.
pub struct Series<L, M> {
    family: Family<L, M>,
    labels: L,
    metric: OnceLock<M>,
}

impl<L, M> Series<L, M> {
    pub fn new(family: &Family<L, M>, labels: L) -> Self {
        Self { family: family.clone(), labels, metric: OnceLock::new() }
    }
}

impl<L: Clone + Hash + Eq, M: Clone> Deref for Series<L, M> {
    type Target = M;

    fn deref(&self) -> &M {
        self.metric.get_or_init(|| self.family.get_or_create_owned(&self.labels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;
    use crate::telemetry::metrics::ModelNameLabels;

    #[test]
    fn a_series_appears_with_its_first_use_and_is_the_families_own() {
        let metrics = Metrics::new();
        let labels = ModelNameLabels { model: "m".into() };
        let series = Series::new(&metrics.model_loads_total, labels.clone());
        assert!(!metrics.encode().unwrap().contains("model_loads_total{"));
        series.inc();
        metrics.model_loads_total.get_or_create(&labels).inc();
        assert!(metrics.encode().unwrap().contains("model_loads_total{model=\"m\"} 2"));
    }
}
