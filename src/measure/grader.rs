//! Grading of an answer by a fixed rule: a number, a word, an option, a pattern, a JSON field.
//!
//! Pure. Strict about form only where the question is: models wrap answers in sentences.

use std::sync::LazyLock;

use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Rule for an answer.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "Fields", into = "Fields")]
pub enum Check {
    /// The last number in the answer equals `value` within `tolerance`.
    Number { value: f64, tolerance: f64 },
    /// The whole answer is this text, regardless of case, quotes and final punctuation.
    Exact(String),
    /// The answer is this text or ends with it, separated from what is before: `The output is
    /// "aaa".`
    Ends(String),
    /// The answer contains the word. Of it and those in `not`, it is the one at the start of the
    /// answer, or else the last one: "The day after Tuesday is Wednesday."
    Word { word: String, not: Vec<String> },
    /// The answer names this option, of `of` options from A.
    Choice { letter: char, of: u8 },
    /// The pattern matches the trimmed answer.
    Regex(Box<Regex>),
    /// The answer contains all of these, regardless of case, and none of `not`.
    Contains { all: Vec<String>, not: Vec<String> },
    /// The answer contains JSON whose field at the dotted path equals this value. Without a path,
    /// the whole answer equals it, bare or in a code block.
    Json { path: String, equals: Value },
}

/// JSON form: exactly one of the rules.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
struct Fields {
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tolerance: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exact: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ends: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    word: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    choice: Option<char>,
    #[serde(skip_serializing_if = "Option::is_none")]
    of: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    regex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    contains: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    json: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    equals: Option<Value>,
}

/// Why a rule is invalid.
#[derive(Debug, thiserror::Error)]
pub enum BadCheck {
    #[error("a check has exactly one of number, exact, ends, word, choice, regex, contains, json")]
    NotOne,
    #[error("`choice` must be a letter from A to the last of its options")]
    Letter,
    #[error("`json` needs `equals`")]
    NoValue,
    #[error("`regex`: {0}")]
    Pattern(#[from] regex::Error),
}

/// Relative tolerance where none is given: rounding of a written number.
const ROUNDING: f64 = 1e-6;

impl TryFrom<Fields> for Check {
    type Error = BadCheck;

    fn try_from(fields: Fields) -> Result<Self, BadCheck> {
        let Fields {
            number,
            tolerance,
            exact,
            ends,
            word,
            choice,
            of,
            regex,
            contains,
            not,
            json,
            equals,
        } = fields;
        let mut rules = Vec::new();
        if let Some(value) = number {
            let tolerance = tolerance.unwrap_or(value.abs() * ROUNDING);
            rules.push(Self::Number { value, tolerance });
        }
        rules.extend(exact.map(Self::Exact));
        rules.extend(ends.map(Self::Ends));
        rules.extend(word.map(|word| Self::Word { word, not: not.clone() }));
        if let Some(letter) = choice {
            let of = of.unwrap_or(4);
            if !options(of).contains(&letter) {
                return Err(BadCheck::Letter);
            }
            rules.push(Self::Choice { letter, of });
        }
        if let Some(pattern) = regex {
            rules.push(Self::Regex(Box::new(Regex::new(&pattern)?)));
        }
        rules.extend(contains.map(|all| Self::Contains { all, not }));
        if let Some(path) = json {
            rules.push(Self::Json { path, equals: equals.ok_or(BadCheck::NoValue)? });
        }
        let only = rules.pop().filter(|_| rules.is_empty());
        only.ok_or(BadCheck::NotOne)
    }
}

impl From<Check> for Fields {
    fn from(check: Check) -> Self {
        let none = Self::default();
        match check {
            Check::Number { value, tolerance } => {
                Self { number: Some(value), tolerance: Some(tolerance), ..none }
            }
            Check::Exact(text) => Self { exact: Some(text), ..none },
            Check::Ends(text) => Self { ends: Some(text), ..none },
            Check::Word { word, not } => Self { word: Some(word), not, ..none },
            Check::Choice { letter, of } => Self { choice: Some(letter), of: Some(of), ..none },
            Check::Regex(pattern) => Self { regex: Some(pattern.as_str().to_owned()), ..none },
            Check::Contains { all, not } => Self { contains: Some(all), not, ..none },
            Check::Json { path, equals } => Self { json: Some(path), equals: Some(equals), ..none },
        }
    }
}

impl Check {
    /// Whether `answer` passes.
    pub fn passes(&self, answer: &str) -> bool {
        let answer = answer.trim();
        match self {
            Self::Number { value, tolerance } => {
                last_number(answer).is_some_and(|found| (found - value).abs() <= *tolerance)
            }
            Self::Exact(text) => plain(unfenced(answer)) == plain(text),
            Self::Ends(text) => ends(&plain(unfenced(answer)), &plain(text)),
            Self::Word { word, not } => names(answer, word, not),
            Self::Choice { letter, of } => chosen(answer, *of) == Some(*letter),
            Self::Regex(pattern) => pattern.is_match(answer),
            Self::Contains { all, not } => {
                let answer = answer.to_lowercase();
                let has = |part: &String| answer.contains(&part.to_lowercase());
                all.iter().all(has) && !not.iter().any(has)
            }
            Self::Json { path, equals } => {
                field(answer, path).is_some_and(|found| same(&found, equals))
            }
        }
    }
}

/// The last number, with or without thousands separators. Skips exponents: the 2 of `cm2` and
/// `cm^2`.
fn last_number(text: &str) -> Option<f64> {
    #[expect(clippy::unwrap_used, reason = "a constant pattern, which the tests run")]
    static NUMBER: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"[-−]?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)").unwrap()
    });
    let is_power = |before: &str| before.ends_with(|c: char| c.is_alphabetic() || c == '^');
    let numbers = NUMBER.find_iter(text);
    let found = numbers
        .filter(|found| found.as_str().starts_with(['-', '−']) || !is_power(&text[..found.start()]))
        .last()?;
    let digits = found.as_str().replace(',', "").replace('−', "-");
    // A hyphen after a letter or digit joins words or marks a range; it is not a sign.
    let joined = text[..found.start()].ends_with(|c: char| c.is_alphanumeric());
    digits.trim_start_matches(|c| joined && c == '-').parse().ok()
}

