//! Rendering of conversations with the GGUF's own Jinja template.
//!
//! Does not use llama.cpp's built-in templates, a fixed list that differs from what models ship.
//! The environment follows Hugging Face's `apply_chat_template`, which templates are written for:
//! trimmed blocks, Python's methods on strings and maps, `raise_exception`, `strftime_now`.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{Environment, Error, ErrorKind, Value, context};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::control_tokens::ControlTokenGuard;
use super::python_json::tojson;
use super::reshape::{Dropped, shapes};
use crate::backends::llama::engine::tool_format::{CallFormat, OutputFormat};
use crate::backends::llama::wire::conversation::{PastCall, ToolUse, Turn};
use crate::openai::Role;

/// The format most instruction models without a template were trained on.
pub(crate) const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + \
    message['content'] + '<|im_end|>' + '\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

const NAME: &str = "chat";

/// Instructions of one rendering. A thousand turns with tools take some 300,000; a template that
/// loops for ever is a hostile one, and the engine's other requests wait for it.
const FUEL: u64 = 10_000_000;

/// A model's chat template, compiled.
#[derive(Debug)]
pub(crate) struct ChatTemplate {
    environment: Environment<'static>,
    dialect: OutputFormat,
    /// What it leaves out in silence.
    dropped: Dropped,
    /// It goes through the arguments of a call one by one, so they must be an object.
    iterates_arguments: bool,
}

impl ChatTemplate {
    /// Compiles a template. `bos` and `eos` are the texts of the tokens that begin and end a
    /// sequence.
    pub(crate) fn new(source: &str, bos: &str, eos: &str) -> Result<Self, Error> {
        let mut environment = parsed(source)?;
        let dialect = format_in(&environment, source)?;
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_global("bos_token", bos);
        environment.add_global("eos_token", eos);
        environment.add_filter("tojson", tojson);
        let dropped = Dropped::default();
        let mut template = Self { environment, dialect, dropped, iterates_arguments: false };
        template.probe();
        Ok(template)
    }

    /// Learns from samples what the template does with turns that not every one expects.
    fn probe(&mut self) {
        const WORD: &str = "Kingfisher";
        let guard = ControlTokenGuard::default();
        let user = || Turn::new(Role::User, "a");
        let system = || Turn::new(Role::System, WORD);
        let lost = |turns: &[Turn]| {
            let rendered = self.render_as_is(turns, None, "", &guard);
            rendered.is_ok_and(|prompt| !prompt.contains(WORD))
        };
        let other = || Turn::new(Role::System, "c");
        let dropped = Dropped {
            system: lost(&[system(), user()]),
            second_system: lost(&[system(), other(), user()]) || lost(&[other(), system(), user()]),
            later_system: lost(&[user(), Turn::new(Role::Assistant, "b"), system(), user()]),
        };
        let takes = |arguments: &str| {
            let call = PastCall { id: "0".into(), name: "f".into(), arguments: arguments.into() };
            let called = Turn { calls: vec![call], ..Turn::new(Role::Assistant, "") };
            let result = Turn { answers: Some("0".into()), ..Turn::new(Role::Tool, "c") };
            self.render_as_is(&[user(), called, result], None, "", &guard).is_ok()
        };
        let iterates_arguments = !takes("b") && takes("{}");
        (self.dropped, self.iterates_arguments) = (dropped, iterates_arguments);
    }

    /// The prompt up to the assistant's answer. `guard` marks control tokens that turns and tools
    /// spell out. Only templates with a call format read `tools`. `variables` is JSON.
    ///
    /// A conversation that the template refuses, or would leave out in part, is rendered in the
    /// least changed shape that it takes; the error is about the conversation as it is.
    pub(crate) fn render(
        &self,
        turns: &[Turn],
        tools: Option<&ToolUse>,
        variables: &str,
        guard: &ControlTokenGuard,
    ) -> Result<String, Error> {
        let as_is = self.render_as_is(turns, tools, variables, guard);
        let is_endless = |error: &Error| error.kind() == ErrorKind::OutOfFuel;
        if as_is.as_ref().map_or_else(is_endless, |_| !self.dropped.concerns(turns)) {
            return as_is;
        }
        let one_call = self.dialect.calls.is_some_and(|format| !format.allows_parallel());
        let mut taken = shapes(turns, one_call)
            .filter(|shape| !self.dropped.concerns(shape))
            .filter_map(|shape| self.render_as_is(&shape, tools, variables, guard).ok());
        taken.next().map_or(as_is, Ok)
    }

    fn render_as_is(
        &self,
        turns: &[Turn],
        tools: Option<&ToolUse>,
        variables: &str,
        guard: &ControlTokenGuard,
    ) -> Result<String, Error> {
        let messages: Vec<Value> = turns.iter().map(|turn| self.message(turn, guard)).collect();
        // Templates test `tools is not none`: Hugging Face passes `None` if there are none.
        let tools: Option<Vec<Value>> = tools
            .map(|used| used.tools.iter().map(|tool| guarded_json(&tool.json, guard)).collect());
        // Earlier entries take precedence.
        let variables = Some(variables).filter(|json| !json.is_empty());
        let variables = variables.map_or_else(|| context! {}, |json| guarded_json(json, guard));
        self.environment.get_template(NAME)?.render(context! {
            messages => messages, tools => tools, add_generation_prompt => true, ..variables
        })
    }

