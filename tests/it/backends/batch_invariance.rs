//! Greedy answers do not depend on concurrent requests.
//!
//! Exactly equal in the range where llama.cpp itself computes the same sums in the same order: on a
//! CPU its flash attention takes another path from 64 rows of one sequence in a batch (tiles), and
//! from 512 cells of KV cache when one sequence decodes alone (split over threads). `config`
//! excludes both.

use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};
use wattgate::backends::Event;
use wattgate::backends::llama::Config;
use wattgate::energy::WorkRow;

use crate::rig::engine::{Local, PATIENCE, PROMPTS, greedy, small};

const TOKENS: u32 = 20;

/// Few slots, so that arrivals also wait and evict one another.
fn config(slots: u32, host_cache_mib: u32) -> Config {
    Config { slots, host_cache_mib, context_tokens: 256, batch_tokens: 32, ..small() }
}

/// One request of an arrival pattern.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    prompt: usize,
    /// Milliseconds after the start.
    at: u64,
    stay: Stay,
}

/// How long a client stays.
#[derive(Clone, Copy, Debug)]
enum Stay {
    ToTheEnd,
    /// Leaves after this many pieces of text: during the answer, or at once.
    Pieces(usize),
    /// Leaves after this many milliseconds, perhaps while it waits for a slot or during prefill.
    Milliseconds(u64),
}

fn arrival() -> impl Strategy<Value = Arrival> {
    let stay = prop_oneof![
        4 => Just(Stay::ToTheEnd),
        1 => (0..12usize).prop_map(Stay::Pieces),
        1 => (0..400u64).prop_map(Stay::Milliseconds),
    ];
    (0..prompts().len(), 0..1500u64, stay).prop_map(|(prompt, at, stay)| Arrival {
        prompt,
        at,
        stay,
    })
}

/// Short prompts, and two that share a long prefix, so that prefixes move between slots and to the
/// host and back.
fn prompts() -> Vec<String> {
    let shared = "Please read this carefully before you answer. ".repeat(8);
    let long = ["Name a fruit.", "Name a bird."].map(|end| format!("{shared}{end}"));
    PROMPTS[..6].iter().map(ToString::to_string).chain(long).collect()
}

/// The text the client received, and whether it is complete.
async fn attend(local: &Local, arrival: Arrival) -> (String, bool) {
    sleep(Duration::from_millis(arrival.at)).await;
    let (_, mut events) = local.begin(&greedy(&prompts()[arrival.prompt], TOKENS));
    let mut text = String::new();
    let most = if let Stay::Pieces(pieces) = arrival.stay { pieces } else { usize::MAX };
    let reading = async {
        let mut pieces = 0;
        while pieces < most {
            match timeout(PATIENCE, events.next()).await.unwrap() {
                Some(Ok(Event::Text(piece))) => {
                    text.push_str(&piece);
                    pieces += 1;
                }
                Some(Ok(Event::Done(_))) => return true,
                Some(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
        }
        false
    };
    let whole = match arrival.stay {
        Stay::Milliseconds(ms) => {
            timeout(Duration::from_millis(ms), reading).await.unwrap_or(false)
        }
        Stay::ToTheEnd | Stay::Pieces(_) => reading.await,
    };
    (text, whole)
}

#[test]
#[ignore = "needs a model: `make test` pulls it"]
fn greedy_answers_do_not_depend_on_concurrent_requests() {
    let runtime = Runtime::new().unwrap();
    let alone = runtime.block_on(async {
        let local = Local::ready(config(1, 0)).await;
        let mut texts = Vec::new();
        for prompt in prompts() {
            texts.push(local.ask(&greedy(&prompt, TOKENS)).await.unwrap().text);
        }
        local.stop().await;
        texts
    });
    let local = runtime.block_on(Local::ready(config(3, 64)));
    let cases = std::env::var("WATTGATE_PATTERNS").map_or(6, |text| text.parse().unwrap());
    let config =
        Cases { cases, max_shrink_iters: 20, failure_persistence: None, ..Cases::default() };
    let check = |arrivals: Vec<Arrival>| {
        let attended = arrivals.iter().map(|&arrival| attend(&local, arrival));
        let answers = runtime.block_on(join_all(attended));
        for (arrival, (text, whole)) in arrivals.iter().zip(answers) {
            let expected = &alone[arrival.prompt];
            prop_assert!(expected.starts_with(&text), "{text:?} is not how {expected:?} begins");
            prop_assert!(!whole || &text == expected, "{text:?} is not {expected:?}");
        }
        Ok(())
    };
    // All at once first, so that they certainly share batches.
    let crowd = (0..prompts().len()).map(|prompt| Arrival { prompt, at: 0, stay: Stay::ToTheEnd });
    check(crowd.collect()).unwrap();
    let steps = local.recorder.steps();
    assert!(steps.iter().any(|step| step.work.rows.len() == 3));
    let reads = |row: &WorkRow| row.prefill_tokens > 0;
    let writes = |row: &WorkRow| row.decode_tokens > 0;
    assert!(
        steps
            .iter()
            .any(|step| step.work.rows.iter().any(reads) && step.work.rows.iter().any(writes))
    );

    let pattern = prop::collection::vec(arrival(), 1..12);
    let outcome = TestRunner::new(config).run(&pattern, check);
    runtime.block_on(local.stop());
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}
