//! The prefix cache with a real model: a prefix is prefilled once, and answers do not change.

use futures::future::join_all;
use serde_json::{Value, json};
use wattgate::backends::llama::Config;

use crate::rig::engine::{Answer, Local, PROMPTS, greedy, small};

/// A system prompt of more than a hundred tokens.
fn rules() -> String {
    let rule = |n: u32| format!("Rule {n}: be kind, be brief and be right.");
    (1..=8).map(rule).collect::<Vec<_>>().join(" ")
}

fn under_rules(question: &str, max_tokens: u32) -> Value {
    let mut request = greedy(question, max_tokens);
    let system = json!({"role": "system", "content": rules()});
    request["messages"].as_array_mut().unwrap().insert(0, system);
    request
}

/// Small enough for exactly equal answers: see `batch_invariance`.
fn exact(slots: u32, host_cache_mib: u32) -> Config {
    Config { slots, host_cache_mib, context_tokens: 256, batch_tokens: 32, ..small() }
}

/// The conversation's next turn.
fn next_turn(mut request: Value, answer: &Answer, question: &str) -> Value {
    let turns = request["messages"].as_array_mut().unwrap();
    turns.push(json!({"role": "assistant", "content": answer.text}));
    turns.push(json!({"role": "user", "content": question}));
    request
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn a_shared_system_prompt_is_prefilled_once_for_concurrent_requests() {
    let alone = Local::ready(exact(1, 0)).await;
    let mut expected = Vec::new();
    for question in &PROMPTS[..4] {
        expected.push(alone.ask(&under_rules(question, 12)).await.unwrap().text);
    }
    alone.stop().await;

    let local = Local::ready(exact(8, 0)).await;
    let requests: Vec<Value> = PROMPTS[..4].iter().map(|q| under_rules(q, 12)).collect();
    let answers = join_all(requests.iter().map(|request| local.ask(request))).await;
    let answers: Vec<Answer> = answers.into_iter().map(Result::unwrap).collect();
    let texts: Vec<&String> = answers.iter().map(|answer| &answer.text).collect();
    assert_eq!(texts, expected.iter().collect::<Vec<_>>());

    let mut cached: Vec<u64> = answers.iter().map(|answer| answer.usage.cached_tokens()).collect();
    cached.sort_unstable();
    assert!(cached[0] == 0 && cached[1] > 100, "{cached:?}");
    let prefilled: u64 = answers.iter().map(|answer| local.recorder.tokens(answer.attempt).0).sum();
    let whole = answers[0].usage.prompt_tokens;
    assert!(prefilled < 2 * whole, "{prefilled} tokens were read for prompts of {whole}");
    let shared: u32 = local.recorder.steps().iter().map(|step| step.reused.shared).sum();
    assert_eq!(u64::from(shared), cached.iter().sum::<u64>());
    local.stop().await;
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn a_second_turn_prefills_only_new_tokens() {
    let local = Local::ready(small()).await;
    let request = under_rules("Name three colours.", 30);
    let first = local.ask(&request).await.unwrap();
    let second = local.ask(&next_turn(request, &first, "Which is the warmest?")).await.unwrap();
    let known = first.usage.prompt_tokens + first.usage.completion_tokens;
    // The end of the first answer may be tokenised differently as part of a prompt.
    assert!(second.usage.cached_tokens() + 4 >= known, "{second:?} after {known} tokens");
    local.stop().await;
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn an_evicted_conversation_is_restored_from_host_memory() {
    let mut texts = Vec::new();
    for (host_cache_mib, remembered) in [(64, true), (0, false)] {
        let local = Local::ready(exact(1, host_cache_mib)).await;
        let request = under_rules("Name three colours.", 20);
        let first = local.ask(&request).await.unwrap();
        let stranger = "Tell me something about ships. ".repeat(10);
        local.ask(&greedy(&stranger, 4)).await.unwrap();
        let second = local.ask(&next_turn(request, &first, "Which is the warmest?")).await.unwrap();
        let known = first.usage.prompt_tokens + first.usage.completion_tokens;
        let cached = second.usage.cached_tokens();
        assert_eq!(cached + 4 >= known, remembered, "{cached} of {known}");
        let from_host: u32 = local.recorder.steps().iter().map(|step| step.reused.host).sum();
        assert_eq!(from_host > 0, remembered);
        texts.push(second.text);
        local.stop().await;
    }
    assert_eq!(texts[0], texts[1], "what is restored is what was read");
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn an_answer_continues_during_the_prefill_of_a_long_prompt() {
    let local = Local::ready(Config { context_tokens: 1024, slots: 2, ..small() }).await;
    let (attempt, mut stream) = local.begin(&greedy("Count from 1 to 300.", 600));
    crate::rig::engine::first_text(&mut stream).await;
    let long = local.ask(&greedy(&"word ".repeat(600), 1)).await.unwrap();
    let both = |step: &wattgate::backends::llama::StepReport| {
        let has = |id| step.work.rows.iter().any(|row| row.attempt == id);
        has(attempt) && has(long.attempt)
    };
    let steps = local.recorder.steps();
    let mixed: Vec<_> = steps.iter().filter(|step| both(step)).collect();
    // Two steps would have been enough with chunks of a whole batch.
    assert!(mixed.len() >= 10, "the prompt was read in {} steps", mixed.len());
    let decoded = |step: &&wattgate::backends::llama::StepReport| {
        step.work.rows.iter().any(|row| row.attempt == attempt && row.decode_tokens == 1)
    };
    assert!(mixed.iter().all(decoded), "every step brought the answer on");
    drop(stream);
    local.stop().await;
}
