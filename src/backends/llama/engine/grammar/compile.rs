//! Compiler of answer shapes to llguidance grammars, for one vocabulary.
//!
//! Builds the trie of the vocabulary once per engine and caches the latest grammars, because
//! applications repeat the same few. Runs on the grammar thread.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use llama_cpp_2::model::LlamaModel;
use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{JsonCompileOptions, Matcher, ParserFactory};
use parking_lot::Mutex;
use serde_json::Value;

use super::closing::Closers;
use super::complexity;
use super::lark::{lark, schema_name};
use super::matcher::Grammar;
use super::shape::{AnswerShape, Part, Schema};
use crate::backends::llama::wire::constraint::GrammarError;

/// Whitespace between tokens of JSON: one space, or a line end with indentation. Without a bound,
/// small models never stop generating whitespace.
const WHITESPACE: &str = r" |\n {0,16}";

/// Maximum lexer states of one answer; each takes 1 to 2 kB.
const LEXER_STATES: usize = 50_000;

/// Number of cached grammars.
const REMEMBERED: usize = 16;

/// Grammar compiler and cache.
pub(crate) struct Grammars {
    factory: ParserFactory,
    closers: Arc<Closers>,
    /// Ids of control tokens by their text.
    controls: HashMap<String, u32>,
    /// Most recently used first. Never advanced, so that state learnt by copies does not accumulate
    /// here.
    remembered: Mutex<VecDeque<(AnswerShape, Grammar)>>,
}

impl Grammars {
    /// Returns an error if the vocabulary has no token that ends an answer.
    pub(crate) fn new(model: &LlamaModel) -> Result<Self, GrammarError> {
        Self::over(&vocabulary(model)?, controls(model))
    }

    /// Over a vocabulary with these control tokens.
    pub(crate) fn over(
        vocabulary: &TokEnv,
        controls: HashMap<String, u32>,
    ) -> Result<Self, GrammarError> {
        let closers = Arc::new(Closers::new(vocabulary.tok_trie()));
        let factory = ParserFactory::new_simple(vocabulary).map_err(unsupported)?;
        let mut grammars = Self { factory, closers, controls, remembered: Mutex::default() };
        grammars.factory.quiet();
        // Errors reach clients and logs: they must not quote schema or answer.
        let limits = grammars.factory.limits_mut();
        limits.verbose_errors = false;
        limits.max_lexer_states = LEXER_STATES;
        Ok(grammars)
    }

    pub(crate) fn grammar(&self, form: &AnswerShape) -> Result<Grammar, GrammarError> {
        let mut remembered = self.remembered.lock();
        if let Some(place) = remembered.iter().position(|(known, _)| known == form)
            && let Some(known) = remembered.remove(place)
        {
            remembered.push_front(known);
        } else {
            let grammar = self.compile(form)?;
            remembered.truncate(REMEMBERED - 1);
            remembered.push_front((form.clone(), grammar));
        }
        let (_, grammar) = &remembered[0];
        Ok(grammar.fresh())
    }

    fn compile(&self, form: &AnswerShape) -> Result<Grammar, GrammarError> {
        form.schemas().try_for_each(|schema| complexity::check(&schema.json))?;
        let parser = self.factory.create_parser(self.source(form));
        let matcher = Matcher::new(Ok(parser.map_err(unsupported)?));
        let ends = form.ends().map(|end| self.factory.tok_env().tokenize(end)).collect();
        Ok(Grammar::new(matcher, ends, Arc::clone(&self.closers)))
    }

    fn source(&self, form: &AnswerShape) -> TopLevelGrammar {
        if let [sequence] = form.0.as_slice()
            && let [Part::Json(schema)] = sequence.as_slice()
        {
            return TopLevelGrammar::from_json_schema(with_options(schema));
        }
        let (text, schemas) = lark(form, |tag| self.controls.get(tag).copied());
        let schemas = schemas.into_iter().enumerate().map(|(place, schema)| GrammarWithLexer {
            name: Some(schema_name(place)),
            ..GrammarWithLexer::from_json_schema(with_options(schema))
        });
        let mut source = TopLevelGrammar::from_lark(text);
        source.grammars.extend(schemas);
        source
    }
}

/// The schema with our options, which replace those of the client.
fn with_options(schema: &Schema) -> Value {
    let options = JsonCompileOptions {
        whitespace_pattern: Some(WHITESPACE.to_owned()),
        lenient: schema.lenient,
        ..JsonCompileOptions::default()
    };
    let mut json = schema.json.clone();
    options.apply_to(&mut json);
    json
}

fn unsupported(error: impl std::fmt::Display) -> GrammarError {
    let text = error.to_string();
    // llguidance catches its own panics and reports them with a backtrace.
    let panicked = text.starts_with("panic");
    GrammarError::Unsupported(if panicked { "it cannot be read".to_owned() } else { text })
}

fn controls(model: &LlamaModel) -> HashMap<String, u32> {
    let vocab = model.vocab();
    let controls = (0_u32..).zip(vocab.tokens()).filter(|&(_, token)| vocab.is_control(token));
    let spelled = controls.map(|(id, token)| (vocab.token_to_piece(token, true, None), id));
    spelled.map(|(bytes, id)| (String::from_utf8_lossy(&bytes).into_owned(), id)).collect()
}

/// The vocabulary as a trie of bytes; tokens without text are marked so that no grammar allows
/// them.
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