    fn message(&self, turn: &Turn, guard: &ControlTokenGuard) -> Value {
        let text = |text: &str| Value::from(guard.mark(text).into_owned());
        let mut fields =
            vec![("role", Value::from(role(turn.role))), ("content", text(&turn.text))];
        // Set only if present: templates test whether they are defined.
        if let Some(reasoning) = &turn.reasoning {
            fields.push(("reasoning_content", text(reasoning)));
        }
        if !turn.calls.is_empty() {
            let calls = turn.calls.iter().map(|call| self.call(call, guard));
            fields.push(("tool_calls", calls.collect()));
        }
        let is_result = matches!(turn.role, Role::Tool | Role::Function);
        // The results of the older API have no id, and Mistral's templates refuse those.
        let unnamed = (is_result && self.is_mistral()).then_some("");
        if let Some(id) = turn.answers.as_deref().or(unnamed) {
            fields.push(("tool_call_id", text(&self.call_id(id))));
        }
        if let Some(name) = &turn.name {
            fields.push(("name", text(name)));
        }
        Value::from_pairs(fields)
    }

    fn call(&self, call: &PastCall, guard: &ControlTokenGuard) -> Value {
        context! {
            id => guard.mark(&self.call_id(&call.id)),
            type => "function",
            function => context! {
                name => guard.mark(&call.name),
                arguments => self.arguments(&call.arguments, guard),
            },
        }
    }

    /// A call's arguments: an object, or what the model wrote instead, as a member of one where the
    /// template needs it.
    fn arguments(&self, json: &str, guard: &ControlTokenGuard) -> Value {
        let given = match json.trim() {
            // How clients and models write that there are none.
            "" | "null" => return Value::from_pairs::<[(Value, Value); 0], _, _>([]),
            _ => guarded_json(json, guard),
        };
        if self.iterates_arguments && given.kind() != ValueKind::Map {
            return Value::from_pairs([("arguments", given)]);
        }
        given
    }

    fn is_mistral(&self) -> bool {
        matches!(self.dialect.calls, Some(CallFormat::Mistral | CallFormat::MistralArgs))
    }

    /// A call id that the template accepts: Mistral's require 9 letters and digits.
    fn call_id(&self, id: &str) -> String {
        const MISTRAL_ID: usize = 9;
        let fits = id.len() == MISTRAL_ID && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !self.is_mistral() || fits {
            return id.to_owned();
        }
        // The end of an id is its random part; padded, it is unique within a conversation.
        let end: Vec<char> =
            id.chars().rev().filter(char::is_ascii_alphanumeric).take(MISTRAL_ID).collect();
        format!("{:0>9}", end.into_iter().rev().collect::<String>())
    }
}

/// The output format of a template's model, without rendering anything.
pub(crate) fn format_of(source: &str) -> Result<OutputFormat, Error> {
    format_in(&parsed(source)?, source)
}

fn format_in(environment: &Environment<'_>, source: &str) -> Result<OutputFormat, Error> {
    let variables = environment.get_template(NAME)?.undeclared_variables(false);
    Ok(OutputFormat::of(source, variables.contains("tools")))
}

fn parsed(source: &str) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.add_template_owned(NAME, source.to_owned())?;
    Ok(environment)
}

/// JSON text as a template value; invalid JSON, which a small model may have generated, as a
/// string.
fn guarded_json(json: &str, guard: &ControlTokenGuard) -> Value {
    let value = serde_json::from_str(json).unwrap_or_else(|_| Value::from(json));
    guarded(&value, guard)
}

fn guarded(value: &Value, guard: &ControlTokenGuard) -> Value {
    let inner = |value: Value| guarded(&value, guard);
    match value.kind() {
        ValueKind::String => guard.mark(value.as_str().unwrap_or_default()).into_owned().into(),
        ValueKind::Seq => value.try_iter().into_iter().flatten().map(inner).collect(),
        ValueKind::Map => {
            let keys = value.try_iter().into_iter().flatten();
            let field = |key: Value| {
                let field = value.get_item(&key).unwrap_or_default();
                (inner(key), inner(field))
            };
            Value::from_pairs(keys.map(field))
        }
        _ => value.clone(),
    }
}

/// Role names that templates know: they predate `developer` and `function`.
fn role(role: Role) -> &'static str {
    match role {
        Role::System | Role::Developer => "system",
        Role::User | Role::Other => "user",
        Role::Assistant => "assistant",
        Role::Tool | Role::Function => "tool",
    }
}

/// The current date in UTC.
fn strftime_now(format: &str) -> Result<String, Error> {
    let now = jiff::fmt::strtime::BrokenDownTime::from(jiff::Timestamp::now());
    now.to_string(format)
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
}

/// Called by templates to refuse a conversation, such as two user turns in a row.
fn raise_exception(message: &str) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.to_owned()))
}

#[cfg(test)]
mod tests;
