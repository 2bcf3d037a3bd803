//! Text features of a request: hashed character n-grams and a few structural numbers.
//!
//! Pure and cheap (about ten microseconds per KiB); no weights, no model, no I/O. Training and
//! serving call the same code, and [`FeatureSchema`] identifies it: a change that gives any text
//! another vector must raise [`SCHEMA_VERSION`].

mod ngrams;
mod structure;

use serde::{Deserialize, Serialize};

use crate::openai::{Content, Message, Role};
use ngrams::NgramCounts;
pub use ngrams::{BUCKETS, fmix64, fnv1a};
pub use structure::{STRUCTURE, STRUCTURE_NAMES};
use structure::{WordCounts, structure};

/// Version of the features; raised whenever the same text would give another vector.
pub const SCHEMA_VERSION: u32 = 1;

/// Most bytes read of one turn: half from each end, since instructions come first or last.
const TURN_BYTES_MAX: usize = 8 * 1024;
/// A user turn shorter than this ("and why?") is read together with the user turn before it.
const SHORT_TURN_BYTES: usize = 60;

/// How text became numbers. Stored with weights, which are meaningless under another schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureSchema {
    pub version: u32,
    pub buckets: u32,
    pub structure: u32,
    pub hash: String,
}

impl FeatureSchema {
    /// The schema that this binary computes.
    pub fn current() -> Self {
        Self {
            version: SCHEMA_VERSION,
            buckets: u32::try_from(BUCKETS).unwrap_or(u32::MAX),
            structure: u32::try_from(STRUCTURE).unwrap_or(u32::MAX),
            hash: "fnv-1a-64 + fmix64; bucket: low bits, sign: bit 63".to_owned(),
        }
    }
}

/// One text as a sparse vector of hashed n-grams and a short dense vector of structure.
#[derive(Clone, Debug, PartialEq)]
pub struct TextVector {
    /// `(bucket, ±(1 + ln count))` scaled to unit length; buckets ascending, each at most once.
    pub ngrams: Vec<(u16, f32)>,
    /// Roughly 0 to 2 each; order of [`STRUCTURE_NAMES`].
    pub structure: [f32; STRUCTURE],
}

impl TextVector {
    /// The last user turn, and the one before it if the last is very short.
    ///
    /// System prompts are left out: an application sends the same one with every request, so it
    /// says little about the difficulty of this one and would drown a short question.
    pub fn of_messages(messages: &[Message]) -> Self {
        let mut turns = messages
            .iter()
            .rev()
            .filter(|message| message.role == Role::User)
            .filter_map(|message| message.content.as_ref());
        let Some(last) = turns.next().map(Content::text) else {
            return Self::of_text("");
        };
        match turns.next() {
            Some(before) if last.len() < SHORT_TURN_BYTES => {
                Self::of_text(&format!("{}\n{last}", before.text()))
            }
            _ => Self::of_text(&last),
        }
    }

    pub fn of_text(text: &str) -> Self {
        let (head, tail) = ends(text, TURN_BYTES_MAX);
        let (mut ngrams, mut words) = (NgramCounts::default(), WordCounts::default());
        for part in [head, tail] {
            ngrams.add(part, |word| words.add(word));
        }
        Self { ngrams: ngrams.weights(), structure: structure(head, tail, &words) }
    }
}

/// The first and last `limit / 2` bytes of a longer text, cut between characters; a shorter text
/// comes back whole, with an empty second part.
fn ends(text: &str, limit: usize) -> (&str, &str) {
    if text.len() <= limit {
        return (text, "");
    }
    let head = text.floor_char_boundary(limit / 2);
    let tail = text.ceil_char_boundary(text.len() - limit / 2);
    (&text[..head], &text[tail..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn messages(json: &str) -> Vec<Message> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn the_vector_of_a_text_is_pinned_to_the_schema_version() {
        let vector = TextVector::of_text("Why is the sky blue?");
        let hash = vector.ngrams.iter().fold(0u64, |hash, (bucket, weight)| {
            fnv1a(format!("{hash} {bucket} {weight:.3}").as_bytes())
        });
        assert_eq!(
            (SCHEMA_VERSION, vector.ngrams.len(), hash),
            (1, 17, 10_564_386_794_159_254_415)
        );
    }

    #[test]
    fn the_last_user_turn_is_read_and_a_short_one_with_its_predecessor() {
        let long =
            "Explain in detail why the determinant of a product is the product of determinants.";
        let chat = messages(&format!(
            r#"[{{"role":"system","content":"Be kind"}},{{"role":"user","content":"Hello"}},
                {{"role":"assistant","content":"Hi"}},{{"role":"user","content":"{long}"}}]"#
        ));
        assert_eq!(TextVector::of_messages(&chat), TextVector::of_text(long));
        let chat = messages(
            r#"[{"role":"user","content":"Prove it"},{"role":"assistant","content":"Done"},{"role":"user","content":"Why?"}]"#,
        );
        assert_eq!(TextVector::of_messages(&chat), TextVector::of_text("Prove it\nWhy?"));
        assert_eq!(TextVector::of_messages(&[]), TextVector::of_text(""));
    }

    #[test]
    fn a_huge_turn_is_read_at_both_ends_only() {
        let ends = format!("start {} finish", "x ".repeat(100_000));
        let vector = TextVector::of_text(&ends);
        let start = TextVector::of_text("start");
        assert!(
            start.ngrams.iter().all(|(bucket, _)| vector.ngrams.iter().any(|(b, _)| b == bucket))
        );
    }

    proptest! {
        #[test]
        fn any_text_gives_a_finite_sorted_vector(text in "\\PC{0,400}") {
            let vector = TextVector::of_text(&text);
            prop_assert!(vector.ngrams.is_sorted_by(|a, b| a.0 < b.0));
            let squares: f32 = vector.ngrams.iter().map(|(_, weight)| weight * weight).sum();
            prop_assert!(vector.ngrams.is_empty() || (squares - 1.0).abs() < 1e-3);
            prop_assert!(vector.structure.iter().all(|value| value.is_finite()));
        }
    }
}
