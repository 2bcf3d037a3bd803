//! Chat templates, as model files bring them.

#![no_main]
#![cfg(fuzzing)]

use libfuzzer_sys::fuzz_target;
use wattgate::backends::llama::fuzzing::Template;
use wattgate::backends::llama::wire::conversation::{
    Conversation, MustCall, OfferedTool, PastCall, ToolUse, Turn,
};
use wattgate::openai::Role;

fuzz_target!(|source: &str| {
    // Without bounds on what it computes, a long template may compute for ever.
    if source.matches("range").count() > 1 {
        return;
    }
    let Some(template) = Template::new(source) else { return };
    let call = PastCall { id: "1".into(), name: "f".into(), arguments: r#"{"a":1}"#.into() };
    let turns = vec![
        Turn::new(Role::System, "s"),
        Turn::new(Role::User, "u"),
        Turn { calls: vec![call], reasoning: Some("r".into()), ..Turn::new(Role::Assistant, "") },
        Turn { answers: Some("1".into()), ..Turn::new(Role::Tool, "t") },
    ];
    let tools = vec![OfferedTool::new("f", "d", r#"{"type":"object","properties":{}}"#)];
    let tools = Some(ToolUse { tools, must_call: MustCall::No, parallel: true });
    let _refusal =
        template.render(&Conversation { turns, tools, variables: String::new(), continues: false });
});
