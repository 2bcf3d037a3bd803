//! A LoRA adapter changes the answers of a model; one for another model is refused.

use std::path::{Path, PathBuf};

use wattgate::backends::llama::{Config, Phase};

use crate::rig::engine::{Local, capital, model_path, small};
use crate::rig::gguf::Gguf;

/// Embedding width of SmolLM2; the matrix of a layer is square.
const WIDTH: usize = 576;
const LAYERS: usize = 30;
const RANK: usize = 1;

/// A GGUF with an adapter of rank 1 for the attention's output of every layer.
fn adapter(dir: &Path, architecture: &str) -> PathBuf {
    let mut gguf = Gguf::default()
        .text("general.architecture", architecture)
        .text("general.type", "adapter")
        .text("adapter.type", "lora")
        .float("adapter.lora.alpha", 1.0);
    let mut values = (0..).map(|index| if index % 3 == 0 { -1.0 } else { 1.0 });
    for layer in 0..LAYERS {
        for (side, shape) in [("a", [WIDTH, RANK]), ("b", [RANK, WIDTH])] {
            let name = format!("blk.{layer}.attn_output.weight.lora_{side}");
            gguf = gguf.matrix(&name, shape, &mut values);
        }
    }
    gguf.write(dir.join(format!("{architecture}.gguf")))
}

async fn says(config: Config) -> String {
    let local = Local::ready(config).await;
    let text = local.ask(&capital(16)).await.unwrap().text;
    local.stop().await;
    text
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn an_adapter_changes_the_answer_in_proportion_to_its_scale() {
    let dir = tempfile::tempdir().unwrap();
    let lora = Some(adapter(dir.path(), "llama"));
    let plain = says(small()).await;
    assert!(plain.contains("Paris"), "{plain}");
    let adapted = says(Config { lora: lora.clone(), ..small() }).await;
    assert_ne!(adapted, plain);
    let unweighted = says(Config { lora, lora_scale: 0.0, ..small() }).await;
    assert_eq!(unweighted, plain);
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn an_adapter_for_another_model_is_refused_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let lora = Some(adapter(dir.path(), "gemma3"));
    let local = Local::start(Config { lora, ..small() }, model_path());
    let Phase::Down(reason) = local.until(|phase| matches!(phase, Phase::Down(_))).await else {
        unreachable!("waited for it");
    };
    assert!(reason.contains("gemma3.gguf"), "{reason}");
    local.stop().await;
}
