//! Standby of a model without an engine process: queues requests, waits until the model is needed,
//! and leases memory.

use std::path::Path;
use std::sync::Arc;

use tracing::warn;

use super::command::{Command, ControlError, RETRY_AFTER, Unload};
use super::state::Phase;
use super::supervisor_state::SupervisorState;
use crate::backends::backend::ErrorKind;
use crate::backends::llama::config::Config;
use crate::backends::llama::memory::budget::{Lease, MemoryBudget, TooLarge};
use crate::backends::llama::memory::estimate::MemoryEstimate;
use crate::backends::llama::memory::gguf;
use crate::backends::llama::wire::cpu::CpuCode;

const NO_MEMORY: ErrorKind = ErrorKind::NotLoaded {
    reason: "busy models hold the memory it needs",
    retry_after: RETRY_AFTER,
};

impl SupervisorState {
    /// Returns when the model must be loaded and has its memory.
    pub(super) async fn standby(
        &mut self,
        gguf: &Path,
        budget: &Arc<MemoryBudget>,
    ) -> Result<Lease, TooLarge> {
        let bytes = self.estimate(gguf).await;
        if self.keep_loaded {
            // Loading without a request evicts no other model.
            if let Some(lease) = budget.try_lease(&self.model, bytes, false)? {
                self.published.send_modify(|state| state.on_demand = false);
                return Ok(lease);
            }
            warn!(
                model.name = %self.model,
                "{} does not fit next to the loaded models; the next request loads it", self.model
            );
            self.keep_loaded = false;
        }
        loop {
            self.until_needed().await;
            let bytes = self.estimate(gguf).await;
            if let Some(lease) = self.lease(budget, bytes).await? {
                return Ok(lease);
            }
        }
    }

    /// Estimates the model's memory again, because its file may have changed.
    async fn estimate(&self, gguf: &Path) -> u64 {
        let (path, config, cpu) = (gguf.to_owned(), Arc::clone(&self.config), self.cpu);
        let estimated = tokio::task::spawn_blocking(move || inspect(&path, &config, cpu)).await;
        let (memory, no_chat_template) = estimated.unwrap_or_default();
        self.published.send_modify(|state| {
            state.memory = memory;
            state.no_chat_template = no_chat_template;
        });
        memory.bytes()
    }

    async fn until_needed(&mut self) {
        if self.is_needed() {
            return;
        }
        self.published.send_modify(|state| {
            state.phase = Phase::Unloaded;
            state.on_demand = true;
        });
        while !self.is_needed() {
            match self.commands.recv().await {
                Some(command) => self.on_standby_command(command),
                // All backends are dropped; only the stop signal can follow.
                None => std::future::pending().await,
            }
        }
    }

    /// Waits for memory; `None` if the model is no longer needed.
    async fn lease(
        &mut self,
        budget: &Arc<MemoryBudget>,
        bytes: u64,
    ) -> Result<Option<Lease>, TooLarge> {
        self.published.send_modify(|state| {
            state.phase = Phase::Loading { percent: 0 };
            state.on_demand = true;
        });
        let model = Arc::clone(&self.model);
        let leasing = budget.lease(&model, bytes);
        tokio::pin!(leasing);
        while self.is_needed() {
            tokio::select! {
                lease = &mut leasing => return lease.map(Some),
                Some(command) = self.commands.recv() => self.on_standby_command(command),
                () = self.backlog.next_deadline() => self.backlog.expire(&NO_MEMORY),
            }
        }
        Ok(None)
    }

    fn is_needed(&mut self) -> bool {
        // An operator's connection may have closed.
        self.load_waiters.retain(|reply| !reply.is_closed());
        !self.load_waiters.is_empty() || !self.backlog.is_empty()
    }

    fn on_standby_command(&mut self, command: Command) {
        match command {
            Command::Submit(attempt) => self.backlog.push(attempt, self.config.load_timeout()),
            Command::Cancel(attempt) => self.backlog.cancel(attempt),
            Command::Load(reply) => self.load_waiters.push(reply),
            Command::Unload(unload) => self.unload_on_standby(unload),
        }
    }

    /// Cancels a load that only operators wait for; refuses if requests do.
    fn unload_on_standby(&mut self, unload: Unload) {
        let result = if self.backlog.is_empty() {
            for waiter in self.load_waiters.drain(..) {
                let failed = ControlError::Failed("cancelled by an unload".into());
                let _gone = waiter.send(Err(failed));
            }
            Ok(())
        } else {
            Err(ControlError::Busy)
        };
        let _gone = unload.reply.send(result);
    }
}

/// The model's memory, and whether it lacks a chat template, from the file's header.
fn inspect(gguf: &Path, config: &Config, cpu: CpuCode) -> (MemoryEstimate, bool) {
    let bytes_of = |path: &Path| path.metadata().map_or(0, |file| file.len());
    let (mut memory, has_template) = gguf::read_shape(gguf).map_or_else(
        // The load reports what is wrong with it.
        |_| (MemoryEstimate::of_file(bytes_of(gguf)), true),
        |shape| (MemoryEstimate::of(&shape, config, cpu), shape.has_chat_template),
    );
    let lora_bytes = config.lora.as_deref().map_or(0, bytes_of);
    memory.weights_bytes = memory.weights_bytes.saturating_add(lora_bytes);
    (memory, !has_template && config.chat_template.is_none())
}
