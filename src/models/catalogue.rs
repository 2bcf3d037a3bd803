//! Catalogue of models that can be named without a source: `catalogue.toml`, parsed and searched.
//!
//! Reads neither disk nor network.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::integrity::Sha256;
use super::source::Source;

/// One model of the catalogue. Comments at the head of the file define the fields and their
/// sources.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub name: String,
    pub source: Source,
    pub sha256: Option<Sha256>,
    pub confidence: Confidence,
    pub kind: ModelKind,
    /// Billions.
    pub parameters_b: f64,
    /// Billions that one token uses; absent when it uses all.
    pub active_parameters_b: Option<f64>,
    pub size_bytes: u64,
    /// Context length of the training.
    pub context_tokens: u32,
    pub kv_bytes_per_token: u64,
    pub licence: String,
    /// Published accuracy in MMLU-Pro, 0 to 1, from which `ability` is computed.
    pub mmlu_pro: Option<f64>,
    /// Prior on the router's logit scale; absent for embedding models.
    pub ability: Option<f64>,
    pub ability_source: Option<String>,
    pub note: String,
}

/// Confidence that the source exists as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// Fetched and hashed by the project.
    Verified,
    /// As its publisher announced it.
    Sure,
    /// The exact file name may differ.
    Likely,
}

/// Purpose of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelKind {
    Chat,
    /// Continues text and has no chat template.
    Base,
    Embedding,
}

impl ModelKind {
    pub fn label(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Base => "base",
            Self::Embedding => "embedding",
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    model: Vec<Entry>,
}

static CATALOGUE: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "part of the program, and its tests parse it")]
    let file: File = toml::from_str(include_str!("catalogue.toml")).expect("the catalogue parses");
    file.model
});

/// All models of the catalogue, the smallest file first.
pub fn catalogue() -> &'static [Entry] {
    &CATALOGUE
}

/// The model of the catalogue with this name.
pub fn known(name: &str) -> Option<&'static Entry> {
    catalogue().iter().find(|entry| entry.name == name)
}

impl Entry {
    /// Bytes of weights that one generated token reads, in proportion to the parameters it uses.
    pub fn active_bytes(&self) -> u64 {
        let share = self.active_parameters_b.map_or(1.0, |active| active / self.parameters_b);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to size_bytes"
        )]
        let bytes = (self.size_bytes as f64 * share) as u64;
        bytes
    }

    /// Whether each of `words` occurs in the name, source, kind, licence or note, regardless of
    /// case.
    pub fn matches(&self, words: &[String]) -> bool {
        let Self { name, licence, note, .. } = self;
        let text = format!("{name} {} {} {licence} {note}", self.source, self.kind.label());
        let text = text.to_lowercase();
        words.iter().all(|word| text.contains(&word.to_lowercase()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_the_files_in_order_of_size() {
        let names: HashSet<&str> = catalogue().iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names.len(), catalogue().len());
        let sources: HashSet<&Source> = catalogue().iter().map(|entry| &entry.source).collect();
        assert_eq!(sources.len(), catalogue().len());
        assert!(catalogue().is_sorted_by_key(|entry| entry.size_bytes));
        assert!(names.iter().all(|name| !name.starts_with("auto")));
    }

    #[test]
    fn every_entry_is_plausible() {
        for entry in catalogue() {
            let name = &entry.name;
            // GGUF at 4 to 8 bits with scales: 0.55 to 1.15 bytes a parameter.
            let bytes_per_parameter = entry.size_bytes as f64 / entry.parameters_b / 1e9;
            assert!((0.55..1.15).contains(&bytes_per_parameter), "{name}: {bytes_per_parameter}");
            assert!((0.01..=33.0).contains(&entry.parameters_b), "{name}");
            assert!((512..=1 << 20).contains(&entry.context_tokens), "{name}");
            let keeps_keys = entry.kind != ModelKind::Embedding;
            assert_eq!(entry.kv_bytes_per_token > 0, keeps_keys, "{name}");
            assert!(entry.kv_bytes_per_token <= 1 << 19, "{name}");
            assert_eq!(entry.ability.is_some(), keeps_keys, "{name}");
            assert_eq!(entry.ability.is_some(), entry.ability_source.is_some(), "{name}");
            assert_eq!(entry.sha256.is_some(), entry.confidence == Confidence::Verified, "{name}");
            assert!(!matches!(entry.source, Source::File(_)), "{name}");
            assert!(entry.active_bytes() <= entry.size_bytes, "{name}");
            assert!(!entry.licence.is_empty() && !entry.note.is_empty(), "{name}");
        }
    }

    #[test]
    fn abilities_follow_from_the_published_figure_or_are_called_a_guess() {
        for entry in catalogue() {
            let Some(ability) = entry.ability else { continue };
            let from = entry.ability_source.as_deref().unwrap();
            match entry.mmlu_pro {
                Some(p) => {
                    let computed = 1.5 * (p / (1.0 - p)).ln() + 0.05;
                    assert!((ability - computed).abs() < 0.01, "{}: {computed}", entry.name);
                    assert!(!from.contains("guess"), "{}", entry.name);
                }
                None => assert!(from.starts_with("guess: "), "{}", entry.name),
            }
        }
    }

    #[test]
    fn the_shipped_config_serves_the_catalogues_own_model() {
        let entry = known("smollm2-135m").unwrap();
        let shipped = include_str!("../../config.toml");
        assert!(shipped.contains(&format!("source = \"{}\"", entry.source)));
        assert!(shipped.contains(entry.sha256.as_ref().unwrap().to_string().as_str()));
        assert!(shipped.contains(&format!("ability = {}", entry.ability.unwrap())));
    }

    #[test]
    fn every_word_must_match_somewhere() {
        let found = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(ToString::to_string).collect();
            let hits = catalogue().iter().filter(|entry| entry.matches(&words));
            hits.map(|entry| entry.name.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(found(&[]).len(), catalogue().len());
        assert_eq!(found(&["EMBEDDING"]), ["bge-small-en-v1.5", "nomic-embed-text-v1.5"]);
        assert_eq!(found(&["qwen3", "experts"]), ["qwen3-30b-a3b-2507"]);
        assert_eq!(found(&["qwen3", "gemma"]), [""; 0]);
    }
}
