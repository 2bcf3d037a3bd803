//! Structural features of a prompt: length, digits, code, mathematics, answer options, question
//! form, script.
//!
//! Pure; a few passes over the bytes, one over the lines, one over the words. Order and scale are
//! part of the feature schema.

/// Number of structural features.
pub const STRUCTURE: usize = STRUCTURE_NAMES.len();

/// Their names, in order.
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

/// Least length of a long word, bytes.
const LONG_WORD_BYTES: usize = 9;
/// Words of program text.
const CODE_WORDS: [&str; 8] =
    ["```", "def", "return", "import", "class", "fn", "#include", "function"];
/// Words that invert a question ("which is NOT …"), a known trap for weak models.
const NEGATIONS: [&str; 4] = ["not", "except", "never", "least"];

/// Structure of a text given in two parts (the second is empty unless the text was cut) and its
/// words.
pub(super) fn structure(head: &str, tail: &str, words: &WordCounts) -> [f32; STRUCTURE] {
    let options = Options::of(head, tail);
    let bytes = head.len() + tail.len();
    let has = |byte: u8| head.as_bytes().contains(&byte) || tail.as_bytes().contains(&byte);
    let digits = count_of(head, tail, u8::is_ascii_digit);
    let non_ascii = count_of(head, tail, |byte| !byte.is_ascii());
    let total = bytes.max(1);
    [
        log(bytes) / 5.0,
        log(bytes - options.bytes.min(bytes)) / 5.0,
        number(options.count) / 10.0,
        log(options.bytes / options.count.max(1)) / 5.0,
        share(options.with_digits, options.count),
        log(digits) / 3.0,
        share(digits, total) * 5.0,
        presence(has(b'\\')),
        presence(has(b'$')),
        presence(has(b'?')),
        presence(has(b'_')),
        share(words.bytes, words.count) / 6.0,
        log(words.long) / 3.0,
        presence(words.code),
        presence(words.negation),
        share(non_ascii, total),
    ]
}

fn count_of(head: &str, tail: &str, wanted: impl Fn(&u8) -> bool) -> usize {
    let count = |part: &str| part.as_bytes().iter().filter(|byte| wanted(byte)).count();
    count(head) + count(tail)
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

/// Counts over the words of a text, which are separated by whitespace.
#[derive(Default)]
pub(super) struct WordCounts {
    count: usize,
    bytes: usize,
    long: usize,
    code: bool,
    negation: bool,
}

impl WordCounts {
    pub(super) fn add(&mut self, word: &str) {
        self.count += 1;
        self.bytes += word.len();
        self.long += usize::from(word.len() >= LONG_WORD_BYTES);
        self.code = self.code || is_code(word);
        self.negation = self.negation || is_negation(word);
    }
}

fn is_code(word: &str) -> bool {
    // Most words are dismissed by their first byte.
    matches!(word.as_bytes().first(), Some(b'`' | b'd' | b'r' | b'i' | b'c' | b'f' | b'#'))
        && (CODE_WORDS.contains(&word) || word.starts_with("```"))
}

fn is_negation(word: &str) -> bool {
    let first = word.bytes().find(|byte| byte.is_ascii_alphanumeric() || !byte.is_ascii());
    // Most words are dismissed by their first letter; a byte beyond ASCII may be part of any
    // character.
    let may_be = first.is_some_and(|first| {
        matches!(first, b'n' | b'N' | b'e' | b'E' | b'l' | b'L') || !first.is_ascii()
    });
    may_be && {
        let bare = word.trim_matches(|c: char| !c.is_alphanumeric());
        NEGATIONS.iter().any(|negation| bare.eq_ignore_ascii_case(negation))
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

fn presence(present: bool) -> f32 {
    f32::from(u8::from(present))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_text(text: &str) -> [f32; STRUCTURE] {
        let mut words = WordCounts::default();
        text.split_whitespace().for_each(|word| words.add(word));
        structure(text, "", &words)
    }

    fn of(text: &str, name: &str) -> f32 {
        let index = STRUCTURE_NAMES.iter().position(|known| *known == name).unwrap();
        of_text(text)[index]
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
        assert!(of_text(&long).iter().all(|value| (0.0..=5.1).contains(value)));
    }
}
