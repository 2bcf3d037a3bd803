//! Settings of an engine process, as the gateway sends them with its first frame.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    pub gguf: PathBuf,
    pub context_tokens: u32,
    pub slots: u32,
    /// At least 1.
    pub threads: u32,
    pub batch_tokens: u32,
    pub queue: u32,
    pub gpu_layers: u32,
    pub flash_attention: FlashAttention,
    pub kv_type: KvType,
    pub mmap: bool,
    pub mlock: bool,
    /// An adapter's file, and how strongly it is applied.
    pub lora: Option<(PathBuf, f32)>,
    /// Instead of the GGUF's own chat template: a file, or `chatml`.
    pub chat_template: Option<PathBuf>,
    /// Bytes of host memory for sequences that lost their slot.
    pub host_cache_bytes: u64,
    /// Most tokens guessed in one step, for all answers together.
    pub draft_tokens: u32,
    /// How many times longer a step may take that reads prompts while answers are written.
    pub prefill_stretch: f64,
    pub overflow: Overflow,
    /// The model gives vectors instead of text.
    pub embedding: bool,
    /// How a text's vectors become one; none: as the GGUF says.
    pub pooling: Option<Pooling>,
}

impl Settings {
    /// Tokens of a slot of a model that was trained for `trained` of them; 0: its file does not say.
    pub fn context_within(&self, trained: u32) -> u32 {
        self.context_tokens.clamp(1, if trained == 0 { u32::MAX } else { trained })
    }
}

/// How the vectors of a text's tokens become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    Mean,
    /// The first token's, which BERT reserves for this.
    Cls,
    Last,
}

/// llama.cpp's flash attention.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlashAttention {
    /// Where the device can.
    #[default]
    Auto,
    On,
    Off,
}

/// Type of the numbers in the KV cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KvType {
    #[default]
    F16,
    Q8_0,
    Q4_0,
}

/// What to do with a conversation that does not fit into the context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overflow {
    /// Answer with an error that tells the lengths.
    #[default]
    Refuse,
    /// Leave out the oldest turns, as few as make it fit with room for an answer.
    DropOldestTurns,
}
