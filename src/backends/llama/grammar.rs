//! Answers that are valid JSON by construction: which tokens a schema allows next, from llguidance.
//!
//! The vocabulary becomes a trie once per engine, a schema a grammar once per request, on the reader thread. Knows
//! neither logits nor HTTP.

use std::sync::Arc;

use llama_cpp_2::model::LlamaModel;
use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, SimpleVob, TokEnv, TokRxInfo, TokTrie};
use llguidance::{JsonCompileOptions, Matcher, ParserFactory};
use serde_json::{Value, json};

use super::constraint::{Constraint, GrammarError};

/// Whitespace between tokens of JSON: one space, or a line with its indentation. Without a bound, small models write
/// nothing else.
const WHITESPACE: &str = r" |\n {0,16}";

/// Makes grammars for one vocabulary.
pub(super) struct Grammars {
    factory: ParserFactory,
}

impl Grammars {
    /// Fails for a vocabulary without a token that ends an answer.
    pub(super) fn new(model: &LlamaModel) -> Result<Self, GrammarError> {
        let factory = ParserFactory::new_simple(&vocabulary(model)?).map_err(unsupported)?;
        let mut grammars = Self { factory };
        grammars.factory.quiet();
        // Errors reach clients and logs: they must not quote the schema or the answer.
        grammars.factory.limits_mut().verbose_errors = false;
        Ok(grammars)
    }

    pub(super) fn grammar(&self, constraint: &Constraint) -> Result<Grammar, GrammarError> {
        let mut schema: Value = match constraint {
            Constraint::JsonObject => json!({"type": "object"}),
            Constraint::JsonSchema(text) => serde_json::from_str(text)
                .map_err(|error| GrammarError::NotJson(error.to_string()))?,
        };
        if schema == json!(true) {
            schema = json!({});
        }
        if !schema.is_object() {
            return Err(GrammarError::Unsupported("it must be an object".to_owned()));
        }
        // Written over whatever options a client's schema brings.
        let options = JsonCompileOptions {
            whitespace_pattern: Some(WHITESPACE.to_owned()),
            ..JsonCompileOptions::default()
        };
        options.apply_to(&mut schema);
        let parser = self.factory.create_parser(TopLevelGrammar::from_json_schema(schema));
        Ok(Grammar {
            matcher: Matcher::new(Ok(parser.map_err(unsupported)?)),
            mask: SimpleVob::new(),
        })
    }
}

fn unsupported(error: impl std::fmt::Display) -> GrammarError {
    GrammarError::Unsupported(error.to_string())
}

/// The vocabulary as a trie of bytes; tokens without text of their own are marked so that no grammar allows them.
fn vocabulary(model: &LlamaModel) -> Result<TokEnv, GrammarError> {
    const SPECIAL: u8 = TokTrie::SPECIAL_TOKEN_MARKER;
    let vocab = model.vocab();
    let (mut words, mut ends) = (Vec::new(), Vec::new());
    for (id, token) in (0_u32..).zip(vocab.tokens()) {
        if vocab.is_eog(token) {
            ends.push(id);
        }
        let mut bytes = vocab.token_to_piece(token, false, None);
        if bytes.is_empty() || vocab.is_control(token) || vocab.is_eog(token) {
            let text = vocab.token_to_piece(token, true, None);
            bytes = if text.is_empty() { text } else { [&[SPECIAL], text.as_slice()].concat() };
        }
        words.push(bytes);
    }
    let (Some(&end), Ok(size)) = (ends.first(), u32::try_from(words.len())) else {
        return Err(GrammarError::Unsupported(
            "the model has no token that ends an answer".to_owned(),
        ));
    };
    let trie = TokTrie::from(&TokRxInfo::new(size, end), &words).with_eos_tokens(&ends);
    Ok(Arc::new(ApproximateTokEnv::new(trie)))
}

/// The grammar of one answer, as far as the answer has come.
pub(super) struct Grammar {
    matcher: Matcher,
    mask: SimpleVob,
}

impl Grammar {
    /// The tokens that may come next, one bit each; those that end the answer only where it is complete.
    pub(super) fn mask(&mut self) -> Result<&[u32], GrammarError> {
        self.mask = self.matcher.compute_mask_or_eos().map_err(too_complex)?;
        Ok(self.mask.as_slice())
    }

    /// Takes a token that the mask allowed; whether the answer is complete and nothing can follow.
    pub(super) fn accept(&mut self, token: i32) -> Result<bool, GrammarError> {
        self.matcher.consume_token(token.cast_unsigned()).map_err(too_complex)?;
        Ok(self.matcher.is_stopped())
    }
}

fn too_complex(error: impl std::fmt::Display) -> GrammarError {
    GrammarError::TooComplex(error.to_string())
}
