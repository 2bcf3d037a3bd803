//! Charts of the report as SVG.
//!
//! Draws the figures of the summary and computes none.

use std::ops::Range;

use plotters::coord::combinators::LogCoord;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::fit::Fit;
use super::stats::Estimate;
use super::summary::{ModelResult, Part, Summary};
use super::table::digits;
use crate::plot::{Area, COLOURS, DrawError, Drawn, FAINT, FONT, INK, draw, frame, mesh, percent};

/// Accuracy over joules of each model, with intervals.
pub fn frontier(summary: &Summary) -> Result<String, DrawError> {
    let points: Vec<(String, Estimate, Estimate)> = summary
        .results
        .iter()
        .filter_map(|result| Some((label(result), result.joules?, result.accuracy?)))
        .filter(|(_, joules, _)| joules.value > 0.0)
        .collect();
    draw((760, 400), |area| {
        let ends = points.iter().flat_map(|(_, joules, _)| [joules.low, joules.high]);
        let (low, high) = decades(ends.filter(|end| *end > 0.0));
        let mut chart = frame(area).build_cartesian_2d(log(low..high), 0.0..1.0)?;
        mesh(&mut chart, ("joules per request (log scale)", &digits), ("accuracy", &percent))?;
        for (place, (name, joules, accuracy)) in points.iter().enumerate() {
            let colour = COLOURS[place % COLOURS.len()];
            let (x, y) = (joules.value, accuracy.value);
            let line = colour.stroke_width(2);
            chart.draw_series([
                PathElement::new(vec![(joules.low.max(low), y), (joules.high, y)], line),
                PathElement::new(vec![(x, accuracy.low), (x, accuracy.high)], line),
            ])?;
            chart.draw_series([Circle::new((x, y), 6, colour.filled())])?;
            // Alternates above and below, because labels of similar models would overlap.
            let (at, shift) = if place % 2 == 0 { (VPos::Bottom, -8) } else { (VPos::Top, 8) };
            let style = (FONT, 14).into_font().color(&colour).pos(Pos::new(HPos::Left, at));
            chart.draw_series([
                EmptyElement::at((x, y)) + Text::new(name.clone(), (10, shift), style)
            ])?;
        }
        Ok(())
    })
}

/// Joules per request in each part, one bar per model.
pub fn joules_by(
    summary: &Summary,
    parts: impl Fn(&ModelResult) -> &[Part],
) -> Result<String, DrawError> {
    bars(
        summary,
        |result| parts(result).iter().map(|part| (part.name.clone(), part.joules)).collect(),
        ("joules per request", digits),
    )
}

/// Accuracy in each part, one bar per model.
pub fn accuracy_by(
    summary: &Summary,
    parts: impl Fn(&ModelResult) -> &[Part],
) -> Result<String, DrawError> {
    bars(
        summary,
        |result| parts(result).iter().map(|part| (part.name.clone(), part.accuracy)).collect(),
        ("accuracy", percent),
    )
}

const BAR: i32 = 15;
const GAP: i32 = 12;
const LEFT: i32 = 120;
const BOTTOM: i32 = 58;

/// Horizontal bars with intervals, grouped by part, so that names of parts stay readable.
fn bars(
    summary: &Summary,
    parts: impl Fn(&ModelResult) -> Vec<(String, Option<Estimate>)>,
    (what, show): (&str, fn(f64) -> String),
) -> Result<String, DrawError> {
    let columns: Vec<Vec<(String, Option<Estimate>)>> =
        summary.results.iter().map(&parts).collect();
    let names: Vec<String> =
        columns.first().into_iter().flatten().map(|(name, _)| name.clone()).collect();
    let all = || columns.iter().flatten().filter_map(|(_, estimate)| *estimate);
    let most = all().map(|estimate| estimate.high).fold(0.0, f64::max).max(1e-9);
    let group = BAR * i32::try_from(columns.len()).unwrap_or(1) + GAP;
    let height = group * i32::try_from(names.len()).unwrap_or(0) + BOTTOM + 10;
    let width = 560_i32;
    draw((width.unsigned_abs(), height.unsigned_abs()), |area| {
        let scale = f64::from(width - LEFT - 70) / most;
        #[expect(clippy::cast_possible_truncation, reason = "pixels of one picture")]
        let x = |value: f64| LEFT + (value * scale).round() as i32;
        axis(area, &ticks(most), &x, height - BOTTOM, (what, show))?;
        for (row, name) in (0..).zip(&names) {
            let top = 10 + row * group;
            let style = (FONT, 14).into_font().color(&INK).pos(Pos::new(HPos::Right, VPos::Center));
            area.draw(&Text::new(name.clone(), (LEFT - 8, top + (group - GAP) / 2), style))?;
            for (place, column) in (0..).zip(&columns) {
                let Some((_, Some(estimate))) = column.iter().find(|(other, _)| other == name)
                else {
                    continue;
                };
                let (from, to) = (top + place * BAR, top + (place + 1) * BAR - 2);
                let colour = COLOURS[usize::try_from(place).unwrap_or(0) % COLOURS.len()];
                area.draw(&Rectangle::new(
                    [(LEFT, from), (x(estimate.value), to)],
                    colour.mix(0.85).filled(),
                ))?;
                let middle = i32::midpoint(from, to);
                area.draw(&PathElement::new(
                    vec![(x(estimate.low), middle), (x(estimate.high), middle)],
                    INK,
                ))?;
                let style =
                    (FONT, 12).into_font().color(&INK).pos(Pos::new(HPos::Left, VPos::Center));
                area.draw(&Text::new(show(estimate.value), (x(estimate.high) + 6, middle), style))?;
            }
        }
        Ok(())
    })
}

