//! Expected energy of a local answer before it runs, learned from the attempts of that model that have settled.
//!
//! One ratio per model: joules per weighted token. Pure; it reads no sensor and predicts no answer length.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::cpu_model::CpuModel;
use super::figure::{EnergyFigure, Quality, Source};
use super::ledger::TokenWeights;
use crate::units::{Joules, Watts};

/// CPU seconds per decoded token assumed of a model that was never metered: what `SmolLM2` 135M (`Q4_1`) needs alone on
/// two cores, 79 tokens/s. The band runs from the same model in full batches (164 tokens/s) to one
/// ten times as large.
const PRIOR_CPU_SECONDS: [f64; 3] = [0.012, 0.025, 0.25];

/// CPU seconds assumed of a load that was never metered: starting the process and reading the vocabulary, and then per
/// GiB of file, which is mapped and partly repacked.
const PRIOR_LOAD_CPU_SECONDS: [f64; 3] = [0.1, 0.3, 1.0];
const PRIOR_LOAD_CPU_SECONDS_PER_GIB: [f64; 3] = [0.2, 1.0, 5.0];

/// What loading a model from a file of `bytes` may take, before any load of it was metered.
pub fn load_before_any(model: CpuModel, bytes: u64) -> EnergyFigure {
    let gib = bytes as f64 / f64::from(1 << 30);
    let joules = |index: usize, watts: Watts| {
        let [base, per_gib] =
            [PRIOR_LOAD_CPU_SECONDS[index], PRIOR_LOAD_CPU_SECONDS_PER_GIB[index]];
        Some(Joules(watts.0 * (base + per_gib * gib)))
    };
    EnergyFigure {
        joules: joules(1, model.watts_per_busy_core),
        low: joules(0, model.low),
        high: joules(2, model.high),
        quality: Quality::Assumed,
        source: Source::CpuModel,
        is_final: false,
    }
}

/// Joules per token of each local model.
#[derive(Debug)]
pub struct Estimator {
    weights: TokenWeights,
    prior: Ratio,
    models: BTreeMap<Arc<str>, Learned>,
}

/// Joules per thousandth of a decoded token, with band.
#[derive(Clone, Copy, Debug)]
struct Ratio {
    low: f64,
    middle: f64,
    high: f64,
}

/// What the settled attempts of one model add up to.
#[derive(Clone, Copy, Debug)]
struct Learned {
    joules: f64,
    weight: f64,
    /// The cheapest and the dearest attempt seen: how far answers differ, which no sensor's band covers.
    low: f64,
    high: f64,
    quality: Quality,
    source: Source,
}

impl Estimator {
    pub fn new(weights: TokenWeights, model: CpuModel) -> Self {
        let [low, middle, high] = PRIOR_CPU_SECONDS;
        let per_weight = 1.0 / f64::from(weights.decode.max(1));
        let prior = Ratio {
            low: low * model.low.0 * per_weight,
            middle: middle * model.watts_per_busy_core.0 * per_weight,
            high: high * model.high.0 * per_weight,
        };
        Self { weights, prior, models: BTreeMap::new() }
    }

    /// Takes in a settled attempt: its marginal energy and the weight of its tokens. Unknown energy teaches nothing, and
    /// neither does an attempt without work.
    pub fn learn(&mut self, model: &Arc<str>, marginal: EnergyFigure, weight: u64) {
        let (Some(Joules(joules)), Some(Joules(low)), Some(Joules(high))) =
            (marginal.joules, marginal.low, marginal.high)
        else {
            return;
        };
        if weight == 0 {
            return;
        }
        let weight = weight as f64;
        let learned = self.models.entry(Arc::clone(model)).or_insert(Learned {
            joules: 0.0,
            weight: 0.0,
            low: f64::INFINITY,
            high: 0.0,
            quality: marginal.quality,
            source: marginal.source,
        });
        learned.joules += joules;
        learned.weight += weight;
        learned.low = learned.low.min(low / weight);
        learned.high = learned.high.max(high / weight);
        learned.quality = learned.quality.max(marginal.quality);
        learned.source = marginal.source;
    }

