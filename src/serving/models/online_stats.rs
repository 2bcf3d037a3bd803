//! Statistics of a model's answers, which predict when the next one begins and how long it gets.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

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
    /// Since the attempt began; absent where it queued, or the model had to be loaded: that says
    /// nothing of the next.
    pub first_token_ms: Option<f64>,
    /// From the first token to the end.
    pub answer_ms: Option<f64>,
}

impl OnlineStats {
    pub fn output_tokens(&self, features: &Features) -> u32 {
        self.lock().1.expected(features)
    }

    /// Milliseconds to the first token of a prompt of which `tokens` are in no cache, once it has a
    /// slot; unknown before the first answer.
    pub fn first_token_ms(&self, tokens: u64) -> Option<f64> {
        self.lock().0.expected_ms(u32::try_from(tokens).unwrap_or(u32::MAX))
    }

    /// Milliseconds that a request waits for its slot now; 0 before the first answer.
    pub fn queue_ms(&self, health: Health) -> f64 {
        let slots = health.slots.max(1);
        // With a free slot the wait is 0; else each round of answers frees as many places as there
        // are slots.
        let ahead = health.in_flight.saturating_add(1).saturating_sub(slots);
        f64::from(ahead) / f64::from(slots) * self.lock().0.answer_ms().unwrap_or(0.0)
    }

    /// Trains on an answer. Returns by how many tokens its length was mispredicted.
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
        self.learned.lock()
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
