//! Lexical signs of a task: words and phrases in the lower-cased text of a question, found in one
//! pass.
//!
//! Pure. English only; what is not listed is not found.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind};

/// What a word or phrase is a sign of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    CodeMark,
    CodeNoun,
    CodeVerb,
    ReworkPhrase,
    MathMark,
    MathWord,
    /// A question for a quantity: a sign of mathematics only beside numbers.
    Quantity,
}

/// The signs that a question holds, one bit each.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Signs(u8);

impl Signs {
    pub(super) fn has(self, sign: Sign) -> bool {
        self.0 & (1 << sign as u8) != 0
    }

    fn add(&mut self, sign: Sign) {
        self.0 |= 1 << sign as u8;
    }
}

/// Found only in program text.
#[rustfmt::skip]
const CODE_MARKS: [&str; 12] = [
    "```", "def ", "#include", "();", "=> {", "() {", "public class ", "import numpy",
    "fn main", "select * from", "console.log", "</div>",
];
/// With one of [`CODE_VERBS`], a request for a program.
#[rustfmt::skip]
const CODE_NOUNS: [&str; 23] = [
    "function", "code", "script", "program", "python", "javascript", "typescript", "java",
    "rust", "golang", "c++", "c#", "sql", "regex", "algorithm", "bash", "html", "css",
    "unittest", "api", "compiler", "bug", "exception",
];
/// See [`CODE_NOUNS`].
#[rustfmt::skip]
const CODE_VERBS: [&str; 12] = [
    "write", "implement", "fix", "debug", "refactor", "create", "optimize", "compile",
    "return", "returns", "print", "throws",
];
/// Orders to work on a given text, among the first words of the question.
#[rustfmt::skip]
const REWORK_VERBS: [&str; 12] = [
    "extract", "summarize", "summarise", "translate", "classify", "rewrite", "rephrase",
    "paraphrase", "reformat", "convert", "proofread", "shorten",
];
/// The same, anywhere.
#[rustfmt::skip]
const REWORK_PHRASES: [&str; 8] = [
    "as json", "in json", "as csv", "as a table", "following text", "following passage",
    "following article", "summary of",
];
/// Notation of mathematics.
#[rustfmt::skip]
const MATH_MARKS: [&str; 5] = [
    "\\(", "\\[", "$$", "^2", " mod ",
];
/// Terms of mathematics.
#[rustfmt::skip]
const MATH_WORDS: [&str; 25] = [
    "solve", "prove", "calculate", "compute", "integral", "derivative", "equation",
    "polynomial", "probability", "triangle", "perimeter", "divisible", "remainder", "matrix",
    "theorem", "hypotenuse", "factorial", "integers", "simplify", "arithmetic", "angle",
    "diameter", "radius", "digits", "inequality",
];
/// Questions for a quantity.
#[rustfmt::skip]
const QUANTITIES: [&str; 7] = [
    "how many", "how much", "what is the total", "how far", "how long", "find the",
    "what percent",
];

/// "Please kindly summarize …" still begins with the order.
const FIRST_WORDS: usize = 4;

/// A pattern's sign, and whether it must be a whole word.
struct Pattern {
    sign: Sign,
    whole_word: bool,
}

struct Matcher {
    automaton: AhoCorasick,
    /// By pattern id.
    patterns: Vec<Pattern>,
}

