//! The vocabulary of the fake engine: one token per word, and vectors by hash. Pure.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::backends::llama::wire::protocol::Prompt;
use crate::backends::llama::wire::token::Token;
use crate::openai::Input;

/// Default length of a vector.
pub(crate) const DIMENSIONS: u32 = 8;

/// The words of a text, each with the whitespace after it; joined they are the text.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(char::is_whitespace)
}

/// The token of a word; 0 for the end.
pub(crate) fn token(word: Option<&str>) -> Token {
    let Some(word) = word else { return 0 };
    Token::try_from(hash(word) >> 34).unwrap_or(Token::MAX)
}

/// The text that chooses the answer: the last turn, or the raw prompt.
pub(crate) fn prompt_text(prompt: &Prompt) -> &str {
    match prompt {
        Prompt::Chat(conversation) => conversation.turns.last().map_or("", |turn| &turn.text),
        Prompt::Raw(Input::Text(text)) => text,
        Prompt::Raw(Input::Tokens(_)) => "",
    }
}

/// The tokens of a prompt; each turn begins with one of its own.
pub(crate) fn prompt_tokens(prompt: &Prompt) -> Vec<Token> {
    match prompt {
        Prompt::Chat(conversation) => {
            let turns = conversation.turns.iter();
            turns.flat_map(|turn| [1].into_iter().chain(text_tokens(&turn.text))).collect()
        }
        Prompt::Raw(input) => input_tokens(input),
    }
}

pub(crate) fn input_tokens(input: &Input) -> Vec<Token> {
    match input {
        Input::Text(text) => text_tokens(text).collect(),
        Input::Tokens(tokens) => {
            tokens.iter().map(|&id| Token::try_from(id).unwrap_or(Token::MAX)).collect()
        }
    }
}

fn text_tokens(text: &str) -> impl Iterator<Item = Token> {
    words(text).map(|word| token(Some(word)))
}

/// A vector of unit length: equal for equal inputs.
pub(crate) fn vector(input: &Input, dimensions: u32) -> Vec<f32> {
    let tokens = input_tokens(input);
    let raw: Vec<f32> = (0..dimensions.max(1))
        .map(|index| f32::from(u16::try_from(hash((&tokens, index)) >> 48).unwrap_or(1)) + 1.0)
        .collect();
    let length = raw.iter().map(|x| x * x).sum::<f32>().sqrt();
    raw.into_iter().map(|x| x / length).collect()
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_join_to_their_text_and_equal_ones_have_equal_tokens() {
        let text = "To be, or not\nto  be, ";
        assert_eq!(words(text).collect::<String>(), text);
        let tokens: Vec<Token> = text_tokens(text).collect();
        assert_eq!((tokens[1], tokens.len()), (tokens[6], 7));
    }

    #[test]
    fn vectors_have_unit_length_and_depend_on_their_text() {
        let [a, b] = ["a", "b"].map(|text| vector(&Input::Text(text.to_owned()), 5));
        assert!((a.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5 && a != b);
    }
}
