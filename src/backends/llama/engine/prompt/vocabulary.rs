//! A model's vocabulary: the tokens of raw texts, and which tokens there are.

use std::sync::Arc;

use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token::LlamaToken;

use super::tokenise::Tokeniser;
use super::unprepared::Unprepared;
use crate::backends::llama::engine::intake::interrupt::Interrupt;
use crate::backends::llama::wire::outcome::Refusal;
use crate::backends::llama::wire::token::Token;
use crate::openai::Input;

pub(super) struct Vocabulary {
    model: Arc<LlamaModel>,
    context_tokens: usize,
    /// Tokens that end the model's turn.
    pub(super) ends: Vec<Token>,
}

impl Vocabulary {
    pub(super) fn new(model: Arc<LlamaModel>, context_tokens: usize) -> Self {
        let vocab = model.vocab();
        let ends = vocab.tokens().filter(|&token| vocab.is_eog(token)).map(|end| end.0).collect();
        Self { model, context_tokens, ends }
    }

    pub(super) fn check_bias(&self, bias: &[(Token, f32)]) -> Result<(), Refusal> {
        let vocabulary = u32::try_from(self.model.n_vocab()).unwrap_or(0);
        let unknown = |&&(token, _): &&(Token, f32)| {
            u32::try_from(token).map_or(true, |token| token >= vocabulary)
        };
        match bias.iter().find(unknown) {
            Some(&(token, _)) => {
                Err(Refusal::UnknownBias { token: token.cast_unsigned(), vocabulary })
            }
            None => Ok(()),
        }
    }

    pub(super) fn tokeniser<'b>(&'b self, interrupt: &'b Interrupt) -> Tokeniser<'b> {
        Tokeniser::new(&self.model, self.context_tokens, interrupt)
    }

    /// Tokens of a raw prompt. An empty one begins a document.
    pub(super) fn document(
        &self,
        input: &Input,
        interrupt: &Interrupt,
    ) -> Result<Vec<Token>, Unprepared> {
        let tokens = self.raw(input, true, interrupt)?;
        let begin = self.model.vocab().bos();
        if tokens.is_empty() && begin.0 >= 0 { Ok(vec![begin.0]) } else { Ok(tokens) }
    }

    /// Tokens of a raw prompt, which may contain control tokens (`control`), or of a text to embed,
    /// which may not.
    pub(super) fn raw(
        &self,
        input: &Input,
        control: bool,
        interrupt: &Interrupt,
    ) -> Result<Vec<Token>, Unprepared> {
        match input {
            Input::Text(text) => Ok(self.tokeniser(interrupt).raw(text, control)?),
            Input::Tokens(tokens) => {
                Ok(tokens.iter().map(|&token| self.known(token)).collect::<Result<_, _>>()?)
            }
        }
    }

    /// Validates a token id: an unknown one would abort the process.
    fn known(&self, token: u32) -> Result<Token, Refusal> {
        let vocabulary = self.model.vocab().n_tokens();
        Token::try_from(token)
            .ok()
            .filter(|&token| token < vocabulary)
            .ok_or(Refusal::UnknownToken { token, vocabulary: vocabulary.unsigned_abs() })
    }
}

/// All control tokens and their text.
pub(super) fn control_tokens(model: &LlamaModel) -> Vec<(LlamaToken, String)> {
    let vocab = model.vocab();
    vocab
        .tokens()
        .filter(|&token| vocab.is_control(token))
        .map(|token| (token, spelling(model, token)))
        .collect()
}

/// A token's text; empty for tokens outside of the vocabulary.
pub(super) fn spelling(model: &LlamaModel, token: LlamaToken) -> String {
    if token.0 < 0 {
        return String::new();
    }
    model.vocab().text(token).map_or_else(String::new, |text| text.to_string_lossy().into_owned())
}
