//! Energy of cloud answers, from a table of model classes: nobody outside can measure it, so every row is an assumption
//! with a wide band, a stated boundary, a source and a date.
//!
//! Pure. The table is about somebody else's hardware: its figures are never mixed with measured ones unlabelled.

use serde::{Deserialize, Serialize};

use super::figure::{EnergyFigure, Quality, Source};
use crate::units::Joules;

/// How large a cloud model is, as far as its energy goes. Which class a proprietary model belongs to is itself a guess.
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

/// What a row's joules include.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Boundary {
    /// Everything the data centre draws for it: accelerator, host, idle reserve, cooling. No PUE is to be added.
    Wall,
}

/// Joules per token of one class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Row {
    pub class: Class,
    /// Middle of the band, per prompt token.
    pub input: Joules,
    /// Lower end, middle and upper end, per generated token. The band is a judgement, not a confidence interval: the
    /// serving batch alone, which the provider chooses, moves joules per token by a factor of 5 to 15.
    pub output: [Joules; 3],
    pub boundary: Boundary,
    pub source: &'static str,
    /// When the row was compiled, ISO 8601.
    pub date: &'static str,
}

/// Measured accelerator joules per output token, scaled to the wall by Google's disclosed split (accelerator 58 % of the
/// total); input joules from 2 FLOP per parameter and token at 40 % utilisation, checked against Epoch AI's estimate.
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

/// A prompt token from the provider's cache costs this part of a computed one: an assumption, after what providers
/// charge for it.
const CACHED_INPUT: f64 = 0.1;

const fn row(class: Class, input: f64, [low, middle, high]: [f64; 3], source: &'static str) -> Row {
    let output = [Joules(low), Joules(middle), Joules(high)];
    let input = Joules(input);
    Row { class, input, output, boundary: Boundary::Wall, source, date: "2026-11-22" }
}

impl Class {
    pub fn row(self) -> Row {
        TABLE[self as usize]
    }
}

/// Energy of one cloud answer from its token counts; unknown without a class. `cached_tokens` are part of
/// `prompt_tokens`; reasoning tokens are part of `completion_tokens`. Nothing better will ever come, so it is final.
///
/// The band of input is taken as wide, relatively, as the row's band of output: both come from how the provider
/// batches. Errors are systematic, so bands of many answers add and never shrink.
pub fn estimate(
    class: Option<Class>,
    prompt_tokens: u64,
    cached_tokens: u64,
    completion_tokens: u64,
) -> EnergyFigure {
    let Some(row) = class.map(Class::row) else {
        return EnergyFigure::unknown(Source::CloudTable);
    };
    let [low, middle, high] = row.output.map(|joules| joules.0);
    let cached = cached_tokens.min(prompt_tokens);
    let inputs = (prompt_tokens - cached) as f64 + cached as f64 * CACHED_INPUT;
    let joules = inputs * row.input.0 + completion_tokens as f64 * middle;
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

    #[test]
    fn the_table_is_in_order_and_each_band_holds_its_middle() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.class as usize, index);
            let [low, middle, high] = row.output;
            assert!(low < middle && middle < high && row.input < middle, "{row:?}");
        }
        assert!(TABLE.is_sorted_by(|a, b| a.input <= b.input && a.output[1] <= b.output[1]));
    }

    #[test]
    fn a_frontier_answer_is_near_what_was_published_per_query() {
        let figure = estimate(Some(Class::Frontier), 100, 0, 400);
        let joules = figure.joules.unwrap().0;
        assert!((864.0..1300.0).contains(&joules), "{joules} J; Google says 864, Epoch 1080");
        assert_eq!((figure.quality, figure.is_final), (Quality::Assumed, true));
    }

    #[test]
    fn cached_input_costs_a_tenth_and_cannot_exceed_the_prompt() {
        let joules = |cached| estimate(Some(Class::Small), 1000, cached, 0).joules.unwrap().0;
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
        assert_eq!(serde_json::from_str::<Class>(r#""nano""#).unwrap(), Class::Nano);
    }
}
