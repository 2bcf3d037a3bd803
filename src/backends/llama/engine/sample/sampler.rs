//! Sampler: chooses the next token from logits by bias, penalties, mask, temperature, min-p, top-k
//! and top-p; reproducible by seed.
//!
//! Pure. llama.cpp's sampler chain builds and copies a record of 12 bytes for every word of the
//! vocabulary and every token; this one reads the logits in place and copies them only if a request
//! changes them.

use std::collections::{HashMap, VecDeque};
use std::mem;

use super::softmax::{Scored, exp, greatest, leaders, mass};
use crate::backends::llama::wire::sampling::Sampling;
use crate::backends::llama::wire::token::Token;

/// Allowed tokens, one bit each, lowest bit first.
pub(crate) type Mask<'a> = &'a [u32];

/// The sampler of one answer, with its own random numbers.
#[derive(Debug)]
pub(crate) struct Sampler {
    sampling: Sampling,
    random: SplitMix64,
    past: Past,
    /// Tokens that end the answer, and how many others come first.
    ends: Vec<Token>,
    held: u32,
    // Reused buffers.
    changed: Vec<f32>,
    candidates: Vec<Scored>,
    sums: Vec<f32>,
}

impl Sampler {
    /// Only the repeat penalty looks at `prompt`.
    pub(crate) fn new(sampling: Sampling, prompt: &[Token]) -> Self {
        let mut past = Past::default();
        if sampling.looks_back() {
            prompt[prompt.len().saturating_sub(RECENT)..].iter().for_each(|&t| past.read(t));
        }
        Self {
            random: SplitMix64(sampling.seed),
            sampling,
            past,
            ends: Vec::new(),
            held: 0,
            changed: Vec::new(),
            candidates: Vec::new(),
            sums: Vec::new(),
        }
    }

    /// Forbids `ends` for the next `tokens`.
    pub(crate) fn hold(&mut self, tokens: u32, ends: &[Token]) {
        self.held = tokens;
        self.ends = if tokens > 0 { ends.to_vec() } else { Vec::new() };
    }

    /// Index of the chosen logit. `logits` is not empty; `mask` allows at least one of them.
    pub(crate) fn sample(&mut self, logits: &[f32], mask: Option<Mask<'_>>) -> usize {
        let remembers = self.sampling.looks_back();
        let differs = remembers || !self.sampling.logit_bias.is_empty() || self.held > 0;
        let token = if differs || mask.is_some() {
            let mut changed = mem::take(&mut self.changed);
            changed.clear();
            changed.extend_from_slice(logits);
            self.change(&mut changed, mask);
            let token = self.choose(&changed);
            self.changed = changed;
            self.held = self.held.saturating_sub(1);
            token
        } else {
            self.choose(logits)
        };
        if remembers {
            self.past.wrote(as_token(token));
        }
        token
    }

    fn change(&self, logits: &mut [f32], mask: Option<Mask<'_>>) {
        let held = self.ends.iter().filter(|_| self.held > 0);
        let held = held.map(|&end| (end, f32::NEG_INFINITY));
        for (token, bias) in self.sampling.logit_bias.iter().copied().chain(held) {
            if let Some(logit) = usize::try_from(token).ok().and_then(|index| logits.get_mut(index))
            {
                *logit += bias;
            }
        }
        self.past.penalise(&self.sampling, logits);
        if let Some(mask) = mask {
            forbid(mask, logits);
        }
    }

    fn choose(&mut self, logits: &[f32]) -> usize {
        let (top, best) = greatest(logits);
        let Sampling { temperature, top_k, top_p, min_p, .. } = self.sampling;
        if temperature <= 0.0 {
            best
        } else if top_k > 0 || min_p > 0.0 || top_p < 1.0 {
            self.draw_from_few(logits, top).unwrap_or(best)
        } else {
            self.draw_from_all(logits, top).unwrap_or(best)
        }
    }

    /// Samples from the softmax of all logits: one sum per block, then a walk through the chosen
    /// block.
    fn draw_from_all(&mut self, logits: &[f32], top: f32) -> Option<usize> {
        const BLOCK: usize = 512;
        let sharpness = self.sampling.temperature.recip();
        self.sums.clear();
        self.sums.extend(logits.chunks(BLOCK).map(|block| mass(block, top, sharpness)));
        let total: f64 = self.sums.iter().map(|&sum| f64::from(sum)).sum();
        let mut left = self.random.next_unit() * total;
        let block = self.sums.iter().position(|&sum| {
            left -= f64::from(sum);
            left < 0.0
        })?;
        left += f64::from(self.sums[block]);
        let start = block * BLOCK;
        let weights = logits.iter().enumerate().skip(start).take(BLOCK);
        walk(weights.map(|(token, &logit)| (exp((logit - top) * sharpness), token)), left)
    }

