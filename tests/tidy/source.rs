//! Source files in memory: code without comments, string contents and test items; comments; the
//! module of a file.

use std::fs;
use std::path::PathBuf;

pub struct Source {
    /// From the crate's root, with `/` between its parts.
    pub path: String,
    /// Whole file, for line counts and widths.
    pub text: String,
    /// Non-test code; comments, strings and test items are blank, so that line numbers stay.
    pub code: String,
    /// Line number and text of each comment, without its marker.
    pub comments: Vec<(usize, String)>,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Self {
        let (code, comments) = separate(text);
        let code = without_test_items(&code);
        Self { path: path.to_owned(), text: text.to_owned(), code, comments }
    }

    /// The module's path below the crate: empty for `lib.rs` and `main.rs`.
    pub fn module(&self) -> Vec<String> {
        let below = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let stem = below.strip_suffix(".rs").unwrap_or(below);
        let stem = stem.strip_suffix("/mod").unwrap_or(stem);
        if stem == "lib" || stem == "main" {
            return Vec::new();
        }
        stem.split('/').map(str::to_owned).collect()
    }

    /// The top-level module; `None` for `lib.rs` and `main.rs`.
    pub fn top(&self) -> Option<String> {
        self.module().into_iter().next()
    }

    /// The text of the `//!` block at the head of the file.
    pub fn header(&self) -> String {
        let lines = self.text.lines().map_while(|line| line.strip_prefix("//!"));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Identifiers and single punctuation characters of the code; `::` is one token.
    pub fn tokens(&self) -> Vec<&str> {
        tokens(&self.code)
    }
}

/// Every Rust file below `src`.
pub fn sources() -> Vec<Source> {
    sources_below(&["src"])
}

/// Every Rust file below these folders.
pub fn sources_below(roots: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = roots.iter().map(PathBuf::from).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push(Source::new(&path.to_string_lossy().replace('\\', "/"), &text));
            }
        }
    }
    assert!(found.len() > 20, "the test must run from the crate's root");
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

fn tokens(code: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if first.is_alphanumeric() || first == '_' {
            rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        found.push(&rest[..length]);
        rest = rest[length..].trim_start();
    }
    found
}

/// Code with comments and the contents of strings and character literals blanked, and the comments
/// by line.
fn separate(text: &str) -> (String, Vec<(usize, String)>) {
    let mut code = String::with_capacity(text.len());
    let mut comments = Vec::new();
    let mut rest = text;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let (length, kept) = if rest.starts_with("//") {
            let length = rest.find('\n').unwrap_or(rest.len());
            let comment = rest[..length].trim_start_matches('/').trim_start_matches('!');
            comments.push((line, comment.trim().to_owned()));
            (length, false)
        } else if rest.starts_with("/*") {
            (rest.find("*/").map_or(rest.len(), |end| end + 2), false)
        } else if let Some(length) = literal(rest) {
            (length, false)
        } else {
            (first.len_utf8(), true)
        };
        let (taken, left) = rest.split_at(length);
        line += taken.matches('\n').count();
        if kept {
            code.push_str(taken);
        } else {
            code.extend(taken.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        }
        rest = left;
    }
    (code, comments)
}

/// Length in bytes of the string or character literal at the start of `rest`; `None` if there is
/// none.
fn literal(rest: &str) -> Option<usize> {
    if let Some(raw) = rest.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let body = 1 + hashes + 1;
            return Some(rest[body..].find(&end).map_or(rest.len(), |at| body + at + end.len()));
        }
    }
    let quote = rest.chars().next().filter(|&c| c == '"' || c == '\'')?;
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return Some(at + c.len_utf8()),
            // A lifetime: no closing quote after one character.
            _ if quote == '\'' && at > 1 && !rest[1..].starts_with('\\') => return None,
            _ => {}
        }
    }
    None
}

/// The same code with every item blanked that is only in builds for tests or for fuzzing.
fn without_test_items(code: &str) -> String {
    let code = without_items(code, "#[cfg(test)]");
    without_items(&code, "#[cfg(fuzzing)]")
}

/// The same code with every item behind this attribute blanked.
fn without_items(code: &str, mark: &str) -> String {
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find(mark) {
        out.push_str(&rest[..at]);
        let item = &rest[at..];
        let length = mark.len() + item_length(&item[mark.len()..]);
        out.extend(item[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = &item[length..];
    }
    out.push_str(rest);
    out
}

/// Bytes up to the `;` or closing brace that ends the first item.
fn item_length(code: &str) -> usize {
    let mut depth = 0;
    for (at, c) in code.char_indices() {
        match c {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => {
                depth -= 1;
                if depth == 0 && c == '}' {
                    return at + 1;
                }
            }
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

#[test]
fn comments_strings_and_test_items_are_not_code() {
    let source = Source::new(
        "src/a/b.rs",
        "//! Head\n//! more\nuse x::y; // why crate::c\nlet s: &'static str = \"crate::d \\\" // no\";\n\
         let q = '\"'; let r = r#\"crate::e\"#;\n#[cfg(test)]\nmod tests {\n    use crate::f;\n}\n\
         #[cfg(fuzzing)]\n#[cfg(b)]\npub use crate::g::{h};\nfn last() {}\n",
    );
    for absent in ["crate", "Head", "why", "no"] {
        assert!(!source.tokens().contains(&absent), "{absent}: {}", source.code);
    }
    for present in ["x", "y", "static", "last"] {
        assert!(source.tokens().contains(&present), "{present}: {}", source.code);
    }
    assert_eq!(source.comments[2], (3, "why crate::c".to_owned()));
    assert_eq!(source.module(), ["a", "b"]);
    assert_eq!(source.header(), " Head\n more");
    assert_eq!(source.code.lines().count(), source.text.lines().count());
}
