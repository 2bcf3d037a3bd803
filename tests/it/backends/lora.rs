//! A LoRA adapter changes what a model says; one that does not fit is said to.

use std::path::{Path, PathBuf};

use wattgate::backends::llama::{Config, Phase};

use crate::rig::engine::{Local, capital, model_path, small};

/// SmolLM2's width, and a layer's matrix as wide as it is high.
const WIDTH: usize = 576;
const LAYERS: usize = 30;
const RANK: usize = 1;

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

fn entry(bytes: &mut Vec<u8>, key: &str, value: &str) {
    const STRING: u32 = 8;
    text(bytes, key);
    bytes.extend(STRING.to_le_bytes());
    text(bytes, value);
}

/// A GGUF with an adapter of rank 1 for the attention's output of every layer.
fn adapter(dir: &Path, architecture: &str) -> PathBuf {
    const FLOAT: u32 = 6;
    const ALIGNMENT: usize = 32;
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(3u32.to_le_bytes());
    bytes.extend((2 * LAYERS as u64).to_le_bytes());
    bytes.extend(4u64.to_le_bytes());
    entry(&mut bytes, "general.architecture", architecture);
    entry(&mut bytes, "general.type", "adapter");
    entry(&mut bytes, "adapter.type", "lora");
    text(&mut bytes, "adapter.lora.alpha");
    bytes.extend(FLOAT.to_le_bytes());
    bytes.extend(1f32.to_le_bytes());
    let tensor_bytes = WIDTH * RANK * size_of::<f32>();
    let names = (0..LAYERS).flat_map(|layer| {
        let name = move |side| format!("blk.{layer}.attn_output.weight.lora_{side}");
        [(name("a"), [WIDTH, RANK]), (name("b"), [RANK, WIDTH])]
    });
    for (index, (name, shape)) in names.enumerate() {
        text(&mut bytes, &name);
        bytes.extend(2u32.to_le_bytes());
        for side in shape {
            bytes.extend((side as u64).to_le_bytes());
        }
        // Type 0: 32-bit floats.
        bytes.extend(0u32.to_le_bytes());
        bytes.extend(((index * tensor_bytes) as u64).to_le_bytes());
    }
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
    for place in 0..2 * LAYERS * WIDTH * RANK {
        let sign = if place % 3 == 0 { -1.0 } else { 1.0 };
        bytes.extend((1.0f32 * sign).to_le_bytes());
    }
    let path = dir.join(format!("{architecture}.gguf"));
    std::fs::write(&path, bytes).unwrap();
    path
}

async fn says(config: Config) -> String {
    let local = Local::ready(config).await;
    let text = local.ask(&capital(16)).await.unwrap().text;
    local.stop().await;
    text
}

#[tokio::test]
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
