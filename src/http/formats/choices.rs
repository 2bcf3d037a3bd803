//! The choices of a whole local answer, put together from events. Knows nothing of HTTP.

use crate::backends::Event;
use crate::openai::chat::AnswerMessage;
use crate::openai::{
    ChatRequest, Choice, ChoiceLogprobs, FinishReason, Role, TokenLogprob, ToolCall,
};

/// Choices that are still coming, in the order of their indices.
#[derive(Default)]
pub struct Choices {
    /// Index of the one that events belong to just now.
    present: usize,
    parts: Vec<Part>,
}

#[derive(Default)]
struct Part {
    text: String,
    reasoning: String,
    calls: Vec<ToolCall>,
    /// `None` until there are some.
    logprobs: Option<Vec<TokenLogprob>>,
    finish: Option<FinishReason>,
}

/// What of its answer's form a client chose.
#[derive(Clone, Copy, Default)]
pub struct Asked {
    /// Log-probabilities: an answer without a token then has an empty list.
    pub logprobs: bool,
    /// The client offered `functions`, which tools have replaced, and reads `function_call`.
    pub functions: bool,
}

impl Asked {
    pub fn of(request: &ChatRequest) -> Self {
        Self { logprobs: request.logprobs.unwrap_or(false), functions: request.offers_functions }
    }

    /// The reason in the client's words.
    pub fn named(self, finish: FinishReason) -> FinishReason {
        match finish {
            FinishReason::ToolCalls if self.functions => FinishReason::FunctionCall,
            other => other,
        }
    }
}

/// A choice, or more of it.
pub struct Piece<'p> {
    pub index: u32,
    pub text: &'p str,
    pub logprobs: Option<&'p [TokenLogprob]>,
    pub finish: Option<FinishReason>,
}

impl Part {
    /// Arguments come in order, so they are the last call's.
    fn argue(&mut self, piece: &str) {
        if let Some(function) = self.calls.last_mut().and_then(|call| call.function.as_mut()) {
            function.arguments.push_str(piece);
        }
    }

    fn message(self, functions: bool) -> AnswerMessage {
        let says_nothing = self.text.is_empty() && !self.calls.is_empty();
        let (function_call, tool_calls) = if functions {
            (self.calls.into_iter().next().and_then(|call| call.function), vec![])
        } else {
            (None, self.calls)
        };
        AnswerMessage {
            role: Role::Assistant,
            content: (!says_nothing).then_some(self.text),
            reasoning_content: Some(self.reasoning).filter(|text| !text.is_empty()),
            tool_calls,
            function_call,
            refusal: None,
        }
    }
}

impl Choices {
    pub fn take(&mut self, event: Event) {
        match event {
            Event::Choice(index) => self.present = index as usize,
            Event::Text(piece) => self.part().text.push_str(&piece),
            Event::Reasoning(piece) => self.part().reasoning.push_str(&piece),
            Event::ToolCall { id, name, .. } => {
                self.part().calls.push(ToolCall::function(id, name));
            }
            Event::ToolArguments { piece, .. } => self.part().argue(&piece),
            Event::Logprobs(more) => self.part().logprobs.get_or_insert_default().extend(more),
            Event::ChoiceDone(finish) | Event::Done(finish) => self.part().finish = Some(finish),
            Event::Started
            | Event::Confidence(_)
            | Event::UpstreamChunks(_)
            | Event::UpstreamAnswer(_)
            | Event::Embeddings(_)
            | Event::Truncated { .. }
            | Event::Usage(_)
            | Event::Energy(_) => {}
        }
    }

    /// The choices as OpenAI writes them; `finish` for any whose end was not reported.
    pub fn whole(self, finish: FinishReason, asked: Asked) -> Vec<Choice> {
        let choice = |(mut part, index): (Part, u32)| Choice {
            index,
            finish_reason: asked.named(part.finish.unwrap_or(finish)),
            logprobs: part
                .logprobs
                .take()
                .or_else(|| asked.logprobs.then(Vec::new))
                .map(|content| ChoiceLogprobs { content, refusal: None }),
            message: part.message(asked.functions),
        };
        self.parts.into_iter().zip(0..).map(choice).collect()
    }

    /// Text, log-probabilities and end of each choice; `finish` for any whose end was not reported.
    pub fn raw(&self, finish: FinishReason) -> Vec<Piece<'_>> {
        let piece = |(part, index)| {
            let Part { text, logprobs, finish: ended, .. }: &Part = part;
            let finish = Some(ended.unwrap_or(finish));
            Piece { index, text, logprobs: logprobs.as_deref(), finish }
        };
        self.parts.iter().zip(0..).map(piece).collect()
    }

    fn part(&mut self) -> &mut Part {
        if self.parts.len() <= self.present {
            self.parts.resize_with(self.present + 1, Part::default);
        }
        &mut self.parts[self.present]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interleaved_choices_are_put_in_order() {
        let mut choices = Choices::default();
        for event in [
            Event::Choice(1),
            Event::Text("b".into()),
            Event::Choice(0),
            Event::Text("a".into()),
            Event::ChoiceDone(FinishReason::Length),
            Event::Choice(1),
            Event::Text("c".into()),
            Event::Done(FinishReason::Stop),
        ] {
            choices.take(event);
        }
        let whole = choices.whole(FinishReason::Stop, Asked::default());
        let written: Vec<_> = whole
            .iter()
            .map(|choice| {
                (choice.index, choice.message.content.as_deref().unwrap(), choice.finish_reason)
            })
            .collect();
        assert_eq!(written, [(0, "a", FinishReason::Length), (1, "bc", FinishReason::Stop)]);
    }
}
