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
use super::lark::{lark, regex_name, schema_name};
use super::matcher::{Grammar, plain};
use super::prepare::{Patterns, prepare};
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
        let mut compiled = self.matcher(form, Patterns::All);
        // Patterns are the one keyword that is known to be beyond the grammar only by trying.
        let relaxed = [Patterns::Regular, Patterns::None];
        for patterns in relaxed.into_iter().filter(|_| form.schemas().any(|one| one.lenient)) {
            if matches!(compiled, Err(GrammarError::Unsupported(_))) {
                compiled = self.matcher(form, patterns);
            }
        }
        let matcher = compiled?;
        let ends = form.ends().map(|end| self.factory.tok_env().tokenize(end)).collect();
        Ok(Grammar::new(matcher, ends, Arc::clone(&self.closers)))
    }

    fn matcher(&self, form: &AnswerShape, patterns: Patterns) -> Result<Matcher, GrammarError> {
        let has_regex = form.regexes().next().is_some();
        let unsupported = |error| match unsupported(error) {
            // llguidance's words quote the expression.
            GrammarError::Unsupported(_) if has_regex => GrammarError::Regex(
                "it is malformed or too large, or has look-around or back-references".to_owned(),
            ),
            error => error,
        };
        let parser = self.factory.create_parser(self.source(form, patterns)?);
        let mut matcher = Matcher::new(Ok(parser.map_err(unsupported)?));
        // Nothing may come first: a value within itself without end, or a contradiction.
        if matcher.is_error() || matcher.compute_mask().is_err() {
            return Err(GrammarError::Unsupported("no finite value satisfies it".to_owned()));
        }
        Ok(matcher)
    }

    fn source(
        &self,
        form: &AnswerShape,
        patterns: Patterns,
    ) -> Result<TopLevelGrammar, GrammarError> {
        if let [sequence] = form.0.as_slice()
            && let [Part::Json(schema)] = sequence.as_slice()
        {
            return Ok(TopLevelGrammar::from_json_schema(readable(schema, patterns)?));
        }
        let (text, schemas) = lark(form, |tag| self.controls.get(tag).copied());
        let mut source = TopLevelGrammar::from_lark(text);
        for (place, schema) in schemas.into_iter().enumerate() {
            source.grammars.push(GrammarWithLexer {
                name: Some(schema_name(place)),
                ..GrammarWithLexer::from_json_schema(readable(schema, patterns)?)
            });
        }
        for (place, regex) in form.regexes().enumerate() {
            source.grammars.push(GrammarWithLexer {
                name: Some(regex_name(place)),
                ..GrammarWithLexer::from_regex(regex)
            });
        }
        Ok(source)
    }
}

/// The schema as llguidance reads it, with our options, which replace those of the client.
fn readable(schema: &Schema, patterns: Patterns) -> Result<Value, GrammarError> {
    // Twice: before anything is done with it, and with all its references resolved.
    complexity::check(&schema.json)?;
    let mut json = prepare(&schema.json, schema.lenient, patterns)?;
    complexity::check(&json)?;
    let options = JsonCompileOptions {
        whitespace_pattern: Some(WHITESPACE.to_owned()),
        lenient: schema.lenient,
        coerce_one_of: schema.lenient,
        ..JsonCompileOptions::default()
    };
    if json.is_object() {
        options.apply_to(&mut json);
    }
    Ok(json)
}

fn unsupported(error: impl std::fmt::Display) -> GrammarError {
    let text = plain(&error);
    // llguidance catches its own panics and reports them with a backtrace.
    let panicked = text.starts_with("panic");
    let overlaps = text.contains("coerce_one_of");
    GrammarError::Unsupported(match () {
        () if panicked => "it cannot be read".to_owned(),
        () if overlaps => "two options of a `oneOf` may hold together: use `anyOf`".to_owned(),
        () => text,
    })
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
