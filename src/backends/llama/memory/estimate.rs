//! Memory estimate of a loaded model, from its shape and settings. Pure.
//!
//! A close upper bound: weights and KV cache are exact for ordinary transformers; sliding windows
//! and recurrent layers need less, and mapped weights occupy memory only where used.

use super::gguf::Shape;
use super::repack_table::copied_bytes;
use crate::backends::llama::config::Config;
use crate::backends::llama::wire::cpu::CpuCode;
use crate::backends::llama::wire::settings::KvType;

/// Memory of one loaded engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryEstimate {
    pub weights_bytes: u64,
    /// The KV cache of all slots, allocated at the start.
    pub kv_bytes: u64,
    /// llama.cpp's compute buffers, the host cache, and the process itself.
    pub working_bytes: u64,
    /// What llama.cpp reserves besides and hardly touches: logits of a whole batch, and scores of
    /// attention where flash attention is not possible. No part of [`Self::bytes`].
    pub reserved_bytes: u64,
}

/// An engine process without a model: binary, runtime, tokenizer tables. Measured: 25 to 40 MiB.
const PROCESS_BYTES: u64 = 40 << 20;

/// llama.cpp rounds each slot's context up to a multiple of this.
const CONTEXT_STEP: u64 = 256;

impl MemoryEstimate {
    pub fn of(shape: &Shape, config: &Config, cpu: CpuCode) -> Self {
        let trained = if shape.context_tokens == 0 { u64::MAX } else { shape.context_tokens };
        let per_slot = u64::from(config.context_tokens).min(trained).next_multiple_of(CONTEXT_STEP);
        let tokens = per_slot.saturating_mul(config.slots.into());
        let values = shape
            .kv_heads_of_all_layers
            .saturating_mul(shape.key_length.saturating_add(shape.value_length));
        let (block_bytes, block_values) = config.kv_type.block();
        let token_bytes = values.div_ceil(block_values).saturating_mul(block_bytes);
        // llama.cpp reserves more, but only these floats are touched: activations of a full batch,
        // and two copies of the logits of rows that yield a token.
        let batch = u64::from(config.batch_tokens.max(config.slots));
        let outputs = u64::from(config.slots).saturating_add(config.draft_tokens.into());
        let outputs = if config.embedding { 0 } else { outputs };
        let floats = (batch.saturating_mul(shape.embedding).saturating_mul(ACTIVATIONS))
            .saturating_add(outputs.saturating_mul(shape.vocabulary).saturating_mul(2));
        // Each layer's weights are resident in one layout only. Token embeddings are read in the
        // file's layout, so an output tied to them may have a second copy.
        let copied = shape.tied.filter(|_| !config.embedding);
        let copy_bytes = copied.map_or(0, |tensor| copied_bytes(tensor, cpu));
        Self {
            weights_bytes: shape.file_bytes.saturating_add(copy_bytes),
            kv_bytes: tokens.saturating_mul(token_bytes),
            working_bytes: floats
                .saturating_mul(4)
                .saturating_add(PROCESS_BYTES)
                .saturating_add(u64::from(config.host_cache_mib) << 20),
            reserved_bytes: shape
                .heads
                .saturating_mul(per_slot)
                .saturating_add(shape.vocabulary)
                .saturating_mul(batch)
                .saturating_mul(4),
        }
    }

    /// For files with an unreadable header: at least the file itself.
    pub fn of_file(file_bytes: u64) -> Self {
        Self {
            weights_bytes: file_bytes,
            kv_bytes: 0,
            working_bytes: PROCESS_BYTES,
            reserved_bytes: 0,
        }
    }

    /// More than an engine allocates for this model.
    pub fn ceiling_bytes(self) -> u64 {
        const SLACK_BYTES: u64 = 2 << 30;
        let known = self.bytes().saturating_add(self.reserved_bytes);
        known.saturating_mul(2).saturating_add(SLACK_BYTES)
    }

    pub fn bytes(self) -> u64 {
        self.weights_bytes.saturating_add(self.kv_bytes).saturating_add(self.working_bytes)
    }
}

/// Live rows of the embedding's width in a layer: input, norm, attention, and a feed-forward
/// several times as wide.
const ACTIVATIONS: u64 = 12;

