//! Tools for models whose template has no tool format: described in the system turn, called in
//! plain text.
//!
//! Pure. Uses the Hermes format, which many small models have seen:
//!
//! - the system turn ends with one JSON object a tool in `<tools>` and how to call them;
//! - a call is `<tool_call>{"name": …, "arguments": {…}}</tool_call>` in the assistant's turn;
//! - a user's turn holds results, each in `<tool_response>`.

use crate::backends::llama::engine::tool_format::CallFormat;
use crate::backends::llama::wire::conversation::{MustCall, ToolUse, Turn};
use crate::openai::Role;

/// The call format of the fallback.
pub(crate) const FORMAT: CallFormat = CallFormat::Hermes;

/// The conversation as plain text turns.
pub(crate) fn plain_turns(turns: &[Turn], tools: Option<&ToolUse>) -> Vec<Turn> {
    let mut plain: Vec<Turn> = Vec::with_capacity(turns.len() + 1);
    let mut in_results = false;
    for turn in turns {
        let is_result = matches!(turn.role, Role::Tool | Role::Function);
        match (is_result, plain.last_mut()) {
            // Consecutive results form one turn: many templates require user and assistant to
            // alternate.
            (true, Some(last)) if in_results => {
                last.text.push('\n');
                last.text.push_str(&result(turn));
            }
            (true, _) => plain.push(Turn::new(Role::User, result(turn))),
            (false, _) => {
                plain.push(Turn { text: as_text(turn), calls: Vec::new(), ..turn.clone() });
            }
        }
        in_results = is_result;
    }
    if let Some(tools) = tools {
        let description = describe(tools);
        match plain.first_mut().filter(|first| matches!(first.role, Role::System | Role::Developer))
        {
            Some(system) => system.text = format!("{}\n\n{description}", system.text),
            None => plain.insert(0, Turn::new(Role::System, description)),
        }
    }
    plain
}

fn result(turn: &Turn) -> String {
    format!("<tool_response>\n{}\n</tool_response>", turn.text)
}

/// An assistant's turn with its calls as text.
fn as_text(turn: &Turn) -> String {
    let calls = turn.calls.iter().map(|call| {
        let name = serde_json::Value::from(call.name.as_str());
        let arguments = match call.arguments.trim() {
            "" | "null" => "{}",
            arguments => arguments,
        };
        format!("<tool_call>\n{{\"name\": {name}, \"arguments\": {arguments}}}\n</tool_call>")
    });
    let text = Some(turn.text.clone()).filter(|text| !text.is_empty());
    text.into_iter().chain(calls).collect::<Vec<_>>().join("\n")
}

fn describe(tools: &ToolUse) -> String {
    let listed: Vec<&str> = tools.tools.iter().map(|tool| tool.json.as_str()).collect();
    let many = if tools.parallel { " Several calls may follow each other." } else { "" };
    let must = match &tools.must_call {
        MustCall::No => "If no function helps, answer in words.".to_owned(),
        MustCall::Any => "You must call a function now.".to_owned(),
        MustCall::Named(name) => format!("You must call the function {name} now."),
    };
    format!(
        "You may call these functions:\n<tools>\n{}\n</tools>\n\
         To call one, write its name and its arguments as JSON, like this:\n\
         <tool_call>\n{{\"name\": \"the function's name\", \"arguments\": {{\"an argument's name\": \"its value\"}}}}\n</tool_call>\n\
         The result will be given to you in <tool_response>.{many} {must}",
        listed.join("\n")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::llama::wire::conversation::{OfferedTool, PastCall};

    fn tools() -> ToolUse {
        let tools = vec![OfferedTool::new("f", "", "{}")];
        ToolUse { tools, must_call: MustCall::No, parallel: true }
    }

    #[test]
    fn tools_join_the_clients_system_turn_or_make_one() {
        let user = Turn::new(Role::User, "hi");
        let own = plain_turns(std::slice::from_ref(&user), Some(&tools()));
        assert_eq!((own[0].role, own.len()), (Role::System, 2));
        assert!(own[0].text.contains("\"parameters\":{}}}\n</tools>"), "{}", own[0].text);
        let turns = [Turn::new(Role::Developer, "Be brief."), user];
        let joined = plain_turns(&turns, Some(&tools()));
        assert!(joined[0].text.starts_with("Be brief.\n\nYou may call"), "{}", joined[0].text);
        assert_eq!(plain_turns(&turns, None), turns);
    }

    #[test]
    fn calls_and_results_become_text() {
        let call = |name: &str| PastCall {
            id: name.into(),
            name: name.into(),
            arguments: r#"{"a":1}"#.into(),
        };
        let asked =
            Turn { calls: vec![call("f"), call("g")], ..Turn::new(Role::Assistant, "Well.") };
        let turns = [asked, Turn::new(Role::Tool, "1"), Turn::new(Role::Tool, "2")];
        let plain = plain_turns(&turns, None);
        assert_eq!(
            plain[0].text,
            "Well.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\":1}}\n</tool_call>\n\
             <tool_call>\n{\"name\": \"g\", \"arguments\": {\"a\":1}}\n</tool_call>"
        );
        assert_eq!(
            (plain[1].role, plain[1].text.as_str()),
            (
                Role::User,
                "<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</tool_response>"
            )
        );
        assert_eq!(plain.len(), 2);
    }
}
