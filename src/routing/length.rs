//! Prediction of answer lengths: one small online model per model.
//!
//! Pure. Bayesian linear regression of ln(1 + tokens) on the task class, the prompt length and
//! whether an answer format is requested, updated with every answer that ended. An answer cut by
//! its limit is a lower bound only.

use super::{Features, TaskClass};

/// One weight per task class, the slope over prompt length, and the effect of an answer format.
const INPUTS: usize = TaskClass::ALL.len() + 2;

/// Prior answer lengths in tokens, in the order of [`TaskClass::ALL`]: an estimate without data,
/// soon outweighed by observations.
const PRIOR_TOKENS: [f64; TaskClass::ALL.len()] = [80.0, 250.0, 60.0, 120.0, 300.0, 250.0, 200.0];
/// Prior variance of each class, of ln tokens: a factor of about two either way.
const PRIOR_VARIANCE_CLASS: f64 = 0.6;
/// Prior variance of slope and format, whose prior means are 0.
const PRIOR_VARIANCE_SLOPE: f64 = 0.04;
/// Prior variance of ln tokens among similar requests.
const PRIOR_NOISE: f64 = 0.8;
/// Weight of the newest answer in the noise estimate: about the last hundred count.
const NOISE_WEIGHT: f64 = 0.01;
/// Factor by which knowledge decays with each answer, so that a model whose use changes is learned
/// again.
const MEMORY: f64 = 0.998;

/// Quantiles of the standard normal distribution at 1/18, 3/18, … 17/18.
const QUANTILES: [f64; 9] = [-1.593, -0.967, -0.589, -0.282, 0.0, 0.282, 0.589, 0.967, 1.593];

type Inputs = [f64; INPUTS];

/// Expected answer lengths of one model.
#[derive(Clone, Debug)]
pub struct OutputLength {
    weights: Inputs,
    /// Covariance of the weights.
    covariance: [Inputs; INPUTS],
    noise: f64,
}

impl Default for OutputLength {
    fn default() -> Self {
        let mut weights = [0.0; INPUTS];
        let mut covariance = [[0.0; INPUTS]; INPUTS];
        for (weight, tokens) in weights.iter_mut().zip(PRIOR_TOKENS) {
            *weight = f64::ln_1p(tokens);
        }
        for (at, row) in covariance.iter_mut().enumerate() {
            let class = at < TaskClass::ALL.len();
            row[at] = if class { PRIOR_VARIANCE_CLASS } else { PRIOR_VARIANCE_SLOPE };
        }
        Self { weights, covariance, noise: PRIOR_NOISE }
    }
}

impl OutputLength {
    /// Expected tokens of the answer, all choices together, at most the client's limit for each.
    /// Rounded.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative and at most u32::MAX"
    )]
    pub fn expected(&self, features: &Features) -> u32 {
        let middle = dot(&self.weights, &inputs(features));
        let limit = features.output_limit.map_or(f64::INFINITY, f64::from);
        let all = mean_up_to(limit, middle, self.noise) * f64::from(features.answers());
        all.round().min(f64::from(u32::MAX)) as u32
    }

    /// Learns from an answer of `tokens`, all choices together; `cut` if the limit ended it.
    pub fn observe(&mut self, features: &Features, tokens: u64, cut: bool) {
        let inputs = inputs(features);
        let middle = dot(&self.weights, &inputs);
        let seen = (tokens as f64 / f64::from(features.answers())).ln_1p();
        // Cut below the expectation: no information.
        if cut && middle >= seen {
            return;
        }
        let error = seen - middle;
        self.noise += NOISE_WEIGHT * (error * error - self.noise);
        let spread: Inputs = std::array::from_fn(|at| dot(&self.covariance[at], &inputs));
        let gain = 1.0 / (self.noise * MEMORY + dot(&spread, &inputs));
        for (weight, spread) in self.weights.iter_mut().zip(spread) {
            *weight += gain * error * spread;
        }
        for (row, own) in self.covariance.iter_mut().zip(spread) {
            for (cell, other) in row.iter_mut().zip(spread) {
                *cell -= gain * own * other;
            }
        }
        self.forget(&inputs);
    }

    /// Widens the variance of the inputs just seen, at most to the prior.
    fn forget(&mut self, inputs: &Inputs) {
        for (at, input) in inputs.iter().enumerate() {
            let most =
                if at < TaskClass::ALL.len() { PRIOR_VARIANCE_CLASS } else { PRIOR_VARIANCE_SLOPE };
            if *input != 0.0 {
                let own = &mut self.covariance[at][at];
                *own = (*own / MEMORY).min(most);
            }
        }
    }
}

