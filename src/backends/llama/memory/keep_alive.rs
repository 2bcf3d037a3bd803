//! Keep-alive time of idle models: break-even between staying loaded and loading again. Pure.

use std::time::Duration;

use crate::units::{Joules, Watts};

/// Bounds of the keep-alive time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub min: Duration,
    pub max: Duration,
}

/// Keep-alive time of an idle model: until staying loaded has cost as much as loading again, within
/// the bounds.
///
/// The ski-rental rule: without knowledge of the next request it costs at most twice the optimum. A
/// model with unknown load energy, or without keep-alive cost, stays as long as allowed.
pub fn keep_alive(load: Option<Joules>, warm: Watts, bounds: Bounds) -> Duration {
    let break_even_s = match load {
        Some(Joules(joules)) if warm.0 > 0.0 => joules / warm.0,
        _ => f64::INFINITY,
    };
    let max_s = bounds.max.as_secs_f64();
    // NaN becomes the minimum.
    let seconds = break_even_s.max(bounds.min.as_secs_f64()).min(max_s);
    Duration::try_from_secs_f64(seconds).unwrap_or(bounds.max)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds { min: Duration::from_secs(10), max: Duration::from_secs(1000) };

    fn seconds(load: Option<f64>, warm: f64) -> f64 {
        keep_alive(load.map(Joules), Watts(warm), BOUNDS).as_secs_f64()
    }

    #[test]
    fn a_model_is_kept_until_keeping_it_has_cost_a_load() {
        assert!((seconds(Some(60.0), 0.5) - 120.0).abs() < 1e-9);
    }

    #[test]
    fn floor_and_ceiling_hold() {
        assert!((seconds(Some(0.1), 0.5) - 10.0).abs() < 1e-9);
        assert!((seconds(Some(1e9), 0.5) - 1000.0).abs() < 1e-9);
    }

    #[test]
    fn a_model_with_unknown_cost_is_kept_for_the_maximum_time() {
        assert!((seconds(None, 0.5) - 1000.0).abs() < 1e-9);
        assert!((seconds(Some(60.0), 0.0) - 1000.0).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn time_grows_with_load_energy_and_falls_with_keep_alive_power(
            load in 0.0f64..1e6, more in 0.0f64..1e6, warm in 0.001f64..100.0, hotter in 0.0f64..100.0,
        ) {
            let kept = seconds(Some(load), warm);
            prop_assert!((10.0..=1000.0).contains(&kept));
            prop_assert!(seconds(Some(load + more), warm) >= kept);
            prop_assert!(seconds(Some(load), warm + hotter) <= kept);
        }
    }
}
