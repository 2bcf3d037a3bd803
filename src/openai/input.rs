//! Shapes of `prompt` and `input`: one text, several texts, one list of tokens, or several lists of
//! tokens.
//!
//! A hand-written visitor rather than `untagged`, so that an error names the expected type and the
//! position.

use std::fmt;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::lenient;

/// One text to continue or to embed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    Text(String),
    /// Token ids in the vocabulary of the requested model.
    Tokens(Vec<u32>),
}

impl Input {
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Tokens(_) => None,
        }
    }

    pub fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Tokens(tokens) => tokens.is_empty(),
        }
    }
}

/// One or several inputs, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inputs(pub Vec<Input>);

impl Default for Inputs {
    fn default() -> Self {
        Self(vec![Input::Text(String::new())])
    }
}

impl<'de> Deserialize<'de> for Inputs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(InputsVisitor)
    }
}

struct InputsVisitor;

impl<'de> Visitor<'de> for InputsVisitor {
    type Value = Inputs;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, an array of strings, an array of tokens or an array of token arrays")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Inputs, E> {
        Ok(Inputs(vec![Input::Text(text.to_owned())]))
    }

    fn visit_unit<E>(self) -> Result<Inputs, E> {
        Ok(Inputs::default())
    }

    /// The first element determines the kind of array; all others must be of the same kind.
    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Inputs, A::Error> {
        let Some(first) = array.next_element::<Element>()? else { return Ok(Inputs(vec![])) };
        Ok(Inputs(match first {
            Element::Token(token) => {
                let rest = de::value::SeqAccessDeserializer::new(array);
                let mut tokens = vec![token];
                tokens.append(&mut lenient::tokens(rest)?);
                vec![Input::Tokens(tokens)]
            }
            Element::Text(text) => {
                let mut inputs = vec![Input::Text(text)];
                while let Some(text) = array.next_element()? {
                    inputs.push(Input::Text(text));
                }
                inputs
            }
            Element::Tokens(tokens) => {
                let mut inputs = vec![Input::Tokens(tokens)];
                while let Some(Tokens(tokens)) = array.next_element()? {
                    inputs.push(Input::Tokens(tokens));
                }
                inputs
            }
        }))
    }
}

/// A list of tokens.
#[derive(Deserialize)]
struct Tokens(#[serde(deserialize_with = "lenient::tokens")] Vec<u32>);

/// One element of an array of inputs.
enum Element {
    Text(String),
    Token(u32),
    Tokens(Vec<u32>),
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ElementVisitor;
        impl<'de> Visitor<'de> for ElementVisitor {
            type Value = Element;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a token or an array of tokens")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Element, E> {
                Ok(Element::Text(text.to_owned()))
            }
            fn visit_u64<E: de::Error>(self, token: u64) -> Result<Element, E> {
                let wrong = || E::invalid_value(de::Unexpected::Unsigned(token), &self);
                u32::try_from(token).map(Element::Token).map_err(|_| wrong())
            }
            fn visit_f64<E: de::Error>(self, token: f64) -> Result<Element, E> {
                let token = de::value::F64Deserializer::<E>::new(token);
                let token = lenient::whole(token)?.unwrap_or_default();
                Ok(Element::Token(token))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, tokens: A) -> Result<Element, A::Error> {
                lenient::tokens(de::value::SeqAccessDeserializer::new(tokens)).map(Element::Tokens)
            }
        }
        deserializer.deserialize_any(ElementVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Vec<Input>, String> {
        let inputs = serde_json::from_str::<Inputs>(json);
        inputs.map(|inputs| inputs.0).map_err(|error| error.to_string())
    }

    #[test]
    fn all_four_shapes_are_read() {
        let text = |text: &str| Input::Text(text.into());
        assert_eq!(read(r#""a""#), Ok(vec![text("a")]));
        assert_eq!(read(r#"["a","b"]"#), Ok(vec![text("a"), text("b")]));
        assert_eq!(read("[1,2]"), Ok(vec![Input::Tokens(vec![1, 2])]));
        assert_eq!(
            read("[[1],[2,3]]"),
            Ok(vec![Input::Tokens(vec![1]), Input::Tokens(vec![2, 3])])
        );
        assert_eq!(read("[]"), Ok(vec![]));
        assert_eq!(read("[1.0,2e0]"), Ok(vec![Input::Tokens(vec![1, 2])]));
        assert_eq!(read("[[1.0]]"), Ok(vec![Input::Tokens(vec![1])]));
        assert_eq!(read("null"), Ok(vec![text("")]));
    }

    #[test]
    fn an_error_names_the_expected_shapes() {
        for (json, expected) in [
            ("7", "an array of strings"),
            ("[true]", "a string, a token or an array of tokens"),
            (r#"["a", 1]"#, "a string"),
            (r#"[1, "a"]"#, "a whole number"),
            ("[-1]", "a string, a token or an array of tokens"),
            ("[5000000000]", "a string, a token or an array of tokens"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(expected), "{json}: {error}");
        }
    }
}
