//! One spelling for each model: data sets, hubs and upstreams write the same name in many ways.
//!
//! Pure. Knows spelling only, never which models are alike.

use std::collections::BTreeMap;

/// `meta-llama/Meta-Llama-3_1-8B-Instruct@host` becomes `llama-3.1-8b-instruct`.
pub fn canonical(name: &str) -> String {
    let name = name.rsplit('/').next().unwrap_or(name);
    let name = name.split('@').next().unwrap_or(name).to_lowercase().replace('_', ".");
    let name = name.strip_prefix("meta-").unwrap_or(&name);
    name.strip_suffix("-hf").unwrap_or(name).to_owned()
}

/// The entry of that name, else the newest that adds only a release date (`gpt-4o` finds `gpt-4o-2024-08-06`).
pub fn find<'a, V>(known: &'a BTreeMap<String, V>, name: &str) -> Option<&'a V> {
    let name = canonical(name);
    let dated = || {
        let rest = |entry: &(&String, &'a V)| {
            entry.0.strip_prefix(&name).is_some_and(|rest| rest.starts_with("-20"))
        };
        known
            .range(name.clone()..)
            .take_while(|(key, _)| key.starts_with(&name))
            .filter(rest)
            .last()
    };
    known.get(&name).or_else(|| dated().map(|(_, value)| value))
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
