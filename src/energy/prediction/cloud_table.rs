//! Energy of cloud answers from a table of model classes. Pure.
//!
//! It cannot be measured from outside, so every row is an assumption with a wide band, a boundary,
//! a source and a date. Configured figures override the table.

use serde::{Deserialize, Serialize};

use crate::energy::figure::{EnergyFigure, Quality, Source};
use crate::units::Joules;
use crate::validate::{Diagnostics, above_zero_to};

/// Energy class of a cloud model. The class of a proprietary model is itself an assumption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// At most 5 billion active parameters: gpt-oss-20b, 3B models, "nano" and "flash-lite" offers.
    Nano,
    /// Up to 12 billion dense: Llama 3.1 8B, Gemma 3 12B, "mini" offers.
    Small,
    /// Up to 35 billion dense: Qwen3 32B, Gemma 3 27B, gpt-oss-120b.
    Medium,
    /// 70 billion dense, or a mixture with about 17 billion active: Llama 3.3 70B, Llama 4 Scout.
    Large,
    /// Undisclosed, or a mixture with 22 billion active and more: GPT-4o, Sonnet, Gemini Pro.
    Frontier,
    /// Opus-like offers, 405 billion dense.
    FrontierXl,
}

/// System boundary of a row's joules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Boundary {
    /// The accelerators alone.
    Accelerator,
    /// The servers: accelerators and host, without cooling and the rest of the building.
    Server,
    /// The data centre: accelerators, hosts, idle reserve and cooling. No PUE is applied.
    #[default]
    Wall,
}

/// Joules of the data centre per joule of an accelerator: accelerators took 58 % of the total at
/// Google (August 2025).
const WALL_PER_ACCELERATOR: f64 = 1.72;
/// PUE included in [`WALL_PER_ACCELERATOR`].
const PUE_OF_THAT: f64 = 1.09;
/// PUE assumed for a data centre without a configured one.
const UNKNOWN_PUE: f64 = 1.2;

impl Boundary {
    /// The value in the config.
    pub fn label(self) -> &'static str {
        match self {
            Self::Accelerator => "accelerator",
            Self::Server => "server",
            Self::Wall => "wall",
        }
    }

    /// Joules of the data centre per joule within the boundary; `pue` is the data centre's, if
    /// known.
    fn to_wall(self, pue: Option<f64>) -> f64 {
        match self {
            Self::Accelerator => {
                pue.map_or(WALL_PER_ACCELERATOR, |pue| WALL_PER_ACCELERATOR / PUE_OF_THAT * pue)
            }
            Self::Server => pue.unwrap_or(UNKNOWN_PUE),
            Self::Wall => 1.0,
        }
    }
}

/// `[models.NAME.openai.energy]`: figures that override the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OwnFigures {
    /// Joules per prompt token, 0 to 1000. Default: the class's.
    pub joules_per_input_token: Option<f64>,
    /// Joules per generated token, above 0 and up to 1000. Default: the class's.
    pub joules_per_output_token: Option<f64>,
    /// Lower end of its band. Default: the figure itself.
    pub joules_per_output_token_low: Option<f64>,
    /// Upper end of its band. Default: the figure itself.
    pub joules_per_output_token_high: Option<f64>,
    /// Boundary of the figures. Default `wall`: nothing is added.
    pub boundary: Boundary,
    /// Power usage effectiveness of the data centre, 1 to 3. Default: unknown; 1.2 is assumed for
    /// servers.
    pub pue: Option<f64>,
}

impl OwnFigures {
    /// Reports what cannot be; `class` is the size class beside which the figures stand.
    pub fn validate(&self, class: Option<Class>, out: &mut Diagnostics) {
        let Self {
            joules_per_input_token: input,
            joules_per_output_token: output,
            joules_per_output_token_low: low,
            joules_per_output_token_high: high,
            ..
        } = *self;
        out.range_if_set("joules_per_input_token", input, 0.0..=1000.0, " J");
        out.range_if_set("joules_per_output_token", output, above_zero_to(1000.0), " J");
        out.rule(
            "joules_per_output_token",
            output.is_some() || (low.is_none() && high.is_none()),
            "is needed for a band of its own",
        );
        out.rule(
            "joules_per_output_token",
            class.is_some() || output.is_some() == input.is_some(),
            "and `joules_per_input_token` are both needed without an `energy_class`",
        );
        if let Some(middle) = output {
            const HINT: &str = "the band must hold `joules_per_output_token`";
            out.range_if_set("joules_per_output_token_low", low, 0.0..=middle, " J").hint(HINT);
            out.range_if_set("joules_per_output_token_high", high, middle..=1000.0, " J")
                .hint(HINT);
        }
        out.range_if_set("pue", self.pue, 1.0..=3.0, "");
    }

