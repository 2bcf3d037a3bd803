//! Annotations of earlier requests: verdicts of clients and judges, and implicit signals in what
//! clients do next.
//!
//! Separate lines of the log, joined to their request by its id when the log is read: a written
//! record is never changed. Pure. Verdicts and implicit signals are never mixed, since a retry is a
//! hint, not a judgement.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Version of both kinds of line; raised when a field changes its meaning.
pub const FEEDBACK_VERSION: u32 = 1;

/// Beginning of every line that is not a record; records begin with their version.
pub const ANNOTATION_PREFIX: &[u8] = b"{\"kind\":";

/// A line of the log about an earlier request. `kind` comes first: see [`ANNOTATION_PREFIX`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Annotation {
    Feedback(Feedback),
    Signal(Signal),
}

impl Annotation {
    pub fn version(&self) -> u32 {
        match self {
            Self::Feedback(feedback) => feedback.version,
            Self::Signal(signal) => signal.version,
        }
    }

    /// Memory that it holds, about.
    pub fn memory_bytes(&self) -> usize {
        let comment = match self {
            Self::Feedback(feedback) => feedback.comment.as_ref().map_or(0, String::len),
            Self::Signal(_) => 0,
        };
        size_of::<Self>() + comment
    }

    /// Time of the annotation, milliseconds since the Unix epoch.
    pub fn unix_ms(&self) -> u64 {
        match self {
            Self::Feedback(feedback) => feedback.unix_ms,
            Self::Signal(signal) => signal.unix_ms,
        }
    }
}

/// A verdict on one answer. A later one from the same source replaces it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Feedback {
    pub version: u32,
    pub unix_ms: u64,
    pub request_id: Arc<str>,
    pub source: VerdictSource,
    /// 0 (useless) to 1 (perfect).
    pub score: f64,
    /// Kept only if prompts are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// Origin of a verdict.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VerdictSource {
    /// `POST /v1/feedback`, with the name given there.
    Client(Arc<str>),
    /// A model that judged the answer, by its configured name.
    Judge(Arc<str>),
}

impl VerdictSource {
    /// The kind of source, for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Client(_) => "client",
            Self::Judge(_) => "judge",
        }
    }
}

/// A client action that hints at the quality of an answer. Not a verdict: clients also retry by
/// mistake.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    pub version: u32,
    pub unix_ms: u64,
    pub request_id: Arc<str>,
    pub signal: ImplicitSignal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImplicitSignal {
    /// The same conversation was sent again soon after.
    Retry,
    /// The client disconnected while the answer was streamed.
    Abandon,
}

impl ImplicitSignal {
    pub fn label(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Abandon => "abandon",
        }
    }
}

/// The verdicts on one answer, one per source.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdicts(BTreeMap<VerdictSource, f64>);

impl Verdicts {
    /// Sets the verdict of a source; returns its previous one.
    pub fn set(&mut self, source: VerdictSource, score: f64) -> Option<f64> {
        self.0.insert(source, score)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&VerdictSource, f64)> {
        self.0.iter().map(|(source, &score)| (source, score))
    }

    /// Label of the answer, 0 to 1: the mean of the clients' verdicts, else of the judges'; `None`
    /// without any. A judge never outvotes a client.
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
    fn a_line_begins_with_its_kind_and_round_trips() {
        let feedback = Annotation::Feedback(Feedback {
            version: FEEDBACK_VERSION,
            unix_ms: 5,
            request_id: "r".into(),
            source: VerdictSource::Judge("large".into()),
            score: 0.5,
            comment: None,
        });
        let signal = Annotation::Signal(Signal {
            version: FEEDBACK_VERSION,
            unix_ms: 6,
            request_id: "r".into(),
            signal: ImplicitSignal::Retry,
        });
        for annotation in [feedback, signal] {
            let line = serde_json::to_string(&annotation).unwrap();
            assert!(line.as_bytes().starts_with(ANNOTATION_PREFIX), "{line}");
            assert_eq!(serde_json::from_str::<Annotation>(&line).unwrap(), annotation);
        }
    }

    #[test]
    fn the_last_verdict_of_a_source_counts_and_clients_precede_judges() {
        let mut verdicts = Verdicts::default();
        assert_eq!(verdicts.label(), None);
        verdicts.set(VerdictSource::Judge("j".into()), 1.0);
        assert_eq!(verdicts.label(), Some(1.0));
        assert_eq!(verdicts.set(VerdictSource::Client("a".into()), 1.0), None);
        assert_eq!(verdicts.set(VerdictSource::Client("a".into()), 0.0), Some(1.0));
        verdicts.set(VerdictSource::Client("b".into()), 0.5);
        assert_eq!(verdicts.label(), Some(0.25));
    }
}
