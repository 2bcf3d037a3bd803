//! Work of an engine step: the attempts it worked for, their tokens and its time. Data only; also
//! the wire format.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use crate::units::{AttemptId, MonotonicNs};

/// One step of an engine: the evaluation of one batch. Steps of one engine do not overlap and are
/// reported in order. While the engine is busy, a step begins at the end of the previous one, so
/// that steps cover all busy time; an idle engine's first step begins when it wakes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkSpan {
    pub start: MonotonicNs,
    pub end: MonotonicNs,
    pub rows: Vec<WorkRow>,
}

/// The part of a step for one attempt.
///
/// Cached prompt tokens are not evaluated and not counted. The last token of an answer is not
/// evaluated either: decode tokens are one less than completion tokens, plus rejected drafts, which
/// are work too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkRow {
    pub attempt: AttemptId,
    pub prefill_tokens: u32,
    pub decode_tokens: u32,
}

impl WorkRow {
    pub fn tokens(self) -> Tokens {
        Tokens { prefill: self.prefill_tokens.into(), decode: self.decode_tokens.into() }
    }
}

/// Tokens computed in one or more steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Prompt tokens, without tokens from a cache.
    pub prefill: u64,
    pub decode: u64,
}

impl Tokens {
    pub const NONE: Self = Self { prefill: 0, decode: 0 };

    /// The larger of each kind, since several devices see the same work.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self { prefill: self.prefill.max(other.prefill), decode: self.decode.max(other.decode) }
    }

    /// The part `of / whole` of each kind, rounded up; all of it if `whole` is 0.
    #[must_use]
    pub fn part(self, of: u64, whole: u64) -> Self {
        let part = |tokens: u64| {
            let exact = (u128::from(tokens) * u128::from(of)).div_ceil(u128::from(whole.max(1)));
            u64::try_from(exact).unwrap_or(u64::MAX)
        };
        if whole == 0 {
            self
        } else {
            Self { prefill: part(self.prefill), decode: part(self.decode) }
        }
    }
}

impl AddAssign for Tokens {
    fn add_assign(&mut self, other: Self) {
        self.prefill = self.prefill.saturating_add(other.prefill);
        self.decode = self.decode.saturating_add(other.decode);
    }
}

/// Weights of a model's tokens in the division of active energy: expected nanojoules per token, so
/// that models sharing a device are comparable. Only their proportions matter; the divided energy
/// is the device's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenWeights {
    pub prefill: u64,
    pub decode: u64,
}

impl TokenWeights {
    /// For a model without a profile. Prefill runs in wide batches and costs a fraction of decoding
    /// per token: 0.15, between the ratios of input to output joules of served models (0.1 to 0.3
    /// in the cloud table) and of prompt to generation speed on CPUs. The weight of a decoded token
    /// is the prior of [`super::prediction::estimate`], 82.5 mJ.
    pub const DEFAULT: Self = Self { prefill: 12_375_000, decode: 82_500_000 };

    /// Saturates at absurd counts.
    pub fn weigh(self, tokens: Tokens) -> u64 {
        let prefill = self.prefill.saturating_mul(tokens.prefill);
        let decode = self.decode.saturating_mul(tokens.decode);
        prefill.saturating_add(decode)
    }
}