    /// Origin of the joules per token: source, boundary and date.
    pub fn origin(self, class: Option<Class>) -> String {
        let own = [self.joules_per_input_token, self.joules_per_output_token];
        let own = own.into_iter().flatten().count();
        let table = class.map(|class| {
            let Row { boundary, source, date, .. } = class.row();
            format!("class {}, {}, {date}: {source}", class.label(), boundary.label())
        });
        match (own, table) {
            (0, None) => "unknown: no energy_class, no figures of your own".to_owned(),
            (0, Some(table)) => table,
            (1, Some(table)) => format!("your own ({}), the rest {table}", self.boundary.label()),
            _ => format!("your own ({})", self.boundary.label()),
        }
    }

    /// Joules per token at the data centre's wall; `None` without figures or a class.
    pub fn over(self, class: Option<Class>) -> Option<PerToken> {
        let row = class.map(|class| PerToken::from(class.row()));
        let scale = self.boundary.to_wall(self.pue);
        let own_output = self.joules_per_output_token.map(|middle| {
            let low = self.joules_per_output_token_low.unwrap_or(middle);
            let high = self.joules_per_output_token_high.unwrap_or(middle);
            [low, middle, high].map(|joules| joules * scale)
        });
        Some(PerToken {
            input: self
                .joules_per_input_token
                .map(|own| own * scale)
                .or(row.map(|row| row.input))?,
            output: own_output.or(row.map(|row| row.output))?,
        })
    }
}

/// Joules at the data centre's wall per prompt token, and lower end, middle and upper end per
/// generated token.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PerToken {
    #[serde(rename = "joules_per_input_token")]
    pub input: f64,
    #[serde(rename = "joules_per_output_token")]
    pub output: [f64; 3],
}

impl From<Row> for PerToken {
    fn from(row: Row) -> Self {
        let scale = row.boundary.to_wall(None);
        Self { input: row.input.0 * scale, output: row.output.map(|joules| joules.0 * scale) }
    }
}

/// Joules per token of one class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Row {
    pub class: Class,
    /// Middle of the band, per prompt token.
    pub input: Joules,
    /// Lower end, middle and upper end, per generated token. The band is an assumption, not a
    /// confidence interval: the provider's batch size alone changes joules per token by a factor of
    /// 5 to 15.
    pub output: [Joules; 3],
    pub boundary: Boundary,
    pub source: &'static str,
    /// Date of the row, ISO 8601.
    pub date: &'static str,
}

/// Measured accelerator joules per output token, scaled to the wall by Google's disclosed ratio
/// (accelerators 58 % of the total); input joules from 2 FLOP per parameter and token at 40 %
/// utilisation, checked against Epoch AI's estimate.
const MEASURED_OPEN: &str =
    "ML.ENERGY benchmark v3 (Dec 2025, H100/B200) × 1.72 after Google (Aug 2025); input derived";
/// The same, with the class of undisclosed models inferred from published figures per query.
const INFERRED: &str = "ML.ENERGY v3 open models of that size × 1.72; Google 0.24 Wh (Aug 2025) and Epoch AI 0.3 Wh (Feb 2025) per query";

/// The table, indexed by class.
pub const TABLE: [Row; 6] = [
    row(Class::Nano, 0.02, [0.08, 0.25, 1.4], MEASURED_OPEN),
    row(Class::Small, 0.06, [0.12, 0.25, 1.2], MEASURED_OPEN),
    row(Class::Medium, 0.15, [0.4, 0.65, 2.8], MEASURED_OPEN),
    row(Class::Large, 0.4, [0.65, 1.5, 7.0], MEASURED_OPEN),
    row(Class::Frontier, 0.5, [1.0, 2.5, 15.0], INFERRED),
    row(Class::FrontierXl, 1.0, [3.5, 5.5, 24.0], INFERRED),
];

/// Cost of a prompt token from the provider's cache relative to a computed one: assumed from
/// providers' prices.
const CACHED_INPUT: f64 = 0.1;

const fn row(class: Class, input: f64, [low, middle, high]: [f64; 3], source: &'static str) -> Row {
    let output = [Joules(low), Joules(middle), Joules(high)];
    let input = Joules(input);
    Row { class, input, output, boundary: Boundary::Wall, source, date: "2026-11-22" }
}

impl Class {
    /// The value in the config.
    pub fn label(self) -> &'static str {
        match self {
            Self::Nano => "nano",
            Self::Small => "small",
            Self::Medium => "medium",
            Self::Large => "large",
            Self::Frontier => "frontier",
            Self::FrontierXl => "frontier_xl",
        }
    }

    pub fn row(self) -> Row {
        TABLE[self as usize]
    }
}

