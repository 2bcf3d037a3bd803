//! Expected energy and time of an answer: from the profile written by `wattgate measure` or a
//! prior, corrected by the settled attempts of the model. Pure; the answer's length is an argument.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::profile::{Cost, Linear, Profile};
use crate::energy::figure::{EnergyFigure, Quality, Source};
use crate::energy::sensors::process::cpu_model::CpuModel;
use crate::energy::sensors::sensor::Band;
use crate::energy::work::Tokens;
use crate::units::{Joules, Watts};

/// CPU seconds per decoded token assumed for a model that was never metered, with the band:
/// `SmolLM2` 135M (`Q4_1`) in full batches on two cores (164 tokens/s), the same model alone (79
/// tokens/s), and a model ten times as large.
pub const PRIOR_CPU_SECONDS: [f64; 3] = [0.012, 0.025, 0.25];

/// CPU seconds assumed for a load that was never metered, low, middle and high: for the process and
/// the vocabulary, and per GiB of file, which is mapped and partly repacked.
const PRIOR_LOAD_CPU_SECONDS: [f64; 3] = [0.1, 0.3, 1.0];
const PRIOR_LOAD_CPU_SECONDS_PER_GIB: [f64; 3] = [0.2, 1.0, 5.0];

/// Assumed energy of loading a model from a file of `bytes` before any load of it was metered.
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

/// Expected costs per model.
#[derive(Debug)]
pub struct Estimator {
    /// Joules of a model without a profile.
    prior: Linear,
    prior_band: Band,
    profile: Arc<Profile>,
    models: BTreeMap<Arc<str>, Correction>,
}

/// Answers in the window of the correction. The cost of a token follows the state of the machine:
/// with another busy process, a model on two cores took 1.4 times the joules it took alone, from
/// one answer to the next.
const RECENT: f64 = 8.0;

/// Actual over expected joules of about the last `RECENT` answers; older ones decay.
#[derive(Clone, Copy, Debug, Default)]
pub struct RecentRatio {
    joules: f64,
    expected: f64,
    answers: f64,
}

impl RecentRatio {
    /// The ratio after `answers` answers with the expected energy, `joules` in total.
    pub fn as_expected(joules: f64, answers: f64) -> Self {
        Self { joules, expected: joules, answers }.faded_to(RECENT)
    }

    pub fn add(&mut self, joules: f64, expected: f64) {
        let faded = self.faded_to(RECENT - 1.0);
        *self = Self {
            joules: faded.joules + joules,
            expected: faded.expected + expected,
            answers: faded.answers + 1.0,
        };
    }

    /// Actual over expected joules; `None` without energy so far: a clock tick may be longer than a
    /// short answer.
    pub fn ratio(self) -> Option<f64> {
        (self.joules > 0.0 && self.expected > 0.0).then(|| self.joules / self.expected)
    }

    /// The same ratio with a weight of at most `most` answers.
    fn faded_to(self, most: f64) -> Self {
        let part = if self.answers > most { most / self.answers } else { 1.0 };
        Self {
            joules: self.joules * part,
            expected: self.expected * part,
            answers: self.answers * part,
        }
    }
}

/// Correction of one model's cost by its settled attempts.
#[derive(Clone, Copy, Debug)]
struct Correction {
    recent_ratio: RecentRatio,
    /// Lowest and highest actual over expected energy of an attempt: the spread of answers, which
    /// no sensor's band covers.
    band: Band,
    quality: Quality,
    source: Source,
}

/// Expected time of an answer on an idle machine, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExpectedTime {
    /// From arrival to the first token.
    pub first_token_s: f64,
    /// From arrival to the last token.
    pub total_s: f64,
}

