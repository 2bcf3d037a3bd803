//! Speculative decoding (`draft_tokens`): the same answers, in fewer steps where they repeat
//! earlier text.

use futures::future::join_all;
use serde_json::{Value, json};
use wattgate::backends::llama::{Config, Drafted};

use crate::rig::engine::{Local, greedy, small};

const PASSAGE: &str = "The red fox runs over the green hill. The blue bird sings in the old tree. \
    The red fox runs over the green hill. The blue bird sings in the old tree.";

/// Two answers that are mostly copied, and one that is not. Below the 512 tokens at which llama.cpp
/// adds up the attention of a sequence that decodes alone in another order (see
/// `batch_invariance`).
fn requests() -> Vec<Value> {
    [
        format!("Repeat this text word for word: {PASSAGE}"),
        "Write the word apple twenty times.".to_owned(),
        "Write one sentence about the sea.".to_owned(),
    ]
    .iter()
    .map(|prompt| greedy(prompt, 80))
    .collect()
}

async fn texts_alone(local: &Local, requests: &[Value]) -> Vec<String> {
    let mut texts = Vec::new();
    for request in requests {
        texts.push(local.ask(request).await.unwrap().text);
    }
    texts
}

fn drafted(local: &Local) -> Drafted {
    let steps = local.recorder.steps();
    let sum = |of: fn(&Drafted) -> u32| steps.iter().map(|step| of(&step.drafted)).sum();
    Drafted { tokens: sum(|drafted| drafted.tokens), accepted: sum(|drafted| drafted.accepted) }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a model: `make test` pulls it"]
async fn drafts_change_no_answer_and_save_steps() {
    let mut requests = requests();
    // Sampled answers too: a draft token is kept only if it equals the sampled one.
    let mut drawn = requests[0].clone();
    drawn["temperature"] = json!(0.7);
    drawn["seed"] = json!(11);
    requests.push(drawn);

    let local = Local::ready(small()).await;
    let plain = texts_alone(&local, &requests).await;
    assert_eq!(drafted(&local), Drafted::default(), "off by default");
    let plain_steps = local.recorder.steps().len();
    local.stop().await;

    let local = Local::ready(Config { draft_tokens: 8, ..small() }).await;
    let guessed = texts_alone(&local, &requests).await;
    assert_eq!(guessed, plain);
    let alone = drafted(&local);
    assert!(alone.accepted > 40 && alone.accepted <= alone.tokens, "{alone:?}");
    let steps = local.recorder.steps().len();
    assert!(steps + 40 < plain_steps, "{steps} steps instead of {plain_steps}");

    // Concurrently, in fresh or used slots.
    let together = join_all(requests.iter().map(|request| local.ask(request))).await;
    for (answer, plain) in together.into_iter().zip(&plain) {
        let answer = answer.unwrap();
        assert_eq!(&answer.text, plain);
        let (_, decoded) = local.recorder.tokens(answer.attempt);
        assert!(decoded + 1 >= answer.usage.completion_tokens, "every row is work: {decoded}");
    }
    local.stop().await;
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn a_full_batch_takes_no_drafts() {
    let local = Local::ready(Config { draft_tokens: 1, slots: 3, ..small() }).await;
    let request = |topic| greedy(&format!("Repeat this word for word: {topic} {PASSAGE}"), 30);
    let requests = [request("one"), request("two"), request("three")];
    join_all(requests.iter().map(|request| local.ask(request))).await;
    let crowded = local
        .recorder
        .steps()
        .into_iter()
        .filter(|step| step.work.rows.iter().filter(|row| row.decode_tokens > 0).count() > 1);
    assert!(crowded.map(|step| step.drafted.tokens).all(|tokens| tokens == 0));
    local.stop().await;
}
