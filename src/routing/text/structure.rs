//! The shape of a prompt in a few numbers: length, digits, code, mathematics, answer options, question form, script.
//!
//! Pure; one pass over the bytes and one over the lines. Order and scale are part of the feature schema.

/// How many numbers.
pub const STRUCTURE: usize = STRUCTURE_NAMES.len();

/// What each stands for, in order.
pub const STRUCTURE_NAMES: [&str; 16] = [
    "log_bytes",
    "log_question_bytes",
    "options",
    "log_option_bytes",
    "options_with_digits",
    "log_digits",
    "digit_share",
    "backslashes",
    "dollar_signs",
    "question_marks",
    "blanks",
    "word_bytes",
    "log_long_words",
    "code",
    "negation",
    "non_ascii_share",
];

/// A word of at least this many bytes counts as long.
const LONG_WORD_BYTES: usize = 9;
/// Marks of program text; each at the start of a word.
const CODE_WORDS: [&str; 8] =
    ["```", "def", "return", "import", "class", "fn", "#include", "function"];
/// Words that turn a question round ("which is NOT …"), a known trap for weak models.
const NEGATIONS: [&str; 4] = ["not", "except", "never", "least"];

/// Structure of a text given in two pieces (the second is empty unless the text was cut).
pub(super) fn structure(head: &str, tail: &str) -> [f32; STRUCTURE] {
    let bytes = Bytes::of(head, tail);
    let options = Options::of(head, tail);
    let words = Words::of(head, tail);
    let total = bytes.total.max(1);
    [
        log(bytes.total) / 5.0,
        log(bytes.total - options.bytes.min(bytes.total)) / 5.0,
        number(options.count) / 10.0,
        log(options.bytes / options.count.max(1)) / 5.0,
        share(options.with_digits, options.count),
        log(bytes.digits) / 3.0,
        share(bytes.digits, total) * 5.0,
        presence(bytes.backslashes),
        presence(bytes.dollars),
        presence(bytes.question_marks),
        presence(bytes.underscores),
        share(words.bytes, words.count) / 6.0,
        log(words.long) / 3.0,
        presence(words.code),
        presence(words.negations),
        share(bytes.non_ascii, total),
    ]
}

#[derive(Default)]
struct Bytes {
    total: usize,
    digits: usize,
    backslashes: usize,
    dollars: usize,
    question_marks: usize,
    underscores: usize,
    non_ascii: usize,
}

impl Bytes {
    fn of(head: &str, tail: &str) -> Self {
        let mut found = Self { total: head.len() + tail.len(), ..Self::default() };
        for byte in head.bytes().chain(tail.bytes()) {
            match byte {
                b'0'..=b'9' => found.digits += 1,
                b'\\' => found.backslashes += 1,
                b'$' => found.dollars += 1,
                b'?' => found.question_marks += 1,
                b'_' => found.underscores += 1,
                128.. => found.non_ascii += 1,
                _ => {}
            }
        }
        found
    }
}

/// Lines like `C. because` or `C) because`.
#[derive(Default)]
struct Options {
    count: usize,
    bytes: usize,
    with_digits: usize,
}

impl Options {
    fn of(head: &str, tail: &str) -> Self {
        let mut found = Self::default();
        for line in head.lines().chain(tail.lines()) {
            if let [b'A'..=b'Z', b'.' | b')', b' ', rest @ ..] = line.as_bytes() {
                found.count += 1;
                found.bytes += rest.len();
                found.with_digits += usize::from(rest.iter().any(u8::is_ascii_digit));
            }
        }
        found
    }
}

#[derive(Default)]
struct Words {
    count: usize,
    bytes: usize,
    long: usize,
    code: usize,
    negations: usize,
}

impl Words {
    fn of(head: &str, tail: &str) -> Self {
        let mut found = Self::default();
        for word in head.split_whitespace().chain(tail.split_whitespace()) {
            found.count += 1;
            found.bytes += word.len();
            found.long += usize::from(word.len() >= LONG_WORD_BYTES);
            found.code += usize::from(CODE_WORDS.contains(&word) || word.starts_with("```"));
            let bare = word.trim_matches(|c: char| !c.is_alphanumeric());
            found.negations += usize::from(NEGATIONS.iter().any(|n| bare.eq_ignore_ascii_case(n)));
        }
        found
    }
}

fn number(count: usize) -> f32 {
    f32::from(u16::try_from(count).unwrap_or(u16::MAX))
}

fn log(count: usize) -> f32 {
    number(count).ln_1p()
}

fn share(part: usize, whole: usize) -> f32 {
    number(part) / number(whole).max(1.0)
}

fn presence(count: usize) -> f32 {
    if count == 0 { 0.0 } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, name: &str) -> f32 {
        let index = STRUCTURE_NAMES.iter().position(|known| *known == name).unwrap();
        structure(text, "")[index]
    }

    #[test]
    fn options_are_found_by_their_form() {
        let text = "Which is NOT prime?\nA. 2\nB. 3\nC. four\nD. 5\nAnswer:";
        assert!((of(text, "options") - 0.4).abs() < 1e-6);
        assert!((of(text, "options_with_digits") - 0.75).abs() < 1e-6);
        assert!(of(text, "negation") > 0.0 && of(text, "question_marks") > 0.0);
        assert!(of("A. Lincoln wrote this", "options") > 0.0, "one line may be a false option");
        assert!(of("As I said. B is wrong", "options").abs() < 1e-6);
    }

    #[test]
    fn mathematics_code_and_script_show() {
        assert!(of(r"Solve $\frac{x}{2} = 3$", "backslashes") > 0.0);
        assert!(of("def f(x):\n    return x", "code") > 0.0);
        assert!(of("a defensible return", "negation").abs() < 1e-6);
        assert!(of("什么是天空?", "non_ascii_share") > 0.5);
    }

    #[test]
    fn a_text_longer_than_the_counters_stays_in_scale() {
        let long = "9 ".repeat(200_000);
        assert!(structure(&long, "").iter().all(|value| (0.0..=5.1).contains(value)));
    }
}