fn axis(
    area: &Area<'_>,
    ticks: &[f64],
    x: &impl Fn(f64) -> i32,
    bottom: i32,
    (what, show): (&str, fn(f64) -> String),
) -> Drawn {
    for &tick in ticks {
        area.draw(&PathElement::new(vec![(x(tick), 4), (x(tick), bottom)], FAINT))?;
        let style = (FONT, 12).into_font().color(&INK).pos(Pos::new(HPos::Center, VPos::Top));
        area.draw(&Text::new(show(tick), (x(tick), bottom + 6), style))?;
    }
    let style = (FONT, 14).into_font().color(&INK).pos(Pos::new(HPos::Center, VPos::Top));
    area.draw(&Text::new(
        what.to_owned(),
        (i32::midpoint(x(0.0), x(ticks.last().copied().unwrap_or(1.0))), bottom + 28),
        style,
    ))?;
    Ok(())
}

/// Fitted over actual joules of held-out requests.
pub fn residuals(fit: &Fit) -> Result<String, DrawError> {
    let points = &fit.points;
    draw((440, 400), |area| {
        let (low, high) = decades(points.iter().flat_map(|point| [point.fitted, point.actual]));
        let mut chart = frame(area).build_cartesian_2d(log(low..high), log(low..high))?;
        mesh(&mut chart, ("metered joules", &digits), ("joules from the fit", &digits))?;
        chart.draw_series([PathElement::new(vec![(low, low), (high, high)], INK)])?;
        for factor in [0.85, 1.0 / 0.85] {
            let (from, to) = (low.max(low / factor), high.min(high / factor));
            chart.draw_series([PathElement::new(
                vec![(from, from * factor), (to, to * factor)],
                FAINT.stroke_width(2),
            )])?;
        }
        let dots = points.iter().map(|point| {
            Circle::new((point.actual, point.fitted), 3, COLOURS[0].mix(0.6).filled())
        });
        chart.draw_series(dots)?;
        Ok(())
    })
}

/// Label of a result.
pub fn label(result: &ModelResult) -> String {
    if result.batch == 1 {
        result.model.clone()
    } else {
        format!("{} × {}", result.model, result.batch)
    }
}

/// Colour of the nth result, for a legend.
pub fn colour(place: usize) -> String {
    let RGBColor(red, green, blue) = COLOURS[place % COLOURS.len()];
    format!("rgb({red},{green},{blue})")
}

/// A logarithmic axis with a line at each power of 10, or of 2 where those would be too few.
fn log(range: Range<f64>) -> LogCoord<f64> {
    let base = if range.end / range.start < 100.0 { 2.0 } else { 10.0 };
    range.log_scale().base(base).into()
}

/// A range around the values, wide enough for a logarithmic axis.
fn decades(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values
        .fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
    if high <= 0.0 || !low.is_finite() {
        (0.1, 10.0)
    } else {
        (low / 1.6, (high * 1.6).max(low * 4.0))
    }
}

/// Round values from 0 to `most`.
fn ticks(most: f64) -> Vec<f64> {
    let magnitude = 10_f64.powf(most.log10().floor());
    let step = [0.2, 0.5, 1.0, 2.0].map(|factor| factor * magnitude);
    let step = step.into_iter().find(|step| most / step <= 6.0).unwrap_or(magnitude);
    (0..=6).map(|count| f64::from(count) * step).filter(|tick| *tick <= most * 1.001).collect()
}
