//! The script of a fake engine: a TOML file. All keys are optional; these are the defaults:
//!
//! ```toml
//! load_ms = 0                # duration of the load
//! # load_error = "…"         # the load fails with this reason
//! has_chat_template = true   # false: refuses nothing, but reports that it has none
//! step_ms = 1                # duration of a step: one token for each running answer
//! prefill_us = 0             # additional duration per prompt token
//!
//! [default]                  # the answer if no other one applies
//! text = "This is a scripted answer."
//! logprob = -0.1             # confidence in each token
//! entropy = 0.2
//! # refuse = "…"             # the chat template refuses the prompt with this message
//! # die_after = 3            # the process dies before this token, counted from 0
//! # hang_after = 3           # the process hangs before this token
//!
//! [[answers]]                # as [default], for prompts that contain `when`; the first applies
//! when = "weather"           # part of the last turn, or of the raw prompt
//! text = "<think>hm</think>It rains."
//! ```
//!
//! `text` may have reasoning in `<think>` and calls as
//! `<tool_call>{"name": "f", "arguments": {}}</tool_call>`, for requests with such a tool.

use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::backends::backend::TokenConfidence;
use crate::backends::llama::engine::error::EngineError;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Script {
    pub(crate) load_ms: u64,
    pub(crate) load_error: Option<String>,
    pub(crate) has_chat_template: bool,
    pub(crate) step_ms: u64,
    pub(crate) prefill_us: u64,
    pub(crate) default: Answer,
    pub(crate) answers: Vec<Answer>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Answer {
    pub(crate) when: String,
    pub(crate) text: String,
    pub(crate) logprob: f32,
    pub(crate) entropy: f32,
    pub(crate) refuse: Option<String>,
    pub(crate) die_after: Option<u32>,
    pub(crate) hang_after: Option<u32>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            load_ms: 0,
            load_error: None,
            has_chat_template: true,
            step_ms: 1,
            prefill_us: 0,
            default: Answer::default(),
            answers: Vec::new(),
        }
    }
}

impl Default for Answer {
    fn default() -> Self {
        Self {
            when: String::new(),
            text: "This is a scripted answer.".to_owned(),
            logprob: -0.1,
            entropy: 0.2,
            refuse: None,
            die_after: None,
            hang_after: None,
        }
    }
}

impl Script {
    pub(crate) fn read(path: &Path) -> Result<Self, EngineError> {
        let failed = |error: &dyn std::fmt::Display| {
            EngineError::Load(format!("script {}: {error}", path.display()))
        };
        let text = fs::read_to_string(path).map_err(|error| failed(&error))?;
        toml::from_str(&text).map_err(|error| failed(&error))
    }

    /// The first answer whose `when` is part of `prompt`, else the default.
    pub(crate) fn answer_to(&self, prompt: &str) -> &Answer {
        self.answers.iter().find(|answer| prompt.contains(&answer.when)).unwrap_or(&self.default)
    }
}

impl Answer {
    pub(crate) fn confidence(&self) -> TokenConfidence {
        TokenConfidence { logprob: self.logprob, entropy: self.entropy }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_answer_that_matches_applies_and_others_get_the_default() {
        let text = "step_ms = 5\n[default]\ntext = \"d\"\n[[answers]]\nwhen = \"a\"\ntext = \"1\"\n\
                    [[answers]]\nwhen = \"ab\"\ntext = \"2\"";
        let script: Script = toml::from_str(text).unwrap();
        let texts = ["xab", "b"].map(|prompt| script.answer_to(prompt).text.as_str());
        assert_eq!((texts, script.step_ms), (["1", "d"], 5));
        assert!(toml::from_str::<Script>("unknown = 1").is_err());
    }
}
