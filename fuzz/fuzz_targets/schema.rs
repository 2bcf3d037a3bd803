//! JSON schemas, expressions and choices as grammars: compiled or refused, in bounded time and without a panic of ours.

#![no_main]
#![cfg(fuzzing)]

use std::panic;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use wattgate::backends::llama::fuzzing::Compiler;
use wattgate::backends::llama::wire::constraint::Constraint;
use wattgate::backends::llama::wire::conversation::{MustCall, OfferedTool, ToolUse};

static COMPILER: OnceLock<Compiler> = OnceLock::new();

// llguidance catches its own panics: libFuzzer's hook, which aborts, would end the run at them. A
// panic that is not caught ends it all the same.
fuzz_target!(init: drop(panic::take_hook()), |text: &str| {
    let compiler = COMPILER.get_or_init(|| Compiler::new().expect("bytes are a vocabulary"));
    let schema = |strict| Constraint::JsonSchema { schema: text.to_owned(), strict };
    let choice = Constraint::Choice(text.lines().map(str::to_owned).collect());
    for constraint in [schema(false), schema(true), Constraint::Regex(text.to_owned()), choice] {
        let _refusal = compiler.answer(&constraint);
    }
    if text.starts_with('{') {
        let tools = [false, true].map(|strict| {
            let name = if strict { "f" } else { "g" };
            OfferedTool { strict, ..OfferedTool::new(name, "", text) }
        });
        let any = MustCall::Any;
        let _refusal =
            compiler.calls(&ToolUse { tools: tools.into(), must_call: any, parallel: false });
    }
});
