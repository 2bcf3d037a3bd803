//! Calls with one tag per argument, `<function=name><parameter=name>value</parameter></function>`:
//! Qwen3-Coder. Emits them as one JSON object.
//!
//! Pure. Streams text values; other values are emitted when complete, because only then are they
//! known to be JSON.

use serde_json::Value;

use super::expected::{ExpectedCalls, Read};
use crate::backends::llama::engine::tool_schema::{is_text, meant, of_name};

const FUNCTION: &str = "<function=";
const END: &str = "</function>";
const PARAMETER: &str = "<parameter=";
/// Includes the line end before the tag.
const VALUE_END: &str = "\n</parameter>";

#[derive(Debug, Default)]
pub(super) struct ParametersCall {
    stage: Stage,
    /// Index of the called tool in the client's list.
    tool: usize,
    /// The part of the tag, name or value that has not been emitted.
    held: String,
    parameters: usize,
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Function,
    /// Before the next parameter, or the end.
    Between,
    ParameterName,
    /// Inside an argument's value; `begun` once a character of it has been read.
    Value {
        name: String,
        is_text: bool,
        begun: bool,
    },
}

impl ParametersCall {
    pub(super) fn feed(&mut self, char: char, read: &str, calls: &ExpectedCalls) -> Read {
        match &mut self.stage {
            Stage::Function => self.in_function(read, &calls.names),
            Stage::Between => self.between(char),
            Stage::ParameterName if char == '>' => {
                let name = std::mem::take(&mut self.held);
                let root = calls.schemas.get(self.tool).unwrap_or(&Value::Null);
                let is_text = is_text(of_name(root, &name), root);
                let comma = if self.parameters > 0 { ", " } else { "" };
                self.parameters += 1;
                let quote = if is_text { "\"" } else { "" };
                let collected = format!("{comma}{}: {quote}", Value::from(name.as_str()));
                self.stage = Stage::Value { name, is_text, begun: false };
                Read::Arguments(collected)
            }
            Stage::ParameterName => {
                self.held.push(char);
                Read::More
            }
            // The line end after the tag is not part of the value.
            Stage::Value { begun: begun @ false, .. } => {
                *begun = true;
                if char == '\n' { Read::More } else { self.in_value(char, calls) }
            }
            Stage::Value { .. } => self.in_value(char, calls),
        }
    }

    fn in_function(&mut self, read: &str, known: &[String]) -> Read {
        let read = read.trim_start();
        if FUNCTION.starts_with(read) {
            return Read::More;
        }
        let Some(name) = read.strip_prefix(FUNCTION) else { return Read::NoCall };
        let Some(name) = name.strip_suffix('>') else {
            let begins = known.iter().any(|known| known.starts_with(name));
            return if begins { Read::More } else { Read::NoCall };
        };
        let Some(tool) = known.iter().position(|known| known == name) else { return Read::NoCall };
        (self.tool, self.stage) = (tool, Stage::Between);
        Read::Begun { name: name.to_owned(), arguments: "{".to_owned() }
    }

    fn between(&mut self, char: char) -> Read {
        if self.held.is_empty() && char.is_whitespace() {
            return Read::More;
        }
        self.held.push(char);
        if self.held == PARAMETER {
            self.held.clear();
            self.stage = Stage::ParameterName;
            Read::More
        } else if self.held == END {
            Read::Done { arguments: "}".to_owned(), left: false }
        } else if PARAMETER.starts_with(&self.held) || END.starts_with(&self.held) {
            Read::More
        } else {
            // Small models omit the end tag: the call is complete without it.
            Read::Done { arguments: "}".to_owned(), left: true }
        }
    }

    fn in_value(&mut self, char: char, calls: &ExpectedCalls) -> Read {
        let Stage::Value { name, is_text, .. } = &self.stage else { return Read::More };
        self.held.push(char);
        let end = VALUE_END.trim_start();
        let Some(value) = self.held.strip_suffix(end) else {
            let undecided = if *is_text { undecided(&self.held) } else { self.held.len() };
            let collected: String = self.held.drain(..self.held.len() - undecided).collect();
            return if collected.is_empty() {
                Read::More
            } else {
                Read::Arguments(escaped(&collected))
            };
        };
        let value = value.strip_suffix('\n').unwrap_or(value);
        let collected = if *is_text {
            format!("{}\"", escaped(value))
        } else {
            let root = calls.schemas.get(self.tool).unwrap_or(&Value::Null);
            meant(value, of_name(root, name), root).to_string()
        };
        self.held.clear();
        self.stage = Stage::Between;
        Read::Arguments(collected)
    }
}

/// Length of the suffix of `text` that may begin the value's end tag.
fn undecided(text: &str) -> usize {
    let begins = |len: &usize| {
        let ends = [VALUE_END, VALUE_END.trim_start()];
        ends.iter().any(|end| *len < end.len() && text.ends_with(&end[..*len]))
    };
    (1..VALUE_END.len()).rev().find(begins).unwrap_or(0)
}

/// The text as inside a JSON string.
fn escaped(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}
