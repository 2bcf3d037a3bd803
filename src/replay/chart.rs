//! Chart of a replay as SVG: quality over joules of each policy.
//!
//! Draws the figures of the report and computes none.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::estimate::Interval;
use super::evidence::Quantity;
use super::report::{Report, Row};
use crate::plot::{COLOURS, DrawError, FONT, draw, frame, mesh, percent};

const SIZE: (u32, u32) = (760, 420);
/// The part of it between the axes, about, in pixels.
const PLOT: (f64, f64) = (670.0, 350.0);
/// Leaves room above the best.
const QUALITY_MAX: f64 = 1.05;

/// A policy as a point; the intervals are absent where the log gives no verdict.
struct Point<'a> {
    policy: &'a str,
    joules: (f64, Option<Interval>),
    quality: (f64, Option<Interval>),
}

impl<'a> Point<'a> {
    /// By the estimates that the log supports, else by the predictions; `None` if there are none.
    fn of(row: &'a Row) -> Option<Self> {
        let supported = |quantity| {
            let found = row.estimates.iter().find(|one| one.quantity == quantity)?;
            let figure = found.figure(found.headline).filter(|_| found.is_supported())?;
            Some((figure.value, figure.interval))
        };
        if row.unanswered == row.requests {
            return None;
        }
        let answers = row.requests as f64;
        let quality =
            supported(Quantity::Quality).or_else(|| Some((row.expected_quality?, None)))?;
        let joules = supported(Quantity::Joules)
            .or_else(|| (answers > 0.0).then(|| (row.energy.joules.0 / answers, None)))?;
        Some(Self { policy: &row.policy, joules, quality })
    }

    fn is_estimated(&self) -> bool {
        self.quality.1.is_some()
    }
}

/// Quality over joules per request. Filled points are estimated from outcomes, rings are predicted;
/// the policy that served has the first colour.
pub fn quality_and_energy(report: &Report) -> Result<String, DrawError> {
    let points: Vec<Point<'_>> = report.policies.iter().filter_map(Point::of).collect();
    let ends = points.iter().map(|point| point.joules.1.map_or(point.joules.0, |one| one.high));
    let most = ends.fold(f64::MIN_POSITIVE, f64::max) * 1.15;
    draw(SIZE, |area| {
        let mut chart = frame(area).build_cartesian_2d(0.0..most, 0.0..QUALITY_MAX)?;
        mesh(&mut chart, ("joules per request", &joules), ("quality", &percent))?;
        let mut labels = Labels::default();
        for (place, point) in points.iter().enumerate() {
            let colour = COLOURS[place % COLOURS.len()];
            let (x, y) = (point.joules.0, point.quality.0);
            let whiskers = [
                point.joules.1.map(|one| vec![(one.low, y), (one.high, y)]),
                point.quality.1.map(|one| vec![(x, one.low), (x, one.high)]),
            ];
            let lines = whiskers.into_iter().flatten();
            chart.draw_series(lines.map(|ends| PathElement::new(ends, colour.stroke_width(2))))?;
            let style = if point.is_estimated() { colour.filled() } else { colour.stroke_width(2) };
            chart.draw_series([Circle::new((x, y), 6, style)])?;
            let at = (x / most * PLOT.0, -y / QUALITY_MAX * PLOT.1);
            let shift = labels.place(at, point.policy);
            let style =
                (FONT, 14).into_font().color(&colour).pos(Pos::new(HPos::Left, VPos::Center));
            chart
                .draw_series([EmptyElement::at((x, y))
                    + Text::new(point.policy.to_owned(), (10, shift), style)])?;
        }
        Ok(())
    })
}

/// Labels that are placed already, in pixels: left end, middle, length.
#[derive(Default)]
struct Labels(Vec<(f64, f64, f64)>);

impl Labels {
    const HEIGHT: f64 = 15.0;
    const PIXELS_PER_LETTER: f64 = 7.5;

    /// Distance in pixels by which the label of the point at `at` is moved down: the least for
    /// which it covers no other.
    fn place(&mut self, (x, y): (f64, f64), text: &str) -> i32 {
        let length = text.len() as f64 * Self::PIXELS_PER_LETTER;
        let is_free = |shift: i32| {
            self.0.iter().all(|(left, middle, other)| {
                let apart = (y + f64::from(shift) - middle).abs() >= Self::HEIGHT;
                apart || x + length < *left || left + other < x
            })
        };
        let shift = [-10, 10, -25, 25, -40, 40, -55, 55].into_iter().find(|shift| is_free(*shift));
        let shift = shift.unwrap_or_default();
        self.0.push((x, y + f64::from(shift), length));
        shift
    }
}

fn joules(value: f64) -> String {
    if value >= 10.0 || value == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}