/// Lower case, without surrounding quotes, asterisks and punctuation.
fn plain(text: &str) -> String {
    let around = |c: char| c.is_whitespace() || "\"'`*.!,:;".contains(c);
    text.trim_matches(around).to_lowercase()
}

/// Whether the text ends with `with`, after a space, a colon, a quote or nothing.
fn ends(text: &str, with: &str) -> bool {
    let before = text.strip_suffix(with);
    let apart = |c: char| c.is_whitespace() || "\"'`*:(“‘".contains(c);
    before.is_some_and(|before| before.is_empty() || before.ends_with(apart))
}

/// Contents of the code block that the answer consists of; the answer itself if it is none.
fn unfenced(answer: &str) -> &str {
    let block = answer.strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
    block.and_then(|block| block.split_once('\n')).map_or(answer, |(_language, inside)| inside)
}

/// Whether the answer names `word` rather than one of `others`.
fn names(answer: &str, word: &str, others: &[String]) -> bool {
    let word = word.to_lowercase();
    let others: Vec<String> = others.iter().map(|other| other.to_lowercase()).collect();
    let answer = answer.to_lowercase();
    let mut words = answer.split(|c: char| !c.is_alphanumeric()).filter(|each| !each.is_empty());
    let is_option = |each: &&str| *each == word || others.iter().any(|other| other == each);
    let first = words.next();
    let named = first.filter(is_option).or_else(|| words.rfind(is_option));
    named == Some(word.as_str())
}

fn options(of: u8) -> std::ops::Range<char> {
    'A'..char::from(b'A'.saturating_add(of.min(26)))
}

/// The option at the start of the answer, or else the last one named. A lower-case letter counts
/// only as the whole answer.
fn chosen(answer: &str, of: u8) -> Option<char> {
    let options = options(of);
    if let Ok(letter) = plain(answer).trim_matches(['(', ')']).to_uppercase().parse() {
        return Some(letter).filter(|letter| options.contains(letter));
    }
    let mut named = answer
        .split(|c: char| !c.is_alphanumeric() && c != '\'')
        .map(|word| word.parse::<char>().ok().filter(|letter| options.contains(letter)));
    let first = named.next().flatten();
    // "A dog is …" starts with an article, not with an option.
    let is_article = first == Some('A')
        && answer.trim_start_matches(|c: char| !c.is_alphanumeric())[1..].starts_with(' ')
        && answer.len() > 2;
    first.filter(|_| !is_article).or_else(|| named.flatten().last()).or(first)
}

/// The field at a dotted path of the JSON in the answer: all of it, or from the first to the last
/// brace. Without a path, the whole JSON value.
fn field(answer: &str, path: &str) -> Option<Value> {
    if path.is_empty() {
        return serde_json::from_str(unfenced(answer)).ok();
    }
    let json = answer.get(answer.find('{')?..=answer.rfind('}')?)?;
    let value: Value = serde_json::from_str(json).ok()?;
    path.split('.').try_fold(value, |value, key| value.get(key).cloned())
}

