//! Conversion of a chat request to the engine's conversation.
//!
//! Pure. Refuses features that local models lack before anything is sent to the engine.

use std::collections::HashSet;

use super::refusal::invalid;
use crate::backends::backend::{ErrorKind, RequestFault, UNSUPPORTED_TOOL};
use crate::backends::llama::wire::conversation::{
    Conversation, MustCall, OfferedTool, PastCall, ToolUse, Turn,
};
use crate::backends::llama::wire::reasoning::without_reasoning;
use crate::openai::tools::FUNCTION;
use crate::openai::{ChatRequest, Message, Role, Tool, ToolChoice};

/// The request's conversation.
pub(super) fn conversation(request: &ChatRequest) -> Result<Conversation, ErrorKind> {
    let turns = request.messages.iter().map(turn).collect();
    let variables = request.chat_template_kwargs.as_ref();
    let variables = variables.and_then(|map| serde_json::to_string(map).ok());
    let variables = variables.unwrap_or_default();
    let continues = request.continue_final_message.unwrap_or(false);
    let last = request.messages.last();
    if continues
        && last.is_none_or(|last| last.role != Role::Assistant || last.tool_calls.is_some())
    {
        let rule = "`continue_final_message` continues text of the assistant, which must be last";
        return Err(RequestFault::new(rule, Some("continue_final_message"), None).of_request());
    }
    Ok(Conversation { turns, tools: tools(request)?, variables, continues })
}

fn turn(message: &Message) -> Turn {
    let text = message.content.as_ref().map_or_else(Default::default, |content| content.text());
    let text = match message.role {
        Role::Assistant => without_reasoning(&text).to_owned(),
        _ => text.into_owned(),
    };
    let calls = message.tool_calls.iter().flatten().filter_map(|call| {
        let function = call.function.clone()?;
        let id = call.id.clone();
        Some(PastCall { id, name: function.name, arguments: function.arguments })
    });
    Turn {
        role: message.role,
        text,
        reasoning: message.reasoning_content.clone(),
        calls: calls.collect(),
        answers: message.tool_call_id.clone(),
        name: message.name.clone(),
    }
}

/// The request's tools; `None` if it has none or allows no call.
fn tools(request: &ChatRequest) -> Result<Option<ToolUse>, ErrorKind> {
    let offered = request.tools.as_deref().unwrap_or_default();
    let must_call = match &request.tool_choice {
        None | Some(ToolChoice::Auto | ToolChoice::Allowed { required: false, .. }) => MustCall::No,
        Some(ToolChoice::Required | ToolChoice::Allowed { required: true, .. }) => MustCall::Any,
        Some(ToolChoice::Named(name)) => MustCall::Named(name.clone()),
        Some(ToolChoice::None) => return Ok(None),
        Some(ToolChoice::Other(kind)) => return Err(unsupported("tool_choice", kind)),
    };
    if offered.is_empty() {
        return Ok(None);
    }
    let tools = offered.iter().enumerate().map(|(place, tool)| offer(place, tool));
    let mut tools = tools.collect::<Result<Vec<_>, _>>()?;
    if let Some(ToolChoice::Allowed { names, .. }) = &request.tool_choice {
        let names: HashSet<&String> = names.iter().collect();
        tools.retain(|tool| names.contains(&tool.name));
    }
    let mut names = HashSet::with_capacity(tools.len());
    if let Some(place) = tools.iter().position(|tool| !names.insert(&tool.name)) {
        let param = format!("tools[{place}].function.name");
        return Err(invalid(&param, format!("`{param}`: another tool has the same name")));
    }
    Ok(Some(ToolUse { tools, must_call, parallel: request.parallel_tool_calls.unwrap_or(true) }))
}

fn offer(place: usize, tool: &Tool) -> Result<OfferedTool, ErrorKind> {
    let function = tool.function.as_ref().filter(|_| tool.kind == FUNCTION);
    let Some(function) = function else {
        return Err(unsupported(&format!("tools[{place}].type"), &tool.kind));
    };
    // Some templates read the schema, so a function without one gets an empty schema.
    let schema =
        function.parameters.as_ref().map_or(r#"{"type":"object","properties":{}}"#, |p| p.get());
    let description = function.description.as_deref().unwrap_or_default();
    let strict = function.strict.unwrap_or(false);
    Ok(OfferedTool { strict, ..OfferedTool::new(&function.name, description, schema) })
}

/// An error that allows a retry with another model, which may support such tools.
fn unsupported(param: &str, kind: &str) -> ErrorKind {
    let message = format!("`{param}`: local models support tools of type `function`, not `{kind}`");
    RequestFault::new(message, Some(param), Some(UNSUPPORTED_TOOL)).of_model()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(more: &serde_json::Value) -> ChatRequest {
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(body).unwrap()
    }

    #[test]
    fn tools_are_offered_unless_none_may_be_called() {
        let tools = json!([{"type": "function", "function": {"name": "f"}}]);
        let used = |choice: &serde_json::Value| {
            tools_of(&json!({"tools": tools, "tool_choice": choice})).unwrap()
        };
        assert_eq!(used(&json!("none")), None);
        assert_eq!(used(&json!(null)).unwrap().must_call, MustCall::No);
        let named = used(&json!({"type": "function", "function": {"name": "f"}})).unwrap();
        assert_eq!(named.must_call, MustCall::Named("f".into()));
        assert!(named.parallel);
        assert_eq!(
            named.tools[0].json,
            r#"{"type":"function","function":{"name":"f","description":"","parameters":{"type":"object","properties":{}}}}"#
        );
        assert_eq!(tools_of(&json!({"tools": []})).unwrap(), None);
    }

    fn tools_of(more: &serde_json::Value) -> Result<Option<ToolUse>, ErrorKind> {
        // Raw schemas need text, not a parsed value.
        let mut body = json!({"model": "m", "messages": []});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        tools(&serde_json::from_str(&body.to_string()).unwrap())
    }

    #[test]
    fn what_only_some_upstreams_know_may_go_elsewhere() {
        let custom = json!({"tools": [{"type": "custom", "custom": {"name": "c"}}]});
        let error = tools_of(&custom).unwrap_err();
        assert!(error.another_could_answer(), "{error}");
        assert!(error.to_string().contains("tools[0].type"), "{error}");
    }

    #[test]
    fn two_tools_of_one_name_are_refused() {
        let f = json!({"type": "function", "function": {"name": "f"}});
        let error = tools_of(&json!({"tools": [f, f]})).unwrap_err();
        assert!(error.to_string().contains("tools[1].function.name"), "{error}");
    }

    #[test]
    fn earlier_turns_keep_their_calls_and_lose_their_reasoning() {
        let request = request(&json!({"messages": [
            {"role": "assistant", "content": "<think>\nhm\n</think>\n\nSo.", "reasoning_content": "ha", "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "a", "content": "7"},
        ]}));
        let turns = conversation(&request).unwrap().turns;
        assert_eq!((turns[0].text.as_str(), turns[0].reasoning.as_deref()), ("So.", Some("ha")));
        assert_eq!(turns[0].calls[0].name, "f");
        assert_eq!(turns[1].answers.as_deref(), Some("a"));
    }
}
