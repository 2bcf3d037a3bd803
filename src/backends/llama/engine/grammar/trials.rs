//! Trials of schemas before they are compiled in the engine, where nothing could interrupt that.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::backends::llama::engine::helper::{HelperError, HelperPool, Trial};
use crate::backends::llama::engine::intake::interrupt::Interrupt;

/// Time for which a schema that did not compile in time is refused without another trial. Short: it
/// may have been the machine.
const REMEMBERED_FOR: Duration = Duration::from_mins(1);
/// Most remembered results; each takes some 60 bytes.
const REMEMBERED_MAX: usize = 4096;

/// Results of earlier trials.
#[derive(Default)]
pub(crate) struct Trials(Mutex<HashMap<[u8; 32], Known>>);

enum Known {
    Ends,
    TooHard { since: Instant },
}

/// Time for the trials of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// CPU time of each.
    pub(crate) each: Duration,
    /// On the clock, for all of them.
    pub(crate) until: Instant,
    /// A schema that takes longer is refused.
    pub(crate) is_final: bool,
}

/// Whether a schema may be compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Ends,
    /// It takes too much time or memory.
    TooHard,
}

impl Trials {
    /// Tries to compile within the patience. An unfinal trial that takes too long has no verdict
    /// but the error.
    pub(crate) fn verdict(
        &self,
        helpers: &HelperPool,
        trial: &Trial,
        patience: Patience,
        interrupt: &Interrupt,
    ) -> Result<Verdict, HelperError> {
        let key = key(trial);
        if let Some(known) = self.known(&key) {
            return Ok(known);
        }
        if patience.until <= Instant::now() {
            // Too many schemas, of which this one may be the cheapest.
            return if patience.is_final {
                Ok(Verdict::TooHard)
            } else {
                Err(HelperError::TooLong)
            };
        }
        let verdict = match helpers.try_out(trial.clone(), patience.each, interrupt) {
            Ok(()) => Verdict::Ends,
            Err(HelperError::TooLong) if patience.is_final => Verdict::TooHard,
            Err(HelperError::Died) => Verdict::TooHard,
            Err(error) => return Err(error),
        };
        self.remember(key, verdict);
        Ok(verdict)
    }

    fn known(&self, key: &[u8; 32]) -> Option<Verdict> {
        match self.0.lock().get(key)? {
            Known::Ends => Some(Verdict::Ends),
            Known::TooHard { since } => {
                (since.elapsed() < REMEMBERED_FOR).then_some(Verdict::TooHard)
            }
        }
    }

    fn remember(&self, key: [u8; 32], verdict: Verdict) {
        let mut known = self.0.lock();
        if known.len() >= REMEMBERED_MAX {
            known.clear();
        }
        let verdict = match verdict {
            Verdict::Ends => Known::Ends,
            Verdict::TooHard => Known::TooHard { since: Instant::now() },
        };
        known.insert(key, verdict);
    }
}

fn key(trial: &Trial) -> [u8; 32] {
    let (kind, text) = match trial {
        Trial::Schema { json, lenient } => (u8::from(*lenient), json),
        Trial::Regex(regex) => (2, regex),
    };
    Sha256::new().chain_update([kind]).chain_update(text).finalize().into()
}