fn inputs(features: &Features) -> Inputs {
    let mut inputs = [0.0; INPUTS];
    if let Some(at) = TaskClass::ALL.iter().position(|class| *class == features.task) {
        inputs[at] = 1.0;
    }
    // Centred at a prompt of 100 tokens, so that a class weight is the value for that prompt.
    inputs[INPUTS - 2] = (f64::from(features.prompt_tokens.max(1)) / 100.0).ln();
    inputs[INPUTS - 1] = f64::from(u8::from(features.needs.schema));
    inputs
}

fn dot(a: &Inputs, b: &Inputs) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Mean of min(X, limit) where ln(1 + X) is normal, over nine equally probable values of X.
fn mean_up_to(limit: f64, middle: f64, variance: f64) -> f64 {
    let deviation = variance.sqrt();
    let values = QUANTILES.iter().map(|at| (middle + deviation * at).exp_m1().clamp(0.0, limit));
    values.sum::<f64>() / QUANTILES.len() as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn features(task: TaskClass, prompt_tokens: u32, output_limit: Option<u32>) -> Features {
        Features { prompt_tokens, task, output_limit, ..Features::default() }
    }

    #[test]
    fn answers_update_their_class_and_no_other() {
        let mut length = OutputLength::default();
        let (code, chat) =
            (features(TaskClass::Code, 100, None), features(TaskClass::Chat, 100, None));
        let before = length.expected(&chat);
        for turn in 0..200 {
            length.observe(&code, 40 + turn % 20, false);
        }
        let learned = length.expected(&code);
        assert!((45..60).contains(&learned), "{learned}");
        // Only the noise, which all classes share, has shrunk.
        let after = length.expected(&chat);
        assert!(after <= before && after > 150, "{before} {after}");
    }

    #[test]
    fn longer_prompts_may_mean_longer_answers() {
        let mut length = OutputLength::default();
        for turn in 0..400_u32 {
            let prompt = 20 + (turn * 37) % 2000;
            length.observe(&features(TaskClass::Chat, prompt, None), u64::from(prompt), false);
        }
        let (short, long) = (
            length.expected(&features(TaskClass::Chat, 50, None)),
            length.expected(&features(TaskClass::Chat, 1500, None)),
        );
        assert!(long > 8 * short, "{short} {long}");
    }

    #[test]
    fn a_cut_answer_counts_as_a_lower_bound() {
        let mut length = OutputLength::default();
        let limited = features(TaskClass::Math, 100, Some(10));
        for _ in 0..100 {
            length.observe(&limited, 10, true);
        }
        assert!(length.expected(&features(TaskClass::Math, 100, None)) > 200);
        assert!(length.expected(&limited) >= 9);
    }

    proptest! {
        #[test]
        fn a_limit_holds_for_each_choice_and_a_lower_one_never_means_more(
            seen in proptest::collection::vec((0u64..100_000, any::<bool>(), 0usize..7), 0..50),
            prompt_tokens: u32, limits in (0u32..5000, 0u32..5000), choices in 1u32..5,
        ) {
            let mut length = OutputLength::default();
            for (tokens, cut, class) in seen {
                let features = features(TaskClass::ALL[class], prompt_tokens, None);
                length.observe(&features, tokens, cut);
            }
            let of = |limit| {
                let plain = features(TaskClass::Chat, prompt_tokens, Some(limit));
                length.expected(&Features { choices: Some(choices), ..plain })
            };
            let (low, high) = (limits.0.min(limits.1), limits.0.max(limits.1));
            prop_assert!(of(low) <= low * choices);
            prop_assert!(of(low) <= of(high) + 1);
        }
    }
}
