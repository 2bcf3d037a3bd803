//! Settings of an engine process, sent with the first frame.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::cpu::CpuCode;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of its own, named in the config"
)]
pub struct EngineSettings {
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
    /// Path and scale of a LoRA adapter.
    pub lora: Option<(PathBuf, f32)>,
    /// Replaces the GGUF's chat template: a file, or `chatml`.
    pub chat_template: Option<PathBuf>,
    /// Size of the host-memory cache of sequences without a slot.
    pub host_cache_bytes: u64,
    /// Whether prompts may begin with what slots hold.
    pub prompt_cache: bool,
    /// Maximum draft tokens per step, over all answers.
    pub draft_tokens: u32,
    /// Allowed duration of a step with prompt rows, relative to one without.
    pub prefill_stretch: f64,
    pub overflow: Overflow,
    pub cpu: CpuCode,
    pub sandbox: Sandbox,
    /// Maximum memory that the process allocates; `None` for no limit.
    pub data_bytes_max: Option<u64>,
    /// The model computes embeddings instead of text.
    pub embedding: bool,
    /// Pooling of token vectors; `None` for the GGUF's.
    pub pooling: Option<Pooling>,
}

impl EngineSettings {
    /// Maximum commands in flight. The gateway opens at most as many attempts as it has permits,
    /// each with a submission and a cancellation: more is a protocol error.
    pub fn commands_max(&self) -> usize {
        4 * (self.slots as usize + self.queue as usize)
    }

    /// Context of a slot for a model trained for `trained` tokens; 0 if unknown.
    pub fn context_within(&self, trained: u32) -> u32 {
        self.context_tokens.clamp(1, if trained == 0 { u32::MAX } else { trained })
    }
}

/// Pooling of a text's token vectors into one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    Mean,
    /// The first token's, reserved for this by BERT.
    Cls,
    Last,
}

/// Confinement of engine processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sandbox {
    /// As far as the kernel can.
    #[default]
    Auto,
    /// Whole, or the model does not load.
    Required,
    Off,
}

/// llama.cpp's flash attention.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlashAttention {
    /// If the device supports it.
    #[default]
    Auto,
    On,
    Off,
}

/// Number type of the KV cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KvType {
    #[default]
    F16,
    Q8_0,
    Q4_0,
}

/// Handling of conversations that exceed the context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overflow {
    /// Refuse with an error that states the lengths.
    #[default]
    Refuse,
    /// Drop the oldest turns, as few as leave room for an answer.
    DropOldestTurns,
}

/// Whether the file is a script of the fake engine, a test aid, and not a model.
pub fn is_script(file: &Path) -> bool {
    file.to_string_lossy().ends_with(".fake.toml")
}
