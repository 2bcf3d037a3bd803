//! What the fuzz targets in `fuzz/` call here: the pure parts of the engine, without a model.
//! Compiled into no other build; decides nothing.

use llguidance::toktrie::ApproximateTokEnv;
use serde_json::json;

use super::grammar::compile::Grammars;
use super::grammar::shape::{self, AnswerShape};
use super::output::call::expected::ExpectedCalls;
use super::output::parser::OutputParser;
use super::output::stream::{Emitted, OutputStream};
use super::prompt::control_tokens::ControlTokenGuard;
use super::prompt::template::{CHATML, ChatTemplate, format_of};
use super::prompt::tool_fallback;
use super::tool_format::{CallFormat, OutputFormat};
use crate::backends::llama::wire::constraint::{Constraint, GrammarError};
use crate::backends::llama::wire::conversation::{Conversation, ToolUse};
use crate::backends::llama::wire::piece::Piece;
use crate::backends::llama::wire::reasoning::REASONING;
use crate::openai::FinishReason;

/// The tools of [`Answer`].
pub const TOOLS: [&str; 2] = ["f", "open_file"];

/// How the output of a model is read.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// Place in the list of call formats; none beyond it.
    pub calls: usize,
    /// Place in the list of reasoning tags; none beyond it.
    pub reasoning: usize,
    pub reasons_already: bool,
    pub parallel: bool,
    pub stops: bool,
    /// The answer ends at the output limit.
    pub cut: bool,
}

/// What a model's output gives.
#[derive(Debug, PartialEq)]
pub struct Output {
    /// Neighbours of one kind joined.
    pub pieces: Vec<Piece>,
    pub reason: FinishReason,
    /// Nothing but text may be in it.
    pub plain: bool,
}

/// Reads tokens of these bytes.
pub fn output<'t>(reading: Reading, tokens: impl IntoIterator<Item = &'t [u8]>) -> Output {
    let format = CallFormat::ALL.get(reading.calls).copied();
    let calls = format.map(|format| ExpectedCalls {
        format,
        names: TOOLS.map(str::to_owned).to_vec(),
        schemas: if format.spells_each_argument() {
            vec![json!({"type": "object"}), arguments_schema()]
        } else {
            Vec::new()
        },
        parallel: reading.parallel && format.allows_parallel(),
    });
    let tags = REASONING.get(reading.reasoning).copied();
    let plain = tags.is_none() && calls.is_none();
    let parser = OutputParser::new(tags, tags.is_some() && reading.reasons_already, calls);
    let stops: &[&str] = if reading.stops { &["stop", "\n\n", "é世"] } else { &[] };
    let stops = stops.iter().map(|&stop| stop.to_owned()).collect();
    let mut stream = OutputStream::new(parser, stops);
    let mut pieces = Vec::<Piece>::new();
    let mut take = |emitted: Emitted| {
        for piece in emitted.pieces {
            let left = match pieces.last_mut() {
                Some(last) => last.join(piece),
                None => Some(piece),
            };
            pieces.extend(left);
        }
    };
    let mut last = Emitted::default();
    for token in tokens {
        take(std::mem::replace(&mut last, stream.push(token)));
        if last.ended {
            break;
        }
    }
    let reason = if reading.cut { FinishReason::Length } else { FinishReason::Stop };
    let reason = stream.end(reason, &mut last);
    take(last);
    Output { pieces, reason, plain }
}

/// The schema of `open_file`: one argument of each kind.
fn arguments_schema() -> serde_json::Value {
    json!({"type": "object", "required": ["path"], "properties": {
        "path": {"type": "string"}, "mode": {"enum": ["r", "w"]}, "lines": {"type": "integer"},
        "any": {}, "list": {"type": "array"}, "maybe": {"$ref": "#/$defs/maybe"},
    }, "$defs": {"maybe": {"anyOf": [{"type": "string"}, {"type": "null"}]}}})
}

/// A chat template with the control tokens that clients may not write.
#[derive(Debug)]
pub struct Template {
    template: ChatTemplate,
    format: OutputFormat,
    guard: ControlTokenGuard,
}

impl Template {
    /// Of this source; `None` if it cannot be compiled.
    pub fn new(source: &str) -> Option<Self> {
        let controls = ["<|im_start|>", "<|im_end|>", "[INST]", "<s>", "</s>", "<think>"];
        let guard = ControlTokenGuard::new(controls.map(str::to_owned));
        let template = ChatTemplate::new(source, "<s>", "</s>").ok()?;
        Some(Self { template, format: format_of(source).ok()?, guard })
    }

    pub fn chatml() -> Option<Self> {
        Self::new(CHATML)
    }

    /// The prompt, or the refusal.
    pub fn render(&self, conversation: &Conversation) -> Result<String, String> {
        let Conversation { turns, tools, variables, .. } = conversation;
        let (template, guard, tools) = (&self.template, &self.guard, tools.as_ref());
        let rendered = if self.format.calls.is_some() {
            template.render(turns, tools, variables, guard)
        } else {
            let turns = tool_fallback::plain_turns(turns, tools);
            template.render(&turns, None, variables, guard)
        };
        rendered.map_err(|error| error.to_string())
    }
}

/// Compiles grammars over a vocabulary of single bytes.
pub struct Compiler(Grammars);

impl Compiler {
    pub fn new() -> Option<Self> {
        Grammars::over(&ApproximateTokEnv::single_byte_env(), Default::default()).ok().map(Self)
    }

    pub fn answer(&self, constraint: &Constraint) -> Result<(), GrammarError> {
        self.0.grammar(&AnswerShape::of(constraint)?).map(drop)
    }

    /// The grammars of these tools' calls, in every format.
    pub fn calls(&self, tools: &ToolUse) -> Result<(), GrammarError> {
        for format in CallFormat::ALL {
            tools.tools.iter().try_for_each(|tool| shape::check_spelling(tool, format))?;
            let _beginning = shape::forced_beginning(tools, format);
            self.0.grammar(&AnswerShape::call(tools, format))?;
        }
        Ok(())
    }
}
