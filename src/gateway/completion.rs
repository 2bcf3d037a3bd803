//! The shape of raw completions, whole and in chunks, as Wattgate writes them for its local models.
//!
//! Pure; what an upstream wrote is passed on by [`super::reply`] and [`super::stream`] themselves.

use super::exchange::Exchange;
use crate::openai::completion::{Completion, CompletionChoice};
use crate::openai::{FinishReason, Request, Usage};

/// Writes one answer.
pub struct Writer {
    id: String,
    created: u64,
    model: String,
    /// The prompt, until it has been repeated.
    echo: Option<String>,
}

impl Writer {
    /// None if the exchange is about something else.
    pub fn of(exchange: &Exchange) -> Option<Self> {
        let Request::Completion(request) = exchange.request() else { return None };
        Some(Self {
            // OpenAI's ids of completions begin so, and some clients look.
            id: format!("cmpl-{}", exchange.id()),
            created: exchange.created(),
            model: exchange.model().name.to_string(),
            echo: request.echoed(0).map(str::to_owned),
        })
    }

    /// The whole answer.
    pub fn whole(&mut self, text: &str, finish: FinishReason, usage: Usage) -> String {
        self.choice(text, Some(finish), Some(usage))
    }

    /// A chunk with more text.
    pub fn text(&mut self, text: &str) -> String {
        self.choice(text, None, None)
    }

    /// The chunk that says why the answer ended.
    pub fn end(&mut self, finish: Option<FinishReason>) -> String {
        self.choice("", finish, None)
    }

    fn choice(
        &mut self,
        text: &str,
        finish_reason: Option<FinishReason>,
        usage: Option<Usage>,
    ) -> String {
        let mut echoed = self.echo.take().unwrap_or_default();
        echoed.push_str(text);
        self.render(
            vec![CompletionChoice { index: 0, text: &echoed, logprobs: None, finish_reason }],
            usage,
        )
    }

    /// The chunk that only carries the usage.
    pub fn usage(&self, usage: Usage) -> String {
        self.render(vec![], Some(usage))
    }

    fn render(&self, choices: Vec<CompletionChoice<'_>>, usage: Option<Usage>) -> String {
        let completion = Completion {
            id: &self.id,
            object: "text_completion",
            created: self.created,
            model: &self.model,
            choices,
            usage,
        };
        // Strings and numbers only: this cannot fail, and an empty chunk is harmless if it ever does.
        serde_json::to_string(&completion).unwrap_or_default()
    }
}
