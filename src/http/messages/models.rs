//! Models as clients of Anthropic's API list them. Pure.

use serde::Serialize;

#[derive(Debug, Serialize)]
pub struct ModelPage {
    data: Vec<ModelEntry>,
    has_more: bool,
    first_id: Option<String>,
    last_id: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct ModelEntry {
    #[serde(rename = "type")]
    kind: &'static str,
    id: String,
    display_name: String,
    /// Unknown here: the beginning of time.
    created_at: &'static str,
}

impl ModelPage {
    /// All models on one page.
    pub fn of(ids: impl Iterator<Item = String>) -> Self {
        let data: Vec<_> = ids.map(ModelEntry::of).collect();
        Self {
            has_more: false,
            first_id: data.first().map(|model| model.id.clone()),
            last_id: data.last().map(|model| model.id.clone()),
            data,
        }
    }
}

impl ModelEntry {
    pub fn of(id: String) -> Self {
        let display_name = id.clone();
        Self { kind: "model", id, display_name, created_at: "1970-01-01T00:00:00Z" }
    }
}