/// Energy of one cloud answer from its token counts, final at once; unknown without joules per
/// token. `cached_tokens` are part of `prompt_tokens`, reasoning tokens part of `generated_tokens`.
///
/// The relative band of input is that of output: both come from the provider's batching. Errors are
/// systematic, so bands of several answers add.
pub fn estimate(
    per_token: Option<PerToken>,
    prompt_tokens: u64,
    cached_tokens: u64,
    generated_tokens: u64,
) -> EnergyFigure {
    let Some(PerToken { input, output: [low, middle, high] }) = per_token else {
        return EnergyFigure::unknown(Source::CloudTable);
    };
    let cached = cached_tokens.min(prompt_tokens);
    let inputs = (prompt_tokens - cached) as f64 + cached as f64 * CACHED_INPUT;
    let joules = inputs * input + generated_tokens as f64 * middle;
    EnergyFigure {
        joules: Some(Joules(joules)),
        low: Some(Joules(joules * low / middle)),
        high: Some(Joules(joules * high / middle)),
        quality: Quality::Assumed,
        source: Source::CloudTable,
        is_final: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::Diagnostic;

    #[test]
    fn the_table_is_in_order_and_each_band_holds_its_middle() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.class as usize, index);
            let [low, middle, high] = row.output;
            assert!(low < middle && middle < high && row.input < middle, "{row:?}");
        }
        assert!(TABLE.is_sorted_by(|a, b| a.input <= b.input && a.output[1] <= b.output[1]));
    }

    fn of(class: Class) -> Option<PerToken> {
        OwnFigures::default().over(Some(class))
    }

    #[test]
    fn own_figures_come_before_the_class_and_reach_the_wall_once() {
        let own = OwnFigures {
            joules_per_output_token: Some(2.0),
            joules_per_output_token_high: Some(4.0),
            ..OwnFigures::default()
        };
        let joules = |own: OwnFigures, class| estimate(own.over(class), 10, 0, 1);
        let figure = joules(own, Some(Class::Small));
        assert_eq!(figure.joules, Some(Joules(10.0 * 0.06 + 2.0)));
        assert_eq!((figure.low, figure.high), (figure.joules, Some(Joules(2.6 * 2.0))));
        let server = OwnFigures { boundary: Boundary::Server, ..own };
        let own_input = OwnFigures { joules_per_input_token: Some(0.0), ..server };
        assert_eq!(joules(own_input, None).joules, Some(Joules(2.4)));
        let known = OwnFigures { pue: Some(1.1), ..own_input };
        assert_eq!(joules(known, None).joules, Some(Joules(2.2)));
        let cards = OwnFigures { boundary: Boundary::Accelerator, ..own_input };
        assert_eq!(joules(cards, None).joules, Some(Joules(3.44)));
        assert_eq!(joules(own, None).joules, None, "nothing is known of its input");
    }

    #[test]
    fn invalid_figures_are_listed() {
        let keys = |own: OwnFigures, class| {
            let mut out = Diagnostics::default();
            own.validate(class, &mut out);
            out.into_found().iter().map(Diagnostic::key).collect::<Vec<_>>()
        };
        assert!(keys(OwnFigures::default(), None).is_empty());
        let wrong = OwnFigures {
            joules_per_input_token: Some(f64::NAN),
            joules_per_output_token: Some(1.0),
            joules_per_output_token_low: Some(2.0),
            joules_per_output_token_high: Some(0.5),
            pue: Some(0.9),
            ..OwnFigures::default()
        };
        assert_eq!(
            keys(wrong, None),
            [
                "joules_per_input_token",
                "joules_per_output_token_low",
                "joules_per_output_token_high",
                "pue"
            ]
        );
        let half = OwnFigures { joules_per_output_token: Some(1.0), ..OwnFigures::default() };
        assert_eq!(keys(half, None), ["joules_per_output_token"]);
        assert!(keys(half, Some(Class::Nano)).is_empty());
    }

    #[test]
    fn a_frontier_answer_is_near_what_was_published_per_query() {
        let figure = estimate(of(Class::Frontier), 100, 0, 400);
        let joules = figure.joules.unwrap().0;
        assert!((864.0..1300.0).contains(&joules), "{joules} J; Google says 864, Epoch 1080");
        assert_eq!((figure.quality, figure.is_final), (Quality::Assumed, true));
    }

    #[test]
    fn cached_input_costs_a_tenth_and_cannot_exceed_the_prompt() {
        let joules = |cached| estimate(of(Class::Small), 1000, cached, 0).joules.unwrap().0;
        assert!((joules(1000) - joules(0) / 10.0).abs() < 1e-9);
        assert!((joules(5000) - joules(1000)).abs() < 1e-9);
    }

    #[test]
    fn without_a_class_it_is_unknown_and_not_zero() {
        assert_eq!(estimate(None, 100, 0, 100).joules, None);
    }

    #[test]
    fn classes_are_spelled_as_in_the_config() {
        let spelled = |class| serde_json::to_string(&class).unwrap();
        assert_eq!(spelled(Class::FrontierXl), r#""frontier_xl""#);
        for row in TABLE {
            assert_eq!(spelled(row.class), format!("{:?}", row.class.label()));
        }
        assert_eq!(serde_json::from_str::<Class>(r#""nano""#).unwrap(), Class::Nano);
    }
}
