//! Problems of a configuration file with their place and hint, and the report that collects and
//! renders them.
//!
//! Keys are sometimes put into the file by mistake: a line that may hold one is never shown whole.

use std::fmt;
use std::io;
use std::string::FromUtf8Error;

use serde::Serialize;

use super::document::{Document, Span, dotted};
use crate::validate::{Diagnostic, Diagnostics};

/// One problem and its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub file: String,
    /// From 1; 0 for the file as a whole.
    pub line: usize,
    /// In characters from 1; 0 for the file as a whole.
    pub column: usize,
    /// Dotted key; empty if the problem belongs to no key.
    pub key: String,
    pub message: String,
    pub hint: Option<String>,
    /// The line as it may be shown, and how many of its characters are marked.
    #[serde(skip)]
    excerpt: Option<(String, usize)>,
}

/// All problems of one file, in the order of the file; never empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Problems(Vec<Problem>);

impl Problems {
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }
}

impl std::error::Error for Problems {}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.0 {
            writeln!(f, "{problem}\n")?;
        }
        let count = self.0.len();
        let file = self.0.first().map_or("the config", |problem| problem.file.as_str());
        write!(f, "{count} {} in {file}", if count == 1 { "problem" } else { "problems" })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        write!(f, ": {}", self.message)?;
        if let Some((text, width)) = &self.excerpt {
            let gutter = self.line.to_string().len();
            let shown = text.chars().count();
            let indent = (self.column - 1).min(shown);
            let marked = (*width).min(shown.saturating_sub(indent)).max(1);
            write!(f, "\n  {} | {text}", self.line)?;
            write!(f, "\n  {:gutter$} | {:indent$}{}", "", "", "^".repeat(marked))?;
        }
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "\nhint: {hint}"))
    }
}

/// Collects and locates problems.
pub(super) struct Report<'a> {
    file: &'a str,
    document: &'a Document<'a>,
    problems: Vec<Problem>,
    /// Keys whose value could not be read: the default in their place is not validated.
    unread: Vec<String>,
}

impl<'a> Report<'a> {
    pub(super) fn new(file: &'a str, document: &'a Document<'a>) -> Self {
        Self { file, document, problems: Vec::new(), unread: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// Whether a value at or below `path` could not be read.
    pub(super) fn has_unread(&self, path: &[&str]) -> bool {
        let key = dotted(path.iter().copied());
        let below = |unread: &String| {
            unread.strip_prefix(&key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        self.unread.iter().any(below)
    }

    pub(super) fn line_of(&self, span: &Span) -> usize {
        self.document.place(span).line
    }

    /// Reports the text at `span`, which cannot be read.
    pub(super) fn unread(
        &mut self,
        span: Option<Span>,
        key: String,
        message: String,
        hint: Option<String>,
    ) {
        self.unread.push(key.clone());
        self.push(span, key, message, hint);
    }

    /// Reports the entry at `path`, which cannot be read.
    pub(super) fn unreadable_entry(
        &mut self,
        path: &[&str],
        message: String,
        hint: Option<String>,
    ) {
        self.unread(self.document.span_of(path), dotted(path.iter().copied()), message, hint);
    }

    /// Reports the value at `path`, at the nearest table around it if the key is absent.
    pub(super) fn wrong(
        &mut self,
        path: &[&str],
        message: impl Into<String>,
        hint: Option<String>,
    ) {
        let key = dotted(path.iter().copied());
        if !self.unread.contains(&key) {
            self.push(self.document.span_of(path), key, message.into(), hint);
        }
    }

    /// Locates what validation found, except in defaults of values that could not be read.
    pub(super) fn add(&mut self, found: Diagnostics) {
        for Diagnostic { path, message, hint } in found.into_found() {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            self.wrong(&path, message, hint);
        }
    }

    fn push(&mut self, span: Option<Span>, key: String, message: String, hint: Option<String>) {
        let place = span.map(|span| self.document.place(&span));
        let (line, column) = place.as_ref().map_or((0, 0), |place| (place.line, place.column));
        let excerpt = place.map(|place| (presentable(&place.text), place.width));
        let file = self.file.to_owned();
        self.problems.push(Problem { file, line, column, key, message, hint, excerpt });
    }

    pub(super) fn into_problems(mut self) -> Problems {
        self.problems.sort_by_key(|problem| (problem.line, problem.column));
        Problems(self.problems)
    }
}

pub(super) fn unreadable(file: &str, error: &io::Error) -> Problems {
    let (message, hint) = if error.kind() == io::ErrorKind::NotFound {
        let hint = "name another file with --config, or start from the shipped config.toml";
        ("no such file".to_owned(), Some(hint.to_owned()))
    } else {
        (format!("the file cannot be read: {error}"), None)
    };
    whole(file, message, hint)
}

pub(super) fn not_utf8(file: &str, error: &FromUtf8Error) -> Problems {
    let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
    let line = valid.split(|&byte| byte == b'\n').count();
    whole(file, format!("line {line} is not UTF-8 text"), Some("save the file as UTF-8".into()))
}

fn whole(file: &str, message: String, hint: Option<String>) -> Problems {
    let (file, key) = (file.to_owned(), String::new());
    Problems(vec![Problem { file, line: 0, column: 0, key, message, hint, excerpt: None }])
}

/// Characters of a line that are shown at most.
const EXCERPT_CHARS: usize = 160;

/// A line for terminals and logs: without control characters and secrets, and not longer than
/// [`EXCERPT_CHARS`].
fn presentable(line: &str) -> String {
    let shown = match line.split_once('=') {
        Some((key, _)) if may_hold_secret(line) => format!("{key}= …"),
        None if may_hold_secret(line) => "…".to_owned(),
        _ => line.trim_end().to_owned(),
    };
    let mut shown: String = shown.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if let Some((cut, _)) = shown.char_indices().nth(EXCERPT_CHARS) {
        shown.truncate(cut);
        shown.push('…');
    }
    shown
}

/// Whether `text`, a line or a key, may hold a credential. Errs towards true.
pub(super) fn may_hold_secret(text: &str) -> bool {
    const MARKS: [&str; 8] =
        ["api_key", "api-key", "apikey", "secret", "password", "authorization", "bearer", "sk-"];
    let text = text.to_ascii_lowercase();
    MARKS.iter().any(|mark| text.contains(mark)) || (text.contains("://") && text.contains('@'))
}
