//! Canonical spelling of model names: data sets, hubs and upstreams write the same name in many
//! ways.
//!
//! Pure. Knows spelling only, never which models are alike.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Bound;

/// `meta-llama/Meta-Llama-3_1-8B-Instruct@host` becomes `llama-3.1-8b-instruct`. A name in that
/// spelling is borrowed.
pub fn canonical(name: &str) -> Cow<'_, str> {
    let name = name.rsplit('/').next().unwrap_or(name);
    let name = name.split('@').next().unwrap_or(name);
    let plain = |c: char| c.is_ascii() && !c.is_ascii_uppercase() && c != '_';
    if name.chars().all(plain) {
        Cow::Borrowed(without_affixes(name))
    } else {
        let name = name.to_lowercase().replace('_', ".");
        Cow::Owned(without_affixes(&name).to_owned())
    }
}

fn without_affixes(name: &str) -> &str {
    let name = name.strip_prefix("meta-").unwrap_or(name);
    name.strip_suffix("-hf").unwrap_or(name)
}

/// The entry of that name, else the newest that adds only a release date (`gpt-4o` finds
/// `gpt-4o-2024-08-06`).
pub fn find<'a, V>(known: &'a BTreeMap<String, V>, name: &str) -> Option<&'a V> {
    find_canonical(known, &canonical(name))
}

/// The same for a name in canonical spelling.
pub fn find_canonical<'a, V>(known: &'a BTreeMap<String, V>, name: &str) -> Option<&'a V> {
    let dated = || {
        let from_name = (Bound::Excluded(name), Bound::Unbounded);
        let longer = known.range::<str, _>(from_name).map_while(|(key, value)| {
            let date = key.strip_prefix(name)?;
            Some((date, value))
        });
        longer.filter(|(date, _)| date.starts_with("-20")).last().map(|(_, value)| value)
    };
    known.get(name).or_else(dated)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_model_has_one_name() {
        for (written, canonical_name) in [
            ("Meta-Llama-3_1-8B-Instruct", "llama-3.1-8b-instruct"),
            ("meta-llama/Llama-3.1-8B-Instruct", "llama-3.1-8b-instruct"),
            ("Llama-2-7b-hf", "llama-2-7b"),
            ("Meta-Llama-3.1-70B-Instruct@hyperbolic", "llama-3.1-70b-instruct"),
        ] {
            assert_eq!(canonical(written), canonical_name);
        }
    }

    #[test]
    fn an_undated_name_means_the_newest() {
        let known: BTreeMap<String, u8> =
            [("gpt-4o-2024-05-13", 1), ("gpt-4o-2024-08-06", 2), ("gpt-4o-mini-2024-07-18", 3)]
                .map(|(name, value)| (name.to_owned(), value))
                .into();
        assert_eq!(find(&known, "GPT-4o"), Some(&2));
        assert_eq!(find(&known, "gpt-4o-mini"), Some(&3));
        assert_eq!(find(&known, "gpt-4"), None);
    }
}
