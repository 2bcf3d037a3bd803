//! The text of a configuration file with its TOML tree: from keys to places in the text and back.
//!
//! Does not know the meaning of keys. Pure.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue, Error};

/// A byte range of the text.
pub(super) type Span = Range<usize>;

/// Keys from the root to an entry.
pub(super) type Path = Vec<String>;

pub(super) struct Document<'a> {
    pub(super) text: &'a str,
    pub(super) root: Spanned<DeValue<'a>>,
}

/// A place in the text as editors count it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// From 1.
    pub(super) line: usize,
    /// In characters, from 1.
    pub(super) column: usize,
    /// Characters marked on that line, at least 1.
    pub(super) width: usize,
    /// The whole line.
    pub(super) text: String,
}

impl<'a> Document<'a> {
    /// The tree is incomplete when there are syntax errors.
    pub(super) fn parse(text: &'a str) -> (Self, Vec<Error>) {
        let (table, errors) = DeTable::parse_recoverable(text);
        let span = table.span();
        let root = Spanned::new(span, DeValue::Table(table.into_inner()));
        (Self { text, root }, errors)
    }

    /// The span of the value at `path`; if it is absent, that of the nearest table around it.
    pub(super) fn span_of(&self, path: &[&str]) -> Option<Span> {
        let mut table = self.root.get_ref().as_table()?;
        let mut found = None;
        for key in path {
            let Some((key, value)) = table.get_key_value(*key) else { break };
            match value.get_ref() {
                DeValue::Table(inner) => {
                    found = Some(key.span());
                    table = inner;
                }
                _ => return Some(value.span()),
            }
        }
        found
    }

    /// Where the key at `path` first occurs, to sort by.
    pub(super) fn start_of_key(&self, path: &[&str]) -> Option<usize> {
        let (last, tables) = path.split_last()?;
        let mut table = self.root.get_ref().as_table()?;
        for key in tables {
            table = table.get(*key)?.get_ref().as_table()?;
        }
        table.get_key_value(*last).map(|(key, _)| key.span().start)
    }

    /// The entries of the table `key`, by name, each with its own keys if it is a table.
    pub(super) fn tables_in(&self, key: &str) -> Vec<(&str, Option<Vec<&str>>)> {
        let root = self.root.get_ref().as_table();
        let table = root.and_then(|root| root.get(key)?.get_ref().as_table());
        let entries = table.into_iter().flatten();
        entries.map(|(name, value)| (&**name.get_ref(), keys(value))).collect()
    }

    pub(super) fn place(&self, span: &Span) -> Place {
        let start = floor_char_boundary(self.text, span.start);
        let line_start = self.text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end =
            self.text[start..].find('\n').map_or(self.text.len(), |length| start + length);
        let end = floor_char_boundary(self.text, span.end.clamp(start, line_end));
        Place {
            line: self.text[..line_start].matches('\n').count() + 1,
            column: self.text[line_start..start].chars().count() + 1,
            width: self.text[start..end].chars().count().max(1),
            text: self.text[line_start..line_end].to_owned(),
        }
    }
}

/// The keys of `value`; `None` if it is not a table.
fn keys<'v>(value: &'v Spanned<DeValue<'_>>) -> Option<Vec<&'v str>> {
    Some(value.get_ref().as_table()?.keys().map(|key| &**key.get_ref()).collect())
}

fn floor_char_boundary(text: &str, index: usize) -> usize {
    (0..=index.min(text.len())).rev().find(|&index| text.is_char_boundary(index)).unwrap_or(0)
}

/// How an error's span relates to an entry.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Covers {
    /// Exactly a key.
    Key,
    /// Exactly a value. An implied table has the span of its own name, an explicit one that of its
    /// header.
    Value,
    /// Part of a value, as of an array.
    Within,
}

/// The path of the entry that `span` covers.
pub(super) fn path_at(table: &DeTable<'_>, span: &Span, covers: Covers) -> Option<Path> {
    for (key, value) in table {
        let hit = match covers {
            Covers::Key => key.span() == *span,
            Covers::Value => value.span() == *span,
            Covers::Within => encloses(&value.span(), span),
        };
        let below = match value.get_ref() {
            DeValue::Table(inner) => path_at(inner, span, covers),
            _ => None,
        };
        let rest = below.or_else(|| hit.then(Path::new));
        if let Some(mut rest) = rest {
            rest.insert(0, key.get_ref().clone().into_owned());
            return Some(rest);
        }
    }
    None
}

fn encloses(outer: &Span, inner: &Span) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

/// Removes the entry at `path`; false if there is none.
pub(super) fn remove(table: &mut DeTable<'_>, path: &[String]) -> bool {
    let Some((first, rest)) = path.split_first() else { return false };
    if rest.is_empty() {
        return table.remove(first.as_str()).is_some();
    }
    match table.get_mut(first.as_str()).map(Spanned::get_mut) {
        Some(DeValue::Table(inner)) => remove(inner, rest),
        _ => false,
    }
}

/// `path` as it is written in TOML.
pub(super) fn dotted<'k>(path: impl IntoIterator<Item = &'k str>) -> String {
    let bare = |key: &str| {
        !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
    };
    let quoted = |key: &str| if bare(key) { key.to_owned() } else { format!("{key:?}") };
    path.into_iter().map(quoted).collect::<Vec<_>>().join(".")
}
