//! What a model's own answers so far say of its next one: when it begins and how long it gets.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::backends::Health;
use crate::routing::{Features, Latency, OutputLength};

/// Learned from the answers of one model since the gateway started.
#[derive(Default)]
pub struct OnlineStats {
    learned: Mutex<(Latency, OutputLength)>,
}

/// One attempt that gave an answer.
#[derive(Clone, Copy, Debug)]
pub struct Observed {
    /// Prompt tokens that no cache held.
    pub computed_tokens: u64,
    /// All choices together.
    pub completion_tokens: u64,
    /// The output limit ended it.
    pub cut: bool,
    /// Since the attempt began; absent where it queued, or the model had to be loaded: that says nothing of the next.
    pub first_token_ms: Option<f64>,
    /// From the first token to the end.
    pub answer_ms: Option<f64>,
}

impl OnlineStats {
    pub fn output_tokens(&self, features: &Features) -> u32 {
        self.lock().1.expected(features)
    }

    /// Milliseconds to the first token of a prompt of which `tokens` are in no cache, once it has a slot; unknown before
    /// the first answer.
    pub fn first_token_ms(&self, tokens: u32) -> Option<f64> {
        self.lock().0.expected_ms(tokens)
    }

    /// Milliseconds that a request waits for its slot now; 0 before the first answer.
    pub fn queue_ms(&self, health: Health) -> f64 {
        let slots = health.slots.max(1);
        // With a slot free nobody is ahead; behind others, a round of answers frees as many as there are slots.
        let ahead = health.in_flight.saturating_add(1).saturating_sub(slots);
        f64::from(ahead) / f64::from(slots) * self.lock().0.answer_ms().unwrap_or(0.0)
    }

    /// Takes in an answer; gives back how many tokens its length was expected to be off by.
    pub fn learn(&self, features: &Features, observed: &Observed) -> u64 {
        let mut learned = self.lock();
        let (latency, length) = &mut *learned;
        if let Some(ms) = observed.first_token_ms {
            latency.observe_first_token(observed.computed_tokens, ms);
        }
        if let Some(ms) = observed.answer_ms {
            latency.observe_answer(ms);
        }
        let expected = u64::from(length.expected(features));
        length.observe(features, observed.completion_tokens, observed.cut);
        expected.abs_diff(observed.completion_tokens)
    }

    fn lock(&self) -> MutexGuard<'_, (Latency, OutputLength)> {
        // Sums that a panic elsewhere cannot spoil.
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Exponentially weighted mean of something positive; unknown until it was observed.
#[derive(Default)]
pub struct RecentMean {
    /// Bits of an `f64`; 0 while unknown (a mean of something positive is never exactly 0).
    bits: AtomicU64,
}

impl RecentMean {
    /// Share of the newest observation in the mean: about the last ten answers count.
    const WEIGHT: f64 = 0.2;

    pub fn observe(&self, observed: f64) {
        let blend =
            |old: f64| if old > 0.0 { old + Self::WEIGHT * (observed - old) } else { observed };
        // Two answers that end at once may overwrite each other: one observation less is harmless.
        let old = f64::from_bits(self.bits.load(Ordering::Relaxed));
        self.bits.store(blend(old).to_bits(), Ordering::Relaxed);
    }

    pub fn mean(&self) -> Option<f64> {
        let mean = f64::from_bits(self.bits.load(Ordering::Relaxed));
        (mean > 0.0).then_some(mean)
    }
}
