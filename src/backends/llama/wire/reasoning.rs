//! Tags around a model's reasoning: the engine finds them in answers, the gateway in earlier turns.
//!
//! Pure. As documented by the makers of DeepSeek-R1, Qwen 3 and Magistral.

/// A pair of tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tags {
    pub open: &'static str,
    pub close: &'static str,
}

/// Reasoning tags of all known models.
pub const REASONING: [Tags; 2] =
    [Tags { open: "<think>", close: "</think>" }, Tags { open: "[THINK]", close: "[/THINK]" }];

/// An earlier answer without its leading reasoning, which is not part of the next prompt.
pub fn without_reasoning(answer: &str) -> &str {
    let reasoned = |tags: &Tags| {
        let (_, rest) = answer.trim_start().strip_prefix(tags.open)?.split_once(tags.close)?;
        Some(rest.trim_start())
    };
    REASONING.iter().find_map(reasoned).unwrap_or(answer)
}
