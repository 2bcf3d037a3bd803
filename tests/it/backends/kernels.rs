//! Wattgate's own kernels and barrier: which path is active in each position of `[engines]
//! kernels`, and that answers agree.

use futures::StreamExt;
use tokio::time::timeout;
use wattgate::backends::Event;
use wattgate::backends::llama::memory::repack_table::kernels_pack;
use wattgate::backends::llama::{Kernels, Phase};

use crate::rig::engine::{Local, PATIENCE, capital, model_path, small};

/// ggml's ids of the weight types with own kernels.
const Q4_1: u32 = 3;
const Q8_0: u32 = 8;

/// Greatest difference of log-probabilities that rounding explains: both paths quantise activations
/// to 8 bits, own kernels keep the scales exact.
const NOISE: f32 = 0.25;

/// Packed tensors, and the text and log-probability of each piece of a greedy answer.
async fn answer(kernels: Kernels) -> (u32, String, Vec<f32>) {
    let local = Local::start_with(small(), model_path(), kernels);
    let phase = local.until(|phase| matches!(phase, Phase::Ready(_))).await;
    let Phase::Ready(facts) = phase else { panic!("{phase:?}") };
    let (_, mut events) = local.begin(&capital(8));
    let (mut text, mut logprobs) = (String::new(), Vec::new());
    while let Some(event) = timeout(PATIENCE, events.next()).await.unwrap() {
        match event.unwrap() {
            Event::Text(more) => text += &more,
            Event::Confidence(tokens) => logprobs.extend(tokens.iter().map(|token| token.logprob)),
            _ => {}
        }
    }
    local.stop().await;
    (facts.packed_tensors, text, logprobs)
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn own_kernels_run_only_if_on_and_answers_agree_within_rounding() {
    let (packed, own_text, own) = answer(Kernels::Auto).await;
    let (none, text, plain) = answer(Kernels::Off).await;
    assert_eq!(none, 0, "no tensor is packed for own kernels that are off");
    let has_kernels = kernels_pack(Q4_1) || kernels_pack(Q8_0);
    assert_eq!(packed > 0, has_kernels, "{packed} tensors packed");
    assert_eq!(own_text, text);
    let differences = own.iter().zip(&plain).map(|(own, plain)| (own - plain).abs());
    let most = differences.fold(0.0, f32::max);
    assert!(own.len() == plain.len() && most < NOISE, "{own:?} {plain:?}");
}
