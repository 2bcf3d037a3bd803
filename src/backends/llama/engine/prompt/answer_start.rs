//! The beginning of an answer: the part of it that the prompt holds already, its parser and its
//! constraints. Uses no model.

use super::control_tokens::ControlTokenGuard;
use super::tool_fallback;
use crate::backends::llama::engine::grammar::shape::{self, AnswerShape};
use crate::backends::llama::engine::output::call::expected::ExpectedCalls;
use crate::backends::llama::engine::output::parser::OutputParser;
use crate::backends::llama::engine::tool_format::{CallFormat, OutputFormat};
use crate::backends::llama::wire::conversation::{MustCall, ToolUse, Turn};

/// A prompt with the parser and the constraints of its answer.
pub(super) struct RenderedPrompt<P> {
    pub(super) prompt: P,
    pub(super) answer: OutputParser,
    pub(super) forms: AnswerShapes,
}

/// Constraints on an answer and its calls.
#[derive(Default)]
pub(super) struct AnswerShapes {
    /// The answer after its reasoning.
    pub(super) answer: Option<AnswerShape>,
    /// A call that the model begins itself.
    pub(super) call: Option<AnswerShape>,
}

/// The call format of the model's template, or of the fallback.
pub(super) fn call_format(format: &OutputFormat) -> CallFormat {
    format.calls.unwrap_or(tool_fallback::FORMAT)
}

/// Adds the certain beginning of the answer, which is the turn that it continues if that has
/// `begun`. `form` constrains an answer without calls.
pub(super) fn begin(
    mut prompt: String,
    (output, guard): (&OutputFormat, &ControlTokenGuard),
    begun: Option<&Turn>,
    tools: Option<&ToolUse>,
    form: Option<&AnswerShape>,
) -> RenderedPrompt<String> {
    let ends_with = |tag: &str| prompt.trim_end().ends_with(tag);
    // A template may close the reasoning at once, which disables it.
    let mut reasoning = output.reasoning.filter(|tags| !ends_with(tags.close));
    let mut opened = reasoning.is_some_and(|tags| ends_with(tags.open));
    if let Some(begun) = begun {
        // An answer that has begun has done its reasoning.
        if let Some(tags) = reasoning.take().filter(|_| opened) {
            prompt.push_str(tags.close);
            prompt.push_str("\n\n");
        }
        opened = false;
        prompt.push_str(&guard.mark(&begun.text));
    }
    let Some(used) = tools else {
        let answer = OutputParser::new(reasoning, opened, None);
        let forms = AnswerShapes { answer: form.cloned(), call: None };
        return RenderedPrompt { prompt, answer, forms };
    };
    let format = call_format(output);
    let mut answer = OutputParser::new(reasoning, opened, Some(expected_calls(used, format)));
    let begins = || AnswerShape::call_begins(used, format);
    let bound = match shape::forced_beginning(used, format) {
        // The beginning of a required call is part of the prompt: fewer tokens to generate.
        Some(beginning) if reasoning.is_none() && !beginning.is_empty() => {
            prompt.push_str(&beginning);
            answer.prime(&beginning);
            None
        }
        Some(_) => Some(begins()),
        None => form.map(|form| form.clone().or(begins())),
    };
    let forms = AnswerShapes { answer: bound, call: Some(AnswerShape::call(used, format)) };
    RenderedPrompt { prompt, answer, forms }
}

/// The calls that an answer may have.
pub(crate) fn expected_calls(tools: &ToolUse, format: CallFormat) -> ExpectedCalls {
    let schemas = tools.tools.iter().filter(|_| format.spells_each_argument());
    ExpectedCalls {
        format,
        names: tools.tools.iter().map(|tool| tool.name.clone()).collect(),
        schemas: schemas.map(|tool| shape::schema(tool).json).collect(),
        parallel: tools.parallel
            && format.allows_parallel()
            && !matches!(tools.must_call, MustCall::Named(_)),
    }
}
