//! What a supervisor does while no engine runs: holds requests, waits until somebody wants the model, and gets it
//! a place in memory.

use std::path::Path;
use std::sync::Arc;

use tracing::warn;

use super::command::{Command, ControlError, RETRY_AFTER, Unload};
use super::state::Phase;
use super::supervisor_state::Link;
use crate::backends::backend::ErrorKind;
use crate::backends::llama::config::Config;
use crate::backends::llama::memory::budget::{Claim, MemoryBudget, TooLarge};
use crate::backends::llama::memory::estimate::MemoryEstimate;
use crate::backends::llama::memory::gguf;

const NO_MEMORY: ErrorKind = ErrorKind::NotLoaded {
    reason: "the memory it needs is taken by models that are busy",
    retry_after: RETRY_AFTER,
};

impl Link {
    /// Returns when the model is to be loaded and has its place in memory.
    pub(super) async fn standby(
        &mut self,
        gguf: &Path,
        residency: &Arc<MemoryBudget>,
    ) -> Result<Claim, TooLarge> {
        let bytes = self.measure(gguf).await;
        if self.keep {
            // Nobody is evicted for a model that nobody has asked for.
            if let Some(claim) = residency.try_claim(&self.model, bytes, false)? {
                self.state.send_modify(|state| state.on_demand = false);
                return Ok(claim);
            }
            warn!(
                model.name = %self.model,
                "{} does not fit beside the loaded models: it is loaded on demand", self.model
            );
            self.keep = false;
        }
        loop {
            self.until_wanted().await;
            let bytes = self.measure(gguf).await;
            if let Some(claim) = self.claim(residency, bytes).await? {
                return Ok(claim);
            }
        }
    }

    /// Memory the model will take: its file may have come or changed since the last look.
    async fn measure(&self, gguf: &Path) -> u64 {
        let (path, config) = (gguf.to_owned(), Arc::clone(&self.config));
        let measured = tokio::task::spawn_blocking(move || look(&path, &config)).await;
        let (footprint, no_chat_template) = measured.unwrap_or_default();
        self.state.send_modify(|state| {
            state.footprint = footprint;
            state.no_chat_template = no_chat_template;
        });
        footprint.bytes()
    }

    async fn until_wanted(&mut self) {
        if self.is_wanted() {
            return;
        }
        self.state.send_modify(|state| {
            state.phase = Phase::Unloaded;
            state.on_demand = true;
        });
        while !self.is_wanted() {
            match self.commands.recv().await {
                Some(command) => self.obey_on_standby(command),
                // Every handle is gone; only the stop signal is left to wait for.
                None => std::future::pending().await,
            }
        }
    }

    /// Waits in line for memory, as long as somebody wants the model.
    async fn claim(
        &mut self,
        residency: &Arc<MemoryBudget>,
        bytes: u64,
    ) -> Result<Option<Claim>, TooLarge> {
        self.state.send_modify(|state| {
            state.phase = Phase::Loading { percent: 0 };
            state.on_demand = true;
        });
        let model = Arc::clone(&self.model);
        let claiming = residency.claim(&model, bytes);
        tokio::pin!(claiming);
        while self.is_wanted() {
            tokio::select! {
                claim = &mut claiming => return claim.map(Some),
                Some(command) = self.commands.recv() => self.obey_on_standby(command),
                () = self.waiting.next_deadline() => self.waiting.expire(&NO_MEMORY),
            }
        }
        Ok(None)
    }

    fn is_wanted(&mut self) -> bool {
        // An operator who has hung up no longer waits for the load.
        self.asked.retain(|answer| !answer.is_closed());
        !self.asked.is_empty() || !self.waiting.is_empty()
    }

    fn obey_on_standby(&mut self, command: Command) {
        match command {
            Command::Submit(submit) => self.waiting.push(submit, self.config.load_timeout()),
            Command::Cancel(attempt) => self.waiting.cancel(attempt),
            Command::Load(answer) => self.asked.push(answer),
            Command::Unload(unload) => self.unload_on_standby(unload),
        }
    }

    /// There is nothing to unload, unless somebody waits for the load that is about to begin.
    fn unload_on_standby(&mut self, unload: Unload) {
        let answer = if self.waiting.is_empty() {
            for asked in self.asked.drain(..) {
                let _gone = asked.send(Err(ControlError::Failed("it was unloaded again".into())));
            }
            Ok(())
        } else {
            Err(ControlError::Busy)
        };
        let _gone = unload.answer.send(answer);
    }
}

/// What the model takes, and whether it lacks a chat template, by the file's header.
fn look(gguf: &Path, config: &Config) -> (MemoryEstimate, bool) {
    let bytes_of = |path: &Path| path.metadata().map_or(0, |file| file.len());
    let (mut footprint, has_template) = gguf::read_shape(gguf).map_or_else(
        // The load will say what is wrong with it.
        |_| (MemoryEstimate::of_file(bytes_of(gguf)), true),
        |shape| (MemoryEstimate::of(&shape, config), shape.has_chat_template),
    );
    let lora_bytes = config.lora.as_deref().map_or(0, bytes_of);
    footprint.weights_bytes = footprint.weights_bytes.saturating_add(lora_bytes);
    (footprint, !has_template && config.chat_template.is_none())
}
