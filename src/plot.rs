//! Common parts of the project's plots: size, colours, grid and axes, drawn as SVG.
//!
//! Pure: the same calls give the same bytes.

use plotters::coord::Shift;
use plotters::coord::ranged1d::ValueFormatter;
use plotters::prelude::*;

/// Why a plot could not be drawn. Writing to a string cannot fail, so the error is the library's.
#[derive(Debug, thiserror::Error)]
#[error("cannot draw the plot: {0}")]
pub struct DrawError(String);

pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
pub type Drawn = Result<(), Box<dyn std::error::Error>>;
pub type Chart<'a, 'b, X, Y> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<X, Y>>;

/// Okabe and Ito's colours, distinguishable with any colour vision.
pub const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];
/// Text and axes.
pub const INK: RGBColor = RGBColor(51, 51, 51);
/// Grid lines.
pub const FAINT: RGBColor = RGBColor(225, 225, 225);
pub const FONT: &str = "sans-serif";

/// An SVG of this size in pixels, painted by `paint`.
pub fn draw(size: (u32, u32), paint: impl FnOnce(&Area<'_>) -> Drawn) -> Result<String, DrawError> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        paint(&area).map_err(|error| DrawError(error.to_string()))?;
        area.present().map_err(|error| DrawError(error.to_string()))?;
    }
    Ok(svg)
}

/// A chart with space for labels on both axes.
pub fn frame<'a, 'b>(area: &'a Area<'b>) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut builder = ChartBuilder::on(area);
    builder.margin(12).x_label_area_size(46).y_label_area_size(62);
    builder
}

/// Title and value format of an axis.
pub type Axis<'a> = (&'a str, &'a dyn Fn(f64) -> String);

/// Grid and axes.
pub fn mesh<X, Y>(
    chart: &mut Chart<'_, '_, X, Y>,
    (x, show_x): Axis<'_>,
    (y, show_y): Axis<'_>,
) -> Drawn
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(FAINT)
        .axis_style(INK)
        .label_style((FONT, 13).into_font().color(&INK))
        .axis_desc_style((FONT, 14).into_font().color(&INK))
        .x_desc(x)
        .y_desc(y)
        .x_labels(6)
        .y_labels(6)
        .x_label_formatter(&|value| show_x(*value))
        .y_label_formatter(&|value| show_y(*value))
        .draw()?;
    Ok(())
}

/// A share from 0 to 1 in percent.
pub fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}
