//! From the tree to typed values, past every error instead of only to the first.
//!
//! serde stops at one error, so the entry at fault is reported and taken out of the tree, and the rest is read again.

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeValue, Error, ValueDeserializer};

use super::diagnostics::Report;
use super::document::{Covers, Document, path_at, remove};
use super::explain::{self, Fault};

/// Everything in `document` that can be read as `T`; the rest is in `report`.
///
/// `None` when what is left after all removals is still no `T`.
pub(super) fn read<T: DeserializeOwned>(
    document: &Document<'_>,
    report: &mut Report<'_>,
) -> Option<T> {
    let mut tree = document.root.clone();
    loop {
        let error = match T::deserialize(ValueDeserializer::from(tree.clone())) {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        // Each round takes an entry out, so this ends.
        if !take_out(&mut tree, &error, report) {
            explain::unplaced(&error, report);
            return None;
        }
    }
}

/// Reports `error` and removes the entry it speaks of; false if there is none.
fn take_out(tree: &mut Spanned<DeValue<'_>>, error: &Error, report: &mut Report<'_>) -> bool {
    let DeValue::Table(root) = tree.get_mut() else { return false };
    let Some(span) = error.span() else { return false };
    let fault = Fault::of(error.message());
    let path = match fault {
        Fault::UnknownKey { .. } => path_at(root, &span, Covers::Key),
        _ => path_at(root, &span, Covers::Value).or_else(|| path_at(root, &span, Covers::Within)),
    };
    let Some(path) = path else { return false };
    // A whole entry also fails when a part of it could not be read, which is reported already.
    let keys: Vec<&str> = path.iter().map(String::as_str).collect();
    if !matches!(fault, Fault::Other(_)) || !report.has_unread(&keys) {
        explain::fault(&fault, &path, span, report);
    }
    remove(root, &path)
}