impl Estimator {
    /// `prior`: joules of a model without a profile; its band comes from `model`.
    pub fn new(prior: Linear, model: CpuModel, profile: Arc<Profile>) -> Self {
        let [low, middle, high] = PRIOR_CPU_SECONDS;
        let watts = model.watts_per_busy_core.0;
        let prior_band = Band {
            low: low / middle * model.low.0 / watts,
            high: high / middle * model.high.0 / watts,
        };
        let seeds = profile.models.iter().filter_map(|(name, model)| {
            let Cost { total_joules, requests, low, high, joules: Some(_), .. } = model.alone
            else {
                return None;
            };
            // The measured requests count as the latest settled ones.
            let correction = Correction {
                recent_ratio: RecentRatio::as_expected(total_joules.0, requests as f64),
                band: Band { low, high },
                quality: model.quality,
                source: model.source,
            };
            Some((name.as_str().into(), correction))
        });
        let models = seeds.collect();
        Self { prior, prior_band, profile, models }
    }

    /// Takes in a settled attempt. One with unknown energy or without work is ignored.
    pub fn learn(&mut self, model: &Arc<str>, marginal: EnergyFigure, tokens: Tokens) {
        let (Some(Joules(joules)), Some(Joules(low)), Some(Joules(high))) =
            (marginal.joules, marginal.low, marginal.high)
        else {
            return;
        };
        let expected = self.cost(model).of(tokens);
        if tokens == Tokens::NONE || expected <= 0.0 {
            return;
        }
        let correction = self.models.entry(Arc::clone(model)).or_insert(Correction {
            recent_ratio: RecentRatio::default(),
            band: Band { low: f64::INFINITY, high: 0.0 },
            quality: marginal.quality,
            source: marginal.source,
        });
        correction.recent_ratio.add(joules, expected);
        correction.band.low = correction.band.low.min(low / expected);
        correction.band.high = correction.band.high.max(high / expected);
        correction.quality = correction.quality.max(marginal.quality);
        correction.source = marginal.source;
    }

    /// Expected marginal energy of an answer with these computed prompt tokens and generated
    /// tokens. At best estimated; assumed until an attempt of the model with energy above 0 has
    /// settled or a profile exists.
    pub fn expected(&self, model: &str, tokens: Tokens) -> EnergyFigure {
        self.figure(model, self.cost(model).of(tokens))
    }

    /// Expected marginal energy of a part of an answer, without the fixed cost.
    pub fn expected_part(&self, model: &str, tokens: Tokens) -> EnergyFigure {
        self.figure(model, self.cost(model).of_tokens(tokens))
    }

    /// Expected time; `None` without a profile of the model.
    pub fn expected_time(&self, model: &str, tokens: Tokens) -> Option<ExpectedTime> {
        let seconds = self.profile.model(model)?.alone.seconds;
        let first = Tokens { decode: 1, ..tokens };
        Some(ExpectedTime { first_token_s: seconds.of(first), total_s: seconds.of(tokens) })
    }

    fn cost(&self, model: &str) -> Linear {
        self.profile.model(model).and_then(|model| model.alone.joules).unwrap_or(self.prior)
    }

