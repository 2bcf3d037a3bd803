//! The body of `POST /v1/responses`, as far as it is read.

use std::fmt;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::openai::lenient::{self, Given};

#[derive(Debug, Deserialize)]
pub struct ResponsesRequest {
    pub model: String,
    #[serde(default)]
    pub input: Input,
    /// The system turn of this answer alone: later answers of the conversation do not see it.
    #[serde(default)]
    pub instructions: Option<String>,
    #[serde(default)]
    pub previous_response_id: Option<String>,
    #[serde(default)]
    pub stream: Option<bool>,
    /// Whether the answer can be fetched and continued. Default: yes.
    #[serde(default)]
    pub store: Option<bool>,
    #[serde(default, deserialize_with = "lenient::limit")]
    pub max_output_tokens: Option<u32>,
    #[serde(default)]
    pub temperature: Option<f32>,
    #[serde(default)]
    pub top_p: Option<f32>,
    #[serde(default, deserialize_with = "lenient::whole")]
    pub top_logprobs: Option<u32>,
    #[serde(default)]
    pub tools: Option<Vec<ToolOffer>>,
    #[serde(default)]
    pub tool_choice: Option<Value>,
    #[serde(default)]
    pub parallel_tool_calls: Option<bool>,
    #[serde(default)]
    pub text: Option<TextOptions>,
    #[serde(default)]
    pub reasoning: Option<ReasoningOptions>,
    #[serde(default)]
    pub include: Option<Vec<String>>,
    #[serde(default)]
    pub truncation: Option<String>,
    #[serde(default)]
    pub service_tier: Option<String>,
    #[serde(default)]
    pub user: Option<Value>,
    #[serde(default)]
    pub metadata: Option<Box<RawValue>>,
    /// Wattgate's own options.
    #[serde(default)]
    pub wattgate: Option<Box<RawValue>>,
    /// Asynchronous answers, stored conversations and stored prompts: OpenAI's own services.
    #[serde(default)]
    pub background: Given,
    #[serde(default)]
    pub conversation: Given,
    #[serde(default)]
    pub prompt: Given,
    /// Of chat: sent by mistake.
    #[serde(default)]
    pub messages: Given,
}

/// A tool of any kind.
#[derive(Debug, Deserialize)]
pub struct ToolOffer {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub description: Option<String>,
    #[serde(default)]
    pub parameters: Option<Box<RawValue>>,
    #[serde(default)]
    pub strict: Option<bool>,
    /// Of custom tools: the form of their input.
    #[serde(default)]
    pub format: Option<Value>,
    /// Of a namespace.
    #[serde(default)]
    pub tools: Option<Vec<ToolOffer>>,
}

#[derive(Debug, Deserialize)]
pub struct TextOptions {
    #[serde(default)]
    pub format: Option<TextFormat>,
}

#[derive(Debug, Deserialize)]
pub struct TextFormat {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub schema: Option<Box<RawValue>>,
    #[serde(default)]
    pub strict: Option<bool>,
}

#[derive(Debug, Deserialize)]
pub struct ReasoningOptions {
    #[serde(default)]
    pub effort: Option<String>,
}

/// A text of the user, or items.
#[derive(Debug)]
pub enum Input {
    Text(String),
    Items(Vec<Box<RawValue>>),
}

impl Default for Input {
    fn default() -> Self {
        Self::Items(vec![])
    }
}

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InputVisitor;
        impl<'de> Visitor<'de> for InputVisitor {
            type Value = Input;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of items")
            }
            fn visit_unit<E>(self) -> Result<Input, E> {
                Ok(Input::default())
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Input, E> {
                Ok(Input::Text(text.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Input, A::Error> {
                Deserialize::deserialize(de::value::SeqAccessDeserializer::new(items))
                    .map(Input::Items)
            }
        }
        deserializer.deserialize_any(InputVisitor)
    }
}
