//! What kind of task a request is, from its text and its form: a handful of classes by which policies can differ.
//!
//! Pure and cheap; reads the last question only, never logs it. First match wins, in the order of [`TaskClass`]. It is
//! lexical and for English: what it does not recognise is chat, never an error.

use serde::{Deserialize, Serialize};

/// Kinds of task, in the order in which they are looked for.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum TaskClass {
    /// Tools are offered, or the result of one comes back.
    Tools,
    /// A prompt of 4,096 estimated tokens and more, whatever it asks.
    LongContext,
    /// Three or more lettered options to choose from.
    MultipleChoice,
    /// Fill a form (`response_format`), or extract, summarise, translate, classify or reformat what is given.
    Extraction,
    /// Write, explain or repair a program.
    Code,
    /// Calculate, solve or prove.
    Math,
    /// Everything else.
    #[default]
    Chat,
}

/// From here on the length of the prompt says more than its last question.
const LONG_PROMPT_TOKENS: u32 = 4096;
/// At most this much of the question is read.
const QUESTION_BYTES_MAX: usize = 8 * 1024;

/// The form of a request, as far as it tells the task.
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
        let words: Vec<&str> = lower
            .split(|c: char| !c.is_alphanumeric() && c != '+' && c != '#')
            .filter(|word| !word.is_empty())
            .collect();
        let any = |list: &[&str]| words.iter().any(|word| list.contains(word));
        let marked = |marks: &[&str]| marks.iter().any(|mark| lower.contains(mark));
        if marked(&CODE_MARKS) || (any(&CODE_NOUNS) && any(&CODE_VERBS)) {
            Self::Code
        } else if starts_with_one(&words, &REWORK_VERBS) || marked(&REWORK_PHRASES) {
            Self::Extraction
        } else if marked(&MATH_MARKS)
            || any(&MATH_WORDS)
            || is_word_problem(&words, &lower)
            || is_sum(&lower)
            || has_formula(&lower)
        {
            Self::Math
        } else {
            Self::Chat
        }
    }

    /// The word of configs, logs and metrics.
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

/// What only stands in program text.
const CODE_MARKS: [&str; 12] = [
    "```",
    "def ",
    "#include",
    "();",
    "=> {",
    "() {",
    "public class ",
    "import numpy",
    "fn main",
    "select * from",
    "console.log",
    "</div>",
];
const CODE_NOUNS: [&str; 23] = [
    "function",
    "code",
    "script",
    "program",
    "python",
    "javascript",
    "typescript",
    "java",
    "rust",
    "golang",
    "c++",
    "c#",
    "sql",
    "regex",
    "algorithm",
    "bash",
    "html",
    "css",
    "unittest",
    "api",
    "compiler",
    "bug",
    "exception",
];
const CODE_VERBS: [&str; 12] = [
    "write",
    "implement",
    "fix",
    "debug",
    "refactor",
    "create",
    "optimize",
    "compile",
    "return",
    "returns",
    "print",
    "throws",
];
/// Orders to work on a given text, at the beginning of the question.
const REWORK_VERBS: [&str; 12] = [
    "extract",
    "summarize",
    "summarise",
    "translate",
    "classify",
    "rewrite",
    "rephrase",
    "paraphrase",
    "reformat",
    "convert",
    "proofread",
    "shorten",
];
const REWORK_PHRASES: [&str; 8] = [
    "as json",
    "in json",
    "as csv",
    "as a table",
    "following text",
    "following passage",
    "following article",
    "summary of",
];
const MATH_MARKS: [&str; 5] = ["\\(", "\\[", "$$", "^2", " mod "];
const MATH_WORDS: [&str; 25] = [
    "solve",
    "prove",
    "calculate",
    "compute",
    "integral",
    "derivative",
    "equation",
    "polynomial",
    "probability",
    "triangle",
    "perimeter",
    "divisible",
    "remainder",
    "matrix",
    "theorem",
    "hypotenuse",
    "factorial",
    "integers",
    "simplify",
    "arithmetic",
    "angle",
    "diameter",
    "radius",
    "digits",
    "inequality",
];

/// Lines such as `B. because`, `B) because` or `(B) because`.
fn option_lines(question: &str) -> usize {
    let is_option = |line: &str| {
        let line = line.trim_start();
        let bare = line.strip_prefix('(').unwrap_or(line).as_bytes();
        matches!(bare, [b'A'..=b'J', b'.' | b')' | b':', b' ', ..])
    };
    question.lines().filter(|line| is_option(line)).count()
}

/// Whether one of the first words is in the list: "Please summarize …".
fn starts_with_one(words: &[&str], list: &[&str]) -> bool {
    words.iter().take(4).any(|word| list.contains(word))
}

/// Numbers and a question for one, as in "3 apples at 2 dollars … how much".
fn is_word_problem(words: &[&str], lower: &str) -> bool {
    let numbers =
        words.iter().filter(|word| word.starts_with(|c: char| c.is_ascii_digit())).count();
    let asks = [
        "how many",
        "how much",
        "what is the total",
        "how far",
        "how long",
        "find the",
        "what percent",
    ];
    numbers >= 2 && asks.iter().any(|ask| lower.contains(ask))
}

/// A LaTeX command, or two dollar signs of which one stands before a letter or a command.
fn has_formula(lower: &str) -> bool {
    let bytes = lower.as_bytes();
    let follows =
        |sign: u8, next: fn(u8) -> bool| bytes.windows(2).any(|two| two[0] == sign && next(two[1]));
    let dollars = lower.matches('$').count();
    follows(b'\\', |next| next.is_ascii_lowercase())
        || (dollars >= 2 && follows(b'$', |next| next.is_ascii_lowercase() || next == b'\\'))
}

/// A calculation written out, as in "what is 2+2" or "12 * 7".
fn is_sum(lower: &str) -> bool {
    let bare: Vec<char> = lower.chars().filter(|c| !c.is_whitespace()).collect();
    bare.windows(3).any(|three| match three {
        [a, operator, b] => a.is_ascii_digit() && "+*/×÷".contains(*operator) && b.is_ascii_digit(),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(question: &str) -> TaskClass {
        TaskClass::of(question, Form::default())
    }

    #[test]
    fn each_class_is_told_by_its_own_signs() {
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
    fn the_form_goes_before_the_words() {
        let sum = "What is 2+2?";
        let form = Form { tools: true, schema: true, prompt_tokens: 9000 };
        assert_eq!(TaskClass::of(sum, form), TaskClass::Tools);
        let form = Form { tools: false, ..form };
        assert_eq!(TaskClass::of(sum, form), TaskClass::LongContext);
        let form = Form { prompt_tokens: 10, ..form };
        assert_eq!(TaskClass::of(sum, form), TaskClass::Extraction);
    }

    #[test]
    fn the_label_is_the_word_of_the_log() {
        for class in TaskClass::ALL {
            let word = serde_json::to_value(class).unwrap();
            assert_eq!(word, class.label());
        }
    }

    proptest! {
        #[test]
        fn any_text_has_a_class(text in ".{0,200}", repeat in 0usize..100) {
            of(&text.repeat(repeat));
        }
    }
}
