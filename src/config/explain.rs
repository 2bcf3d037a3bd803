//! Messages of serde and toml, rewritten for the editor of a configuration file. Pure.

use toml::de::Error;

use super::diagnostics::{Report, may_hold_secret};
use super::document::{Span, dotted};

/// The kind of an error, parsed from serde's message: serde has no structured errors.
#[derive(Debug, PartialEq)]
pub(super) enum Fault<'a> {
    UnknownKey { name: &'a str, known: Vec<&'a str> },
    UnknownWord { word: &'a str, known: Vec<&'a str> },
    MissingKey { name: &'a str },
    WrongType { found: &'a str, expected: &'a str },
    Other(&'a str),
}

impl<'a> Fault<'a> {
    pub(super) fn of(message: &'a str) -> Self {
        let mut words = message.split('`').skip(1).step_by(2);
        let mut next = || words.next().unwrap_or_default();
        if message.starts_with("unknown field ") {
            Self::UnknownKey { name: next(), known: words.collect() }
        } else if message.starts_with("unknown variant ") {
            Self::UnknownWord { word: next(), known: words.collect() }
        } else if message.starts_with("missing field ") {
            Self::MissingKey { name: next() }
        } else if let Some((found, expected)) = type_mismatch(message) {
            Self::WrongType { found, expected }
        } else {
            Self::Other(message)
        }
    }
}

fn type_mismatch(message: &str) -> Option<(&str, &str)> {
    let rest = message
        .strip_prefix("invalid type: ")
        .or_else(|| message.strip_prefix("invalid value: "))?;
    rest.rsplit_once(", expected ")
}

/// Reports `fault` of the entry at `path`, which covers `span`.
pub(super) fn fault(fault: &Fault<'_>, path: &[String], span: Span, report: &mut Report<'_>) {
    let (key, table) = match path.split_last() {
        Some((key, table)) => (key.as_str(), dotted(table.iter().map(String::as_str))),
        None => ("", String::new()),
    };
    let place =
        if table.is_empty() { "at the top level".to_owned() } else { format!("in [{table}]") };
    let mut full_key = dotted(path.iter().map(String::as_str));
    let (message, hint) = match fault {
        Fault::UnknownKey { name, known } => {
            (format!("unknown key `{name}` {place}"), Some(suggest(name, known)))
        }
        Fault::UnknownWord { word, known } => {
            (format!("`{key}` {place} cannot be `{word}`"), Some(suggest(word, known)))
        }
        Fault::MissingKey { name } => {
            let message = format!("missing key `{name}` in [{full_key}]");
            full_key = format!("{full_key}.{name}");
            (message, None)
        }
        Fault::WrongType { found, expected } => {
            let found = plain_found(found, may_hold_secret(key));
            (format!("`{key}` {place} must be {}, not {found}", plain_expected(expected)), None)
        }
        Fault::Other(message) => (format!("`{key}` {place}: {message}"), example(key)),
    };
    report.unread(Some(span), full_key, message, hint);
}

/// Reports an error for which no entry was found.
pub(super) fn unplaced(error: &Error, report: &mut Report<'_>) {
    report.unread(error.span(), String::new(), error.message().to_owned(), None);
}

/// Reports the first error of each line: further ones on the same line are usually consequences.
pub(super) fn syntax(errors: &[Error], report: &mut Report<'_>) {
    let mut lines = Vec::new();
    let mut errors: Vec<&Error> = errors.iter().collect();
    errors.sort_by_key(|error| error.span().map(|span| span.start));
    for error in errors {
        let line = error.span().map(|span| report.line_of(&span));
        if !lines.contains(&line) {
            lines.push(line);
            report.unread(
                error.span(),
                String::new(),
                format!("not valid TOML: {}", error.message()),
                None,
            );
        }
    }
}

/// The one of `known` that is most like `word`, or all of them.
pub fn suggest<S: AsRef<str>>(word: &str, known: &[S]) -> String {
    /// Jaro-Winkler similarity from which a word counts as a misspelling (`slotz`, `slots`: 0.92).
    const ALIKE: f64 = 0.8;
    let likeness =
        |candidate: &str| strsim::jaro_winkler(&word.to_lowercase(), &candidate.to_lowercase());
    let nearest = known
        .iter()
        .map(|candidate| (likeness(candidate.as_ref()), candidate.as_ref()))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        None => "no key is allowed here".to_owned(),
        Some((likeness, nearest)) if likeness >= ALIKE => format!("did you mean `{nearest}`?"),
        Some(_) => {
            let known: Vec<String> =
                known.iter().map(|name| format!("`{}`", name.as_ref())).collect();
            format!("choose from {}", known.join(", "))
        }
    }
}

