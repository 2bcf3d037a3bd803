//! Turning a conversation into the text a model was trained on, with the GGUF's own Jinja template.
//!
//! No llama.cpp: its built-in templates are a fixed list that differs from what models ship. The environment follows
//! what templates are written for, Hugging Face's `apply_chat_template`: trimmed blocks, Python's methods on
//! strings and maps, `raise_exception`, `strftime_now`.

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Value, context};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::guard::Guard;
use super::protocol::Turn;
use crate::openai::Role;

/// What most instruction models without a template of their own were trained on.
pub const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + \
    message['content'] + '<|im_end|>' + '\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

const NAME: &str = "chat";

/// A model's chat template, compiled.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
}

impl ChatTemplate {
    /// Compiles a template. `bos` and `eos` are the texts of the model's tokens that begin and end a sequence.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self, Error> {
        let mut environment = Environment::new();
        environment
            .set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        environment.set_unknown_method_callback(unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_global("bos_token", bos);
        environment.add_global("eos_token", eos);
        environment.add_template_owned(NAME, source.to_owned())?;
        Ok(Self { environment })
    }

    /// The prompt up to where the assistant's answer begins. Control tokens spelled out in a turn are marked by
    /// `guard`.
    pub fn render(&self, turns: &[Turn], guard: &Guard) -> Result<String, Error> {
        let messages: Vec<Value> = turns
            .iter()
            .map(|turn| context! { role => role(turn.role), content => guard.mark(&turn.text) })
            .collect();
        self.environment
            .get_template(NAME)?
            .render(context! { messages => messages, add_generation_prompt => true })
    }
}

/// The names templates know: they predate `developer` and `function`.
fn role(role: Role) -> &'static str {
    match role {
        Role::System | Role::Developer => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool | Role::Function => "tool",
    }
}

/// The date as templates ask for it, in UTC.
fn strftime_now(format: &str) -> Result<String, Error> {
    let now = jiff::fmt::strtime::BrokenDownTime::from(jiff::Timestamp::now());
    now.to_string(format)
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
}

/// How a template refuses a conversation, such as two user turns in a row.
fn raise_exception(message: &str) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The template of SmolLM2-135M-Instruct, as its GGUF carries it.
    const SMOLLM2: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

    fn turn(role: Role, text: &str) -> Turn {
        Turn { role, text: text.into() }
    }

    fn render(source: &str, turns: &[Turn]) -> Result<String, Error> {
        ChatTemplate::new(source, "<s>", "</s>")?.render(turns, &Guard::default())
    }

    #[test]
    fn smollm2_gets_its_own_system_prompt_unless_the_client_brings_one() {
        assert_eq!(
            render(SMOLLM2, &[turn(Role::User, "Hi")]).unwrap(),
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n\
             <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        );
        assert_eq!(
            render(SMOLLM2, &[turn(Role::Developer, "Be brief."), turn(Role::User, "Hi")]).unwrap(),
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        );
    }

    #[test]
    fn pythonisms_and_globals_work() {
        let source = "{{ bos_token }}{% for m in messages %}\n    {% if m.role.startswith('u') %}\n{{ m.content.strip() }}{{ eos_token }}\n    {% endif %}\n{% endfor %}";
        assert_eq!(render(source, &[turn(Role::User, " a ")]).unwrap(), "<s>a</s>\n");
    }

    #[test]
    fn a_template_refuses_in_its_own_words() {
        let source = "{{ raise_exception('roles must alternate') }}";
        let error = render(source, &[]).unwrap_err().to_string();
        assert!(error.contains("roles must alternate"), "{error}");
    }
}
