//! What an answer repeats of its request: OpenAI's clients expect all of it.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::http::error::ApiError;
use crate::http::extract::fields::read;

/// Fields of the request, verbatim, with OpenAI's defaults for those that must not be null.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Echo {
    instructions: Option<Box<RawValue>>,
    max_output_tokens: Option<Box<RawValue>>,
    max_tool_calls: Option<Box<RawValue>>,
    metadata: Option<Box<RawValue>>,
    parallel_tool_calls: Option<bool>,
    previous_response_id: Option<Box<RawValue>>,
    prompt_cache_key: Option<Box<RawValue>>,
    reasoning: Option<Box<RawValue>>,
    safety_identifier: Option<Box<RawValue>>,
    service_tier: Option<Box<RawValue>>,
    store: Option<bool>,
    temperature: Option<Box<RawValue>>,
    text: Option<Box<RawValue>>,
    tool_choice: Option<Box<RawValue>>,
    tools: Option<Box<RawValue>>,
    top_logprobs: Option<Box<RawValue>>,
    top_p: Option<Box<RawValue>>,
    truncation: Option<Box<RawValue>>,
    user: Option<Box<RawValue>>,
}

impl Echo {
    pub fn of(body: &[u8]) -> Result<Self, ApiError> {
        let mut echo: Self = read(body)?;
        echo.parallel_tool_calls.get_or_insert(true);
        echo.store.get_or_insert(true);
        for (field, default) in [
            (&mut echo.metadata, "{}"),
            (&mut echo.reasoning, r#"{"effort":null,"summary":null}"#),
            (&mut echo.temperature, "1.0"),
            (&mut echo.text, r#"{"format":{"type":"text"}}"#),
            (&mut echo.tool_choice, r#""auto""#),
            (&mut echo.tools, "[]"),
            (&mut echo.top_logprobs, "0"),
            (&mut echo.top_p, "1.0"),
            (&mut echo.truncation, r#""disabled""#),
        ] {
            if field.is_none() {
                *field = RawValue::from_string(default.to_owned()).ok();
            }
        }
        Ok(echo)
    }

    /// The answer is not kept.
    pub fn forget(&mut self) {
        self.store = Some(false);
    }
}