/// `None` only if the constant lists were too large for the automaton; a test builds it.
static MATCHER: LazyLock<Option<Matcher>> = LazyLock::new(|| {
    let lists: [(&[&'static str], Sign, bool); 7] = [
        (&CODE_MARKS, Sign::CodeMark, false),
        (&CODE_NOUNS, Sign::CodeNoun, true),
        (&CODE_VERBS, Sign::CodeVerb, true),
        (&REWORK_PHRASES, Sign::ReworkPhrase, false),
        (&MATH_MARKS, Sign::MathMark, false),
        (&MATH_WORDS, Sign::MathWord, true),
        (&QUANTITIES, Sign::Quantity, false),
    ];
    let all = || {
        let each = |&(list, sign, whole_word): &(&'static [&'static str], Sign, bool)| {
            list.iter().map(move |text| (*text, Pattern { sign, whole_word }))
        };
        lists.iter().flat_map(each)
    };
    let automaton = AhoCorasick::builder()
        .kind(Some(AhoCorasickKind::DFA))
        .build(all().map(|(text, _)| text))
        .ok()?;
    Some(Matcher { automaton, patterns: all().map(|(_, pattern)| pattern).collect() })
});

/// The signs in a lower-cased text.
pub(super) fn find(lower: &str) -> Signs {
    let mut found = Signs::default();
    let Some(matcher) = &*MATCHER else { return found };
    for hit in matcher.automaton.find_overlapping_iter(lower) {
        let pattern = &matcher.patterns[hit.pattern().as_usize()];
        if !pattern.whole_word || is_whole_word(lower, hit.start(), hit.end()) {
            found.add(pattern.sign);
        }
    }
    found
}

fn is_whole_word(text: &str, start: usize, end: usize) -> bool {
    let before = text[..start].chars().next_back();
    let after = text[end..].chars().next();
    !before.is_some_and(is_in_word) && !after.is_some_and(is_in_word)
}

/// Word characters: `c++` and `c#` are words, too.
fn is_in_word(c: char) -> bool {
    c.is_alphanumeric() || c == '+' || c == '#'
}

fn words(lower: &str) -> impl Iterator<Item = &str> {
    lower.split(|c| !is_in_word(c)).filter(|word| !word.is_empty())
}

/// Whether one of the first words is an order to work on a given text.
pub(super) fn begins_with_rework(lower: &str) -> bool {
    words(lower).take(FIRST_WORDS).any(|word| REWORK_VERBS.contains(&word))
}

/// Number of words that begin with a digit.
pub(super) fn numbers(lower: &str) -> usize {
    words(lower).filter(|word| word.starts_with(|c: char| c.is_ascii_digit())).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whole_words_are_found_between_other_characters_only() {
        for (text, found) in
            [("rust", true), ("in rust.", true), ("trust", false), ("rusty", false), ("c++", true)]
        {
            assert_eq!(find(text).has(Sign::CodeNoun), found, "{text}");
        }
        assert!(!find("c+++").has(Sign::CodeNoun) && !find("éc#").has(Sign::CodeNoun));
        assert!(find("undef x").has(Sign::CodeMark), "a mark may be anywhere");
    }

    proptest! {
        #[test]
        fn the_automaton_finds_what_a_search_for_each_pattern_finds(
            parts in proptest::collection::vec((0..CODE_NOUNS.len(), 0..CODE_MARKS.len(), 0..5), 0..8),
        ) {
            let text: String = parts
                .into_iter()
                .map(|(noun, mark, kind)| match kind {
                    0 => format!("{} ", CODE_NOUNS[noun]),
                    1 => format!("{}x ", CODE_NOUNS[noun]),
                    2 => CODE_MARKS[mark].to_owned(),
                    3 => "how many ".to_owned(),
                    _ => MATH_WORDS[noun].to_owned(),
                })
                .collect();
            let any = |list: &[&str]| words(&text).any(|word| list.contains(&word));
            let marked = |list: &[&str]| list.iter().any(|mark| text.contains(mark));
            let found = find(&text);
            prop_assert_eq!(found.has(Sign::CodeNoun), any(&CODE_NOUNS));
            prop_assert_eq!(found.has(Sign::MathWord), any(&MATH_WORDS));
            prop_assert_eq!(found.has(Sign::CodeMark), marked(&CODE_MARKS));
            prop_assert_eq!(found.has(Sign::Quantity), marked(&QUANTITIES));
        }
    }
}
