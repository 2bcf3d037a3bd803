//! The part of a request that becomes a prompt: turns, tools and the choice among them, as the engine gets them.

use serde::{Deserialize, Serialize};

use crate::openai::Role;

/// What a chat template makes a prompt of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conversation {
    pub turns: Vec<Turn>,
    /// What the model is told it may call.
    pub tools: Option<ToolUse>,
    /// More variables for the template, as the text of a JSON object; none if empty.
    pub variables: String,
}

/// One turn of the conversation, its parts joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    pub role: Role,
    pub text: String,
    /// What an assistant's turn thought, as far as the client tells it apart: some templates show it while tools are
    /// still being called.
    pub reasoning: Option<String>,
    /// What an assistant's turn called.
    pub calls: Vec<PastCall>,
    /// The id of the call that a tool's turn answers.
    pub answers: Option<String>,
    pub name: Option<String>,
}

impl Turn {
    /// A turn that only says something.
    pub fn new(role: Role, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { role, text, reasoning: None, calls: Vec::new(), answers: None, name: None }
    }
}

/// A call of an earlier turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastCall {
    pub id: String,
    pub name: String,
    /// JSON text, as far as the model that wrote it managed.
    pub arguments: String,
}

/// The tools of a request; not empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolUse {
    pub tools: Vec<OfferedTool>,
    pub must_call: MustCall,
    /// Whether one answer may hold several calls.
    pub parallel: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferedTool {
    pub name: String,
    /// The JSON schema of its arguments.
    pub schema: String,
    /// Calls must keep to every word of the schema.
    pub strict: bool,
    /// The whole tool as JSON text, in the shape templates expect.
    pub json: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MustCall {
    No,
    Any,
    /// The function of this name, which is among the tools.
    Named(String),
}

impl OfferedTool {
    pub fn new(name: &str, description: &str, schema: &str) -> Self {
        let (name_json, description) = (json(name), json(description));
        Self {
            name: name.to_owned(),
            schema: schema.to_owned(),
            strict: false,
            json: format!(
                r#"{{"type":"function","function":{{"name":{name_json},"description":{description},"parameters":{schema}}}}}"#
            ),
        }
    }
}

fn json(text: &str) -> serde_json::Value {
    text.into()
}
