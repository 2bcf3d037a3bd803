//! What a router reads: the text of a request as hashed character n-grams and a few structural numbers.
//!
//! Pure and cheap (tens of microseconds per kilobyte); no weights, no model, no I/O. Training and serving call the
//! same code, and [`FeatureSchema`] names it: any change of meaning here must raise [`SCHEMA_VERSION`].

mod structure;

use serde::{Deserialize, Serialize};

use crate::openai::{Message, Role};
use structure::structure;
pub use structure::{STRUCTURE, STRUCTURE_NAMES};

/// Raised whenever the same text would give another vector.
pub const SCHEMA_VERSION: u32 = 1;
/// Buckets of the hashed n-grams.
pub const BUCKETS: usize = 1 << 13;
/// Lengths of the character n-grams. Whole characters, within one word and its surrounding spaces.
const NGRAM_CHARS: [usize; 2] = [4, 5];

/// At most this much of a turn is read, half from each end: instructions stand first or last.
const TURN_BYTES_MAX: usize = 8 * 1024;
/// A user turn shorter than this ("and why?") is read together with the user turn before it.
const SHORT_TURN_BYTES: usize = 60;

/// How text became numbers. Stored with weights, which mean nothing under another schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureSchema {
    pub version: u32,
    pub buckets: u32,
    pub structure: u32,
    pub hash: String,
}

impl FeatureSchema {
    /// The one this binary computes.
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
    /// `(bucket, ±(1 + ln count))` scaled to unit length; buckets ascending, none twice.
    pub ngrams: Vec<(u16, f32)>,
    /// Roughly 0 to 2 each; order of [`STRUCTURE_NAMES`].
    pub structure: [f32; STRUCTURE],
}

impl TextVector {
    /// What the router reads of a request: the last user turn, and the one before it if the last is very short.
    ///
    /// System prompts are left out: an application sends the same one with every request, so it says little about
    /// how hard this one is, and would drown a short question.
    pub fn of_messages(messages: &[Message]) -> Self {
        let mut turns = messages
            .iter()
            .rev()
            .filter(|message| message.role == Role::User)
            .filter_map(|message| message.content.as_ref());
        let Some(last) = turns.next().map(crate::openai::Content::text) else {
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
        let mut counts = vec![0i16; BUCKETS];
        count_ngrams(head, &mut counts);
        count_ngrams(tail, &mut counts);
        let damped = |(bucket, &count): (usize, &i16)| {
            let size = 1.0 + f32::from(count.unsigned_abs()).ln();
            let bucket = u16::try_from(bucket).ok()?;
            (count != 0).then_some((bucket, size.copysign(f32::from(count))))
        };
        let mut ngrams: Vec<(u16, f32)> = counts.iter().enumerate().filter_map(damped).collect();
        let length = ngrams.iter().map(|(_, weight)| weight * weight).sum::<f32>().sqrt();
        for (_, weight) in &mut ngrams {
            *weight /= length;
        }
        Self { ngrams, structure: structure(head, tail) }
    }
}

/// The first and last `limit / 2` bytes of a longer text, cut between characters; else all of it and nothing.
fn ends(text: &str, limit: usize) -> (&str, &str) {
    if text.len() <= limit {
        return (text, "");
    }
    let head = text.floor_char_boundary(limit / 2);
    let tail = text.ceil_char_boundary(text.len() - limit / 2);
    (&text[..head], &text[tail..])
}

fn count_ngrams(text: &str, counts: &mut [i16]) {
    // One word at a time, lower-cased and padded: " word ". The buffers are reused.
    let (mut word, mut starts) = (String::new(), Vec::new());
    for raw in text.split_whitespace() {
        word.clear();
        word.push(' ');
        word.extend(raw.chars().flat_map(char::to_lowercase));
        word.push(' ');
        starts.clear();
        starts.extend(word.char_indices().map(|(at, _)| at));
        starts.push(word.len());
        let chars = starts.len() - 1;
        for length in NGRAM_CHARS {
            if chars < length {
                // A word shorter than the n-gram counts once, whole.
                count(word.as_bytes(), counts);
                break;
            }
            for first in 0..=chars - length {
                count(&word.as_bytes()[starts[first]..starts[first + length]], counts);
            }
        }
    }
}

/// Adds ±1 to the n-gram's bucket: with signs, the n-grams that share a bucket cancel on average.
fn count(ngram: &[u8], counts: &mut [i16]) {
    let hash = fmix64(fnv1a(ngram));
    let bucket = usize::try_from(hash & (BUCKETS as u64 - 1)).unwrap_or(0);
    let sign = if hash >> 63 == 0 { 1 } else { -1 };
    counts[bucket] = counts[bucket].saturating_add(sign);
}

/// FNV-1a, 64 bits: offset basis and prime as published by Fowler, Noll and Vo.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The finaliser of `MurmurHash3` (Appleby): makes the low bits, which choose the bucket, depend on all of the input.
pub fn fmix64(mut hash: u64) -> u64 {
    for prime in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ (hash >> 33)).wrapping_mul(prime);
    }
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn messages(json: &str) -> Vec<Message> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn the_hash_is_fnv_1a() {
        // Test vectors from the authors' reference code.
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
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