    /// Expected marginal energy of answering: `prefill_tokens` prompt tokens not in a cache, `decode_tokens` generated.
    /// Never better than estimated; assumed until an attempt of the model with some energy has settled.
    pub fn expected(&self, model: &str, prefill_tokens: u64, decode_tokens: u64) -> EnergyFigure {
        self.of_weight(model, self.weights.weigh(prefill_tokens, decode_tokens))
    }

    /// The same for work already weighed, in thousandths of decoded tokens.
    pub fn of_weight(&self, model: &str, weight: u64) -> EnergyFigure {
        let weight = weight as f64;
        // A clock tick may be longer than a whole short attempt: zero joules so far say nothing about the next one.
        let learned = self.models.get(model).filter(|learned| learned.joules > 0.0);
        let (ratio, quality, source) = match learned {
            None => (self.prior, Quality::Assumed, Source::CpuModel),
            Some(learned) => (learned.ratio(), learned.quality, learned.source),
        };
        EnergyFigure {
            joules: Some(Joules(ratio.middle * weight)),
            low: Some(Joules(ratio.low * weight)),
            high: Some(Joules(ratio.high * weight)),
            quality: quality.max(Quality::Estimated),
            source,
            is_final: false,
        }
    }
}

impl Learned {
    fn ratio(self) -> Ratio {
        Ratio { low: self.low, middle: self.joules / self.weight, high: self.high }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(joules: f64) -> EnergyFigure {
        EnergyFigure {
            joules: Some(Joules(joules)),
            low: Some(Joules(joules)),
            high: Some(Joules(joules)),
            quality: Quality::Measured,
            source: Source::Rapl,
            is_final: true,
        }
    }

    #[test]
    fn a_model_never_metered_gets_the_prior_and_says_it_is_assumed() {
        let estimator = Estimator::new(TokenWeights::DEFAULT, CpuModel::DEFAULT);
        let expected = estimator.expected("new", 0, 100);
        assert_eq!((expected.quality, expected.is_final), (Quality::Assumed, false));
        assert!((expected.joules.unwrap().0 - 8.25).abs() < 1e-9, "{expected:?}");
        assert!(expected.low < expected.joules && expected.joules < expected.high);
    }

    #[test]
    fn settled_attempts_set_the_ratio_and_the_range_seen() {
        let mut estimator = Estimator::new(TokenWeights::DEFAULT, CpuModel::DEFAULT);
        let model: Arc<str> = "m".into();
        estimator.learn(&model, settled(10.0), TokenWeights::DEFAULT.weigh(0, 100));
        estimator.learn(&model, settled(60.0), TokenWeights::DEFAULT.weigh(0, 300));
        let expected = estimator.expected("m", 0, 100);
        let joules = |figure: Option<Joules>| (figure.unwrap().0 * 1e6).round() / 1e6;
        assert_eq!(
            (joules(expected.low), joules(expected.joules), joules(expected.high)),
            (10.0, 17.5, 20.0)
        );
        assert_eq!((expected.quality, expected.source), (Quality::Estimated, Source::Rapl));
        let prompt = joules(estimator.expected("m", 100, 0).joules);
        assert!((prompt - 17.5 * 0.15).abs() < 1e-9, "{prompt}");
    }

    #[test]
    fn the_unknown_and_the_idle_teach_nothing() {
        let mut estimator = Estimator::new(TokenWeights::DEFAULT, CpuModel::DEFAULT);
        let model: Arc<str> = "m".into();
        estimator.learn(&model, EnergyFigure::unknown(Source::Rapl), 1000);
        estimator.learn(&model, settled(5.0), 0);
        assert_eq!(estimator.expected("m", 0, 1).quality, Quality::Assumed);
    }
}
