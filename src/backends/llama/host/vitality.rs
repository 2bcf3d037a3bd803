//! Whether a model answers at all. Pure.
//!
//! A file with damaged weights loads and ends its engine with each request. A model that has given
//! one whole answer is none of these, whatever a client sends to it later.

use crate::backends::llama::wire::outcome::Outcome;

/// Crashes after which a model that never answered is not started again.
const CRASHES_MAX: u32 = 2;

#[derive(Debug, Default)]
pub(super) struct Vitality {
    has_answered: bool,
    crashes: u32,
}

impl Vitality {
    pub(super) fn closed(&mut self, outcome: &Outcome) {
        self.has_answered |= matches!(outcome, Outcome::Finished { .. });
    }

    /// The engine crashed while it had requests.
    pub(super) fn crashed(&mut self) {
        self.crashes = self.crashes.saturating_add(1);
    }

    pub(super) fn is_hopeless(&self) -> bool {
        !self.has_answered && self.crashes >= CRASHES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::llama::wire::outcome::Counts;
    use crate::openai::FinishReason;

    #[test]
    fn only_a_model_without_one_answer_is_given_up() {
        let (mut damaged, mut good) = (Vitality::default(), Vitality::default());
        let reason = FinishReason::Stop;
        good.closed(&Outcome::Finished { reason, counts: Counts::default() });
        damaged.closed(&Outcome::Cancelled);
        for vitality in [&mut damaged, &mut good] {
            vitality.crashed();
            assert!(!vitality.is_hopeless());
            vitality.crashed();
        }
        assert!(damaged.is_hopeless() && !good.is_hopeless());
    }
}
