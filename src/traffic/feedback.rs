//! What is learnt of an answer after it was given: verdicts of people and judges, and weak signs in
//! what clients do next.
//!
//! Lines of their own kinds in the log, joined to their request by its id when the log is read: a
//! record that is written is never changed. Pure; verdicts and signs never mix, because a retry is
//! a hint and no judgement.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Version of both kinds of line; raised when a field changes its meaning.
pub const FEEDBACK_VERSION: u32 = 1;

/// How every line begins that is no record; records begin with their version.
pub const ASIDE_PREFIX: &[u8] = b"{\"kind\":";

/// A line of the log that is about an earlier request. `kind` comes first: see [`ASIDE_PREFIX`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Aside {
    Feedback(Feedback),
    Signal(Signal),
}

impl Aside {
    pub fn version(&self) -> u32 {
        match self {
            Self::Feedback(feedback) => feedback.version,
            Self::Signal(signal) => signal.version,
        }
    }

    /// When it was noted, milliseconds since the Unix epoch.
    pub fn unix_ms(&self) -> u64 {
        match self {
            Self::Feedback(feedback) => feedback.unix_ms,
            Self::Signal(signal) => signal.unix_ms,
        }
    }
}

/// Somebody's verdict on one answer. A later one of the same source replaces it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Feedback {
    pub version: u32,
    pub unix_ms: u64,
    pub request_id: Arc<str>,
    pub source: Source,
    /// 0 (of no use) to 1 (as good as it can be).
    pub score: f64,
    /// Kept only where prompts are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// Who gave a verdict.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Through `POST /v1/feedback`, under the name it gave.
    Client(Arc<str>),
    /// A model that judged the answer, by its name in the config.
    Judge(Arc<str>),
}

impl Source {
    /// The bounded word for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Client(_) => "client",
            Self::Judge(_) => "judge",
        }
    }
}

/// Something a client did that hints at what it thought of an answer. Never an outcome: people also
/// retry by mistake.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    pub version: u32,
    pub unix_ms: u64,
    pub request_id: Arc<str>,
    pub signal: Sign,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sign {
    /// The same conversation was sent again soon after.
    Retry,
    /// The client left while it was being shown the answer.
    Abandon,
}

impl Sign {
    pub fn label(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Abandon => "abandon",
        }
    }
}

/// The verdicts on one answer, one for each source.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdicts(BTreeMap<Source, f64>);

impl Verdicts {
    /// Takes a verdict in; gives what the same source had said before.
    pub fn set(&mut self, source: Source, score: f64) -> Option<f64> {
        self.0.insert(source, score)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Source, f64)> {
        self.0.iter().map(|(source, &score)| (source, score))
    }

    /// The answer's label: the mean of what clients said, else of what judges said. A judge never
    /// outvotes a user.
    pub fn label(&self) -> Option<f64> {
        let mean = |wanted: &str| {
            let scores: Vec<f64> = self
                .iter()
                .filter(|(source, _)| source.label() == wanted)
                .map(|(_, s)| s)
                .collect();
            (!scores.is_empty()).then(|| scores.iter().sum::<f64>() / scores.len() as f64)
        };
        mean("client").or_else(|| mean("judge"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_begins_with_its_kind_and_comes_back_as_it_was() {
        let feedback = Aside::Feedback(Feedback {
            version: FEEDBACK_VERSION,
            unix_ms: 5,
            request_id: "r".into(),
            source: Source::Judge("large".into()),
            score: 0.5,
            comment: None,
        });
        let signal = Aside::Signal(Signal {
            version: FEEDBACK_VERSION,
            unix_ms: 6,
            request_id: "r".into(),
            signal: Sign::Retry,
        });
        for aside in [feedback, signal] {
            let line = serde_json::to_string(&aside).unwrap();
            assert!(line.as_bytes().starts_with(ASIDE_PREFIX), "{line}");
            assert_eq!(serde_json::from_str::<Aside>(&line).unwrap(), aside);
        }
    }

    #[test]
    fn the_last_word_of_a_source_counts_and_people_come_before_judges() {
        let mut verdicts = Verdicts::default();
        assert_eq!(verdicts.label(), None);
        verdicts.set(Source::Judge("j".into()), 1.0);
        assert_eq!(verdicts.label(), Some(1.0));
        assert_eq!(verdicts.set(Source::Client("a".into()), 1.0), None);
        assert_eq!(verdicts.set(Source::Client("a".into()), 0.0), Some(1.0));
        verdicts.set(Source::Client("b".into()), 0.5);
        assert_eq!(verdicts.label(), Some(0.25));
    }
}
