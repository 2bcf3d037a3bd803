//! The calibration curve as a picture: predicted probability against how often it came true.
//!
//! Pure text (SVG) from a [`Report`]; the same training gives the same bytes.

use std::fmt::Write;

use super::Report;
use super::metrics::Bin;

/// Name of the picture within a router's folder.
pub const PICTURE_FILE: &str = "calibration.svg";

/// Pixels of the plotted square, and of the margin for its labels.
const SIDE: f64 = 360.0;
const MARGIN: f64 = 56.0;
const COLOURS: [&str; 4] = ["#1f6feb", "#d1570a", "#2c974b", "#8250df"];

/// One curve for the general model and one for each pair's own heads; the area of a point is its share of predictions.
pub fn picture(report: &Report) -> String {
    let general = report.calibration.as_ref().map(|found| ("ability and difficulty", &found.curve));
    let own = report.pairs.iter().map(|pair| (pair.source.as_str(), &pair.in_domain_curve));
    let (width, height) = (SIDE + 2.0 * MARGIN, SIDE + 2.0 * MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    // Writing to a string cannot fail, so the results are dropped.
    let _ = frame(&mut svg);
    for (at, (name, curve)) in general.into_iter().chain(own).enumerate() {
        let _ = draw(&mut svg, at, name, curve);
    }
    svg.push_str("</svg>\n");
    svg
}

fn x(p: f64) -> f64 {
    MARGIN + p * SIDE
}

fn y(outcome: f64) -> f64 {
    MARGIN + (1.0 - outcome) * SIDE
}

fn frame(svg: &mut String) -> std::fmt::Result {
    for tick in 0..=5_u8 {
        let p = f64::from(tick) / 5.0;
        let (left, right, top, bottom) = (x(0.0), x(1.0), y(1.0), y(0.0));
        let (across, up) = (x(p), y(p));
        writeln!(
            svg,
            "<path d=\"M{left} {up}H{right}M{across} {top}V{bottom}\" stroke=\"#ddd\"/>\
             <text x=\"{across}\" y=\"{}\" text-anchor=\"middle\">{p}</text>\
             <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{p}</text>",
            bottom + 18.0,
            left - 8.0,
            up + 4.0
        )?;
    }
    writeln!(
        svg,
        "<path d=\"M{} {}L{} {}\" stroke=\"#888\" stroke-dasharray=\"4 4\"/>",
        x(0.0),
        y(0.0),
        x(1.0),
        y(1.0)
    )?;
    let (middle, low) = (x(0.5), y(0.0) + 40.0);
    writeln!(
        svg,
        "<text x=\"{middle}\" y=\"{low}\" text-anchor=\"middle\">predicted probability of an adequate answer</text>\
         <text transform=\"translate(16 {middle}) rotate(-90)\" text-anchor=\"middle\">share that was adequate</text>"
    )
}

fn draw(svg: &mut String, at: usize, name: &str, curve: &[Bin]) -> std::fmt::Result {
    let colour = COLOURS[at % COLOURS.len()];
    let all: usize = curve.iter().map(|bin| bin.predictions).sum();
    let points: Vec<String> = curve
        .iter()
        .map(|bin| format!("{:.1},{:.1}", x(bin.mean_p), y(bin.mean_outcome)))
        .collect();
    writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
        points.join(" ")
    )?;
    for bin in curve {
        let share = bin.predictions as f64 / all.max(1) as f64;
        let (across, up, radius) = (x(bin.mean_p), y(bin.mean_outcome), 2.0 + 14.0 * share.sqrt());
        writeln!(
            svg,
            "<circle cx=\"{across:.1}\" cy=\"{up:.1}\" r=\"{radius:.1}\" fill=\"{colour}\" fill-opacity=\"0.35\"/>"
        )?;
    }
    let name = name.replace('&', "&amp;").replace('<', "&lt;");
    let line = MARGIN - 34.0 + 15.0 * at as f64;
    writeln!(
        svg,
        "<text x=\"{MARGIN}\" y=\"{line}\" fill=\"{colour}\">{name}, {all} held-out predictions</text>"
    )
}
