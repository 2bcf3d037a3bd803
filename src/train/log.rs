//! Training rows from a gateway's own log: one row per prompt with verdicts.
//!
//! Reads and translates only.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::error::TrainError;
use crate::openai::Message;
use crate::traffic::{Line, Prompt, read_log};

/// Source name of these rows.
pub(super) const SOURCE: &str = "log";

/// One prompt with the verdicts on its answers.
pub(super) struct LabelledPrompt {
    /// Id of the first request with this prompt.
    pub(super) id: String,
    pub(super) policy: String,
    pub(super) messages: Vec<Message>,
    /// The texts of the messages.
    pub(super) query: String,
    /// Score, 0 to 1, by model; the last verdict counts.
    pub(super) outcomes: BTreeMap<String, f64>,
}

/// Every request with a label and its prompt, and the SHA-256 of what was read. Returns an error if
/// the log holds no verdicts or no prompts.
pub(super) fn labelled_prompts(path: &Path) -> Result<(Vec<LabelledPrompt>, String), TrainError> {
    let (mut found, mut labelled, mut hasher) =
        (Vec::<LabelledPrompt>::new(), 0_usize, Sha256::new());
    let mut places = HashMap::new();
    for line in read_log(path)? {
        // Torn and invalid lines are ignored here; `wattgate replay` reports them.
        let Line::Record(record) = line? else { continue };
        let (Some(score), Some(model)) = (record.label, &record.receipt.model) else { continue };
        labelled += 1;
        let Some(Prompt::Messages(messages)) = record.prompt else { continue };
        let id = record.receipt.request_id.to_string();
        hasher.update(format!("{id} {model} {score}\n"));
        let query = text(&messages);
        let place = *places.entry(query.clone()).or_insert(found.len());
        if place == found.len() {
            let (policy, outcomes) = (record.receipt.policy.to_string(), BTreeMap::new());
            found.push(LabelledPrompt { id, policy, messages, query, outcomes });
        }
        found[place].outcomes.insert(model.to_string(), score);
    }
    match (found.is_empty(), labelled) {
        (true, 0) => Err(TrainError::NoVerdicts(path.to_owned())),
        (true, labelled) => Err(TrainError::NoPrompts { path: path.to_owned(), labelled }),
        (false, _) => {
            let hash = bytes::Bytes::copy_from_slice(&hasher.finalize());
            Ok((found, format!("{hash:x}")))
        }
    }
}

fn text(messages: &[Message]) -> String {
    let texts = messages.iter().filter_map(|message| Some(message.content.as_ref()?.text()));
    texts.collect::<Vec<_>>().join("\n")
}
