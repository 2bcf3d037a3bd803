//! Choosing the next token from logits: greedy, temperature and nucleus (top-p), reproducible by seed.
//!
//! Pure. Written here rather than with llama.cpp's sampler chain, which builds and copies a record of 12 bytes for
//! every word of the vocabulary and token; this reads the logits where they are.

use serde::{Deserialize, Serialize};

/// How one answer is sampled.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// 0 is greedy; 1 samples from the model's own distribution.
    pub temperature: f32,
    /// Share of probability mass to sample from, greater than 0, at most 1.
    pub top_p: f32,
    pub seed: u64,
}

/// The sampler of one answer, with its own random sequence.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    random: SplitMix64,
    /// Unnormalised probability and token; kept between tokens for its memory.
    candidates: Vec<(f32, usize)>,
}

impl Sampler {
    pub fn new(sampling: Sampling) -> Self {
        Self { sampling, random: SplitMix64(sampling.seed), candidates: Vec::new() }
    }

    /// Index of the chosen logit; `logits` is not empty.
    pub fn sample(&mut self, logits: &[f32]) -> usize {
        let (best, top) = greatest(logits);
        if self.sampling.temperature <= 0.0 {
            return best;
        }
        self.weigh(logits, top);
        if self.sampling.top_p < 1.0 {
            keep_nucleus(&mut self.candidates, self.sampling.top_p, logits.len());
        }
        let total: f64 = self.candidates.iter().map(|&(weight, _)| f64::from(weight)).sum();
        let mut left = self.random.next_unit() * total;
        for &(weight, token) in &self.candidates {
            left -= f64::from(weight);
            if left < 0.0 {
                return token;
            }
        }
        best
    }

    /// Softmax numerators at the temperature, relative to the greatest logit.
    fn weigh(&mut self, logits: &[f32], top: f32) {
        /// e⁻⁴⁰ < 10⁻¹⁷: even a million such tokens weigh less than an f32 can tell from nothing.
        const NEGLIGIBLE: f32 = -40.0;
        let sharpness = self.sampling.temperature.recip();
        self.candidates.clear();
        self.candidates.extend(logits.iter().enumerate().filter_map(|(token, &logit)| {
            let exponent = (logit - top) * sharpness;
            (exponent > NEGLIGIBLE).then(|| (exponent.exp(), token))
        }));
    }
}

fn greatest(logits: &[f32]) -> (usize, f32) {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    (logits.iter().position(|&logit| logit >= top).unwrap_or(0), top)
}

/// Keeps the most probable candidates that together reach `top_p` of the mass.
fn keep_nucleus(candidates: &mut Vec<(f32, usize)>, top_p: f32, vocabulary: usize) {
    let total: f32 = candidates.iter().map(|&(weight, _)| weight).sum();
    // All words lighter than this weigh less than 1 − top_p together, so the nucleus needs none of them; without
    // them there is little to sort.
    let least = (1.0 - top_p) * total / vocabulary as f32;
    candidates.retain(|&(weight, _)| weight >= least);
    candidates.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut mass = 0.0;
    let reached = candidates.iter().position(|&(weight, _)| {
        mass += weight;
        mass >= top_p * total
    });
    candidates.truncate(reached.map_or(candidates.len(), |last| last + 1).max(1));
}

/// Sebastiano Vigna's `SplitMix64` (public domain): one addition and two multiplications per number, any seed is good.
#[derive(Debug)]
struct SplitMix64(u64);

impl SplitMix64 {
    /// Uniform in [0, 1), 53 random bits.
    fn next_unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        (mixed >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 5] = [0.0, 2.0, 1.0, -1.0, 2.0];

    fn draw(temperature: f32, top_p: f32, seed: u64, count: usize) -> Vec<usize> {
        let mut sampler = Sampler::new(Sampling { temperature, top_p, seed });
        (0..count).map(|_| sampler.sample(&LOGITS)).collect()
    }

    #[test]
    fn temperature_zero_takes_the_first_greatest() {
        assert_eq!(draw(0.0, 1.0, 7, 3), [1, 1, 1]);
    }

    #[test]
    fn a_seed_repeats_and_another_differs() {
        assert_eq!(draw(1.0, 1.0, 7, 50), draw(1.0, 1.0, 7, 50));
        assert_ne!(draw(1.0, 1.0, 7, 50), draw(1.0, 1.0, 8, 50));
    }

    #[test]
    fn frequencies_follow_the_softmax() {
        let weights: Vec<f64> = LOGITS.iter().map(|&logit| f64::from(logit).exp()).collect();
        let total: f64 = weights.iter().sum();
        let drawn = draw(1.0, 1.0, 1, 20_000);
        for (token, weight) in weights.iter().enumerate() {
            let share = drawn.iter().filter(|&&t| t == token).count() as f64 / 20_000.0;
            assert!((share - weight / total).abs() < 0.02, "token {token}: {share}");
        }
    }

    #[test]
    fn the_nucleus_is_the_least_set_that_reaches_top_p() {
        // Probabilities: 0.05, 0.38, 0.14, 0.02, 0.38.
        assert!(draw(1.0, 0.7, 3, 500).iter().all(|token| [1, 4].contains(token)));
        let wider = draw(1.0, 0.85, 3, 500);
        assert!(wider.contains(&2) && !wider.contains(&0) && !wider.contains(&3));
        assert!(draw(1.0, 0.01, 3, 50).iter().all(|&token| token == 1));
    }
}
