//! Fan-out of a request with several choices (`n`, or several prompts): one sequence each in the
//! engine, one attempt in all reports.

use async_stream::try_stream;
use futures::StreamExt;
use futures::stream::select_all;

use super::refusal::invalid;
use crate::backends::backend::{BackendError, ErrorKind, Event, EventStream};
use crate::backends::llama::wire::protocol::{Prompt, ToEngine};
use crate::energy::{WorkRow, WorkSpan};
use crate::openai::chat::{CompletionTokensDetails, PromptTokensDetails};
use crate::openai::{Request, Usage};
use crate::units::AttemptId;

/// Position of a choice's index in the id of its sequence; attempt ids count from 1 and never reach
/// it.
const INDEX_BITS: u32 = 56;

/// Number of indices in the bits above.
const CHOICES_MAX: usize = 1 << (u64::BITS - INDEX_BITS);

/// Number of choices for each prompt of a request.
pub(super) fn of_each_prompt(request: &Request) -> u32 {
    let asked = match request {
        Request::Chat(request) => request.n,
        Request::Completion(request) => return request.choices(),
        Request::Embedding(_) => None,
    };
    asked.unwrap_or(1).max(1)
}

/// Number of choices of a request: several of a conversation, or of each raw prompt.
pub(super) fn count(request: &Request, admissions: usize) -> Result<u32, ErrorKind> {
    let (each, most) = (of_each_prompt(request), admissions.min(CHOICES_MAX));
    let (prompts, field) = match request {
        Request::Completion(request) if request.prompt.0.len() > 1 => {
            (request.prompt.0.len(), "prompt")
        }
        _ => (1, "n"),
    };
    match u32::try_from(prompts.saturating_mul(each as usize)) {
        Ok(count) if count as usize <= most => Ok(count),
        _ => {
            let message =
                format!("`{field}`: this model accepts at most {most} choices in one request");
            Err(invalid(field, message))
        }
    }
}

/// The sequence id of a choice; that of the first is the attempt's id.
pub(super) fn sequence_of(attempt: AttemptId, index: u32) -> AttemptId {
    AttemptId(attempt.0 | u64::from(index) << INDEX_BITS)
}

/// Changes the message of the previous choice into that of choice `index`: next sequence, and next
/// seed or prompt.
///
/// With a seed, each prompt's answer is as if it were alone; without one, equal prompts get
/// different answers.
pub(super) fn renumber(message: &mut ToEngine, request: &Request, index: u32, sequence: AttemptId) {
    let ToEngine::Submit(submission) = message else { return };
    submission.attempt = sequence;
    let seed = &mut submission.sampling.seed;
    *seed = seed.wrapping_add(1);
    let Request::Completion(request) = request else { return };
    let each = request.choices();
    if !index.is_multiple_of(each) {
        return;
    }
    if request.seed.is_some() {
        *seed = seed.wrapping_sub(each.into());
    }
    if let Some(prompt) = request.prompt.0.get((index / each) as usize) {
        submission.prompt = Prompt::Raw(prompt.clone());
    }
}

/// The attempt of a sequence.
pub(super) fn attempt_of(sequence: AttemptId) -> AttemptId {
    AttemptId(sequence.0 & ((1 << INDEX_BITS) - 1))
}

/// Merges the rows of an attempt's choices into one.
pub(super) fn merge_rows(work: WorkSpan) -> WorkSpan {
    let mut rows: Vec<WorkRow> = Vec::with_capacity(work.rows.len());
    for row in work.rows {
        let attempt = attempt_of(row.attempt);
        match rows.iter_mut().find(|other| other.attempt == attempt) {
            Some(other) => {
                other.prefill_tokens += row.prefill_tokens;
                other.decode_tokens += row.decode_tokens;
            }
            None => rows.push(WorkRow { attempt, ..row }),
        }
    }
    WorkSpan { rows, ..work }
}

