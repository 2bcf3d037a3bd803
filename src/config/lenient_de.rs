//! Lenient deserialisation: from the tree to typed values, past every error.
//!
//! serde stops at the first error, so the entry with the error is reported and removed from the
//! tree, and the rest is read again.

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeValue, Error, ValueDeserializer};

use super::diagnostics::Report;
use super::document::{Covers, Document, path_at, remove};
use super::explain::{self, Fault};

/// Reads `T` from what of `document` can be read; the rest is in `report`.
///
/// `None` if even what is left after all removals is not a `T`.
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
        // Each round removes an entry, so this ends.
        if !remove_entry(&mut tree, &error, report) {
            explain::unplaced(&error, report);
            return None;
        }
    }
}

/// Reports `error` and removes its entry; false if there is none.
fn remove_entry(tree: &mut Spanned<DeValue<'_>>, error: &Error, report: &mut Report<'_>) -> bool {
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