impl KvType {
    /// Bytes and values of one block of ggml's type.
    fn block(self) -> (u64, u64) {
        match self {
            Self::F16 => (2, 1),
            Self::Q8_0 => (34, 32),
            Self::Q4_0 => (18, 32),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::gguf::Tensor;
    use super::super::repack_table::kernels_pack;
    use super::*;
    use crate::backends::llama::wire::cpu::{CpuVariant, Kernels};

    /// SmolLM2-135M: 30 layers, 3 KV heads of 64.
    fn smollm2() -> Shape {
        Shape {
            file_bytes: 98 << 20,
            layers: 30,
            embedding: 576,
            vocabulary: 49_152,
            context_tokens: 8192,
            heads: 9,
            kv_heads_of_all_layers: 90,
            key_length: 64,
            value_length: 64,
            has_chat_template: true,
            tied: None,
        }
    }

    fn estimate(shape: &Shape, config: &Config) -> MemoryEstimate {
        MemoryEstimate::of(shape, config, CpuCode::best())
    }

    #[test]
    fn the_kv_cache_is_what_llama_cpp_allocates() {
        let config = Config { context_tokens: 4096, slots: 8, ..Config::default() };
        // 22.5 KiB a token, as measured (research notes on llama.cpp).
        assert_eq!(estimate(&smollm2(), &config).kv_bytes, 4096 * 8 * 23_040);
        let odd = Config { context_tokens: 300, slots: 1, ..config.clone() };
        assert_eq!(estimate(&smollm2(), &odd).kv_bytes, 512 * 23_040);
        let beyond = Config { context_tokens: 100_000, slots: 1, ..config.clone() };
        assert_eq!(estimate(&smollm2(), &beyond).kv_bytes, 8192 * 23_040);
        let eighth = Config { kv_type: KvType::Q8_0, ..config.clone() };
        assert_eq!(estimate(&smollm2(), &eighth).kv_bytes, 4096 * 8 * 23_040 / 64 * 34);
    }

    #[test]
    fn an_output_tied_to_the_embeddings_counts_twice_where_it_is_copied() {
        let config = Config::default();
        let plain = estimate(&smollm2(), &config).weights_bytes;
        let with = |kind| {
            let tied = Some(Tensor { kind, weights: 49_152 * 576 });
            estimate(&Shape { tied, ..smollm2() }, &config).weights_bytes - plain
        };
        // Q4_0 is copied on every CPU but x86 without AVX2, Q2_K on none.
        let copy = if CpuVariant::best().has_avx2() || cfg!(not(target_arch = "x86_64")) {
            49_152 * 576 / 32 * 18
        } else {
            0
        };
        assert_eq!((with(2), with(10)), (copy, 0));
        let embedding = Config { embedding: true, ..config.clone() };
        let tied = Some(Tensor { kind: 2, weights: 49_152 * 576 });
        let shape = Shape { tied, ..smollm2() };
        assert_eq!(estimate(&shape, &embedding).weights_bytes, plain);
    }

    #[test]
    fn weights_of_own_kernels_are_copied_only_if_these_are_on() {
        let tied = Some(Tensor { kind: 3, weights: 49_152 * 576 });
        let shape = Shape { tied, ..smollm2() };
        let bytes = |cpu| MemoryEstimate::of(&shape, &Config::default(), cpu).weights_bytes;
        let (on, off) = (CpuCode::best(), CpuCode { kernels: Kernels::Off, ..CpuCode::best() });
        let copy = if kernels_pack(3, on) { 49_152 * 576 / 32 * 20 } else { 0 };
        assert_eq!(bytes(on) - bytes(off), copy);
    }

    #[test]
    fn the_ceiling_holds_what_is_reserved_without_flash_attention() {
        let shape = Shape { heads: 32, vocabulary: 250_000, ..smollm2() };
        let config = Config { context_tokens: 8192, slots: 1, ..Config::default() };
        let estimate = estimate(&shape, &config);
        // Scores and logits of 512 tokens.
        let reserved = 512 * (32 * 8192 + 250_000) * 4;
        assert_eq!(estimate.reserved_bytes, reserved);
        assert!(estimate.ceiling_bytes() > estimate.bytes() + 2 * reserved);
    }

    #[test]
    fn absurd_shapes_saturate() {
        let shape = Shape { kv_heads_of_all_layers: u64::MAX, key_length: 9, ..smollm2() };
        let config = Config { context_tokens: u32::MAX, slots: u32::MAX, ..Config::default() };
        assert_eq!(estimate(&shape, &config).bytes(), u64::MAX);
    }
}
