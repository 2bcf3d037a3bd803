//! Task class of a request, from its text and its form: a few classes by which policies can differ.
//!
//! Pure and cheap (a few microseconds per KiB); reads the last question only, never logs it. The
//! first match wins, in the order of [`TaskClass`]. Lexical and for English: a question without
//! known signs is chat, never an error.

mod words;

use memchr::{memchr_iter, memchr3_iter};
use serde::{Deserialize, Serialize};

use words::Sign;

/// Task classes, in order of precedence.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum TaskClass {
    /// Tools are offered, or a tool result is returned.
    Tools,
    /// A prompt of 4,096 estimated tokens or more.
    LongContext,
    /// Three or more lettered options to choose from.
    MultipleChoice,
    /// An answer format (`response_format`), or an order to extract, summarise, translate, classify
    /// or reformat.
    Extraction,
    /// Write, explain or repair a program.
    Code,
    /// Calculate, solve or prove.
    Math,
    /// Everything else.
    #[default]
    Chat,
}

/// From this length on the prompt says more than its last question.
const LONG_PROMPT_TOKENS: u32 = 4096;
/// Most bytes read of the question.
const QUESTION_BYTES_MAX: usize = 8 * 1024;

/// Form of a request, as far as it determines the task.
#[derive(Clone, Copy, Debug, Default)]
pub struct Form {
    pub tools: bool,
    /// `response_format` other than text.
    pub schema: bool,
    pub prompt_tokens: u32,
}

impl TaskClass {
    pub const ALL: [Self; 7] = [
        Self::Tools,
        Self::LongContext,
        Self::MultipleChoice,
        Self::Extraction,
        Self::Code,
        Self::Math,
        Self::Chat,
    ];

    pub fn of(question: &str, form: Form) -> Self {
        let question = &question[..question.floor_char_boundary(QUESTION_BYTES_MAX)];
        if form.tools {
            Self::Tools
        } else if form.prompt_tokens >= LONG_PROMPT_TOKENS {
            Self::LongContext
        } else if option_lines(question) >= 3 {
            Self::MultipleChoice
        } else if form.schema {
            Self::Extraction
        } else {
            Self::of_words(question)
        }
    }

    fn of_words(question: &str) -> Self {
        let lower = question.to_lowercase();
        let found = words::find(&lower);
        if found.has(Sign::CodeMark) || (found.has(Sign::CodeNoun) && found.has(Sign::CodeVerb)) {
            Self::Code
        } else if found.has(Sign::ReworkPhrase) || words::begins_with_rework(&lower) {
            Self::Extraction
        } else if found.has(Sign::MathMark)
            || found.has(Sign::MathWord)
            || (found.has(Sign::Quantity) && words::numbers(&lower) >= 2)
            || is_sum(&lower)
            || has_formula(&lower)
        {
            Self::Math
        } else {
            Self::Chat
        }
    }

    /// Name in configuration, log and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::LongContext => "long_context",
            Self::MultipleChoice => "multiple_choice",
            Self::Extraction => "extraction",
            Self::Code => "code",
            Self::Math => "math",
            Self::Chat => "chat",
        }
    }
}

/// Lines such as `B. because`, `B) because` or `(B) because`.
fn option_lines(question: &str) -> usize {
    let is_option = |line: &str| {
        let line = line.trim_start();
        let bare = line.strip_prefix('(').unwrap_or(line).as_bytes();
        matches!(bare, [b'A'..=b'J', b'.' | b')' | b':', b' ', ..])
    };
    question.lines().filter(|line| is_option(line)).count()
}

/// A LaTeX command, or two dollar signs of which one is followed by a letter or a command.
fn has_formula(lower: &str) -> bool {
    let bytes = lower.as_bytes();
    let follows = |sign: char, next: fn(u8) -> bool| {
        lower.match_indices(sign).any(|(at, _)| bytes.get(at + 1).is_some_and(|&byte| next(byte)))
    };
    follows('\\', |next| next.is_ascii_lowercase())
        || (follows('$', |next| next.is_ascii_lowercase() || next == b'\\')
            && lower.matches('$').nth(1).is_some())
}

