//! One thing wrong with a configuration file, where, and what to do about it; and the report of all of them.
//!
//! Secrets do not belong in the file, but people put them there: a line that may hold one is never shown whole.

use std::fmt;
use std::io;
use std::string::FromUtf8Error;

use serde::Serialize;

use super::document::{Document, Span, dotted};
use crate::validate::{Diagnostic, Diagnostics};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub file: String,
    /// From 1; 0 when the file as a whole is meant.
    pub line: usize,
    /// In characters from 1; 0 when the file as a whole is meant.
    pub column: usize,
    /// Dotted key, empty when no key is meant.
    pub key: String,
    pub message: String,
    pub hint: Option<String>,
    /// The line as it may be shown, and how many characters of it are meant.
    #[serde(skip)]
    excerpt: Option<(String, usize)>,
}

/// Everything wrong with one file, in the order of the file; never empty.
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

/// Collects problems.
pub(super) struct Report<'a> {
    file: &'a str,
    document: &'a Document<'a>,
    problems: Vec<Problem>,
    /// Keys whose value could not be read: the default that stands for it must not be judged.
    unread: Vec<String>,
}

impl<'a> Report<'a> {
    pub(super) fn new(file: &'a str, document: &'a Document<'a>) -> Self {
        Self { file, document, problems: Vec::new(), unread: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// Whether something at or below `path` could not be read.
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

    /// What stands at `span` cannot be read.
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

    /// The entry at `path` cannot be read.
    pub(super) fn unreadable_entry(
        &mut self,
        path: &[&str],
        message: String,
        hint: Option<String>,
    ) {
        self.unread(self.document.span_of(path), dotted(path.iter().copied()), message, hint);
    }

    /// The value of `path` makes no sense; shown there, or at the nearest table around it when the key is absent.
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

    /// Locates what validation found; leaves out values that stand in for unreadable ones.
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
        ("there is no such file".to_owned(), Some(hint.to_owned()))
    } else {
        (format!("cannot be read: {error}"), None)
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

/// Longest excerpt of a line, in characters.
const EXCERPT_CHARS: usize = 160;

/// A line fit for a terminal and a log: no control characters, no secrets, not endless.
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

/// Whether `text`, a line or a key, looks as if it held a credential. Rather too often than once too seldom.
pub(super) fn may_hold_secret(text: &str) -> bool {
    const MARKS: [&str; 8] =
        ["api_key", "api-key", "apikey", "secret", "password", "authorization", "bearer", "sk-"];
    let text = text.to_ascii_lowercase();
    MARKS.iter().any(|mark| text.contains(mark)) || (text.contains("://") && text.contains('@'))
}
