//! Scheduling: the sequences and tokens of the next batch. Pure, without llama.cpp's types.

pub(super) mod batch;
pub(super) mod embedding_batch;
pub(super) mod kv_host_cache;
pub(super) mod placement;
pub(super) mod prefill_budget;
pub(super) mod prefill_shares;
pub(super) mod queue;
pub(super) mod request;
pub(super) mod scheduler;
pub(super) mod slot;
pub(super) mod speculative;
pub(super) mod turns;
