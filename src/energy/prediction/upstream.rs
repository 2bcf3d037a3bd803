//! Energy reported by an upstream for its answer, in Neuralwatt's wire format or Wattgate's own.
//! Pure.
//!
//! Parses untrusted text: an implausible amount is ignored, never taken as zero.

use serde::Deserialize;

use crate::energy::figure::{EnergyFigure, Quality, Source};
use crate::units::Joules;

/// Reads the comment of an SSE stream, `: energy {"energy_joules": 4.2, …}`, with or without the
/// leading colon.
pub fn from_sse_comment(comment: &str) -> Option<EnergyFigure> {
    let payload = comment.trim_start_matches(':').trim_start().strip_prefix("energy")?;
    let report: Report = serde_json::from_str(payload).ok()?;
    report.figure()
}

/// Reads a whole response object or a stream chunk: a top-level `energy` object, `energy_joules`
/// next to `choices`, or the receipt of another Wattgate.
pub fn from_body(body: &str) -> Option<EnergyFigure> {
    let body: Body = serde_json::from_str(body).ok()?;
    let nested = body.wattgate.and_then(|receipt| receipt.energy).or(body.energy);
    nested
        .and_then(|report| report.figure())
        .or_else(|| Report { energy_joules: body.energy_joules, ..Report::default() }.figure())
}

/// The fields of a body that may contain energy.
#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    energy: Option<Report>,
    #[serde(default)]
    energy_joules: Option<f64>,
    #[serde(default)]
    wattgate: Option<Receipt>,
}

#[derive(Deserialize)]
struct Receipt {
    #[serde(default)]
    energy: Option<Report>,
}

/// Either format; their field names differ.
#[derive(Default, Deserialize)]
struct Report {
    #[serde(default)]
    energy_joules: Option<f64>,
    #[serde(default)]
    energy_kwh: Option<f64>,
    #[serde(default)]
    joules: Option<f64>,
    #[serde(default)]
    low: Option<f64>,
    #[serde(default)]
    high: Option<f64>,
    #[serde(default)]
    quality: Option<Quality>,
}

/// Joules per kilowatt-hour.
const KWH: f64 = 3.6e6;

impl Report {
    /// The figure, at best estimated: a report cannot be verified, and shares of a batch are
    /// prorated. An end of the band that is not reported is unknown.
    fn figure(&self) -> Option<EnergyFigure> {
        let claimed = self.energy_joules.or(self.joules);
        let joules = plausible(claimed.or(self.energy_kwh.map(|kwh| kwh * KWH)))?;
        let low = plausible(self.low).filter(|low| *low <= joules);
        let high = plausible(self.high).filter(|high| *high >= joules);
        let quality = self.quality.unwrap_or(Quality::Estimated).max(Quality::Estimated);
        let (joules, source) = (Some(joules), Source::Upstream);
        Some(EnergyFigure { joules, low, high, quality, source, is_final: true })
    }
}

/// Positive, finite, and below a gigawatt-hour: an answer with 0 J means a meter that did not work.
fn plausible(joules: Option<f64>) -> Option<Joules> {
    joules.filter(|joules| *joules > 0.0 && *joules < 1e6 * KWH).map(Joules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neuralwatt_comment_and_body_are_read() {
        let comment = r#": energy {"energy_joules":12.5,"energy_kwh":3.47e-6,"avg_power_watts":250.0,"duration_seconds":0.05,"attribution_method":"prorated_multi_gpu_8","attribution_ratio":0.125}"#;
        let figure = from_sse_comment(comment).unwrap();
        assert_eq!((figure.joules, figure.source), (Some(Joules(12.5)), Source::Upstream));
        assert_eq!((figure.quality, figure.low, figure.high), (Quality::Estimated, None, None));
        let body = r#"{"id":"x","choices":[{"index":0}],"energy":{"energy_kwh":0.000001}}"#;
        let joules = from_body(body).unwrap().joules.unwrap().0;
        assert!((joules - 3.6).abs() < 1e-9, "{joules}");
        assert_eq!(from_body(r#"{"energy_joules":2.0}"#).unwrap().joules, Some(Joules(2.0)));
    }

    #[test]
    fn another_wattgate_keeps_its_band_but_not_its_measured_label() {
        let body = r#"{"choices":[],"wattgate":{"energy":{"joules":4.3,"low":1.4,"high":10.5,"quality":"measured","source":"rapl","final":false}}}"#;
        let figure = from_body(body).unwrap();
        assert_eq!((figure.low, figure.high), (Some(Joules(1.4)), Some(Joules(10.5))));
        assert_eq!(figure.quality, Quality::Estimated);
    }

    #[test]
    fn invalid_reports_are_ignored() {
        for comment in [
            ": ping",
            "energy",
            "energy {",
            r#"energy {"energy_joules":-1}"#,
            r#"energy {"energy_joules":0}"#,
            "energy {}",
        ] {
            assert_eq!(from_sse_comment(comment), None, "{comment}");
        }
        for body in
            ["", "[]", "{}", r#"{"energy":"lots"}"#, r#"{"energy":{"energy_joules":1e300}}"#]
        {
            assert_eq!(from_body(body), None, "{body}");
        }
    }
}
