//! The model's confidence in each token: one pass over its logits.
//!
//! Pure. Of the model's own distribution, like the log-probabilities.

use super::softmax::{exp, greatest};
use crate::backends::backend::TokenConfidence;

const LANES: usize = 8;

/// Number of leading tokens of an answer that are reported; later ones add nothing.
pub(crate) const TOKENS: u32 = 256;

/// Logits this far below the greatest have no weight; unused words of a vocabulary may have −∞.
const FAR_BELOW: f32 = -80.0;

/// Confidence in the token chosen from `logits`.
pub(crate) fn of(logits: &[f32], token: usize) -> TokenConfidence {
    let (top, _) = greatest(logits);
    let (mass, moment) = moments(logits, top);
    let log_mass = mass.ln();
    let logit = logits.get(token).copied().unwrap_or(f32::MIN);
    TokenConfidence {
        logprob: (logit - top - log_mass).clamp(-9999.0, 0.0),
        entropy: (log_mass - moment / mass).max(0.0),
    }
}

/// Σ exp(d) and Σ d·exp(d) over the distances d of all logits from `top`.
fn moments(logits: &[f32], top: f32) -> (f32, f32) {
    let (mut masses, mut weighted) = ([0.0; LANES], [0.0; LANES]);
    let distance = |logit: f32| (logit - top).max(FAR_BELOW);
    let (chunks, rest) = logits.as_chunks::<LANES>();
    for chunk in chunks {
        for ((mass, moment), &logit) in masses.iter_mut().zip(&mut weighted).zip(chunk) {
            let d = distance(logit);
            let weight = exp(d);
            *mass += weight;
            *moment += d * weight;
        }
    }
    let mut sums = (masses.iter().sum::<f32>(), weighted.iter().sum::<f32>());
    for d in rest.iter().copied().map(distance) {
        sums.0 += exp(d);
        sums.1 += d * exp(d);
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropy_and_log_probability_are_those_of_the_softmax() {
        let logits: Vec<f32> = (0..100).map(|i| ((i * 37) % 23) as f32 / 3.0).collect();
        let total: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
        let p = |logit: f32| f64::from(logit).exp() / total;
        let entropy: f64 = logits.iter().map(|&l| -p(l) * p(l).ln()).sum();
        let found = of(&logits, 5);
        assert!((f64::from(found.entropy) - entropy).abs() < 1e-3, "{found:?} {entropy}");
        assert!((f64::from(found.logprob) - p(logits[5]).ln()).abs() < 1e-3, "{found:?}");
    }

    #[test]
    fn certainty_has_no_entropy_and_nothing_is_infinite() {
        let mut logits = vec![f32::NEG_INFINITY; 19];
        logits[3] = 4.0;
        let found = of(&logits, 3);
        assert!(found.entropy.abs() < 1e-4 && found.logprob.abs() < 1e-4, "{found:?}");
        assert!(of(&logits, 4).logprob.is_finite());
        let even = of(&[1.0; 16], 0);
        assert!((even.entropy - 16_f32.ln()).abs() < 1e-3, "{even:?}");
    }
}
