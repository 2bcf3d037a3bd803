//! Other names of models and policies, for clients whose names are wired in. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Ends a name that stands for all names that begin like it.
const ANY: char = '*';

/// `[aliases]`: by the name that a client asks for, the model, `auto` or `auto/POLICY` that
/// answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Aliases(BTreeMap<String, String>);

impl Aliases {
    /// What stands for `asked`: the whole name, or else the longest beginning of it.
    pub fn meaning(&self, asked: &str) -> Option<&str> {
        let exact = self.0.get(asked);
        let beginnings = self.0.iter().filter_map(|(name, meaning)| {
            let beginning = name.strip_suffix(ANY)?;
            asked.starts_with(beginning).then_some((beginning.len(), meaning))
        });
        let longest = || beginnings.max_by_key(|(bytes, _)| *bytes).map(|(_, meaning)| meaning);
        exact.or_else(longest).map(String::as_str)
    }

    /// Each name with its meaning.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, meaning)| (name.as_str(), meaning.as_str()))
    }

    /// The names that are whole, which can be listed.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str).filter(|name| !name.ends_with(ANY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_name_goes_before_the_longest_beginning() {
        let names = [("gpt-4o", "big"), ("gpt-*", "auto"), ("gpt-4*", "auto/good"), ("*", "small")];
        let names = names.map(|(name, meaning)| (name.to_owned(), meaning.to_owned()));
        let aliases = Aliases(names.into());
        for (asked, meaning) in [
            ("gpt-4o", "big"),
            ("gpt-4o-mini", "auto/good"),
            ("gpt-4", "auto/good"),
            ("gpt-5", "auto"),
            ("claude-x", "small"),
        ] {
            assert_eq!(aliases.meaning(asked), Some(meaning), "{asked}");
        }
        assert_eq!(aliases.names().collect::<Vec<_>>(), ["gpt-4o"]);
        assert_eq!(Aliases::default().meaning("gpt-4o"), None);
    }
}