/// Compares numbers by value: 24.5 and 24.50 are equal, 7 and 7.0 too, also within an object.
fn same(found: &Value, wanted: &Value) -> bool {
    if let (Some(found), Some(wanted)) = (found.as_f64(), wanted.as_f64()) {
        return (found - wanted).abs() <= wanted.abs() * ROUNDING;
    }
    match (found.as_object(), wanted.as_object()) {
        (Some(found), Some(wanted)) => {
            found.len() == wanted.len()
                && wanted
                    .iter()
                    .all(|(key, value)| found.get(key).is_some_and(|own| same(own, value)))
        }
        _ => found == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str) -> Check {
        serde_json::from_str(json).unwrap()
    }

    fn passes(json: &str, answer: &str) -> bool {
        check(json).passes(answer)
    }

    #[test]
    fn a_number_is_the_last_one_said() {
        let forty_two = r#"{"number": 42}"#;
        for right in ["42", " 42.", "12 + 30 = 42", "**42**", "The answer is 42 apples.", "42.0"] {
            assert!(passes(forty_two, right), "{right}");
        }
        for wrong in ["", "forty-two", "42 or 43", "420", "-42"] {
            assert!(!passes(forty_two, wrong), "{wrong}");
        }
        assert!(passes(r#"{"number": 10000}"#, "10,000 square centimetres"));
        assert!(passes(r#"{"number": -10}"#, "It is −10"));
        assert!(passes(r#"{"number": 20}"#, "within 10-20"));
        assert!(passes(r#"{"number": 2.23, "tolerance": 0.01}"#, "2.2333"));
        for right in ["10000 cm^2", "10000 cm2", "10000 cm²"] {
            assert!(passes(r#"{"number": 10000}"#, right), "{right}");
        }
        assert!(passes(r#"{"number": 0.75}"#, ".75 kg") && passes(r#"{"number": 8}"#, "x=8"));
    }

    #[test]
    fn words_and_texts_are_compared_without_their_trimmings() {
        assert!(passes(r#"{"exact": "enots"}"#, "\"Enots\"."));
        assert!(!passes(r#"{"exact": "enots"}"#, "the word is enots"));
        let no = r#"{"word": "no", "not": ["yes"]}"#;
        assert!(
            passes(no, "No, it does not.") && !passes(no, "yes and no") && !passes(no, "nobody")
        );
        let day = r#"{"word": "Wednesday", "not": ["Monday", "Tuesday", "Thursday"]}"#;
        for right in
            ["Wednesday.", "The day after Tuesday is Wednesday.", "**Wednesday** follows Tuesday"]
        {
            assert!(passes(day, right), "{right}");
        }
        for wrong in ["Monday, Tuesday, Wednesday", "The day after Tuesday is Thursday.", "Tuesday"]
        {
            assert!(!passes(day, wrong), "{wrong}");
        }
        let last = r#"{"ends": "x-y"}"#;
        for right in ["x-y", "X-Y.", "The output is: `x-y`.", "```\nx-y\n```", "it is **x-y**"] {
            assert!(passes(last, right), "{right}");
        }
        for wrong in ["", "w-x-y", "ax-y", "x-y or z", "x y"] {
            assert!(!passes(last, wrong), "{wrong}");
        }
        assert!(passes(r#"{"exact": "aaa"}"#, "```python\naaa\n```"));
        let mail = r#"{"contains": ["a@b.org"], "not": ["555"]}"#;
        assert!(passes(mail, "It is A@B.org.") && !passes(mail, "a@b.org, 555"));
    }

    #[test]
    fn an_option_is_named_first_or_last() {
        let b = r#"{"choice": "B", "of": 4}"#;
        for right in [
            "B",
            "b is wrong, B",
            "B) Paris",
            "(B)",
            "The answer is B.",
            "A dog is B",
            "Not A but B",
            "b)",
        ] {
            assert!(passes(b, right), "{right}");
        }
        for wrong in ["A) Paris, not B", "Paris", "E", "C, or B", ""] {
            assert!(!passes(b, wrong), "{wrong}");
        }
    }

    #[test]
    fn json_is_found_in_a_block_and_numbers_compare_as_numbers() {
        let id = r#"{"json": "user.id", "equals": 7}"#;
        assert!(passes(id, "```json\n{\"user\": {\"id\": 7.0}}\n```"));
        assert!(!passes(id, r#"{"user": {"id": "7"}}"#) && !passes(id, "} {") && !passes(id, "7"));
        let whole = r#"{"json": "", "equals": {"city": "Oslo", "year": 1998}}"#;
        let right = r#"{"year": 1998.0, "city": "Oslo"}"#;
        assert!(passes(whole, right) && passes(whole, &format!("```json\n{right}\n```")));
        for wrong in [r#"{"city": "Oslo"}"#, r#"{"city": "Oslo", "year": 1998, "x": 1}"#] {
            assert!(!passes(whole, wrong) && !passes(whole, &format!("Sure! {right}")), "{wrong}");
        }
    }

    #[test]
    fn a_rule_that_makes_no_sense_is_refused() {
        for (json, complaint) in [
            ("{}", "exactly one"),
            (r#"{"number": 1, "word": "one"}"#, "exactly one"),
            (r#"{"choice": "F", "of": 4}"#, "letter"),
            (r#"{"json": "a"}"#, "equals"),
            (r#"{"regex": "("}"#, "unclosed"),
            (r#"{"nubmer": 1}"#, "nubmer"),
        ] {
            let error = serde_json::from_str::<Check>(json).unwrap_err().to_string();
            assert!(error.contains(complaint), "{error}");
        }
    }
}
