//! Intervals of an estimate: for one look at the end, and for looks at any time. Pure.

use serde::Serialize;

/// Two-sided 95 % quantile of the normal distribution.
const Z_95: f64 = 1.959_963_984_540_054;
/// Error of the confidence sequence over all looks together.
const ALPHA: f64 = 0.05;
/// Requests at which the confidence sequence is narrowest, relative to the interval for one look.
const TIGHTEST_AT: f64 = 10_000.0;

/// An estimated mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    pub value: f64,
    /// NaN if the sample is too small to tell.
    pub standard_error: f64,
    pub requests: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
}

impl Estimate {
    /// 95 % interval for a sample of a size that was fixed beforehand.
    pub fn interval(&self) -> Option<Interval> {
        self.within(Z_95 * self.standard_error)
    }

    /// 95 % interval that holds at every look at a growing log at once, so that an operator may
    /// look whenever he likes and stop when it is clear.
    ///
    /// Asymptotic confidence sequence of a mean (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas
    /// 2021, theorem 2.2): `σ √( 2 (n ρ² + 1) / (n² ρ²) · ln( √(n ρ² + 1) / α ) )`.
    pub fn any_time_interval(&self) -> Option<Interval> {
        let n = self.requests;
        // ρ that is about the best at TIGHTEST_AT (same paper, appendix B.2).
        let rho_squared = (-2.0 * ALPHA.ln() + (1.0 - 2.0 * ALPHA.ln()).ln()) / TIGHTEST_AT;
        let s = n * rho_squared + 1.0;
        let times = (2.0 * s / (n * rho_squared) * (s.sqrt() / ALPHA).ln()).sqrt();
        self.within(times * self.standard_error)
    }

    fn within(&self, half_width: f64) -> Option<Interval> {
        let (low, high) = (self.value - half_width, self.value + half_width);
        half_width.is_finite().then_some(Interval { low, high })
    }
}
