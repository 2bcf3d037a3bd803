//! CPU code of the engine: which path is active in each position of `[engines] kernels` and
//! `cpu_variant`, and that answers agree.

use futures::StreamExt;
use tokio::time::timeout;
use wattgate::backends::Event;
use wattgate::backends::llama::memory::repack_table::kernels_pack;
use wattgate::backends::llama::{CpuCode, CpuVariant, Kernels, Phase};

use crate::rig::engine::{Local, PATIENCE, greedy, model_path, small};

/// ggml's ids of the weight types in the model.
const Q4_1: u32 = 3;
const Q8_0: u32 = 8;

/// Greatest difference of log-probabilities that rounding explains: all paths quantise activations
/// to 8 bits, own kernels keep the scales exact.
const NOISE: f32 = 0.25;

/// An answer of which the model is sure: rounding does not choose between two words.
const PROMPT: &str = "Repeat after me: the cat sat on the mat, the cat sat on the mat, the cat";

/// The engine's description, packed tensors, and the text and log-probability of each piece of a
/// greedy answer.
async fn answer(cpu: CpuCode) -> (String, u32, String, Vec<f32>) {
    let local = Local::start_with(small(), model_path(), cpu);
    let phase = local.until(|phase| matches!(phase, Phase::Ready(_))).await;
    let Phase::Ready(facts) = phase else { panic!("{phase:?}") };
    let (_, mut events) = local.begin(&greedy(PROMPT, 16));
    let (mut text, mut logprobs) = (String::new(), Vec::new());
    while let Some(event) = timeout(PATIENCE, events.next()).await.unwrap() {
        match event.unwrap() {
            Event::Text(more) => text += &more,
            Event::Confidence(tokens) => logprobs.extend(tokens.iter().map(|token| token.logprob)),
            _ => {}
        }
    }
    local.stop().await;
    (facts.description.clone(), facts.packed_tensors, text, logprobs)
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn every_variant_and_position_of_the_kernels_answers_alike() {
    let variants = CpuVariant::ALL.into_iter().filter(|variant| variant.runs_here());
    let plain = CpuCode { variant: CpuVariant::Portable, kernels: Kernels::Off };
    let (_, none, text, reference) = answer(plain).await;
    assert_eq!(none, 0, "no tensor is packed for own kernels that are off");
    for cpu in variants.flat_map(|variant| {
        [Kernels::Auto, Kernels::Off].map(|kernels| CpuCode { variant, kernels })
    }) {
        let (description, packed, own_text, own) = answer(cpu).await;
        assert!(description.contains(&format!("{:?} code", cpu.variant)), "{description}");
        let has_kernels = kernels_pack(Q4_1, cpu) || kernels_pack(Q8_0, cpu);
        assert_eq!(packed > 0, has_kernels, "{cpu:?}: {packed} tensors packed");
        assert_eq!(own_text, text, "{cpu:?}");
        let differences = own.iter().zip(&reference).map(|(own, plain)| (own - plain).abs());
        let most = differences.fold(0.0, f32::max);
        assert!(own.len() == reference.len() && most < NOISE, "{cpu:?}: {own:?} {reference:?}");
    }
}
