//! Older and looser ways of calling tools, as tools: `functions` and `function_call`, and calls and
//! results without ids. Upstreams get the client's own bytes. Pure.

use std::collections::{HashSet, VecDeque};

use crate::openai::tools::{FUNCTION, FunctionChoice};
use crate::openai::{ChatRequest, Message, Role, Tool, ToolCall, ToolChoice};

/// Rewrites what the request says in older words.
pub(super) fn modernise(request: &mut ChatRequest) {
    if request.tools.as_ref().is_none_or(Vec::is_empty) {
        offer_functions(request);
    }
    let mut open = OpenCalls::default();
    for (place, message) in request.messages.iter_mut().enumerate() {
        if let Some(function) = message.function_call.take() {
            let call =
                ToolCall { id: String::new(), kind: FUNCTION.into(), function: Some(function) };
            message.tool_calls.get_or_insert_default().push(call);
        }
        if message.tool_calls.as_ref().is_some_and(|calls| !calls.is_empty()) {
            open = OpenCalls { ids: named_calls(message, place), answered: HashSet::new() };
        } else if matches!(message.role, Role::Tool | Role::Function) {
            answer(message, &mut open);
        }
    }
}

fn offer_functions(request: &mut ChatRequest) {
    let functions = request.functions.take().unwrap_or_default();
    if functions.is_empty() {
        return;
    }
    let tool = |function| Tool { kind: FUNCTION.to_owned(), function: Some(function) };
    request.tools = Some(functions.into_iter().map(tool).collect());
    request.tool_choice = request.function_call.take().map(|choice| match choice {
        FunctionChoice::Named { name } => ToolChoice::Named(name),
        FunctionChoice::Word(word) => match word.as_str() {
            "auto" => ToolChoice::Auto,
            "none" => ToolChoice::None,
            _ => ToolChoice::Other(word),
        },
    });
    // An answer in the older form has one call.
    request.parallel_tool_calls = Some(false);
    request.offers_functions = true;
}

/// The calls of a turn, in order, and which of them have results.
#[derive(Default)]
struct OpenCalls {
    ids: VecDeque<String>,
    answered: HashSet<String>,
}

impl OpenCalls {
    /// The first call without a result, which then has one.
    fn next(&mut self) -> Option<String> {
        while let Some(id) = self.ids.pop_front() {
            if !self.answered.contains(&id) {
                return Some(id);
            }
        }
        None
    }
}

/// The ids of a turn's calls; those without one get one.
fn named_calls(message: &mut Message, place: usize) -> VecDeque<String> {
    let calls = message.tool_calls.iter_mut().flatten().enumerate();
    let ids = calls.map(|(index, call)| {
        if call.id.is_empty() {
            call.id = format!("call_{place}_{index}");
        }
        call.id.clone()
    });
    ids.collect()
}

/// A result that does not say which call it answers answers the next one.
fn answer(message: &mut Message, open: &mut OpenCalls) {
    match &message.tool_call_id {
        Some(id) => {
            open.answered.insert(id.clone());
        }
        None => message.tool_call_id = open.next(),
    }
    if message.role == Role::Function && message.tool_call_id.is_some() {
        message.role = Role::Tool;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn modern(body: &Value) -> ChatRequest {
        let mut request = serde_json::from_str(&body.to_string()).unwrap();
        modernise(&mut request);
        request
    }

    #[test]
    fn functions_are_tools() {
        let offered = |choice: Value| {
            let functions = [json!({"name": "f", "parameters": {"type": "object"}})];
            modern(&json!({"model": "m", "messages": [], "functions": functions,
                "function_call": choice}))
        };
        let request = offered(json!({"name": "f"}));
        let tools = request.tools.unwrap();
        assert_eq!((tools[0].kind.as_str(), tools.len()), ("function", 1));
        assert_eq!(request.tool_choice, Some(ToolChoice::Named("f".into())));
        assert_eq!((request.parallel_tool_calls, request.offers_functions), (Some(false), true));
        assert_eq!(offered(json!("none")).tool_choice, Some(ToolChoice::None));
        assert_eq!(offered(json!("auto")).tool_choice, Some(ToolChoice::Auto));
        assert_eq!(offered(json!(null)).tool_choice, None);
        assert_eq!(offered(json!("x")).tool_choice, Some(ToolChoice::Other("x".into())));
        let none = modern(&json!({"model": "m", "messages": [], "functions": []}));
        assert!(none.tools.is_none() && !none.offers_functions);
    }

    #[test]
    fn calls_and_results_of_the_history_find_each_other() {
        let call = json!({"name": "f", "arguments": "{}"});
        let request = modern(&json!({"model": "m", "messages": [
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": null, "function_call": call},
            {"role": "function", "name": "f", "content": "1"},
            {"role": "assistant", "tool_calls": [{"function": call}, {"id": "b", "function": call},
                {"id": null, "function": call}]},
            {"role": "tool", "tool_call_id": "b", "content": "2"},
            {"role": "tool", "content": "3"},
            {"role": "tool", "content": "4"},
            {"role": "tool", "content": "5"},
        ]}));
        let answered: Vec<_> =
            request.messages.iter().map(|message| message.tool_call_id.as_deref()).collect();
        let wanted = [
            None,
            None,
            Some("call_1_0"),
            None,
            Some("b"),
            Some("call_3_0"),
            Some("call_3_2"),
            None,
        ];
        assert_eq!(answered, wanted);
        assert_eq!(request.messages[1].tool_calls.as_ref().unwrap()[0].id, "call_1_0");
        assert_eq!(request.messages[2].role, Role::Tool);
    }
}
