//! Loading with llama.cpp: the model, its adapter, and a context for text.

use std::num::NonZeroU32;
use std::os::unix::net::UnixStream;

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::{KvCacheType, LlamaContextParams};
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::model::{LlamaLoraAdapter, LlamaModel};

use super::error::EngineError;
use super::load_log;
use super::schedule::scheduler::Limits;
use crate::backends::llama::memory::gguf;
use crate::backends::llama::wire::protocol::{self, FrameError, FromEngine};
use crate::backends::llama::wire::settings::{EngineSettings, FlashAttention, KvType};

pub(crate) fn load_model(
    backend: &LlamaBackend,
    settings: &EngineSettings,
    socket: &UnixStream,
) -> Result<LlamaModel, EngineError> {
    // Checked before llama.cpp reads the file: this parser expects hostile files and reports what
    // is wrong.
    let no_model = |reason: &dyn std::fmt::Display| {
        let path = settings.gguf.display();
        EngineError::Load(format!("{path} is not a model that llama.cpp can load: {reason}"))
    };
    gguf::read_shape(&settings.gguf).map_err(|error| no_model(&error))?;
    let mut socket = socket.try_clone().map_err(FrameError::from)?;
    let mut reported = 0;
    let params = LlamaModelParams::default()
        .with_n_gpu_layers(settings.gpu_layers)
        .with_use_mmap(settings.mmap)
        .with_use_mlock(settings.mlock)
        .with_progress_callback(move |share| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a share of 0 to 1"
            )]
            let percent = (share * 100.0) as u8;
            if percent > reported {
                reported = percent;
                // The reader thread handles a closed socket.
                let _told = protocol::write_frame(&mut socket, &FromEngine::Loading { percent });
            }
            true
        });
    LlamaModel::load_from_file(backend, &settings.gguf, &params)
        .map_err(|error| no_model(&load_log::first().unwrap_or_else(|| error.to_string())))
}

/// Loads the LoRA adapter, if configured. The model owns and frees it.
pub(crate) fn load_adapter(
    model: &mut LlamaModel,
    settings: &EngineSettings,
) -> Result<Option<(LlamaLoraAdapter, f32)>, EngineError> {
    let Some((path, scale)) = &settings.lora else { return Ok(None) };
    let failed = |error: &dyn std::fmt::Display| {
        EngineError::Load(format!("LoRA adapter {} could not be loaded: {error}", path.display()))
    };
    // llama.cpp's binding asserts in debug builds that the file exists.
    path.metadata().map_err(|error| failed(&error))?;
    let adapter = model.lora_adapter_init(path).map_err(|error| failed(&error))?;
    Ok(Some((adapter, *scale)))
}

/// A context with a separate KV cache for each slot, so that answers do not depend on the batch.
pub(crate) fn new_context<'m>(
    backend: &LlamaBackend,
    model: &'m LlamaModel,
    settings: &EngineSettings,
    threads: usize,
) -> Result<(LlamaContext<'m>, Limits), EngineError> {
    let slots = settings.slots.max(1);
    let context_tokens = settings.context_within(model.n_ctx_train());
    let batch_tokens = settings.batch_tokens.max(slots);
    let threads = i32::try_from(threads).unwrap_or(1);
    let params = LlamaContextParams::default()
        // llama.cpp divides this among the slots and rounds each up to a multiple of 256.
        .with_n_ctx(NonZeroU32::new(context_tokens.saturating_mul(slots)))
        .with_n_seq_max(slots)
        .with_kv_unified(false)
        .with_n_batch(batch_tokens)
        .with_n_ubatch(batch_tokens)
        .with_n_threads(threads)
        .with_n_threads_batch(threads)
        .with_flash_attention_policy(match settings.flash_attention {
            FlashAttention::Auto => llama_cpp_sys_2::LLAMA_FLASH_ATTN_TYPE_AUTO,
            FlashAttention::On => llama_cpp_sys_2::LLAMA_FLASH_ATTN_TYPE_ENABLED,
            FlashAttention::Off => llama_cpp_sys_2::LLAMA_FLASH_ATTN_TYPE_DISABLED,
        })
        .with_type_k(kv_type(settings.kv_type))
        .with_type_v(kv_type(settings.kv_type));
    let context = model.new_context(backend, params).map_err(|error| {
        EngineError::Load(format!(
            "not enough memory for {slots} slots of {context_tokens} tokens: {error}"
        ))
    })?;
    let limits = Limits {
        slots: slots as usize,
        context_tokens: context_tokens as usize,
        // llama.cpp may raise the value: a larger batch would abort the process.
        batch_tokens: context.n_batch().max(slots) as usize,
        queue: settings.queue as usize,
    };
    Ok((context, limits))
}

fn kv_type(kv_type: KvType) -> KvCacheType {
    match kv_type {
        KvType::F16 => KvCacheType::F16,
        KvType::Q8_0 => KvCacheType::Q8_0,
        KvType::Q4_0 => KvCacheType::Q4_0,
    }
}
