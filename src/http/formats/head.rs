//! What every object of one local answer repeats. Knows nothing of a surface's format.

use std::sync::Arc;

use crate::serving::execution::Execution;

pub struct Head {
    pub id: String,
    /// Seconds since the Unix epoch.
    pub created: u64,
    pub model: Arc<str>,
    pub fingerprint: Option<Arc<str>>,
    /// The client asked for a usage chunk at the end of the stream.
    pub wants_usage: bool,
}

impl Head {
    /// `prefix` begins the ids of this surface's answers: some clients check it.
    pub fn new(execution: &Execution, prefix: &str) -> Self {
        Self {
            id: format!("{prefix}{}", execution.id()),
            created: execution.created(),
            model: Arc::clone(&execution.model().name),
            fingerprint: execution.model().fingerprint.clone(),
            wants_usage: execution.request().wants_stream_usage(),
        }
    }
}

#[cfg(test)]
impl Head {
    pub fn of_test() -> Self {
        let (id, model) = ("id-1".to_owned(), "m".into());
        Self { id, created: 7, model, fingerprint: Some("fp_1".into()), wants_usage: true }
    }
}