fn plain_expected(expected: &str) -> String {
    let whole = |max: u64| format!("a whole number from 0 to {max}");
    match expected {
        "u8" => whole(u8::MAX.into()),
        "u16" => whole(u16::MAX.into()),
        "u32" => whole(u32::MAX.into()),
        "u64" | "usize" | "a nonzero u64" | "a nonzero u32" => "a whole number from 0".into(),
        "i32" | "i64" => "a whole number".into(),
        "f32" | "f64" => "a number".into(),
        "a boolean" => "true or false".into(),
        "path string" => "a string".into(),
        "socket address" => "an address with a port, as in \"127.0.0.1:8080\"".into(),
        "a sequence" => "an array".into(),
        "a map" => "a table".into(),
        other if other.starts_with("struct ") => "a table".into(),
        other => other.replace("string or table", "a word"),
    }
}

/// serde's message holds the value; that of a key that may hold a secret is left out.
fn plain_found(found: &str, secret: bool) -> String {
    let (kind, value) = match found.find(['`', '"']) {
        Some(at) => (found[..at].trim_end(), found[at..].trim_matches('`')),
        None => (found, ""),
    };
    let kind = match kind {
        "map" => "a table",
        "sequence" => "an array",
        "string" => "the string",
        "integer" | "floating point" => "the number",
        "boolean" => "the boolean",
        other => other,
    };
    if secret || value.is_empty() {
        kind.replacen("the ", "a ", 1)
    } else {
        format!("{kind} {value}")
    }
}

/// An example of a valid value, for keys whose type has its own grammar.
fn example(key: &str) -> Option<String> {
    matches!(key, "listen" | "admin_listen")
        .then(|| "write an address with a port, as in \"127.0.0.1:8080\"".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_serdes_messages_is_parsed() {
        assert_eq!(
            Fault::of("unknown field `slotz`, expected one of `source`, `slots`"),
            Fault::UnknownKey { name: "slotz", known: vec!["source", "slots"] }
        );
        assert_eq!(
            Fault::of("unknown variant `jouls`, expected `joules` or `dollars`"),
            Fault::UnknownWord { word: "jouls", known: vec!["joules", "dollars"] }
        );
        assert_eq!(Fault::of("missing field `source`"), Fault::MissingKey { name: "source" });
        assert_eq!(
            Fault::of("invalid type: string \"a, expected b\", expected u32"),
            Fault::WrongType { found: "string \"a, expected b\"", expected: "u32" }
        );
        assert_eq!(Fault::of("something else"), Fault::Other("something else"));
    }

    #[test]
    fn a_misspelling_gets_one_suggestion_and_any_other_word_gets_all() {
        let known = ["source", "slots", "threads"];
        assert_eq!(suggest("slotz", &known), "did you mean `slots`?");
        assert_eq!(suggest("Thread", &known), "did you mean `threads`?");
        assert_eq!(suggest("xyz", &known), "choose from `source`, `slots`, `threads`");
        assert_eq!(suggest::<&str>("xyz", &[]), "no key is allowed here");
    }
}
