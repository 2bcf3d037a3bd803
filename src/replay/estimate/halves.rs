//! Random halves of the conversations: the spread of an estimate in one pass. Pure.
//!
//! The "double or nothing" bootstrap (Owen and Eckles 2012): each conversation counts twice or not
//! at all in each of `HALVES` replicates, by one bit of a hash of its identity. The variance of
//! an estimate over the replicates is its variance over other traffic of the same kind, with the
//! requests of a conversation kept together. Needs no list of the conversations, does not depend on
//! the order of the log, and partial results of several threads can be added.

use super::confidence::Estimate;
use super::sums::{Estimator, Sums};

/// Replicates: the standard error is itself known to about 1 / √(2 × 256) = 4 %.
const HALVES: usize = 256;
const WORDS: usize = HALVES / 64;

/// Sums over all requests and over each random half of the conversations.
#[derive(Clone, Debug)]
pub struct Halves {
    pub total: Sums,
    halves: Vec<Sums>,
}

impl Default for Halves {
    fn default() -> Self {
        Self { total: Sums::default(), halves: vec![Sums::default(); HALVES] }
    }
}

impl Halves {
    pub fn add(&mut self, sums: &Sums, conversation: u64) {
        self.total += sums;
        let mut random = fastrand::Rng::with_seed(conversation);
        for word in 0..WORDS {
            let mut bits = random.u64(..);
            while bits != 0 {
                let place = bits.trailing_zeros() as usize;
                self.halves[64 * word + place] += sums;
                bits &= bits - 1;
            }
        }
    }

    pub fn merge(&mut self, other: &Self) {
        self.total += &other.total;
        for (own, others) in self.halves.iter_mut().zip(&other.halves) {
            *own += others;
        }
    }

    /// The estimate over all requests with its standard error; `None` if it does not apply.
    pub fn estimate(&self, estimator: Estimator) -> Option<Estimate> {
        let value = self.total.value(estimator)?;
        let replicates: Vec<f64> =
            self.halves.iter().filter_map(|half| half.value(estimator)).collect();
        let count = replicates.len() as f64;
        let squares: f64 = replicates.iter().map(|replicate| (replicate - value).powi(2)).sum();
        // A single conversation is in a half or is not: its spread is unknown, not 0.
        let error = if count > HALVES as f64 / 2.0 { (squares / count).sqrt() } else { f64::NAN };
        Some(Estimate { value, standard_error: error, requests: self.total.requests })
    }
}
