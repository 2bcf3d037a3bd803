//! Turning a conversation into the text a model was trained on, with the GGUF's own Jinja template.
//!
//! No llama.cpp: its built-in templates are a fixed list that differs from what models ship. The environment follows
//! what templates are written for, Hugging Face's `apply_chat_template`: trimmed blocks, Python's methods on
//! strings and maps, `raise_exception`, `strftime_now`.

use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

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
        environment.add_function("strftime_now", |format: &str| strftime(format, seconds_now()));
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

/// How a template refuses a conversation, such as two user turns in a row.
fn raise_exception(message: &str) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.to_owned()))
}

fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The conversions of `strftime` that chat templates use, in UTC; others are kept as they are written.
fn strftime(format: &str, seconds: u64) -> String {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let (year, month, day) = civil_date(seconds / 86_400);
    let month_name = MONTHS[month as usize - 1];
    let mut text = String::with_capacity(format.len() + 8);
    let mut chars = format.chars();
    while let Some(char) = chars.next() {
        let part: Cow<'_, str> = match (char, (char == '%').then(|| chars.next()).flatten()) {
            (_, Some('Y')) => year.to_string().into(),
            (_, Some('m')) => format!("{month:02}").into(),
            (_, Some('d')) => format!("{day:02}").into(),
            (_, Some('b')) => month_name[..3].into(),
            (_, Some('B')) => month_name.into(),
            (_, Some('H')) => format!("{:02}", seconds / 3600 % 24).into(),
            (_, Some('M')) => format!("{:02}", seconds / 60 % 60).into(),
            (_, Some('S')) => format!("{:02}", seconds % 60).into(),
            (_, Some(other)) => format!("%{other}").into(),
            (plain, None) => plain.to_string().into(),
        };
        text.push_str(&part);
    }
    text
}

/// Year, month and day of a day counted from 1970-01-01: Howard Hinnant's `civil_from_days` for dates after 1970.
fn civil_date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
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

    #[test]
    fn dates_follow_the_calendar() {
        // 2024-02-29 12:34:56 UTC, 2000-01-01, and the epoch, from `date -u`.
        assert_eq!(strftime("%d %b %Y %H:%M:%S", 1_709_210_096), "29 Feb 2024 12:34:56");
        assert_eq!(strftime("%Y-%m-%d, %B, 100%", 946_684_800), "2000-01-01, January, 100%");
        assert_eq!(strftime("%Y-%m-%d %q", 0), "1970-01-01 %q");
    }
}