/// A calculation written out, as in "what is 2+2" or "12 * 7".
fn is_sum(lower: &str) -> bool {
    let bytes = lower.as_bytes();
    let is_digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
    let is_between_digits = |at: usize, length: usize| {
        let before = lower[..at].chars().rev().find(|c| !c.is_whitespace());
        let after = lower[at + length..].chars().find(|c| !c.is_whitespace());
        is_digit(before) && is_digit(after)
    };
    // The first byte of both signs that are not ASCII.
    let is_sign = |at: &usize| lower[*at..].starts_with(['×', '÷']);
    memchr3_iter(b'+', b'*', b'/', bytes).any(|at| is_between_digits(at, 1))
        || memchr_iter(0xc3, bytes).filter(is_sign).any(|at| is_between_digits(at, 2))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(question: &str) -> TaskClass {
        TaskClass::of(question, Form::default())
    }

    #[test]
    fn each_class_is_recognised_by_its_signs() {
        for (question, class) in [
            ("Which is prime?\nA. 4\nB. 5\nC. 6\nD. 8\nAnswer:", TaskClass::MultipleChoice),
            ("Pick one:\n(A) red\n(B) green\n(C) blue", TaskClass::MultipleChoice),
            ("Write a Python function that reverses a list.", TaskClass::Code),
            ("What does this do?\n```\nlet x = 1;\n```", TaskClass::Code),
            ("Fix the bug in my SQL query", TaskClass::Code),
            ("Summarize the following article: Cats sleep a lot.", TaskClass::Extraction),
            ("Please translate to French: good morning", TaskClass::Extraction),
            ("Give the names and dates as JSON: Ada, 1815", TaskClass::Extraction),
            ("Solve x^2 - 5x + 6 = 0", TaskClass::Math),
            ("What is 2+2?", TaskClass::Math),
            ("Tom buys 3 pens at 2 dollars. How much does he pay?", TaskClass::Math),
            ("In $\\triangle XYZ$, what is $\\cos Z$?", TaskClass::Math),
            ("What is the area code of Louisville?", TaskClass::Chat),
            ("Why is the sky blue?", TaskClass::Chat),
            ("Tell me about your classmates", TaskClass::Chat),
            ("", TaskClass::Chat),
        ] {
            assert_eq!(of(question), class, "{question}");
        }
    }

    #[test]
    fn the_form_takes_precedence_over_the_words() {
        let sum = "What is 2+2?";
        let form = Form { tools: true, schema: true, prompt_tokens: 9000 };
        assert_eq!(TaskClass::of(sum, form), TaskClass::Tools);
        let form = Form { tools: false, ..form };
        assert_eq!(TaskClass::of(sum, form), TaskClass::LongContext);
        let form = Form { prompt_tokens: 10, ..form };
        assert_eq!(TaskClass::of(sum, form), TaskClass::Extraction);
    }

    #[test]
    fn the_label_equals_the_serialised_name() {
        for class in TaskClass::ALL {
            let word = serde_json::to_value(class).unwrap();
            assert_eq!(word, class.label());
        }
    }

    /// The definition of a sum, one character at a time.
    fn is_sum_by_definition(text: &str) -> bool {
        let is_digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
        text.match_indices(['+', '*', '/', '×', '÷']).any(|(at, operator)| {
            let before = text[..at].chars().rev().find(|c| !c.is_whitespace());
            let after = text[at + operator.len()..].chars().find(|c| !c.is_whitespace());
            is_digit(before) && is_digit(after)
        })
    }

    proptest! {
        #[test]
        fn a_sum_is_one_by_the_definition(text in "([0-9a ]|[+*/×÷éÃ\u{a0}]){0,12}") {
            prop_assert_eq!(is_sum(&text), is_sum_by_definition(&text));
        }

        #[test]
        fn any_text_has_a_class(text in ".{0,200}", repeat in 0usize..100) {
            of(&text.repeat(repeat));
        }
    }
}