    fn figure(&self, model: &str, joules: f64) -> EnergyFigure {
        let correction = self.models.get(model);
        let correction = correction.and_then(|one| Some((one.recent_ratio.ratio()?, one)));
        let (ratio, band, quality, source) = match correction {
            None => (1.0, self.prior_band, Quality::Assumed, Source::CpuModel),
            Some((ratio, one)) => (ratio, one.band, one.quality, one.source),
        };
        EnergyFigure {
            joules: Some(Joules(joules * ratio)),
            low: Some(Joules(joules * band.low)),
            high: Some(Joules(joules * band.high)),
            quality: quality.max(Quality::Estimated),
            source,
            is_final: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::energy::config::Config;
    use crate::energy::prediction::profile::tests::measured;

    const NO_PROMPT: Tokens = Tokens { prefill: 0, decode: 100 };

    fn estimator(profile: Profile) -> Estimator {
        Estimator::new(Config::default().prior_cost(), CpuModel::DEFAULT, Arc::new(profile))
    }

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

    /// Low, middle and high.
    fn joules(figure: EnergyFigure) -> String {
        let [low, middle, high] =
            [figure.low, figure.joules, figure.high].map(|one| one.unwrap().0);
        format!("{low:.4} {middle:.4} {high:.4}")
    }

    #[test]
    fn a_model_never_metered_gets_the_prior_and_says_it_is_assumed() {
        let expected = estimator(Profile::default()).expected("new", NO_PROMPT);
        assert_eq!((expected.quality, expected.is_final), (Quality::Assumed, false));
        // CPU seconds of the prior times watts of the band: 0.012 · 1.1, 0.025 · 3.3 and 0.25 · 8
        // for each token.
        assert_eq!(joules(expected), "1.3200 8.2500 200.0000");
    }

    #[test]
    fn settled_attempts_set_the_ratio_and_the_range_seen() {
        let mut estimator = estimator(Profile::default());
        let model: Arc<str> = "m".into();
        estimator.learn(&model, settled(10.0), NO_PROMPT);
        estimator.learn(&model, settled(60.0), Tokens { prefill: 0, decode: 300 });
        let expected = estimator.expected("m", NO_PROMPT);
        assert_eq!(joules(expected), "10.0000 17.5000 20.0000");
        assert_eq!((expected.quality, expected.source), (Quality::Estimated, Source::Rapl));
        let prompt = estimator.expected("m", Tokens { prefill: 100, decode: 0 });
        assert_eq!(joules(prompt), "1.5000 2.6250 3.0000");
    }

    #[test]
    fn a_profile_counts_as_the_latest_requests() {
        let cost = Linear { fixed: 0.5, prefill_token: 0.01, decode_token: 0.05 };
        let profile =
            Profile { models: [("m".to_owned(), measured(cost))].into(), ..Profile::default() };
        let mut estimator = estimator(profile);
        let tokens = Tokens { prefill: 50, decode: 40 };
        let expected = estimator.expected("m", tokens);
        assert_eq!(joules(expected), "2.7000 3.0000 3.6000");
        assert_eq!(expected.quality, Quality::Estimated);
        // One request of 3 J that took twice as much, beside seven of the 2 J that they took on
        // average.
        estimator.learn(&"m".into(), settled(6.0), tokens);
        let moved = (14.0 + 6.0) / (14.0 + 3.0);
        let figure = estimator.expected("m", tokens);
        assert_eq!(joules(figure), format!("2.7000 {:.4} 6.0000", 3.0 * moved));
        // Of a part of it, without what every request takes.
        let part = estimator.expected_part("m", tokens);
        assert_eq!(joules(part), format!("2.2500 {:.4} 5.0000", 2.5 * moved));
        let time = estimator.expected_time("m", tokens).unwrap();
        assert_eq!(format!("{:.3} {:.3}", time.first_token_s, time.total_s), "0.130 0.520");
        assert_eq!(estimator.expected_time("other", tokens), None);
    }

    #[test]
    fn the_correction_follows_a_machine_that_becomes_slow_within_a_few_answers() {
        let mut recent_ratio = RecentRatio::default();
        for _ in 0..200 {
            recent_ratio.add(2.0, 2.0);
        }
        let after = |answers: u32| {
            let mut recent_ratio = recent_ratio;
            (0..answers).for_each(|_| recent_ratio.add(2.8, 2.0));
            format!("{:.3}", recent_ratio.ratio().unwrap())
        };
        // All but (7/8)^n of the way.
        assert_eq!([after(0), after(1), after(5), after(20)], ["1.000", "1.050", "1.195", "1.372"]);
        assert_eq!(RecentRatio::default().ratio(), None);
    }

    #[test]
    fn unknown_energy_and_attempts_without_work_are_ignored() {
        let mut estimator = estimator(Profile::default());
        let model: Arc<str> = "m".into();
        estimator.learn(&model, EnergyFigure::unknown(Source::Rapl), NO_PROMPT);
        estimator.learn(&model, settled(5.0), Tokens::NONE);
        assert_eq!(estimator.expected("m", NO_PROMPT).quality, Quality::Assumed);
    }
}