/// Merges the streams of all choices, `each` per prompt. Usage counts each prompt once and the
/// tokens of all choices, as OpenAI does.
pub(super) fn merge(mut choices: Vec<EventStream>, each: u32) -> EventStream {
    if choices.len() == 1 {
        return choices.remove(0);
    }
    let mut running = choices.len();
    let numbered = choices.into_iter().zip(0_u32..);
    let mut events =
        select_all(numbered.map(|(events, index)| events.map(move |event| (index, event)).boxed()));
    let merged = try_stream! {
        let (mut started, mut present, mut usage) = (false, 0, Usage::default());
        while let Some((index, event)) = events.next().await {
            let event: Result<Event, BackendError> = event;
            let event = event?;
            match event {
                Event::Started if started => continue,
                Event::Started => {
                    started = true;
                    yield Event::Started;
                    continue;
                }
                // All choices have the same conversation.
                Event::Truncated { turns } => {
                    if index == 0 {
                        yield Event::Truncated { turns };
                    }
                    continue;
                }
                // The first choice represents all.
                Event::Confidence(tokens) => {
                    if index == 0 {
                        yield Event::Confidence(tokens);
                    }
                    continue;
                }
                Event::Usage(counted) => {
                    usage = added(usage, counted, index.is_multiple_of(each));
                    continue;
                }
                _ => {}
            }
            if index != present {
                present = index;
                yield Event::Choice(index);
            }
            if let Event::Done(reason) = event {
                running -= 1;
                if running > 0 {
                    yield Event::ChoiceDone(reason);
                } else {
                    yield Event::Usage(usage);
                    yield Event::Done(reason);
                }
            } else {
                yield event;
            }
        }
    };
    merged.boxed()
}

/// Adds a choice's usage; `with_prompt` for the first choice of each prompt.
fn added(sum: Usage, choice: Usage, with_prompt: bool) -> Usage {
    let completion_tokens = sum.completion_tokens + choice.completion_tokens;
    let (mut prompt_tokens, mut cached_tokens) = (sum.prompt_tokens, sum.cached_tokens());
    if with_prompt {
        prompt_tokens += choice.prompt_tokens;
        cached_tokens += choice.cached_tokens();
    }
    Usage {
        prompt_tokens,
        completion_tokens,
        total_tokens: prompt_tokens + completion_tokens,
        prompt_tokens_details: Some(PromptTokensDetails { cached_tokens: Some(cached_tokens) }),
        completion_tokens_details: Some(CompletionTokensDetails {
            reasoning_tokens: Some(sum.reasoning_tokens() + choice.reasoning_tokens()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::FinishReason;
    use crate::units::MonotonicNs;

    #[test]
    fn a_step_has_one_row_for_all_choices_of_an_attempt() {
        let row = |attempt, index: u64, prefill_tokens, decode_tokens| WorkRow {
            attempt: AttemptId(attempt | index << INDEX_BITS),
            prefill_tokens,
            decode_tokens,
        };
        let rows = vec![row(7, 2, 0, 1), row(8, 0, 5, 0), row(7, 0, 3, 0), row(7, 1, 0, 1)];
        let now = MonotonicNs::now();
        let joined = merge_rows(WorkSpan { start: now, end: now, rows });
        assert_eq!(joined.rows, [row(7, 0, 3, 2), row(8, 0, 5, 0)]);
    }

    fn usage(prompt_tokens: u64, completion_tokens: u64) -> Usage {
        let total_tokens = prompt_tokens + completion_tokens;
        Usage { prompt_tokens, completion_tokens, total_tokens, ..Usage::default() }
    }

    #[tokio::test]
    async fn the_last_choice_to_end_ends_the_answer() {
        let choice = |text: &str, tokens, reason| {
            let text = Event::Text(text.to_owned());
            let events =
                [Event::Started, text, Event::Usage(usage(9, tokens)), Event::Done(reason)];
            futures::stream::iter(events.map(Ok)).boxed()
        };
        let choices =
            vec![choice("a", 2, FinishReason::Stop), choice("b", 5, FinishReason::Length)];
        let events: Vec<Event> = merge(choices, 2).map(Result::unwrap).collect().await;
        assert!(matches!(events[0], Event::Started));
        let count =
            |wanted: fn(&Event) -> bool| events.iter().filter(|event| wanted(event)).count();
        assert_eq!(count(|event| matches!(event, Event::Started)), 1);
        assert_eq!(count(|event| matches!(event, Event::ChoiceDone(_))), 1);
        let [.., Event::Usage(counted), Event::Done(_)] = &events[..] else { panic!("{events:?}") };
        assert_eq!(
            (counted.prompt_tokens, counted.completion_tokens, counted.total_tokens),
            (9, 7, 16)
        );
    }
}
