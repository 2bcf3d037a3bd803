//! Token counts as upstreams write them, under any of the names in use. Pure.
//!
//! Unknown is not zero: a count that cannot be read is worked out from the others or the usage is
//! unknown.

use crate::backends::cloud::json_text::{Members, member, members};
use crate::openai::Usage;
use crate::openai::chat::{CompletionTokensDetails, PromptTokensDetails};

/// `None` where the counts are unknown. `has_answer` is false for embeddings, which have a prompt
/// only.
pub(super) fn read(json: &str, has_answer: bool) -> Option<Usage> {
    let usage = members(json)?;
    let first = |names: &[&str]| names.iter().find_map(|name| count(member(&usage, name)?));
    let total = first(&["total_tokens"]);
    let generated = match first(&["completion_tokens", "output_tokens"]) {
        None if !has_answer => Some(0),
        generated => generated,
    };
    let prompt = first(&["prompt_tokens"]).or_else(|| whole_input(&usage, generated, total));
    let (prompt_tokens, completion_tokens) = match (prompt, generated, total) {
        (Some(prompt), Some(generated), _) => (prompt, generated),
        (Some(prompt), None, Some(total)) => (prompt, total.checked_sub(prompt)?),
        (None, Some(generated), Some(total)) => (total.checked_sub(generated)?, generated),
        _ => return None,
    };
    let cached_tokens =
        nested(&usage, &["prompt_tokens_details", "input_tokens_details"], "cached_tokens")
            .or_else(|| {
                first(&["prompt_cache_hit_tokens", "cache_read_input_tokens", "cached_tokens"])
            });
    let reasoning = ["completion_tokens_details", "output_tokens_details"];
    let reasoning_tokens =
        nested(&usage, &reasoning, "reasoning_tokens").or_else(|| first(&["reasoning_tokens"]));
    Some(Usage {
        prompt_tokens,
        completion_tokens,
        total_tokens: total.unwrap_or_else(|| prompt_tokens.saturating_add(completion_tokens)),
        prompt_tokens_details: cached_tokens
            .map(|count| PromptTokensDetails { cached_tokens: Some(count) }),
        completion_tokens_details: reasoning_tokens
            .map(|count| CompletionTokensDetails { reasoning_tokens: Some(count) }),
    })
}

/// Anthropic's `input_tokens` leave out what its cache holds; others' hold everything, as their
/// total shows.
fn whole_input(usage: &Members<'_>, generated: Option<u64>, total: Option<u64>) -> Option<u64> {
    let of = |name| count(member(usage, name)?);
    let input = of("input_tokens")?;
    let holds_all = generated
        .zip(total)
        .is_some_and(|(generated, total)| input.saturating_add(generated) == total);
    let cache = ["cache_read_input_tokens", "cache_creation_input_tokens"];
    let beside: u64 = cache.into_iter().filter_map(of).fold(0, u64::saturating_add);
    Some(if holds_all { input } else { input.saturating_add(beside) })
}

fn nested(usage: &Members<'_>, objects: &[&str], name: &str) -> Option<u64> {
    objects.iter().find_map(|object| count(member(&members(member(usage, object)?)?, name)?))
}

/// A whole number, maybe written as a fraction of zero or as a text.
fn count(json: &str) -> Option<u64> {
    /// Every whole number below it is exact as an `f64`.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let text = json.trim_matches('"').trim();
    if let Ok(count) = text.parse() {
        return Some(count);
    }
    let number: f64 = text.parse().ok()?;
    let is_count = number.fract() == 0.0 && (0.0..EXACT).contains(&number);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
    is_count.then_some(number as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Prompt, generated, total, cached and reasoning tokens.
    fn counts(json: &str) -> Option<[u64; 5]> {
        let usage = read(json, true)?;
        let (cached, reasoning) = (usage.cached_tokens(), usage.reasoning_tokens());
        Some([usage.prompt_tokens, usage.completion_tokens, usage.total_tokens, cached, reasoning])
    }

    #[test]
    fn every_name_in_use_is_read() {
        for (json, expected) in [
            (r#"{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}"#, [7, 3, 10, 0, 0]),
            (r#"{"prompt_tokens":7,"completion_tokens":3}"#, [7, 3, 10, 0, 0]),
            (r#"{"input_tokens":1000,"output_tokens":500}"#, [1000, 500, 1500, 0, 0]),
            (
                r#"{"prompt_tokens":10.0,"completion_tokens":"3","total_tokens":1.3e1}"#,
                [10, 3, 13, 0, 0],
            ),
            (
                r#"{"prompt_tokens":10,"completion_tokens":null,"total_tokens":15}"#,
                [10, 5, 15, 0, 0],
            ),
            (r#"{"prompt_tokens":-1,"completion_tokens":5,"total_tokens":15}"#, [10, 5, 15, 0, 0]),
            // Reasoning is in the total only.
            (r#"{"prompt_tokens":7,"completion_tokens":3,"total_tokens":110}"#, [7, 3, 110, 0, 0]),
            (
                r#"{"prompt_tokens":7,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":5.0},"completion_tokens_details":{"reasoning_tokens":2}}"#,
                [7, 3, 10, 5, 2],
            ),
            (
                r#"{"prompt_tokens":7,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":-1},"completion_tokens_details":null}"#,
                [7, 3, 10, 0, 0],
            ),
            (
                r#"{"prompt_tokens":1000,"completion_tokens":5,"prompt_cache_hit_tokens":900}"#,
                [1000, 5, 1005, 900, 0],
            ),
            (
                r#"{"prompt_tokens":1000,"completion_tokens":5,"cache_read_input_tokens":900}"#,
                [1000, 5, 1005, 900, 0],
            ),
            (
                r#"{"prompt_tokens":1000,"completion_tokens":5,"cached_tokens":900}"#,
                [1000, 5, 1005, 900, 0],
            ),
            (
                r#"{"input_tokens":1000,"output_tokens":5,"total_tokens":1005,"input_tokens_details":{"cached_tokens":900},"output_tokens_details":{"reasoning_tokens":4}}"#,
                [1000, 5, 1005, 900, 4],
            ),
            (
                r#"{"input_tokens":100,"output_tokens":5,"cache_read_input_tokens":900,"cache_creation_input_tokens":10}"#,
                [1010, 5, 1015, 900, 0],
            ),
        ] {
            assert_eq!(counts(json), Some(expected), "{json}");
        }
    }

    #[test]
    fn what_cannot_be_known_is_not_zero() {
        for json in [
            "{}",
            "null",
            "7",
            "[]",
            r#"{"total_tokens":15}"#,
            r#"{"prompt_tokens":15}"#,
            r#"{"completion_tokens":15,"prompt_tokens":0.5}"#,
            r#"{"prompt_tokens":"many","completion_tokens":5}"#,
        ] {
            assert_eq!(counts(json), None, "{json}");
        }
        for json in [r#"{"total_tokens":15}"#, r#"{"prompt_tokens":15}"#] {
            let usage = read(json, false).unwrap();
            assert_eq!(
                (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens),
                (15, 0, 15)
            );
        }
    }
}
