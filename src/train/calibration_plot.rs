//! Calibration plot: predicted probability of an adequate answer against the observed share.
//!
//! Pure SVG from a [`Report`]; the same training gives the same bytes.

use plotters::prelude::*;

use super::metrics::Bin;
use super::report::Report;
use crate::plot::{Area, COLOURS, DrawError, Drawn, FONT, INK, draw, frame, mesh};

/// Name of the plot within a router's folder.
pub const CALIBRATION_PLOT_FILE: &str = "calibration.svg";

/// Pixels.
const SIZE: (u32, u32) = (500, 480);
/// Radius of a point without predictions, and what a point with all of them adds, pixels.
const RADIUS: (f64, f64) = (2.0, 14.0);

/// One curve for the general model and one for each pair's own heads; the area of a point is its
/// share of the predictions.
pub fn calibration_plot(report: &Report) -> Result<String, DrawError> {
    let general = report.calibration.as_ref().map(|found| ("ability and difficulty", &found.curve));
    let own = report.pairs.iter().map(|pair| (pair.source.as_str(), &pair.in_domain_curve));
    let curves: Vec<(&str, &[Bin])> =
        general.into_iter().chain(own).map(|(name, curve)| (name, &curve[..])).collect();
    draw(SIZE, |area| paint(area, &curves))
}

fn paint(area: &Area<'_>, curves: &[(&str, &[Bin])]) -> Drawn {
    let mut chart = frame(area).build_cartesian_2d(0.0..1.0, 0.0..1.0)?;
    let show = |share: f64| format!("{share:.1}");
    let predicted =
        ("predicted probability of an adequate answer", &show as &dyn Fn(f64) -> String);
    mesh(&mut chart, predicted, ("observed share of adequate answers", &show))?;
    chart.draw_series([PathElement::new(vec![(0.0, 0.0), (1.0, 1.0)], INK)])?;
    for ((name, curve), colour) in curves.iter().zip(COLOURS.into_iter().cycle()) {
        let all: usize = curve.iter().map(|bin| bin.predictions).sum();
        let points = curve.iter().map(|bin| (bin.mean_p, bin.mean_outcome)).collect::<Vec<_>>();
        chart
            .draw_series([PathElement::new(points, colour.stroke_width(2))])?
            .label(format!("{name}, {all} held-out predictions"))
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], colour));
        let circle = |bin: &Bin| {
            let share = bin.predictions as f64 / all.max(1) as f64;
            let size = radius(share);
            Circle::new((bin.mean_p, bin.mean_outcome), size, colour.mix(0.35).filled())
        };
        chart.draw_series(curve.iter().map(circle))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .label_font((FONT, 13).into_font().color(&INK))
        .background_style(WHITE.mix(0.8))
        .draw()?;
    Ok(())
}

/// So that the area grows with the share, 0 to 1.
#[expect(clippy::cast_possible_truncation, reason = "at most 16 pixels")]
fn radius(share: f64) -> i32 {
    (RADIUS.0 + RADIUS.1 * share.sqrt()).round() as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_curve_is_drawn_and_named_in_the_legend() {
        let bin = Bin { predictions: 30, mean_p: 0.4, mean_outcome: 0.5 };
        let curve: &[Bin] = &[bin];
        let svg = draw(SIZE, |area| paint(area, &[("a & b", curve), ("none", &[])])).unwrap();
        assert!(svg.contains("a &amp; b, 30 held-out predictions"), "{svg}");
        assert!(svg.contains("none, 0 held-out predictions"), "{svg}");
        assert_eq!(svg.matches("<circle").count(), 1, "{svg}");
    }
}