    /// Samples from the tokens left by min-p, top-k and top-p, most probable first.
    fn draw_from_few(&mut self, logits: &[f32], top: f32) -> Option<usize> {
        let Sampling { temperature, top_k, top_p, min_p, .. } = self.sampling;
        let sharpness = temperature.recip();
        let (mut least, mut whole) = (min_p, None);
        if top_k == 0 && least <= 0.0 {
            // Tokens below this weight have less than 1 − top_p of the mass together, so the
            // nucleus excludes them, and few are left to sort.
            let mass = mass(logits, top, sharpness);
            least = (1.0 - top_p) * mass / logits.len() as f32;
            whole = Some(f64::from(mass));
        }
        let floor = if least > 0.0 { top + least.ln() * temperature } else { f32::MIN };
        leaders(logits, top_k as usize, floor, &mut self.candidates);
        for (weight, _) in &mut self.candidates {
            *weight = exp((*weight - top) * sharpness);
        }
        if top_p < 1.0 {
            let whole = whole.unwrap_or_else(|| total(&self.candidates));
            keep_nucleus(&mut self.candidates, f64::from(top_p) * whole);
        }
        let left = self.random.next_unit() * total(&self.candidates);
        walk(self.candidates.iter().copied(), left)
    }
}

fn total(weights: &[Scored]) -> f64 {
    weights.iter().map(|&(weight, _)| f64::from(weight)).sum()
}

/// The token at cumulative weight `left`; the last one with any weight if rounding leaves none.
fn walk(weights: impl Iterator<Item = Scored>, mut left: f64) -> Option<usize> {
    let mut last = None;
    for (weight, token) in weights.filter(|&(weight, _)| weight > 0.0) {
        left -= f64::from(weight);
        last = Some(token);
        if left < 0.0 {
            break;
        }
    }
    last
}

/// Keeps the shortest prefix of the sorted candidates with mass `enough`.
fn keep_nucleus(candidates: &mut Vec<Scored>, enough: f64) {
    let mut mass = 0.0;
    let reached = candidates.iter().position(|&(weight, _)| {
        mass += f64::from(weight);
        mass >= enough
    });
    candidates.truncate(reached.map_or(candidates.len(), |last| last + 1).max(1));
}

/// Sets the logits of masked tokens to −∞.
fn forbid(mask: Mask<'_>, logits: &mut [f32]) {
    for (place, logits) in logits.chunks_mut(32).enumerate() {
        match mask.get(place).copied().unwrap_or(0) {
            0 => logits.fill(f32::NEG_INFINITY),
            u32::MAX => {}
            word => {
                for (bit, logit) in logits.iter_mut().enumerate() {
                    if word >> bit & 1 == 0 {
                        *logit = f32::NEG_INFINITY;
                    }
                }
            }
        }
    }
}

/// Window of the repeat penalty, llama.cpp's default.
const RECENT: usize = 64;

/// Previous tokens for the penalties; empty without any.
#[derive(Debug, Default)]
struct Past {
    /// Occurrences of each token in the answer.
    counts: HashMap<Token, u32>,
    /// The last [`RECENT`] tokens of prompt and answer.
    recent: VecDeque<Token>,
}

impl Past {
    fn read(&mut self, token: Token) {
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(token);
    }

    fn wrote(&mut self, token: Token) {
        self.read(token);
        *self.counts.entry(token).or_default() += 1;
    }

    fn penalise(&self, sampling: &Sampling, logits: &mut [f32]) {
        let penalty = sampling.repeat_penalty;
        let first =
            |&(place, token): &(usize, &Token)| !self.recent.range(..place).any(|t| t == token);
        for (_, &token) in self.recent.iter().enumerate().filter(first) {
            if let Some(logit) = usize::try_from(token).ok().and_then(|index| logits.get_mut(index))
            {
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
        }
        for (&token, &count) in &self.counts {
            if let Some(logit) = usize::try_from(token).ok().and_then(|index| logits.get_mut(index))
            {
                *logit -= sampling.frequency_penalty * count as f32 + sampling.presence_penalty;
            }
        }
    }
}

/// Vocabularies have fewer than 2³¹ words.
fn as_token(index: usize) -> Token {
    Token::try_from(index).unwrap_or(Token::MAX)
}

/// Sebastiano Vigna's `SplitMix64` (public domain). Written out, because the same seed must give
/// the same answer in every version.
#[derive(Debug, Clone)]
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
mod tests;
