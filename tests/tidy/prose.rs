//! Laws about single files: their header, their length, purity where the header claims it, and the
//! words of comments.

use crate::source::Source;

const LINES_MAX: usize = 600;
const COMMENT_COLUMNS_MAX: usize = 100;

/// Comments wider than [`COMMENT_COLUMNS_MAX`] that are left. May only fall.
pub const WIDE_COMMENTS_MAX: usize = 39;

/// Words of plain speech about people, where a component is meant, that are left in comments. May
/// only fall.
pub const VAGUE_WORDS_MAX: usize = 1;

/// Files that claim to be pure. May only rise: a claim is not dropped to pass.
pub const PURE_FILES_MIN: usize = 110;

const VAGUE: [&str; 3] = ["nobody", "whoever", "somebody"];

/// What code without a clock, I/O, logs and a runtime does not name.
const IMPURE: [&[&str]; 9] = [
    &["tokio", "::"],
    &["tracing", "::"],
    &["std", "::", "fs"],
    &["std", "::", "net"],
    &["std", "::", "env"],
    &["std", "::", "process"],
    &["Instant", "::", "now"],
    &["SystemTime", "::", "now"],
    &["MonotonicNs", "::", "now"],
];

/// Files without a header or with too many lines.
pub fn shapeless(sources: &[Source]) -> Vec<String> {
    let mut problems = Vec::new();
    for Source { path, text, .. } in sources {
        if !text.starts_with("//! ") {
            problems.push(format!("{path} does not open with `//!`"));
        }
        let lines = text.lines().count();
        if lines > LINES_MAX {
            problems.push(format!("{path} has {lines} lines; {LINES_MAX} are the limit"));
        }
    }
    problems
}

/// Whether a file's header claims that its functions are pure: by the word "Pure", or as "a pure
/// …".
pub fn is_pure(source: &Source) -> bool {
    let header = source.header();
    let mut words = header.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let mut before = "";
    words.any(|word| {
        let claims = word == "Pure" || (word == "pure" && before.eq_ignore_ascii_case("a"));
        before = word;
        claims
    })
}

/// Impure names in files that claim to be pure.
pub fn impure(sources: &[Source]) -> Vec<String> {
    let mut problems = Vec::new();
    for source in sources.iter().filter(|source| is_pure(source)) {
        let tokens = source.tokens();
        for name in IMPURE {
            if tokens.windows(name.len()).any(|window| window == name) {
                problems.push(format!(
                    "{} claims to be pure, but names {}",
                    source.path,
                    name.concat()
                ));
            }
        }
    }
    problems
}

/// Comments with one of [`VAGUE`] or with "is" and "told" in a row.
pub fn vague_words(sources: &[Source]) -> Vec<String> {
    let mut problems = Vec::new();
    for source in sources {
        for (line, comment) in &source.comments {
            let comment = comment.to_lowercase();
            let words: Vec<&str> = comment.split(|c: char| !c.is_alphanumeric()).collect();
            let single = words.iter().filter(|word| VAGUE.contains(word));
            let pairs = words.windows(2).filter(|pair| pair == &["is", "told"]);
            for _ in 0..single.count() + pairs.count() {
                problems.push(format!("{}:{line}: {comment}", source.path));
            }
        }
    }
    problems
}

/// Lines that are only a comment and are too wide.
pub fn wide_comments(sources: &[Source]) -> Vec<String> {
    let mut problems = Vec::new();
    for source in sources {
        for (at, line) in source.text.lines().enumerate() {
            let columns = line.chars().count();
            // A word as long as a link cannot be wrapped.
            let wraps = line.trim_start().split(' ').nth(2).is_some();
            if line.trim_start().starts_with("//") && columns > COMMENT_COLUMNS_MAX && wraps {
                problems.push(format!(
                    "{}:{}: a comment of {columns} columns",
                    source.path,
                    at + 1
                ));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(law: impl Fn(&[Source]) -> Vec<String>, text: &str) -> usize {
        law(&[Source::new("src/x.rs", text)]).len()
    }

    #[test]
    fn a_file_needs_a_header_and_a_limit() {
        assert_eq!(found(shapeless, "//! Head.\nfn f() {}\n"), 0);
        assert_eq!(found(shapeless, "fn f() {}\n"), 1);
        assert_eq!(found(shapeless, &("//! Head.\n".to_owned() + &"\n".repeat(LINES_MAX))), 1);
    }

    #[test]
    fn a_file_that_claims_to_be_pure_names_nothing_impure() {
        let clock = "use std::time::Instant;\nfn f() { Instant::now(); }\n";
        for claim in
            ["//! Sums. Pure.\n", "//! Pure: time comes in.\n", "//! The choice as a pure rule.\n"]
        {
            assert_eq!(found(impure, &(claim.to_owned() + clock)), 1, "{claim}");
            assert_eq!(found(impure, &(claim.to_owned() + "fn f() {}\n")), 0, "{claim}");
            let test = format!("{claim}#[cfg(test)]\nmod tests {{ {clock} }}\n");
            assert_eq!(found(impure, &test), 0, "a test may read the clock");
        }
        assert_eq!(
            found(impure, &("//! Decided in `accounts`, which is pure.\n".to_owned() + clock)),
            0
        );
    }

    #[test]
    fn vague_words_are_found_in_comments_only() {
        assert_eq!(found(vague_words, "//! Nobody waits.\n/// Whoever is told, is told.\n"), 4);
        assert_eq!(found(vague_words, "fn f() { say(\"nobody\") }\n"), 0);
    }

    #[test]
    fn a_wide_comment_is_found_and_a_wide_line_of_code_is_rustfmts() {
        let words = "word ".repeat(30);
        assert_eq!(found(wide_comments, &format!("    // {words}\n")), 1);
        assert_eq!(found(wide_comments, &format!("let s = \"{words}\"; // why\n")), 0);
        assert_eq!(found(wide_comments, &format!("// https://{}\n", "x".repeat(120))), 0);
    }
}
